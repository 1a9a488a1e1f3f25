"""Recipe passes: which passes each component gets, from what the recipe says and the LoRAs it names."""

from __future__ import annotations

from collections.abc import Mapping

from latentc.errors import ModelError, PassError, RecipeError, nearest
from latentc.passes.allocate import Allocate
from latentc.passes.base import Pass
from latentc.passes.canonicalize import Canonicalize
from latentc.passes.fuse_lora import FuseLora
from latentc.passes.lora_file import lora_file, read_lora
from latentc.passes.pass_text import pass_from_options
from latentc.recipes.family import Component, Family
from latentc.recipes.load import LoadedRecipe

DENOISER = "denoiser"

_SKIPPING = ("smooth", "rotate", "split-subspace", "split-low-rank", "quantize-activations", "quantize-int4")
"""Passes that leave alone what the family says, where a recipe does not say which linears to skip."""


def passes_of(loaded: LoadedRecipe, family: Family) -> Mapping[Component, tuple[Pass, ...]]:
    """The passes of every component of ``family``, in order.

    A component that the recipe does not mention is only canonicalized. Linears that the family leaves alone
    are skipped, unless the recipe says otherwise or lets ``allocate`` decide. LoRAs are fused right after
    ``canonicalize``, before anything is split or quantized.

    Raises:
        RecipeError: an unknown component, pass or option, with its place in the recipe.
        ModelError: a LoRA cannot be read, or is for no component of this family.
    """
    chains: dict[Component, tuple[Pass, ...]] = {
        # a VAE of convolutions alone has nothing to bring into the passes' form
        spec.component: (Canonicalize(optional=True),)
        for spec in family.components
    }
    names = {str(component): component for component in chains}
    for name, specs in loaded.recipe.passes.items():
        where = f"{loaded.file.name}: passes.{name}"
        component = family.denoiser if name == DENOISER else names.get(name)
        if component is None:
            raise RecipeError(
                where, f"{family.name} has no component '{name}'", nearest(name, [DENOISER, *names])
            )
        is_allocated = any(spec.name == Allocate.name for spec in specs)
        left_alone = [] if is_allocated else [one.pattern for one in family.spec(component).left_alone]
        chain = []
        for index, spec in enumerate(specs):
            options = dict(spec.options)
            if left_alone and spec.name in _SKIPPING:
                options.setdefault("skip", [*left_alone])
            try:
                chain.append(pass_from_options(spec.name, options))
            except PassError as error:
                place = error.where if error.where not in ("passes", spec.name) else spec.name
                raise RecipeError(f"{where}[{index}]: {place}", error.message, error.fix) from error
        chains[component] = tuple(chain)
    for lora in loaded.recipe.model.loras:
        file = lora_file(loaded.path_of(lora.path))
        meant = {adapter.component or str(family.denoiser) for adapter in read_lora(file)}
        strangers = sorted(meant - set(names))
        if strangers:
            raise ModelError(
                str(file),
                f"is for '{strangers[0]}', which {family.name} does not have",
                "use a LoRA that was trained for this model",
            )
        for name in sorted(meant):
            fuse = FuseLora(path=file, scale=lora.scale, component=name)
            chains[names[name]] = _after_canonicalize(chains[names[name]], fuse)
    return chains


def _after_canonicalize(chain: tuple[Pass, ...], fuse: FuseLora) -> tuple[Pass, ...]:
    """``chain`` with ``fuse`` behind canonicalize and the LoRAs that are there already."""
    place = 0
    for index, one in enumerate(chain):
        if isinstance(one, Canonicalize | FuseLora):
            place = index + 1
    return (*chain[:place], fuse, *chain[place:])
