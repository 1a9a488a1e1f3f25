"""Live memory: values go after their last reader, and nodes hold what they hold."""

import torch
from tests.compiler.traces import block, traced
from torch import nn

from latentc.compiler.forecast.live_memory import ONNXRUNTIME, TENSORRT, live_bytes
from latentc.compiler.forecast.passes import foretell
from latentc.compiler.forecast.weightless_graph import weightless_graph
from latentc.passes.pass_text import pass_from_text

NUMBERS = 16 * 128


def test_a_chain_holds_two_values_at_a_time() -> None:
    class Chain(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(5):
                x = x.sin()
            return x

    graph = weightless_graph(traced(Chain(), 1, 16, 128), "chain")
    assert live_bytes(graph, TENSORRT) == 2 * 2 * NUMBERS
    assert live_bytes(graph, TENSORRT, 3) == 3 * 2 * 2 * NUMBERS


def test_what_is_read_again_later_stays() -> None:
    class Skip(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sin().cos().exp() + x

    assert live_bytes(weightless_graph(traced(Skip(), 1, 16, 128), "skip"), TENSORRT) == 2 * 3 * NUMBERS


def test_scores_are_written_where_attention_is_not_fused() -> None:
    graph = weightless_graph(traced(block(), 1, 512, 128), "block")
    scores = 2 * 2 * 512 * 512
    assert live_bytes(graph, ONNXRUNTIME) // 4 - live_bytes(graph, TENSORRT) // 2 > scores // 2


def test_integer_convolutions_unfold_their_input_in_onnxruntime() -> None:
    plain = weightless_graph(traced(nn.Conv1d(64, 64, 9, padding=4), 1, 64, 100), "conv")
    quantized = foretell(plain, [pass_from_text("quantize-int8")])
    sums, patches = 64 * 100, 100 * 64 * 9 // 4
    assert live_bytes(quantized, ONNXRUNTIME) - live_bytes(plain, ONNXRUNTIME) >= 4 * patches
    assert live_bytes(plain, TENSORRT) == 2 * 2 * sums
