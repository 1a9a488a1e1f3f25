"""Device memory: what a bundle needs where it runs. docs/device-memory.md has the formula and its sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latentc.compiler.forecast.component import ForetoldComponent
from latentc.compiler.forecast.live_memory import ONNXRUNTIME, TENSORRT, live_bytes
from latentc.compiler.forecast.stored_bytes import stored_bytes
from latentc.compiler.stages.ort_format import LARGEST_WEIGHT_BYTES
from latentc.recipes.family import Component
from latentc.recipes.target import Runtime, Target

_MIB = 2**20

# onnxruntime: measured with `make bench-plan`
ORT_PROCESS_BYTES = 70 * _MIB
ORT_FILE_COPIES = 2.1
"""Of an .ort file, when a session of it is open: weights, and what is packed of them."""
ORT_LOADING_COPIES = 1.9
"""More while it opens: the file's bytes, and onnxruntime's copy of them."""
ONNX_COPIES = 1.2
"""Of float32 weights that are mapped: what is packed of them."""
HALF_COPIES = 3.1
"""Of float16 weights on a CPU, which computes in float32."""
ORT_LIVE = 1.9
"""What onnxruntime's arena takes, over the values that have to be alive."""
# TensorRT: from memory and from TensorRT for RTX on a CPU, unproven on a board
TRT_PROCESS_BYTES = 600 * _MIB
TRT_WORKSPACE_BYTES = 32 * _MIB
TRT_BUILD_COPIES = 3.5
TRT_BUILD_BYTES = 350 * _MIB


@dataclass(frozen=True)
class ComponentMemory:
    """One component on a device.

    Args:
        component: which.
        weights: as its runtime holds them.
        activations: the largest moment of a call.
        loading: what opening it takes besides the weights; gone before it runs.
        building: all that making its engine on the device takes; 0 where nothing is made there.
    """

    component: Component
    weights: int
    activations: int
    loading: int
    building: int = 0

    @property
    def open(self) -> int:
        """The most that it takes from opening to the end of a call."""
        return self.weights + max(self.activations, self.loading)


@dataclass(frozen=True)
class DeviceMemory:
    """A bundle on a device.

    Args:
        process: what a process takes before it has opened anything.
        components: those that draw a picture.
    """

    process: int
    components: tuple[ComponentMemory, ...]

    @property
    def sequential(self) -> int:
        """With one component open at a time, as ``latentc run`` does it."""
        return self.process + max(one.open for one in self.components)

    @property
    def together(self) -> int:
        """With all of them held open."""
        most = max(max(one.activations, one.loading) for one in self.components)
        return self.process + sum(one.weights for one in self.components) + most

    @property
    def building(self) -> int:
        """Of the largest engine that is made on the device; 0 for none."""
        return max(one.building for one in self.components)

    @property
    def needed(self) -> int:
        """Without this much the bundle cannot be used there."""
        return max(self.sequential, self.building)


def device_memory(components: Sequence[ForetoldComponent], target: Target) -> DeviceMemory:
    """What ``components`` need on ``target`` at the recipe's size."""
    drawing = [one for one in components if one.component is not Component.VAE_ENCODER]
    if target.runtime is Runtime.ONNXRUNTIME:
        return DeviceMemory(ORT_PROCESS_BYTES, tuple(in_onnxruntime(one, target) for one in drawing))
    return DeviceMemory(TRT_PROCESS_BYTES, tuple(_in_tensorrt(one, target) for one in drawing))


def in_onnxruntime(one: ForetoldComponent, target: Target) -> ComponentMemory:
    """One component in a session on a CPU, as a stand-in too where ``target`` is another runtime's."""
    stored = stored_bytes(one.built, target)
    activations = int(ORT_LIVE * live_bytes(one.built, ONNXRUNTIME, one.pictures))
    if target.runtime is not Runtime.ONNXRUNTIME:
        return ComponentMemory(one.component, int(HALF_COPIES * stored.weights), activations, 0)
    if target.name == "ort-mobile" and stored.weights <= LARGEST_WEIGHT_BYTES:
        weights, loading = ORT_FILE_COPIES * stored.total, ORT_LOADING_COPIES * stored.total
        return ComponentMemory(one.component, int(weights), activations, int(loading))
    return ComponentMemory(one.component, int(ONNX_COPIES * stored.weights), activations, 0)


def _in_tensorrt(one: ForetoldComponent, target: Target) -> ComponentMemory:
    stored = stored_bytes(one.built, target)
    activations = live_bytes(one.built, TENSORRT, one.pictures) + TRT_WORKSPACE_BYTES
    building = TRT_BUILD_BYTES + int(TRT_BUILD_COPIES * stored.weights) if target.engine_on_device else 0
    # the file is read whole and taken apart beside itself
    return ComponentMemory(one.component, stored.weights, activations, stored.weights, building)
