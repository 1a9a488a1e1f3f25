"""Trace a flat component into an ONNX graph whose weights are its last inputs.

Only this file knows the exporter of torch.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import onnx_ir as ir
import torch

from latentc.compiler.flat import PREFIX, FlatComponent, on_meta
from latentc.compiler.open_sizes import NotOpen, OpenSizes, open_graph
from latentc.compiler.tidy_graph import tidy_graph
from latentc.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from latentc.recipes.family import TensorSpec

_LOG = logging.getLogger(__name__)

OPSET = 21
IR_VERSION = 10

MASKED = -6e4
"""What is added to the scores of masked tokens: float16 has it, and its exponential is 0."""


def graph_of(flat: FlatComponent, name: str) -> ir.Model:
    """Export ``flat`` without any weight value.

    Returns:
        A model whose first inputs are the component's, followed by one input a weight, named as in the
        original module. Computed constants (position ids, frequencies) are initializers with values.

    Raises:
        InternalError: torch cannot trace the module, or a constant's value is neither a weight's nor known
            from the architecture.
    """
    # Token ids come with positions and a mask that are as long as they are: constants, at a fixed size.
    reads_ids = any(tensor.name == "token_ids" for tensor in flat.inputs)
    sizes = OpenSizes.of(flat.steps, flat.numbers) if flat.steps and not reads_ids else None
    flat, buffers = on_meta(flat)
    if sizes is not None:
        try:
            fixed = flat.sized(sizes.sizes)
            return _traced(fixed, buffers, name, open_up=lambda graph: open_graph(graph, flat.inputs, sizes))
        except (torch.onnx.errors.OnnxExporterError, NotOpen) as error:
            _LOG.debug("%s is traced with symbols: %s", name, error)
    try:
        return _traced(flat, buffers, name)
    except torch.onnx.errors.OnnxExporterError as error:
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        raise InternalError(name, f"torch cannot export it: {type(reason).__name__}: {reason}") from error


def _traced(
    flat: FlatComponent,
    buffers: Mapping[str, torch.Tensor],
    name: str,
    open_up: Callable[[ir.Graph], None] | None = None,
) -> ir.Model:
    """Trace ``flat`` with a symbol for each axis, or at fixed sizes where ``open_up`` gives axes back."""
    dynamic = None if open_up is not None else tuple(_dynamic_axes(tensor) for tensor in flat.inputs)
    with _quiet():
        program = torch.onnx.export(
            flat.module,
            flat.examples,
            dynamo=True,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
            input_names=[tensor.name for tensor in flat.inputs],
            output_names=[tensor.name for tensor in flat.outputs],
            dynamic_shapes=None if dynamic is None else (dynamic,),  # of one argument, *tensors
            custom_translation_table={
                torch.ops.aten.scaled_dot_product_attention.default: _attention,
                torch.ops.aten.split_with_sizes.default: _split,
            },
        )
    if program is None:
        raise InternalError(name, "the exporter returned nothing")
    model = program.model
    _weights_to_inputs(model.graph, buffers, flat.module.state_dict().keys())
    _forget_the_tracer(model, name)
    tidy_graph(model, open_up)
    for value, tensor in (
        *zip(model.graph.inputs, flat.inputs, strict=False),
        *zip(model.graph.outputs, flat.outputs, strict=True),
    ):
        value.shape = ir.Shape(
            [
                axis if not axis.endswith("*") else size
                for axis, size in zip(tensor.axes, value.shape or (), strict=True)
            ]
        )
    return model


def _dynamic_axes(tensor: TensorSpec) -> dict[int, str]:
    return {place: axis for place, axis in enumerate(tensor.axes) if not axis.endswith("*")}


def _attention(
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    attn_mask: ir.Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> ir.Value:
    """softmax(query · scale @ keyᵀ + mask) @ value: one Transpose, not the exporter's nine shape nodes."""
    from onnxscript import opset21 as op

    if is_causal or enable_gqa or dropout_p or query.shape is None:
        raise InternalError("scaled_dot_product_attention", "is called in a way that no component does")
    width = query.shape[-1]
    if not isinstance(width, int):
        raise InternalError("scaled_dot_product_attention", "the width of a head is not fixed")
    scaled = op.Mul(query, op.Constant(value_float=float(width**-0.5 if scale is None else scale)))
    scores = op.MatMul(scaled, op.Transpose(key, perm=[0, 1, 3, 2]))
    if attn_mask is not None and attn_mask.dtype == ir.DataType.BOOL:
        zero, lowest = op.Constant(value_float=0.0), op.Constant(value_float=MASKED)
        attn_mask = op.Where(attn_mask, zero, lowest)
    if attn_mask is not None:
        scores = op.Add(scores, attn_mask)
    result: ir.Value = op.MatMul(op.Softmax(scores, axis=-1), value)
    return result


def _split(tensor: ir.Value, split_sizes: Sequence[ir.Value | int], dim: int = 0) -> tuple[ir.Value, ...]:
    """Cut ``tensor`` into Slices; the exporter's own sequence of unknown length runs on no device."""
    from onnxscript import opset21 as op

    axis = op.Constant(value_ints=[dim])
    start = op.Constant(value_ints=[0])
    one = op.Constant(value_ints=[1])
    parts = []
    for size in split_sizes:
        length = op.Constant(value_ints=[size]) if isinstance(size, int) else op.Reshape(size, one)
        end = op.Add(start, length)
        parts.append(op.Slice(tensor, start, end, axis))
        start = end
    return tuple(parts)


def _weights_to_inputs(graph: ir.Graph, buffers: Mapping[str, torch.Tensor], stored: Collection[str]) -> None:
    """Turn what is ``stored`` into inputs, named without the wrapper; give other buffers their values."""
    for name, value in list(graph.initializers.items()):
        raw = getattr(value.const_value, "raw", None)
        if name in buffers:
            value.const_value = ir.tensor(buffers[name].numpy(), name=name)
        elif isinstance(raw, torch.nn.Parameter) or (raw is not None and name in stored):
            del graph.initializers[name]
            value.const_value = None
            value.name = name.removeprefix(PREFIX)
            graph.inputs.append(value)
        elif isinstance(raw, torch.Tensor):
            if raw.device.type == "meta":
                raise InternalError(name, "is a constant without a value; a weight or buffer was expected")
            value.const_value = ir.tensor(raw.numpy(), name=name)


def _forget_the_tracer(model: ir.Model, name: str) -> None:
    """Remove stack traces, paths and versions, so that the same architecture gives the same bytes."""
    model.producer_name, model.producer_version = "latentc", ""
    model.ir_version = IR_VERSION
    model.doc_string = None
    model.metadata_props.clear()
    model.graph.name = name
    model.graph.doc_string = None
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.doc_string = None
        node.metadata_props.clear()
        for value in node.outputs:
            value.doc_string = None
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.doc_string = None
        value.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says about itself: its own deprecations, and torchvision's absence."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"copyreg")
            warnings.filterwarnings("ignore", "# The axis name", category=UserWarning)
            yield
    finally:
        registration.setLevel(level)
