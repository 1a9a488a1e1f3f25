"""Unknown class: a spec for a denoiser of diffusers that is of no family, from what its ``forward`` asks for.

Arguments have the same names and meanings in most of diffusers' denoisers; their sizes stand in the config.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from latentc.errors import ModelError
from latentc.recipes.config import Config, count, number
from latentc.recipes.family import Component, ComponentSpec, Size, TensorSpec

LOST = (
    "no family describes it: nothing is left alone by default, its text encoders and VAE are not compiled, "
    "and neither the reference nor the run-time pipeline can draw with it, so nothing is validated"
)
"""What a denoiser of an unknown class goes without, for a warning."""

_SIZES: Mapping[str, tuple[str, ...]] = {
    "D*": (
        "joint_attention_dim",
        "caption_channels",
        "cross_attention_dim",
        "text_embed_dim",
        "cap_feat_dim",
    ),
    "D_pooled*": ("pooled_projection_dim",),
    "C*": ("in_channels",),
    "A*": ("axes_dims_rope", "axes_dim", "axes_dims"),
}
"""Keys of a config that may hold an axis' size, best first; A is the number of a position's axes."""

_PICTURE = ("B", "C*", "h", "w")
_TOKENS = ("B", "S", "C*")
_MASK = TensorSpec("text_mask", "float32", ("B", "T"), "")

_KNOWN: tuple[tuple[str, TensorSpec], ...] = (
    ("sample", TensorSpec("latent", "float32", _PICTURE, "")),
    ("hidden_states", TensorSpec("latent", "float32", _PICTURE, "")),
    ("timestep", TensorSpec("timestep", "float32", ("B",), "")),
    ("encoder_hidden_states", TensorSpec("text_states", "float32", ("B", "T", "D*"), "")),
    ("pooled_projections", TensorSpec("pooled_states", "float32", ("B", "D_pooled*"), "")),
    ("encoder_attention_mask", _MASK),
    ("encoder_hidden_states_mask", _MASK),
    ("img_ids", TensorSpec("image_ids", "float32", ("S", "A*"), "")),
    ("txt_ids", TensorSpec("text_ids", "float32", ("T", "A*"), "")),
    ("guidance", TensorSpec("guidance", "float32", ("B",), "", needs="guidance_embeds")),
)
"""Arguments that denoisers have in common."""


def spec_of_class(class_name: str, folder: str, config: Config) -> ComponentSpec:
    """How a denoiser of ``class_name`` is called.

    Args:
        class_name: of diffusers.
        folder: ``unet`` or ``transformer``.
        config: of the module, with its class's defaults.

    Raises:
        ModelError: it requires an argument whose meaning or size is not known.
    """
    import diffusers

    forward = getattr(diffusers, class_name).forward
    signature = inspect.signature(inspect.unwrap(forward)).parameters
    known = dict(_KNOWN)
    inputs = []
    for name, parameter in signature.items():
        if name in ("self", "return_dict"):
            continue
        tensor = known.get(name)
        if tensor is not None and tensor.exists(config):
            axes = _TOKENS if tensor.name == "latent" and "img_ids" in signature else tensor.axes
            inputs.append(TensorSpec(tensor.name, tensor.dtype, axes, name))
        elif parameter.default is inspect.Parameter.empty:
            raise ModelError(
                f"{class_name}.forward: {name}",
                "is required, and latentc does not know what it is",
                "add a family: recipes/families/ has one file each",
            )
    letters = [axis for tensor in inputs for axis in tensor.axes]
    return ComponentSpec(
        Component(folder),
        folder,
        class_name,
        tuple(inputs),
        (TensorSpec("prediction", "float32", _TOKENS if "S" in letters else ("B", "C_out*", "h", "w"), "0"),),
        (
            *(
                (axis, _size(class_name, axis, config))
                for axis in dict.fromkeys(letters)
                if axis.endswith("*")
            ),
            ("step", _step(config)),
        ),
        fixed=(("return_dict", False),),
        tokenizer="tokenizer" if "T" in letters else "",
    )


def _size(class_name: str, axis: str, config: Config) -> Size:
    keys = _SIZES[axis]
    found = next((key for key in keys if config.get(key) is not None), None)
    if found is None:
        raise ModelError(
            f"{class_name}: config.json",
            f"has none of {', '.join(keys)}, one of which says the size of an input",
            "add a family: recipes/families/ has one file each",
        )
    return count(config, found) if axis == "A*" else number(config, found)


def _step(config: Config) -> int:
    """What h and w are multiples of: a patch, or halvings between blocks."""
    if "block_out_channels" in config:
        return int(2 ** (count(config, "block_out_channels") - 1))
    return number(config, "patch_size") if isinstance(config.get("patch_size"), int) else 1
