"""Weightless graph: linears, convolutions and shared inputs are where passes look for them."""

import pytest
from tests.compiler.traces import block, traced

from latentc.compiler.forecast.weightless_graph import weightless, weightless_graph
from latentc.errors import InternalError
from latentc.passes.shared_inputs import shared_inputs
from latentc.passes.weights import find_convolutions, find_linears, shape_of


def test_passes_find_what_there_is() -> None:
    graph = weightless_graph(traced(block(), 1, 16, 128), "block").graph
    assert [(one.name, one.shape) for one in find_linears(graph)] == [
        ("q.weight", (128, 128)), ("k.weight", (128, 128)), ("v.weight", (128, 128))
    ]  # fmt: skip
    assert [one.shape for one in find_convolutions(graph)] == [(64, 128, 3)]
    (together,) = (shared for shared, why in shared_inputs(graph, 64, (), "seen") if why is None)
    assert [one.name for one in together.linears] == ["q.weight", "k.weight", "v.weight"]


def test_a_weight_has_a_shape_and_no_values() -> None:
    tensor = weightless("w", (3, 4))
    assert (shape_of(tensor), tensor.nbytes) == ((3, 4), 48)
    with pytest.raises(InternalError, match="w: was read, and a foretold graph has no weights"):
        tensor.numpy()
