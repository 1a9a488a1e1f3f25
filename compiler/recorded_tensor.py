"""Recorded tensor: shape and dtype now, values when they are asked for.

Operators of torch on recorded tensors give recorded tensors, so code that renames, cuts and joins whole
checkpoints (diffusers' converters) runs without a byte being read. Import this file inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten


class RecordedTensor(torch.Tensor):
    """A tensor that knows how its values are made, and makes them anew each time."""

    _meta: torch.Tensor
    _make: Callable[[], torch.Tensor]

    @staticmethod
    def __new__(
        cls: type[RecordedTensor], meta: torch.Tensor, make: Callable[[], torch.Tensor]
    ) -> RecordedTensor:
        """Shape, strides and dtype of ``meta``; ``make`` gives the values, which must have those too."""
        made: RecordedTensor = torch.Tensor._make_wrapper_subclass(
            cls, meta.shape, strides=meta.stride(), dtype=meta.dtype, device=torch.device("cpu")
        )
        made._meta, made._make = meta, make
        return made

    def __repr__(self) -> str:  # type: ignore[override] # torch's has a private option
        return f"RecordedTensor(shape={list(self.shape)}, dtype={self.dtype})"

    def values(self) -> torch.Tensor:
        """An ordinary tensor; nothing of it is kept here."""
        return self._make()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override] # torch types it as an instance's
        cls,
        operator: Any,  # noqa: ANN401 # torch.ops has no types
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Record ``operator``, or run it when it gives a number of Python."""
        given = (args, dict(kwargs or {}))

        def run() -> Any:  # noqa: ANN401
            real_args, real_kwargs = tree_map(_values, given)
            return operator(*real_args, **real_kwargs)

        if operator._schema.is_mutable:
            raise TypeError(f"{operator} writes into a recorded tensor")
        if operator is torch.ops.aten._local_scalar_dense.default:
            return run()
        meta_args, meta_kwargs = tree_map(_shape_only, given)
        metas, tree = tree_flatten(operator(*meta_args, **meta_kwargs))

        def part(place: int) -> torch.Tensor:
            values: torch.Tensor = tree_flatten(run())[0][place]
            return values

        made = [
            cls(meta, partial(part, place)) if isinstance(meta, torch.Tensor) else meta
            for place, meta in enumerate(metas)
        ]
        return tree_unflatten(made, tree)


def recorded(shape: Sequence[int], dtype: torch.dtype, make: Callable[[], torch.Tensor]) -> RecordedTensor:
    """A contiguous tensor of ``shape`` and ``dtype`` whose values ``make`` gives."""
    return RecordedTensor(torch.empty(tuple(shape), dtype=dtype, device="meta"), make)


def _values(item: Any) -> Any:  # noqa: ANN401
    return item.values() if isinstance(item, RecordedTensor) else item


def _shape_only(item: Any) -> Any:  # noqa: ANN401
    if isinstance(item, RecordedTensor):
        return item._meta
    return item.to("meta") if isinstance(item, torch.Tensor) else item
