"""One order for .ort files: the same graph gives the same bytes.

onnxruntime writes its maps (opset imports, initializers, attributes, type strings) in the order of hash
tables that are seeded anew for every process, so two conversions of one model differ. This file reads such a
flatbuffer by its schema and writes it again with those maps sorted by name; lists whose order means something
stay as they are.

The schema is onnxruntime's ``core/flatbuffers/schema/ort.fbs``, format version 6 (since onnxruntime 1.13).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, Union

from latentc.errors import InternalError

if TYPE_CHECKING:
    from flatbuffers import Builder

_SCHEMA_TEXT = """
InferenceSession = ort_version:string model:Model session_state:deprecated
  kernel_type_str_resolver:KernelTypeStrResolver
Model = ir_version:int64 opset_import:{OperatorSetId} producer_name:string producer_version:string
  domain:string model_version:int64 doc_string:string graph:Graph graph_doc_string:string
  metadata_props:{StringStringEntry}
OperatorSetId = domain:string version:int64
StringStringEntry = key:string value:string
Graph = initializers:{Tensor} node_args:{ValueInfo} nodes:[Node] max_node_index:uint32
  node_edges:[NodeEdge] inputs:[string] outputs:[string] sparse_initializers:[SparseTensor]
  runtime_optimizations:RuntimeOptimizations
Tensor = name:string doc_string:string dims:[int64] data_type:int32 raw_data:[uint8]
  string_data:[string] external_data_offset:int64
SparseTensor = values:Tensor indices:Tensor dims:[int64]
RuntimeOptimizations = records:{RuntimeOptimizationRecordContainerEntry}
RuntimeOptimizationRecordContainerEntry = optimizer_name:string runtime_optimization_records:deprecated
ValueInfo = name:string doc_string:string type:TypeInfo
TypeInfo = denotation:string value_type:uint8 value:union
TensorTypeAndShape = elem_type:int32 shape:Shape
SequenceType = elem_type:TypeInfo
MapType = key_type:int32 value_type:TypeInfo
Shape = dim:[Dimension]
Dimension = value:DimensionValue denotation:string
DimensionValue = dim_type:int8 dim_value:int64 dim_param:string
Node = name:string doc_string:string domain:string since_version:int32 index:uint32 op_type:string
  type:int32 execution_provider_type:string inputs:[string] outputs:[string] attributes:{Attribute}
  input_arg_counts:[int32] implicit_inputs:[string]
NodeEdge = node_index:uint32 input_edges:[EdgeEnd] output_edges:[EdgeEnd]
Attribute = name:string doc_string:string type:int32 f:float32 i:int64 s:string t:Tensor g:Graph
  floats:[float32] ints:[int64] strings:[string] tensors:[Tensor] graphs:[Graph]
