"""AutoencoderKL: the VAE of most families, as its two components."""

from __future__ import annotations

from latentc.recipes.config import Config, count
from latentc.recipes.family import Component, ComponentSpec, TensorSpec

_SIZES = (("C*", "latent_channels"), ("C_image*", "in_channels"))


def _downscale(config: Config) -> int:
    return int(2 ** (count(config, "block_out_channels") - 1))


AUTOENCODER_KL = (
    ComponentSpec(
        Component.VAE_ENCODER,
        "vae",
        "AutoencoderKL",
        (TensorSpec("image", "float32", ("B", "C_image*", "H", "W"), "x"),),
        # the mean of the distribution, before scaling_factor
        (TensorSpec("latent", "float32", ("B", "C*", "h", "w"), "0.mean"),),
        (*_SIZES, ("pixel_step", _downscale)),
        method="encode",
        fixed=(("return_dict", False),),
    ),
    ComponentSpec(
        Component.VAE_DECODER,
        "vae",
        "AutoencoderKL",
        # after division by scaling_factor
        (TensorSpec("latent", "float32", ("B", "C*", "h", "w"), "z"),),
        (TensorSpec("image", "float32", ("B", "C_image*", "H", "W"), "0"),),
        _SIZES,
        method="decode",
        fixed=(("return_dict", False),),
    ),
)
