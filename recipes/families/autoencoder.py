"""Autoencoder: a VAE as the two components that every family has of it."""

from __future__ import annotations

from latentc.recipes.config import Config, count
from latentc.recipes.family import Component, ComponentSpec, Size, TensorSpec

_IMAGE = ("B", "C_image*", "H", "W")
_LATENT = ("B", "C*", "h", "w")


def autoencoder(
    class_name: str,
    *,
    stages: str,
    latent: str,
    sizes: tuple[tuple[str, Size], ...] = (("C*", "latent_channels"), ("C_image*", "in_channels")),
    frame: tuple[str, ...] = (),
    shared: tuple[tuple[str, ...], ...] = (("to_q", "to_k", "to_v"),),
) -> tuple[ComponentSpec, ComponentSpec]:
    """The encoder and the decoder of ``class_name``, a class of diffusers.

    Args:
        class_name: has ``encode(x)`` and ``decode(z)``.
        stages: the key of its config that lists its stages; each but one halves height and width.
        latent: where the latent, before scaling_factor, lies in what ``encode`` returns.
        sizes: of axes that end in ``*``.
        frame: an axis of films, after the channels of image and latent.
        shared: groups of linears that read the same input.
    """

    def downscale(config: Config) -> int:
        return int(2 ** (count(config, stages) - 1))

    image, small = (*_IMAGE[:2], *frame, *_IMAGE[2:]), (*_LATENT[:2], *frame, *_LATENT[2:])
    fixed = (("return_dict", False),)
    encoder = ComponentSpec(
        Component.VAE_ENCODER,
        "vae",
        class_name,
        (TensorSpec("image", "float32", image, "x"),),
        (TensorSpec("latent", "float32", small, latent),),
        (*sizes, ("pixel_step", downscale)),
        method="encode",
        fixed=fixed,
        shared=shared,
    )
    decoder = ComponentSpec(
        Component.VAE_DECODER,
        "vae",
        class_name,
        # after division by scaling_factor
        (TensorSpec("latent", "float32", small, "z"),),
        (TensorSpec("image", "float32", image, "0"),),
        sizes,
        method="decode",
        fixed=fixed,
        shared=shared,
    )
    return encoder, decoder


# the mean of the distribution
AUTOENCODER_KL = autoencoder("AutoencoderKL", stages="block_out_channels", latent="0.mean")
