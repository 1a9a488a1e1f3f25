"""Patches have the positions that diffusers gives them, at the config's size and at others."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from latentc.compiler.patch_positions import PatchPositions


@pytest.mark.parametrize("size", [(32, 32), (16, 24), (40, 8)])
def test_patches_stand_as_in_diffusers(size: tuple[int, int]) -> None:
    from diffusers.models.embeddings import PatchEmbed

    torch.manual_seed(0)
    original: Any = PatchEmbed(
        height=32, width=32, patch_size=2, in_channels=4, embed_dim=48, interpolation_scale=2
    )
    latent = torch.randn(2, 4, *size)
    # float32 has 24 bits: an angle below 32 is exact to 2**-19
    torch.testing.assert_close(PatchPositions(original)(latent), original(latent), rtol=0, atol=2**-17)
