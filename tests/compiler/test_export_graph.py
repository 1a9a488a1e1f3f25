"""The exporter's graph: weights as inputs, constants with values, sizes by the project's axis letters."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from latentc.compiler.export_graph import graph_of
from latentc.compiler.flat import FlatComponent
from latentc.recipes.family import TensorSpec

STATES = TensorSpec("states", "float32", ("B", "T", "D*"), "states")
RESULT = TensorSpec("result", "float32", ("B", "T", "D*"), "")


class Original(nn.Module):
    """Attention over states with a position table and a split, as the real modules have them."""

    table: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 8)
        self.register_buffer("table", torch.arange(8, dtype=torch.float32), persistent=False)

    def forward(self, states: torch.Tensor, *, masked: bool = False) -> torch.Tensor:
        heads = self.project(states + self.table).unflatten(-1, (2, 4)).transpose(1, 2)
        mask = states.new_ones(states.shape[1], states.shape[1]).tril() if masked else None
        attended = nn.functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask)
        joined = torch.cat([attended, heads], dim=2)
        first, second = joined.split_with_sizes([states.shape[1], states.shape[1]], dim=2)
        return (first + 2 * second).transpose(1, 2).flatten(2)


class Flat(nn.Module):
    def __init__(self, masked: bool = False) -> None:
        super().__init__()
        self.original = Original()
        self.masked = masked

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.original(*tensors, masked=self.masked)
        return result


def flat(module: nn.Module) -> FlatComponent:
    return FlatComponent(module.eval().requires_grad_(False), (STATES,), (RESULT,), (torch.zeros(2, 5, 8),))


def test_weights_are_inputs_and_the_rest_computes_the_same() -> None:
    import onnxruntime

    module = Flat()
    weights = {name: tensor.numpy().copy() for name, tensor in module.original.state_dict().items()}
    random = np.random.default_rng(0)
    given = [random.standard_normal((B, T, 8), np.float32) for B, T in ((1, 3), (4, 9))]
    expected = [module(torch.from_numpy(states)).detach().numpy() for states in given]
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    model = graph_of(flat(module), "small")
    assert logger.level == level
    assert [value.name for value in model.graph.inputs] == ["states", "project.weight", "project.bias"]
    shape = model.graph.outputs[0].shape
    assert shape is not None
    assert [str(size) for size in shape] == ["B", "T", "8"]
    table = model.graph.initializers["original.table"].const_value
    assert table is not None
    np.testing.assert_array_equal(table.numpy(), np.arange(8, dtype=np.float32))
    kinds = {node.op_type for node in model.graph}
    assert not kinds & {"SplitToSequence", "SequenceAt", "Sqrt", "CastLike", "Identity"}
    # nothing of the tracer is left
    assert (model.producer_name, model.producer_version, model.doc_string) == ("latentc", "", None)
    assert model.metadata_props == {}
    assert all(not node.metadata_props and node.doc_string is None for node in model.graph)
    assert b".py" not in ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    for states, result in zip(given, expected, strict=True):
        (actual,) = session.run(None, {"states": states, **weights})
        np.testing.assert_allclose(actual, result, rtol=0, atol=1e-5)


def test_a_mask_is_added_to_the_scores() -> None:
    import onnxruntime

    module = Flat(masked=True)
    weights = {name: tensor.numpy().copy() for name, tensor in module.original.state_dict().items()}
    states = np.random.default_rng(0).standard_normal((2, 6, 8), np.float32)
    expected = module(torch.from_numpy(states)).detach().numpy()
    model = graph_of(flat(module), "small")
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    (actual,) = session.run(None, {"states": states, **weights})
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
