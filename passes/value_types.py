"""Value types: the data type of every value of a graph, from the operators' own definitions.

ONNX's shape inference stops at operators that have none (GroupNormalization of opset 21 is one), and what
reads their results is left without a type. Types alone follow from the definitions, always.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.weights import name_of

if TYPE_CHECKING:
    import onnx

_DTYPES = {
    f"tensor({name})": dtype
    for name, dtype in {
        "float": ir.DataType.FLOAT,
        "float16": ir.DataType.FLOAT16,
        "double": ir.DataType.DOUBLE,
        "bfloat16": ir.DataType.BFLOAT16,
        "int8": ir.DataType.INT8,
        "int32": ir.DataType.INT32,
        "int64": ir.DataType.INT64,
        "bool": ir.DataType.BOOL,
    }.items()
}


def infer_types(graph: ir.Graph) -> None:
    """Give every value of ``graph`` its data type, in place; types that are there already stay.

    Raises:
        PassError: an operator's result does not follow from its inputs.
    """
    for node in graph:
        for index, value in enumerate(node.outputs):
            if value.dtype is not None:
                continue
            dtype = _result_type(node, index)
            if dtype is None:
                raise PassError(
                    f"'{name_of(value)}'",
                    f"the type that {node.op_type} gives does not follow from its inputs",
                    "run canonicalize first, which turns Constant nodes into initializers",
                )
            value.dtype = dtype


def allowed_types(node: ir.Node, side: str, count: int) -> list[set[str]]:
    """The types that the operator's definition allows for its first ``count`` inputs or outputs.

    Args:
        node: of an operator that ONNX defines.
        side: ``inputs`` or ``outputs``.
        count: how many; the last one of operators such as Concat repeats.

    Returns:
        A set for each, of names such as ``tensor(float16)``.
    """
    return [set(entry.types) for entry in _formal(node, side, count)]


def _result_type(node: ir.Node, index: int) -> ir.DataType | None:
    if node.op_type == "Cast":
        return ir.DataType(node.attributes["to"].as_int())
    if node.op_type == "ConstantOfShape":
        fill = node.attributes.get("value")
        return ir.DataType.FLOAT if fill is None else fill.as_tensor().dtype
    if node.op_type == "QuantizeLinear" and (len(node.inputs) < 3 or node.inputs[2] is None):
        # without a zero point the attribute says it, and without that the definition: uint8
        return ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8.value)
    result = _formal(node, "outputs", index + 1)[index]
    if len(result.types) == 1:
        return _DTYPES.get(next(iter(result.types)))
    formals = _formal(node, "inputs", len(node.inputs))
    for value, formal in zip(node.inputs, formals, strict=True):
        if value is not None and formal.type_str == result.type_str and value.dtype is not None:
            return value.dtype
    return None


def _formal(node: ir.Node, side: str, count: int) -> list[onnx.defs.OpSchema.FormalParameter]:
    import onnx.defs

    opset = node.graph.opset_imports[node.domain] if isinstance(node.graph, ir.Graph) else 21
    formal = list(getattr(onnx.defs.get_schema(node.op_type, opset, node.domain), side))
    return (formal + formal[-1:] * (count - len(formal)))[:count]
