"""Trace a flat component: run it once on the meta device, where tensors have shapes and no numbers.

Only this file knows how torch tells of its calls. Import it inside functions.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from latentc.compiler.flat import PREFIX, FlatComponent
from latentc.compiler.forecast.trace import Trace, TracedNode, TracedValue
from latentc.errors import InternalError


def trace_module(flat: FlatComponent, sizes: Mapping[str, int]) -> Trace:
    """Record one call of ``flat``.

    Args:
        flat: on the meta device, buffers as well.
        sizes: of its dynamic axes; sizes that end in ``*`` are taken from its examples.

    Raises:
        InternalError: the module cannot be run so.
    """
    inputs = []
    for tensor, example in zip(flat.inputs, flat.examples, strict=True):
        shape = [
            side if axis.endswith("*") else sizes[axis]
            for axis, side in zip(tensor.axes, example.shape, strict=True)
        ]
        inputs.append(torch.zeros(shape, dtype=example.dtype, device="meta"))
    recorder = _Recorder(flat.module, inputs)
    try:
        with torch.no_grad(), torch.device("meta"), recorder:
            result = flat.module(*inputs)
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        raise InternalError(
            type(flat.module).__name__, f"cannot be traced on the meta device: {error}"
        ) from error
    return recorder.trace(list(_tensors(result)), sizes.get("B", 1))


class _Recorder(TorchFunctionMode):
    """Looks at every call that reaches torch from outside."""

    def __init__(self, module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._names = {
            _storage(weight): name.removeprefix(PREFIX)
            for name, weight in (*module.named_parameters(), *module.named_buffers())
        }
        self._shapes = {
            name.removeprefix(PREFIX): tuple(weight.shape)
            for name, weight in (*module.named_parameters(), *module.named_buffers())
        }
        self._used: dict[str, None] = {}
        self._values: list[TracedValue] = []
        self._numbers: dict[tuple[int, int, int, bool], int] = {}
        self._nodes: list[TracedNode] = []
        self._live: dict[int, int] = {}
        self._live_bytes = self._most_bytes = 0
        self._kept = list(inputs)
        self._inputs = [self._number(tensor) for tensor in inputs]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401 # as torch calls it
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 # whatever the function gives
        """Let ``func`` run, and note it when it takes and gives tensors."""
        result = func(*args, **(kwargs or {}))
        given = list(_tensors(result))
        if given:
            taken = [self._taken(one) for one in _tensors((args, kwargs or {}))]
            outputs = [self._number(one) for one in given if _storage(one) not in self._names]
            if outputs and any(one not in taken for one in outputs):
                self._nodes.append(TracedNode(func.__name__, tuple(taken), tuple(outputs)))
        return result

    def trace(self, results: Sequence[torch.Tensor], batch: int) -> Trace:
        """All that was noted."""
        return Trace(
            {name: self._shapes[name] for name in self._used},
            tuple(self._values),
            tuple(self._inputs),
            tuple(self._number(one) for one in results),
            tuple(self._nodes),
            self._most_bytes,
            batch,
        )

    def _taken(self, tensor: torch.Tensor) -> int | str:
        name = self._names.get(_storage(tensor))
        if name is None:
            return self._number(tensor)
        self._used[name] = None
        return name

    def _number(self, tensor: torch.Tensor) -> int:
        """Of the value that ``tensor`` shows: the same for all that show the same numbers in one order."""
        storage = _storage(tensor)
        if storage not in self._live and storage not in self._names:
            self._watch(tensor, storage)
        key = (storage, int(tensor.storage_offset()), tensor.numel(), tensor.is_contiguous())
        if key not in self._numbers:
            self._numbers[key] = len(self._values)
            self._values.append(TracedValue(tuple(tensor.shape), tensor.element_size()))
        return self._numbers[key]

    def _watch(self, tensor: torch.Tensor, storage: int) -> None:
        """Count what ``tensor`` lies in as long as torch keeps it."""
        held = tensor.untyped_storage()
        self._live[storage] = held.nbytes()
        self._live_bytes += held.nbytes()
        self._most_bytes = max(self._most_bytes, self._live_bytes)
        weakref.finalize(held, self._forget, storage)

    def _forget(self, storage: int) -> None:
        self._live_bytes -= self._live.pop(storage)
        for key in [key for key in self._numbers if key[0] == storage]:
            del self._numbers[key]  # the address may serve another tensor


def _storage(tensor: torch.Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


def _tensors(found: Any) -> Iterator[torch.Tensor]:  # noqa: ANN401 # what a function of torch takes and gives
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, list | tuple):
        for one in found:
            yield from _tensors(one)
    elif isinstance(found, dict):
        for one in found.values():
            yield from _tensors(one)