KernelTypeStrResolver = op_kernel_type_str_args:{OpIdKernelTypeStrArgsEntry}
OpIdKernelTypeStrArgsEntry = op_id:string kernel_type_str_args:{KernelTypeStrArgsEntry}
KernelTypeStrArgsEntry = kernel_type_str:string args:[ArgTypeAndIndex]
ArgTypeAndIndex = arg_type:int8 index:uint32
"""
# [T] is a list, {T} a map written as a list: any order, so sorted here by the first field, which is its key.

_UNION = ("", "TensorTypeAndShape", "SequenceType", "MapType")  # members of TypeInfoValue, by number

# size and alignment in bytes of everything that is stored in place
_FIXED = {
    "int8": (1, 1),
    "uint8": (1, 1),
    "int32": (4, 4),
    "uint32": (4, 4),
    "int64": (8, 8),
    "float32": (4, 4),
    "EdgeEnd": (12, 4),
}
_WEIGHT_ALIGNMENT_BYTES = 16  # so that a runtime may use the bytes in place, with vector loads

Schema: TypeAlias = Mapping[str, tuple[tuple[str, str], ...]]
Value: TypeAlias = Union[memoryview, "Table", "list[Value]"]
"""What a field holds: scalars, packed vectors and strings as bytes, tables, lists of strings or tables."""


@dataclass(frozen=True)
class Table:
    """A table of the flatbuffer: its kind and the fields that are present, by slot."""

    kind: str
    fields: Mapping[int, Value]

    def table(self, field: str) -> Table:
        """The table in ``field``; raises InternalError when there is none."""
        found = self.tables(field)
        if len(found) != 1:
            raise InternalError("model.ort", f"{self.kind} has no {field}")
        return found[0]

    def tables(self, field: str) -> tuple[Table, ...]:
        """The tables in ``field``, one or a list; empty when it is absent."""
        value = self._value(field)
        values = value if isinstance(value, list) else [value]
        return tuple(item for item in values if isinstance(item, Table))

    def data(self, field: str) -> memoryview:
        """The bytes of a string or of a list of numbers; empty when it is absent."""
        value = self._value(field)
        return value if isinstance(value, memoryview) else memoryview(b"")

    def text(self, field: str) -> str:
        """The string in ``field``; empty when it is absent."""
        return bytes(self.data(field)).decode()

    def texts(self, field: str) -> tuple[str, ...]:
        """The strings in ``field``; empty when it is absent."""
        value = self._value(field)
        return tuple(bytes(_in_place(item)).decode() for item in value) if isinstance(value, list) else ()

    def integer(self, field: str) -> int:
        """The integer in ``field``; 0, the schema's default of those read here, when it is absent."""
        return int.from_bytes(self.data(field), "little", signed=True)

    def _value(self, field: str) -> Value | None:
        slot = [name for name, _ in _SCHEMA[self.kind]].index(field)
        return self.fields.get(slot)


def _parse_schema(text: str) -> Schema:
    schema: dict[str, tuple[tuple[str, str], ...]] = {}
    for line in text.strip().replace("\n  ", " ").splitlines():
        kind, fields = line.split(" = ")
        named = (field.partition(":") for field in fields.split())
        schema[kind] = tuple((name, type_) for name, _, type_ in named)
    return schema


_SCHEMA = _parse_schema(_SCHEMA_TEXT)


def canonical_ort(data: bytes | memoryview) -> bytes:
    """The .ort file ``data`` with its maps in the order of their keys; applied twice it changes nothing.

    Attributes that only say their own default are left out where older runtimes would refuse to load them.

    Raises:
        InternalError: ``data`` is no .ort file, or has a field that this schema does not know.
    """
    from flatbuffers import Builder

    root = _without_new_defaults(read_ort(data))
    builder = Builder(len(data) + 4096)
    builder.Finish(_write_table(builder, root), file_identifier=b"ORTM")
    return bytes(builder.Output())


def read_ort(data: bytes | memoryview) -> Table:
    """The root table of an .ort file, its maps already sorted by key.

    Raises:
        InternalError: ``data`` is no .ort file, or has a field that this schema does not know.
    """
    view = memoryview(data)
    if bytes(view[4:8]) != b"ORTM":
        raise InternalError("model.ort", f"starts with {bytes(view[:8])!r}, which is no .ort file")
    try:
        return _read_table(view, _uint32(view, 0), "InferenceSession")
    except struct.error as error:
        raise InternalError("model.ort", "ends too early") from error


def _without_new_defaults(table: Table) -> Table:
    fields: dict[int, Value] = {}
    for slot, value in table.fields.items():
        if isinstance(value, Table):
            fields[slot] = _without_new_defaults(value)
        elif isinstance(value, list):
            fields[slot] = [
                _without_new_defaults(item) if isinstance(item, Table) else item
                for item in value
                if not (isinstance(item, Table) and _is_new_default(table, item))
            ]
        else:
            fields[slot] = value
    return Table(table.kind, fields)


def _is_new_default(node: Table, attribute: Table) -> bool:
    # onnxruntime 1.28 knows it first; 1.24 to 1.27 run the same node without it
    return (
        node.kind == "Node"
        and attribute.kind == "Attribute"
        and (node.text("op_type"), attribute.text("name")) == ("MatMulNBits", "weight_prepacked")
        and attribute.integer("i") == 0
    )


