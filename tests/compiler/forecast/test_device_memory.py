"""Device memory: the formula of docs/device-memory.md, term by term."""

from tests.compiler import foretold

from latentc.compiler.forecast.device_memory import (
    ORT_PROCESS_BYTES,
    TRT_BUILD_BYTES,
    TRT_PROCESS_BYTES,
    ComponentMemory,
    DeviceMemory,
    device_memory,
)
from latentc.compiler.forecast.stored_bytes import stored_bytes
from latentc.recipes.family import Component
from latentc.recipes.target import target_named

TWO = DeviceMemory(
    100,
    (
        ComponentMemory(Component.TEXT_ENCODER, 50, 10, 50, 400),
        ComponentMemory(Component.UNET, 30, 60, 30, 300),
    ),
)


def test_the_terms_add_up() -> None:
    assert TWO.sequential == 100 + max(50 + 50, 30 + 60)
    assert TWO.together == 100 + 80 + 60
    assert (TWO.building, TWO.needed) == (400, 400)


def test_what_only_the_builder_uses_is_no_part_of_it() -> None:
    memory = device_memory(foretold.components(), target_named("ort-mobile"))
    assert [one.component for one in memory.components] == [
        Component.TEXT_ENCODER, Component.UNET, Component.VAE_DECODER
    ]  # fmt: skip
    assert memory.process == ORT_PROCESS_BYTES
    assert memory.building == 0


def test_an_engine_is_made_on_the_board() -> None:
    target = target_named("jetson-orin-nano-8gb")
    memory = device_memory(foretold.components(), target)
    unet = next(one for one in memory.components if one.component is Component.UNET)
    built = next(one for one in foretold.components() if one.component is Component.UNET)
    assert unet.weights == stored_bytes(built.built, target).weights
    assert unet.building > TRT_BUILD_BYTES
    assert memory.process == TRT_PROCESS_BYTES
    assert device_memory(foretold.components(), target_named("rtx")).building == 0
