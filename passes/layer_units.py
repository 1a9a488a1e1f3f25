"""Layer units: the weights of a model in groups that are computed, written and released together.

A unit is what one computation yields (codes and steps, a branch, the rests that share it), or some small
tensors that cost nothing. Units do not depend on one another, so they may be pulled in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from latentc.passes.weights import PROGRAM, Program

SMALL_BYTES = 1 << 20
"""Neighbours are put together until they have that many bytes: a unit is recorded on its own."""
_READ_BYTES = 8 << 20
"""Memory for reading and writing one weight besides its values."""


@dataclass(frozen=True)
class LayerUnit:
    """Tensors with their names, in the order in which nodes use them.

    Args:
        tensors: of the unit.
        need_bytes: memory that pulling and writing them takes at most.
    """

    tensors: tuple[tuple[str, ir.TensorProtocol], ...]
    need_bytes: int

    @property
    def name(self) -> str:
        """The name of the first of its tensors."""
        return self.tensors[0][0]

    @property
    def size_bytes(self) -> int:
        """What they take when they are written."""
        return sum(tensor.nbytes for _, tensor in self.tensors)


def layer_units(tensors: Sequence[tuple[str, ir.TensorProtocol]]) -> tuple[LayerUnit, ...]:
    """``tensors`` of a model, each with its name, in units; in the order of each unit's first tensor."""
    groups: dict[int, list[int]] = {}  # by their first tensor
    group_of: dict[int, int] = {}  # by program
    for place, (_, tensor) in enumerate(tensors):
        programs = [id(program) for program in _programs(tensor)]
        found = sorted({group_of[program] for program in programs if program in group_of})
        first = found[0] if found else place
        groups.setdefault(first, []).append(place)
        for other in found[1:]:
            groups[first] += groups.pop(other)
            group_of |= {program: first for program, group in group_of.items() if group == other}
        group_of |= dict.fromkeys(programs, first)
    merged: list[list[int]] = []
    for first in sorted(groups):
        if merged and sum(tensors[place][1].nbytes for place in merged[-1]) < SMALL_BYTES:
            merged[-1] += groups[first]
        else:
            merged.append(groups[first])
    units = ([tensors[place] for place in sorted(places)] for places in merged)
    return tuple(LayerUnit(tuple(unit), _need_bytes([tensor for _, tensor in unit])) for unit in units)


def _programs(tensor: ir.TensorProtocol) -> Iterator[Program]:
    program = tensor.meta.get(PROGRAM)
    if isinstance(program, Program):
        yield program
        for source in program.sources:
            yield from _programs(source)


def _need_bytes(tensors: Sequence[ir.TensorProtocol]) -> int:
    """What pulling one after another takes: the largest, and what joint computations keep for others."""
    return max(_pull_bytes(tensor) for tensor in tensors) + _READ_BYTES


def _pull_bytes(tensor: ir.TensorProtocol) -> int:
    program = tensor.meta.get(PROGRAM)
    if not isinstance(program, Program):
        return tensor.nbytes
    held = {_identity(source): _held_bytes(source) for source in program.sources}
    extra = max((_pull_bytes(source) - _held_bytes(source) for source in program.sources), default=0)
    return sum(held.values()) + max(extra, program.work_bytes)


def _identity(tensor: ir.TensorProtocol) -> int:
    program = tensor.meta.get(PROGRAM)
    return id(program if isinstance(program, Program) else tensor)


def _held_bytes(tensor: ir.TensorProtocol) -> int:
    """What is in memory once ``tensor`` was computed: all that its program yields."""
    program = tensor.meta.get(PROGRAM)
    return program.results_bytes if isinstance(program, Program) else tensor.nbytes
