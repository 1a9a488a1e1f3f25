"""Train the autoencoder that both pipelines share: 64x64 pictures to 8x8 latents of 16 channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional

from latentc.recipes.shapes.render import Picture, Style
from latentc.recipes.shapes.scene import scenes_for_training
from latentc.recipes.shapes.train.pictures import draw_scenes, render_all, tensor_from_pictures
from latentc.recipes.shapes.train.progress import Progress, learning_rate
from latentc.recipes.shapes.train.train_denoiser import save_whole, update_average

LATENT_CHANNELS = 16
NOISE = 0.2
"""Most noise the decoder learns to see through, in deviations: a denoiser's latents are never quite right."""
CROP_PIXELS = 32
CROP_BATCH = 16
WHOLE_BATCH = 8
WHOLE_SHARE = 0.2
"""Last part of the training, on whole pictures; before it on crops, which are full of things."""


def make_vae() -> AutoencoderKL:
    """An untrained autoencoder of Stable Diffusion's classes, small enough for a CPU."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 48, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
        shift_factor=0.0,
    )
    open_the_path(vae)
    return vae


@torch.no_grad()
def open_the_path(vae: AutoencoderKL) -> None:
    """Start as a linear net that keeps its signal's size: every residual branch adds nothing at first.

    torch's own start shrinks the signal by 0.6 at each convolution between the branches, and the
    constant outputs of the branches drown it: training then stands still for thousands of steps.
    """
    for name, module in vae.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if name.endswith("conv2"):
                nn.init.zeros_(module.weight)
        if name.endswith("to_out.0"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)


def train_vae(state_file: Path, steps: int, seed: int) -> AutoencoderKL:
    """Train from ``seed`` for ``steps`` steps, going on from ``state_file`` if it is there.

    Returns:
        The autoencoder with ``scaling_factor`` and ``shift_factor`` set so that latents of
        training pictures have mean 0 and deviation 1.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    vae = make_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3)
    average = {name: value.clone() for name, value in vae.state_dict().items()}
    first_step = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, first_step = state["average"], state["step"]
    pool = _pool(rng, 9_000)
    progress = Progress("vae", steps, first_step)
    for step in range(first_step, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, 2e-3)
        if step < (1 - WHOLE_SHARE) * steps:
            target = tensor_from_pictures(_crops(pool, CROP_BATCH, rng))
        else:
            target = tensor_from_pictures(pool[rng.integers(0, len(pool), WHOLE_BATCH)])
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(target).latent_dist
            latent = posterior.mean + 0.05 * torch.randn_like(posterior.mean)
            restored = vae.decode(latent).sample
        loss, error = _loss(restored.float(), target, posterior.mean.float())
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        update_average(average, vae, step)
        if (step + 1) % 200 == 0:
            progress.write(step + 1, loss=loss.item(), mean_error=error)
        if (step + 1) % 500 == 0 or step + 1 == steps:
            state = {"model": vae.state_dict(), "optimizer": optimizer.state_dict()}
            save_whole({**state, "average": average, "step": step + 1}, state_file)
    vae.load_state_dict(average)
    _set_unit_scale(vae, pool)
    return vae


