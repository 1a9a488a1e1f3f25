"""Device fit: whether a recipe can be used on a target, and if not, the least change of it that would do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from latentc.compiler.forecast.component import ENCODERS, ForetoldComponent
from latentc.compiler.forecast.device_memory import DeviceMemory, device_memory
from latentc.compiler.forecast.passes import foretell
from latentc.passes.canonicalize import Canonicalize
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.recipes.family import Component
from latentc.recipes.target import TARGETS, Target

_SMALLER = (0.75, 0.5)


@dataclass(frozen=True)
class DeviceFit:
    """The verdict.

    Args:
        target: its name.
        memory: what is needed there.
        has_bytes: what a process can use.
        advice: what to change, in words, when it does not fit; empty when nothing known would do.
    """

    target: str
    memory: DeviceMemory
    has_bytes: int
    advice: str = ""

    @property
    def fits(self) -> bool:
        """It can be used there."""
        return self.memory.needed <= self.has_bytes


def fit(
    components: Sequence[ForetoldComponent], target: Target, denoiser: Component, height: int, width: int
) -> DeviceFit:
    """Judge ``components`` on ``target``.

    Args:
        components: of the recipe.
        target: the device.
        denoiser: which of them is called in every step.
        height: pixels of the recipe's picture.
        width: pixels.
    """
    memory = device_memory(components, target)
    found = DeviceFit(target.name, memory, target.memory_mib * 2**20)
    if found.fits:
        return found
    return replace(found, advice=_advice(components, target, denoiser, height, width))


def _advice(
    components: Sequence[ForetoldComponent], target: Target, denoiser: Component, height: int, width: int
) -> str:
    """The fewest changes that would do; then the smallest other device that would."""
    room = target.memory_mib * 2**20
    offered = list(_changes(components, denoiser, height, width))
    for count in range(1, len(offered) + 1):
        for chosen in combinations(offered, count):
            if len({one.kind for one in chosen}) < count:
                continue
            changed: Sequence[ForetoldComponent] = components
            shrink = 1.0
            for one in chosen:
                changed = one.apply(changed)
                shrink *= one.area
            if _shrunk(device_memory(changed, target), shrink).needed <= room:
                return " and ".join(one.words for one in chosen)
    for other in sorted(TARGETS, key=lambda one: one.memory_mib):
        if other.engine_on_device and target.engine_on_device and other.memory_mib > target.memory_mib:
            memory = device_memory(components, other)
            if memory.needed <= other.memory_mib * 2**20:
                return f"--target {other.name}"
    return ""


@dataclass(frozen=True)
class _Change:
    """Something that a recipe could do otherwise.

    Args:
        kind: two of one kind exclude each other.
        words: how to write it.
        apply: to the components.
        area: of a picture, over the recipe's.
    """

    kind: str
    words: str
    apply: Callable[[Sequence[ForetoldComponent]], Sequence[ForetoldComponent]]
    area: float = 1.0


def _changes(
    components: Sequence[ForetoldComponent], denoiser: Component, height: int, width: int
) -> Iterator[_Change]:
    names = {one.component for one in components if one.component in ENCODERS and not _is_quantized(one)}
    if names:
        written = " ".join(
            f"--set 'passes.{name}=[canonicalize,quantize-int4]'" for name in sorted(map(str, names))
        )
        yield _Change("encoders", written, lambda found: _quantized(found, names))
    if any(one.component is denoiser and not _is_quantized(one) for one in components):
        yield _Change(
            "denoiser",
            "--set 'passes.denoiser=[canonicalize,quantize-int4]'",
            lambda found: _quantized(found, {denoiser}),
        )
    for share in _SMALLER:
        sides = [int(share * side) // 64 * 64 for side in (height, width)]
        if min(sides) >= 64:
            yield _Change(
                "picture",
                f"--set sampling.height={sides[0]} --set sampling.width={sides[1]}",
                lambda found: found,
                sides[0] * sides[1] / (height * width),
            )


def _is_quantized(one: ForetoldComponent) -> bool:
    return any(isinstance(step, QuantizeInt4) for step in one.passes)


def _quantized(components: Sequence[ForetoldComponent], names: set[Component]) -> Sequence[ForetoldComponent]:
    passes = (Canonicalize(), QuantizeInt4())
    return [
        replace(one, passes=passes, built=foretell(one.plain, passes)) if one.component in names else one
        for one in components
    ]


def _shrunk(memory: DeviceMemory, area: float) -> DeviceMemory:
    """``memory`` when pictures have ``area`` of the pixels; attention's scores would shrink faster still."""
    components = tuple(replace(one, activations=int(area * one.activations)) for one in memory.components)
    return replace(memory, components=components)
