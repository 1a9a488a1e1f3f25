"""How large a component's dynamic axes are for a picture of given size."""

from __future__ import annotations

from collections.abc import Mapping

from latentc.errors import BundleError
from latentc.recipes.families.catalogue import family_named
from latentc.recipes.family import Component, axis_size
from latentc.runtime.manifest import Manifest, TensorEntry


def input_shapes(
    manifest: Manifest, component: Component, *, batch: int, height: int, width: int
) -> dict[str, tuple[int, ...]]:
    """The shape of each input of ``component``.

    Args:
        manifest: of a bundle that has the component.
        component: which.
        batch: B.
        height: H, pixels.
        width: W, pixels.

    Raises:
        BundleError: an input has an axis of another name than the families' letters.
    """
    sizes = _axis_sizes(manifest, component, batch, height, width)
    entry = manifest.components[str(component)]
    return {tensor.name: _shape(component, tensor, sizes) for tensor in entry.inputs}


def _axis_sizes(
    manifest: Manifest, component: Component, batch: int, height: int, width: int
) -> dict[str, int]:
    h, w = height // manifest.latent.downscale, width // manifest.latent.downscale
    family = family_named(manifest.family)
    sizes = {"B": batch, "H": height, "W": width, "h": h, "w": w}
    sizes["S"] = (h // family.patch) * (w // family.patch)
    tokenizer = manifest.tokenizers.get(family.spec(component).tokenizer)
    return sizes if tokenizer is None else {**sizes, "T": tokenizer.max_length}


def _shape(component: Component, tensor: TensorEntry, sizes: Mapping[str, int]) -> tuple[int, ...]:
    shape = []
    for axis in tensor.shape:
        size = axis if isinstance(axis, int) else axis_size(axis, sizes)
        if size is None:
            raise BundleError(
                f"manifest.json: components.{component}.inputs.{tensor.name}",
                f"has an axis '{axis}', wanted a number or one of {', '.join(sorted(sizes))}",
                "build the bundle again",
            )
        shape.append(size)
    return tuple(shape)
