"""Positions turn as in diffusers, with float32 alone."""

from __future__ import annotations

import torch

from latentc.compiler.rotary_table import RotaryTable


def test_positions_turn_as_in_diffusers() -> None:
    from diffusers.models.transformers.transformer_flux import FluxPosEmbed

    random = torch.Generator().manual_seed(0)
    # a picture of 2048 pixels has 128 rows of tokens
    ids = torch.randint(0, 128, (50, 3), generator=random).float()
    ours, theirs = RotaryTable(10000, (16, 56, 56))(ids), FluxPosEmbed(10000, [16, 56, 56])(ids)
    for table, expected in zip(ours, theirs, strict=True):
        assert table.dtype == torch.float32
        # float32 has 24 bits: an angle of 128 is exact to 2**-17
        assert float((table - expected).abs().max()) < 2**-16