def refine_decoder(vae: AutoencoderKL, steps: int, seed: int, checkpoint: Path) -> None:
    """Train the decoder alone on whole pictures, in place, so that latents made before stay valid.

    Half-way states go to ``checkpoint``, a folder in diffusers' layout.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    pool = _pool(rng, 9_000)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        parts = [
            vae.encode(tensor_from_pictures(pool[start : start + 64])).latent_dist.mean.float()
            for start in range(0, len(pool), 64)
        ]
    latents = torch.cat(parts)
    deviation = latents.std()
    trained = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3)
    average = {name: value.clone() for name, value in vae.state_dict().items()}
    progress = Progress("vae decoder", steps)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, 1.5e-3)
        rows = rng.integers(0, len(pool), WHOLE_BATCH)
        latent = latents[torch.from_numpy(rows)]
        target = tensor_from_pictures(pool[rows])
        with torch.autocast("cpu", torch.bfloat16):
            spread = NOISE * deviation * torch.rand(len(latent), 1, 1, 1)
            restored = vae.decode(latent + spread * torch.randn_like(latent)).sample
        loss, error = _loss(restored.float(), target, latent)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        update_average(average, vae, step, slowest=0.995)
        if (step + 1) % 100 == 0:
            progress.write(step + 1, loss=loss.item(), mean_error=error)
        if (step + 1) % 500 == 0:
            finished = make_vae()
            finished.register_to_config(**vae.config)
            finished.load_state_dict(average)
            finished.save_pretrained(checkpoint)
    vae.load_state_dict(average)


def _loss(restored: torch.Tensor, target: torch.Tensor, mean: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Absolute and squared error, of pixels and of edges, and a pull of the latents to unit size.

    Pixels in and around things count eight times: they cover a twentieth of a picture and hold all
    that is hard. Faint pictures count more than those with strong contrast, or gray ones stay blurred.
    """
    behind = target.flatten(2).median(dim=2).values[:, :, None, None]
    contrast = (target - behind).abs().amax(dim=1, keepdim=True)
    near = functional.max_pool2d((contrast > 0.1).float(), 3, stride=1, padding=1)
    strongest = contrast.flatten(1).amax(dim=1).clamp(min=0.4).view(-1, 1, 1, 1)
    weight = (1 + 7 * near) * (1.2 / strongest)
    difference = restored - target
    edges = (weight[:, :, 1:] * difference.diff(dim=2).abs()).mean()
    edges = edges + (weight[..., 1:] * difference.diff(dim=3).abs()).mean()
    pull = 1e-3 * (mean**2).mean()
    loss = (weight * (difference.abs() + 2 * difference**2)).mean() + 0.5 * edges + pull
    return loss, difference.abs().mean().item()


def _crops(pool: Picture, count: int, rng: np.random.Generator) -> Picture:
    """Windows of whole latent pixels that hold a thing, or part of it: [count, 32, 32, 3] uint8."""
    crops: list[Picture] = []
    while len(crops) < count:
        top, left = 8 * rng.integers(0, 5, 2)
        crop = pool[rng.integers(0, len(pool)), top : top + CROP_PIXELS, left : left + CROP_PIXELS]
        if np.ptp(crop[4:-4:4, 4:-4:4].astype(np.int16), axis=(0, 1)).max() > 30:
            crops.append(crop)
    return np.stack(crops)


def _pool(rng: np.random.Generator, count: int) -> Picture:
    """Rendered pictures, every fourth in the outlined style: [count, H, W, 3] uint8."""
    scenes = draw_scenes(scenes_for_training(), count, rng)
    seeds = rng.integers(1, 1 << 30, count).tolist()
    outlined = count // 4
    flat = render_all(scenes[outlined:], seeds[outlined:])
    styled = render_all(scenes[:outlined], seeds[:outlined], Style.OUTLINED)
    return rng.permutation(np.concatenate([flat, styled]))


@torch.no_grad()
def _set_unit_scale(vae: AutoencoderKL, pool: Picture) -> None:
    """Move the mean of the latents into the autoencoder's own biases, and write down their deviation.

    Stable Diffusion's pipeline knows no ``shift_factor`` and FLUX's cannot do without: so it is 0.
    """
    latents = vae.encode(tensor_from_pictures(pool[:1024])).latent_dist.mean
    center_latents(vae, latents.mean().item())
    vae.register_to_config(shift_factor=0.0, scaling_factor=round(1 / latents.std().item(), 4))


@torch.no_grad()
def center_latents(vae: AutoencoderKL, mean: float) -> None:
    """Take ``mean`` from every latent that ``vae`` makes, and add it again where it reads one."""
    vae.quant_conv.bias[:LATENT_CHANNELS] -= mean
    vae.post_quant_conv.bias += mean * vae.post_quant_conv.weight.sum(dim=(1, 2, 3))
