"""Trace module: calls are seen, weights keep their names, and views are no new values."""

import pytest
import torch
from tests.compiler.traces import block, traced
from torch import nn

from latentc.errors import InternalError


def test_a_block_is_seen_as_it_is_called() -> None:
    trace = traced(block(), 1, 16, 128)
    operators = [node.op for node in trace.nodes if node.op not in ("transpose", "flatten")]
    assert operators == [
        "layer_norm", "linear", "linear", "linear", "scaled_dot_product_attention", "add", "conv1d"
    ]  # fmt: skip
    assert trace.weights["q.weight"] == (128, 128)
    assert trace.parameters == sum(parameter.numel() for parameter in block().parameters())
    linears = [node for node in trace.nodes if node.op == "linear"]
    assert len({node.values for node in linears}) == 1, "q, k and v read one value"
    assert trace.values[trace.outputs[0]].shape == (1, 64, 16)


def test_what_is_alive_is_what_torch_keeps() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = x + 1
            second = first * 2
            del first
            return second.view(-1) - 1

    # x, and two of its size at every moment after the first
    assert traced(Two(), 10, 10).live_bytes == 3 * 400


def test_what_looks_at_numbers_cannot_be_traced() -> None:
    class Looks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if bool(x.sum() > 0) else -x

    with pytest.raises(InternalError, match="cannot be traced on the meta device"):
        traced(Looks(), 2, 2)