def _cut(view: memoryview, start: int, size_bytes: int) -> memoryview:
    if start + size_bytes > len(view):
        raise InternalError("model.ort", "ends too early")
    return view[start : start + size_bytes]


def _uint32(view: memoryview, at: int) -> int:
    return int(struct.unpack_from("<I", view, at)[0])


def _read_table(view: memoryview, at: int, kind: str) -> Table:
    vtable = at - int(struct.unpack_from("<i", view, at)[0])
    vtable_bytes = int(struct.unpack_from("<H", view, vtable)[0])
    fields: dict[int, Value] = {}
    for slot in range((vtable_bytes - 4) // 2):
        offset = int(struct.unpack_from("<H", view, vtable + 4 + 2 * slot)[0])
        if offset == 0:
            continue
        if slot >= len(_SCHEMA[kind]) or _SCHEMA[kind][slot][1] == "deprecated":
            raise InternalError("model.ort", f"{kind} has a field in slot {slot} that latentc does not know")
        type_ = _SCHEMA[kind][slot][1]
        if type_ == "union":
            type_ = _UNION[_in_place(fields[slot - 1])[0]]  # the slot before holds the member's number
        fields[slot] = _read_value(view, at + offset, type_)
    return Table(kind, fields)


def _read_value(view: memoryview, at: int, type_: str) -> Value:
    if type_ in _FIXED:
        return _cut(view, at, _FIXED[type_][0])
    target = at + _uint32(view, at)
    if type_ == "string":
        return _cut(view, target + 4, _uint32(view, target))
    if type_[0] not in "[{":
        return _read_table(view, target, type_)
    element, count, start = type_[1:-1], _uint32(view, target), target + 4
    if element in _FIXED:
        return _cut(view, start, count * _FIXED[element][0])
    values = [_read_value(view, start + 4 * index, element) for index in range(count)]
    return sorted(values, key=_key) if type_[0] == "{" else values


def _key(value: Value) -> bytes:
    if not isinstance(value, Table):
        raise InternalError("model.ort", "a map holds something that is no table")
    return bytes(_in_place(value.fields[0])) if 0 in value.fields else b""


def _in_place(value: Value) -> memoryview:
    if not isinstance(value, memoryview):
        raise InternalError("model.ort", "a table stands where a scalar or string belongs")
    return value


def _write_table(builder: Builder, table: Table) -> int:
    schema = _SCHEMA[table.kind]
    children = {
        slot: _write_child(builder, value, schema[slot][1])
        for slot, value in table.fields.items()
        if schema[slot][1] not in _FIXED
    }
    builder.StartObject(len(schema))
    # widest first, so that no padding is needed in between; then by slot
    for slot in sorted(table.fields, key=lambda slot: (-_width(schema[slot][1]), slot)):
        type_ = schema[slot][1]
        if type_ in _FIXED:
            builder.Prep(_FIXED[type_][1], 0)
            _place(builder, _in_place(table.fields[slot]))
        else:
            builder.PrependUOffsetTRelative(children[slot])
        builder.Slot(slot)
    return int(builder.EndObject())


def _width(type_: str) -> int:
    return _FIXED[type_][0] if type_ in _FIXED else 4


def _write_child(builder: Builder, value: Value, type_: str) -> int:
    if isinstance(value, Table):
        return _write_table(builder, value)
    if isinstance(value, list):
        element = type_[1:-1]
        offsets = [_write_child(builder, item, element) for item in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())
    if type_ == "string":
        return int(builder.CreateSharedString(bytes(value)))
    width, alignment = _FIXED[type_[1:-1]]
    if type_ == "[uint8]":
        alignment = _WEIGHT_ALIGNMENT_BYTES
    builder.StartVector(width, len(value) // width, alignment)
    _place(builder, value)
    return int(builder.EndVector())


def _place(builder: Builder, data: memoryview) -> None:
    # StartVector and Prep have made room for it
    builder.head = builder.head - len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
