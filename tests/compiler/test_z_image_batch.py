"""Z-Image over a batch gives what diffusers' own gives for a list of pictures and prompts."""

from __future__ import annotations

from typing import Any

import torch

from latentc.compiler.z_image_batch import ZImageBatch


@torch.no_grad()
def test_a_batch_is_denoised_as_in_diffusers() -> None:
    from diffusers import ZImageTransformer2DModel

    torch.manual_seed(0)
    original: Any = ZImageTransformer2DModel(
        dim=64,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        in_channels=4,
        cap_feat_dim=32,
        axes_dims=[8, 12, 12],
    ).eval()
    for parameter in original.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 0.1)
    latent, timestep, words = torch.randn(2, 4, 16, 32), torch.tensor([0.3, 0.8]), torch.randn(2, 20, 32)
    expected = original(list(latent.unsqueeze(2)), timestep, list(words), return_dict=False)[0]
    # diffusers pads to 32 tokens itself
    states = torch.cat([words, torch.randn(2, 12, 32)], dim=1)
    mask = (torch.arange(32) < 20).float().expand(2, -1)
    actual = ZImageBatch(original)(latent, timestep, {"states": states, "mask": mask})[0]
    # float32 sums in another order, through four layers: measured 2e-6
    torch.testing.assert_close(actual, torch.stack(expected)[:, :, 0], rtol=0, atol=1e-4)
