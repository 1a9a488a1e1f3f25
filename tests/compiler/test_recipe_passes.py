from pathlib import Path

import pytest

from latentc.compiler.recipe_passes import passes_of
from latentc.errors import ModelError
from latentc.passes.base import Pass
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.split_low_rank import SplitLowRank
from latentc.recipes.families.flux import FLUX
from latentc.recipes.families.qwen_image import QWEN_IMAGE
from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.recipes.family import Component
from latentc.recipes.load import LoadedRecipe, load_recipe

RECIPE = """\
name: tiny
model: {path: here}
sampling: {scheduler: ddim, height: 64, width: 64}
targets: [onnx]
passes:
  denoiser: [canonicalize, split-low-rank: {rank: 8}, quantize-int4]
"""


def loaded(folder: Path, *loras: Path) -> LoadedRecipe:
    file = folder / "tiny.yaml"
    file.write_text(RECIPE)
    return load_recipe(file, [f"model.loras=[{', '.join(f'{{path: {lora}}}' for lora in loras)}]"])


def texts(chain: tuple[object, ...]) -> list[str]:
    return [str(one).partition("{")[0] for one in chain]


def test_denoiser_means_the_family_s_own(tmp_path: Path) -> None:
    chains = passes_of(loaded(tmp_path), STABLE_DIFFUSION)
    assert texts(chains[Component.UNET]) == ["canonicalize", "split-low-rank", "quantize-int4"]
    assert texts(chains[Component.VAE_DECODER]) == ["canonicalize"]
    assert texts(passes_of(loaded(tmp_path), FLUX)[Component.TRANSFORMER])[-1] == "quantize-int4"


def test_what_the_recipe_does_not_mention_may_have_no_linears(tmp_path: Path) -> None:
    """Qwen-Image's VAE is convolutions alone."""
    chains = passes_of(loaded(tmp_path), QWEN_IMAGE)
    assert [one.optional for one in chains[Component.VAE_DECODER]] == [True]
    assert not chains[Component.TRANSFORMER][0].optional, "what it does mention has to do something"


def skips(chain: tuple[Pass, ...]) -> list[tuple[str, ...]]:
    return [one.skip for one in chain if isinstance(one, SplitLowRank | QuantizeInt4)]


def test_what_the_family_leaves_alone_is_skipped_unless_the_recipe_says_what_is(tmp_path: Path) -> None:
    first_and_last = ("x_embedder.weight", "proj_out.weight")
    assert skips(passes_of(loaded(tmp_path), FLUX)[Component.TRANSFORMER]) == [first_and_last] * 2
    assert skips(passes_of(loaded(tmp_path), STABLE_DIFFUSION)[Component.UNET]) == [(), ()]
    file = tmp_path / "tiny.yaml"
    own = "[canonicalize, split-low-rank: {rank: 8, skip: []}, quantize-int4: {skip: [a]}]"
    chains = passes_of(load_recipe(file, [f"passes.denoiser={own}"]), FLUX)
    assert skips(chains[Component.TRANSFORMER]) == [(), ("a",)]


def test_where_bits_are_allocated_the_family_leaves_nothing_alone(tmp_path: Path) -> None:
    loaded(tmp_path)
    chain = "[canonicalize, allocate: {max_ratio: 0.3}, quantize-int4]"
    chains = passes_of(load_recipe(tmp_path / "tiny.yaml", [f"passes.denoiser={chain}"]), FLUX)
    assert skips(chains[Component.TRANSFORMER]) == [()]


def test_a_lora_is_fused_before_anything_is_split(tmp_path: Path, tiny_lora: Path) -> None:
    chains = passes_of(loaded(tmp_path, tiny_lora, tiny_lora), STABLE_DIFFUSION)
    assert texts(chains[Component.UNET]) == [
        "canonicalize",
        "fuse-lora",
        "fuse-lora",
        "split-low-rank",
        "quantize-int4",
    ]


def test_a_lora_for_another_family_is_refused(tmp_path: Path, tiny_lora: Path) -> None:
    with pytest.raises(ModelError) as caught:
        passes_of(loaded(tmp_path, tiny_lora), FLUX)
    assert "is for 'unet', which flux does not have" in str(caught.value)
    assert caught.value.exit_code == 3
