"""Small traces of modules that say at a glance what they compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentc.recipes.family import TensorSpec

if TYPE_CHECKING:
    import torch

    from latentc.compiler.forecast.trace import Trace


def traced(module: torch.nn.Module, *shape: int) -> Trace:
    """A call of ``module`` with one tensor of ``shape``."""
    import torch

    from latentc.compiler.flat import FlatComponent
    from latentc.compiler.forecast.trace_module import trace_module

    axes = tuple(f"{place}*" for place in range(len(shape)))
    spec = TensorSpec("x", "float32", axes, "x")
    example = torch.zeros(shape, device="meta")
    flat = FlatComponent(module.to("meta").eval(), (spec,), (spec,), (example,))
    return trace_module(flat, {})


def block() -> torch.nn.Module:
    """A norm, three linears that share an input, attention of two heads, and a convolution over it."""
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(128)
            self.q, self.k, self.v = (nn.Linear(128, 128, bias=bias) for bias in (True, False, False))
            self.conv = nn.Conv1d(128, 64, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(x)
            q, k, v = (one(x).unflatten(2, (2, 64)).transpose(1, 2) for one in (self.q, self.k, self.v))
            mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            out: torch.Tensor = self.conv((x + mixed).transpose(1, 2))
            return out

    return Block()
