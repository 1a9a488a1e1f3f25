"""How large a component's dynamic axes are for a picture of given size."""

from __future__ import annotations

from collections.abc import Mapping

from latentc.errors import BundleError
from latentc.recipes.family import Component
from latentc.runtime.flux import PATCH
from latentc.runtime.manifest import Manifest, TensorEntry

# Whose padded length is the T of a component; the first that the bundle has.
_TOKENIZERS: Mapping[Component, tuple[str, ...]] = {
    Component.TEXT_ENCODER: ("tokenizer",),
    Component.TEXT_ENCODER_2: ("tokenizer_2",),
    Component.UNET: ("tokenizer",),
    Component.TRANSFORMER: ("tokenizer_2", "tokenizer"),
}


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
    sizes = {"B": batch, "H": height, "W": width, "h": h, "w": w, "S": (h // PATCH) * (w // PATCH)}
    for name in _TOKENIZERS.get(component, ()):
        if name in manifest.tokenizers:
            sizes["T"] = manifest.tokenizers[name].max_length
            break
    return sizes


def _shape(component: Component, tensor: TensorEntry, sizes: Mapping[str, int]) -> tuple[int, ...]:
    shape = []
    for axis in tensor.shape:
        if isinstance(axis, str) and axis not in sizes:
            raise BundleError(
                f"manifest.json: components.{component}.inputs.{tensor.name}",
                f"has an axis '{axis}', wanted a number or one of {', '.join(sorted(sizes))}",
                "build the bundle again",
            )
        shape.append(sizes[axis] if isinstance(axis, str) else axis)
    return tuple(shape)
