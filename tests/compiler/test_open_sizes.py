"""Open sizes: graphs traced at fixed sizes are right at every size, or are not opened."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from latentc.compiler import export_graph
from latentc.compiler.export_graph import graph_of
from latentc.compiler.flat import FlatComponent
from latentc.compiler.open_sizes import NotOpen, OpenSizes, text_of
from latentc.recipes.family import TensorSpec

STEPS = {"B": 1, "T": 1, "h": 8, "w": 8}
KNOWN = (320, 1280, 40, 49408)
Module = Callable[[torch.Tensor], torch.Tensor]
Forward = Callable[..., torch.Tensor]


def sizes_of() -> OpenSizes:
    sizes = OpenSizes.of(STEPS, KNOWN)
    assert sizes is not None
    return sizes


def value(sizes: OpenSizes, size: int, axes: dict[str, int]) -> Fraction:
    """What ``size`` is where the axes have other sizes."""
    total = Fraction(0)
    for product, share in sizes.extent(size).items():
        for axis in product:
            share *= axes[axis]
        total += share
    return total


@given(
    st.lists(st.sampled_from(sorted(STEPS)), max_size=3),
    st.sampled_from([1, 2, 5, 8, 40, 320]),
    st.sampled_from([1, 2, 4, 8]),
)
def test_products_of_axes_are_found_again(axes: list[str], factor: int, share: int) -> None:
    sizes = sizes_of()
    divides = share if any(axis in "hw" for axis in axes) else 1
    other = {"B": 3, "T": 7, "h": 24, "w": 80}

    def product(of: dict[str, int]) -> int:
        return factor * int(np.prod([of[axis] for axis in axes], dtype=np.int64)) // divides

    assert value(sizes, product(dict(sizes.sizes)), other) == product(other)


def test_sums_and_paddings_are_told_from_products() -> None:
    sizes = sizes_of()
    B, T, h = (sizes.sizes[axis] for axis in "BTh")
    for met in (T, h):
        assert sizes.is_open(met)
    assert text_of(sizes.extent(B * (T + h))) == "B*T + B*h"
    assert text_of(sizes.extent(h * h // 4)) == "h*h/4"
    assert text_of(sizes.extent(h + 1)) == "h + 1"
    assert text_of(sizes.extent(h + 2)) == "h + 2", "padded twice"
    assert text_of(sizes.extent(T + h)) == "T + h"
    assert text_of(sizes.extent(2 * T + h)) == "2*T + h", "beside what stands side by side"
    assert text_of(sizes.extent(320)) == "320"
    assert not sizes.is_open(320)


@pytest.mark.parametrize("size", [67 - 1, 67 + 2, 103 * 67 + 103 + 7])
def test_numbers_that_nothing_explains_are_refused(size: int) -> None:
    with pytest.raises(NotOpen, match=str(size)):
        sizes_of().extent(size)


def test_no_prime_divides_a_number_of_the_architecture() -> None:
    sizes = OpenSizes.of({"T": 1}, (67 * 61 * 4,))
    assert sizes is not None
    assert sizes.primes == {"T": 71}
    assert OpenSizes.of({"T": 1}, (67 * 61 * 71 * 73,)) is None


class Original(nn.Module):
    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.project = nn.Linear(8, 8)
        self._forward = forward

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self._forward(self.project, *tensors)
        return result


class Flat(nn.Module):
    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.original = Original(forward)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.original(*tensors)
        return result


IMAGE = TensorSpec("image", "float32", ("B", "D*", "h", "w"), "image")
TEXT = TensorSpec("text", "float32", ("B", "T", "D*"), "text")


def unfolded(project: Module, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """To tokens, beside the text, apart again, to an image: every size moves through a Reshape."""
    B, D, h, w = image.shape
    tokens = image.permute(0, 2, 3, 1).reshape(B, h * w, D)
    joined = torch.cat([tokens, text], dim=1)
    heads = project(joined).view(B, -1, 2, 4).transpose(1, 2)
    mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2)
    return (
        mixed[:, : h * w].reshape(B, h // 2, 2, w // 2, 2, D).permute(0, 5, 1, 3, 2, 4).reshape(B, D, -1, w)
    )


def expanded(project: Module, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """A size that no Reshape has: an Expand, and one twice as large."""
    B, T, _ = text.shape
    wide = project(text).mean(1, keepdim=True)[:, :1].expand(B, 2 * T, 8)
    return image + wide.sum(1)[:, :, None, None]


def baked(project: Module, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Sizes that are less than an axis by a constant."""
    kept = text[:, : text.shape[1] - 2]
    return image * project(kept).sum((1, 2))[:, None, None, None] + kept.shape[1]


def averaged(project: Module, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Divided by a size, which is a float then."""
    return image + (project(text).sum((1, 2)) / text.shape[1])[:, None, None, None]


def positions(project: Module, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """A table as long as an axis, which becomes a constant at a fixed size."""
    table = torch.arange(text.shape[1], dtype=torch.float32, device=text.device)
    return image + project(text + table[:, None]).sum((1, 2))[:, None, None, None]


@pytest.mark.parametrize(
    ("forward", "is_opened"),
    [(unfolded, True), (expanded, True), (baked, False), (averaged, False), (positions, False)],
)
def test_the_graph_is_right_at_other_sizes(
    forward: Forward, is_opened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    traces: list[bool] = []
    traced = export_graph._traced

    def counted(*arguments: Any, **options: Any) -> ir.Model:
        traces.append("open_up" in options)
        return traced(*arguments, **options)

    monkeypatch.setattr(export_graph, "_traced", counted)
    module = Flat(forward).eval().requires_grad_(False)
    weights = {name: tensor.numpy().copy() for name, tensor in module.original.state_dict().items()}
    random = np.random.default_rng(0)
    cases = [
        {
            "image": random.standard_normal((B, 8, h, w), np.float32),
            "text": random.standard_normal((B, T, 8), np.float32),
        }
        for B, T, h, w in ((1, 3, 4, 6), (3, 5, 8, 2))
    ]
    expected = [module(*map(torch.from_numpy, case.values())).numpy() for case in cases]
    examples = (torch.zeros(2, 8, 4, 6), torch.zeros(2, 7, 8))
    steps = {"B": 1, "h": 2, "w": 2, "T": 1}
    flat = FlatComponent(module, (IMAGE, TEXT), (IMAGE,), examples, steps, frozenset({8}))
    model = graph_of(flat, "small")
    assert traces == ([True] if is_opened else [True, False])
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    for case, result in zip(cases, expected, strict=True):
        (actual,) = session.run(None, {**case, **weights})
        np.testing.assert_allclose(actual, result, rtol=0, atol=1e-4)
