from __future__ import annotations

import pytest

from latentc.compiler.stages.engine_shapes import AxisSizes, engine_sizes, shapes_of
from latentc.errors import InternalError
from latentc.recipes.families.flux import FLUX
from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.recipes.family import Component, Family
from latentc.runtime.manifest import TensorEntry

TOKENS = {"tokenizer": 77, "tokenizer_2": 512}


def sizes(family: Family, component: Component, *, guided: bool = True) -> tuple[dict[str, int], ...]:
    found = engine_sizes(family, component, 512, 384, 8, TOKENS, guided=guided)
    return tuple(dict(entry) for entry in found)


def test_guided_unet_sees_both_prompts_first() -> None:
    assert sizes(STABLE_DIFFUSION, Component.UNET) == (
        {"B": 2, "T": 77, "h": 64, "w": 48},
        {"B": 1, "T": 77, "h": 64, "w": 48},
    )


def test_unguided_unet_sees_one() -> None:
    assert sizes(STABLE_DIFFUSION, Component.UNET, guided=False) == ({"B": 1, "T": 77, "h": 64, "w": 48},)


@pytest.mark.parametrize(
    ("component", "wanted"),
    [
        (Component.TEXT_ENCODER, {"B": 1, "T": 77}),
        (Component.VAE_ENCODER, {"B": 1, "H": 512, "W": 384}),
        (Component.VAE_DECODER, {"B": 1, "h": 64, "w": 48}),
    ],
)
def test_everything_else_takes_one(component: Component, wanted: dict[str, int]) -> None:
    assert sizes(STABLE_DIFFUSION, component) == (wanted,)


def test_flux_counts_packed_tokens_and_the_second_tokenizer() -> None:
    assert sizes(FLUX, Component.TRANSFORMER) == ({"B": 1, "S": 32 * 24, "T": 512},)
    assert sizes(FLUX, Component.TEXT_ENCODER) == ({"B": 1, "T": 77},)
    assert sizes(FLUX, Component.TEXT_ENCODER_2) == ({"B": 1, "T": 512},)


def test_shapes_of_inputs() -> None:
    inputs = (
        TensorEntry("latent", "float32", ("B", 4, "h", "w")),
        TensorEntry("timestep", "float32", ("B",)),
    )
    axes: AxisSizes = (("B", 2), ("h", 8), ("w", 16))
    assert shapes_of(inputs, axes) == {"latent": (2, 4, 8, 16), "timestep": (2,)}


def test_unknown_axis() -> None:
    with pytest.raises(InternalError, match="has the axis 'T', sizes are known for"):
        shapes_of((TensorEntry("token_ids", "int64", ("B", "T")),), (("B", 1),))
