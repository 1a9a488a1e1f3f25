"""Operators on recorded tensors read nothing, and give the values that ordinary tensors would."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from latentc.compiler.recorded_tensor import RecordedTensor, recorded

OPERATORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "chunk": lambda x: torch.chunk(x, 3, dim=0)[1],
    "split": lambda x: torch.split(x, [4, 8])[1],
    "cat": lambda x: torch.cat([x[6:], x[:6]]),
    "transpose": lambda x: x.T.contiguous(),
    "reshape of a transpose": lambda x: x.T.reshape(-1),
    "slice": lambda x: x[:5, 1:].clone().detach(),
    "axis": lambda x: x[:, :, None, None].squeeze(),
    "permute": lambda x: x.reshape(3, 4, 4).permute(1, 0, 2).reshape(12, 4),
    "number": lambda x: x * 2 + torch.ones(4),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_values_are_those_of_an_ordinary_tensor_and_read_when_asked_for(name: str) -> None:
    ordinary = torch.arange(48, dtype=torch.float32).reshape(12, 4)
    reads = []

    def read() -> torch.Tensor:
        reads.append(name)
        return ordinary

    found = OPERATORS[name](recorded(ordinary.shape, ordinary.dtype, read))
    wanted = OPERATORS[name](ordinary)
    assert isinstance(found, RecordedTensor)
    assert not reads
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    assert torch.equal(found.values(), wanted)
    assert reads


def test_a_number_is_read_at_once() -> None:
    assert bool(torch.all(recorded((3,), torch.float32, lambda: torch.zeros(3)) == 0))


def test_nothing_is_written_into_one() -> None:
    with pytest.raises(TypeError, match="writes into a recorded tensor"):
        recorded((3,), torch.float32, lambda: torch.zeros(3)).add_(1)


def test_it_says_what_it_is() -> None:
    text = repr(recorded((3, 2), torch.float16, lambda: torch.zeros(3, 2).half()))
    assert text == "RecordedTensor(shape=[3, 2], dtype=torch.float16)"
