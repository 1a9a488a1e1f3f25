"""Diffusers' tensors under the names, and cut as, the first authors of each model published them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_PARTS = {
    ".group_norm.": ".norm.",
    ".to_q.": ".q.",
    ".to_k.": ".k.",
    ".to_v.": ".v.",
    ".to_out.0.": ".proj_out.",
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "mid_block.attentions.0": "mid.attn_1",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    ".downsamplers.0.": ".downsample.",
    ".upsamplers.0.": ".upsample.",
}


def stable_diffusion_checkpoint(folder: Path, path: Path) -> Path:
    """The tiny Stable Diffusion of ``folder`` as one file at ``path``, as version 1 was first published."""
    unet, vae, clip = (
        load_file(next((folder / part).glob("*.safetensors"))) for part in ("unet", "vae", "text_encoder")
    )
    tensors = latent_diffusion_unet(unet, layers_per_block=1) | latent_diffusion_vae(vae, blocks=3)
    tensors |= {
        f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}": value
        for name, value in clip.items()
    }
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


def latent_diffusion_unet(tensors: Mapping[str, torch.Tensor], layers_per_block: int) -> Tensors:
    """A UNet as CompVis' latent diffusion names it."""
    return {
        f"model.diffusion_model.{_unet_name(name, tensors, layers_per_block)}": value
        for name, value in tensors.items()
    }


def latent_diffusion_vae(tensors: Mapping[str, torch.Tensor], blocks: int) -> Tensors:
    """An AutoencoderKL as CompVis' latent diffusion names it; attention is a 1×1 convolution there."""
    found: Tensors = {}
    for name, value in tensors.items():
        new = name
        for part, other in _VAE_PARTS.items():
            new = new.replace(part, other)
        new = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", new)
        new = new.replace("down_blocks.", "down.")
        new = re.sub(r"up_blocks\.(\d)", lambda match: f"up.{blocks - 1 - int(match[1])}", new)
        new = new.replace(".resnets.", ".block.")
        is_linear = ".attn_1." in new and value.ndim == 2
        found[f"first_stage_model.{new}"] = value[:, :, None, None] if is_linear else value
    return found


def flux_transformer(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """A FLUX.1 transformer as Black Forest Labs publish it."""
    given = dict(tensors)
    found: Tensors = {}
    for name in list(given):
        double = re.match(r"transformer_blocks\.(\d+)\.attn\.(to_q|add_q_proj)\.(weight|bias)$", name)
        single = re.match(r"single_transformer_blocks\.(\d+)\.attn\.to_q\.(weight|bias)$", name)
        if double:
            number, first, kind = double.groups()
            stream = "img" if first == "to_q" else "txt"
            parts = [f"{first.replace('q', letter)}.{kind}" for letter in "qkv"]
            joined = [given.pop(f"transformer_blocks.{number}.attn.{part}") for part in parts]
            found[f"double_blocks.{number}.{stream}_attn.qkv.{kind}"] = torch.cat(joined)
        elif single:
            number, kind = single.groups()
            stem = f"single_transformer_blocks.{number}"
            parts = [f"{stem}.attn.to_{letter}.{kind}" for letter in "qkv"]
            joined = [given.pop(part) for part in (*parts, f"{stem}.proj_mlp.{kind}")]
            found[f"single_blocks.{number}.linear1.{kind}"] = torch.cat(joined)
    for name, value in given.items():
        new = name
        for part, other in _FLUX_PARTS:
            new = re.sub(part, other, new)
        if name.startswith("norm_out.linear"):
            scale, shift = value.chunk(2, dim=0)
            value = torch.cat([shift, scale])  # the same tensor, the other way round
        found[new] = value
    return found


_FLUX_PARTS = (
    (r"^time_text_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
    (r"^time_text_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
    (r"^time_text_embed\.text_embedder\.linear_1", "vector_in.in_layer"),
    (r"^time_text_embed\.text_embedder\.linear_2", "vector_in.out_layer"),
    (r"^time_text_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer"),
    (r"^time_text_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer"),
    (r"^context_embedder", "txt_in"),
    (r"^x_embedder", "img_in"),
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
    (r"^proj_out", "final_layer.linear"),
    (r"^single_transformer_blocks\.(\d+)\.norm\.linear", r"single_blocks.\1.modulation.lin"),
    (r"^single_transformer_blocks\.(\d+)\.attn\.norm_q\.weight", r"single_blocks.\1.norm.query_norm.scale"),
    (r"^single_transformer_blocks\.(\d+)\.attn\.norm_k\.weight", r"single_blocks.\1.norm.key_norm.scale"),
    (r"^single_transformer_blocks\.(\d+)\.proj_out", r"single_blocks.\1.linear2"),
    (r"^transformer_blocks\.", "double_blocks."),
    (r"\.norm1\.linear", ".img_mod.lin"),
    (r"\.norm1_context\.linear", ".txt_mod.lin"),
    (r"\.attn\.norm_q\.weight", ".img_attn.norm.query_norm.scale"),
    (r"\.attn\.norm_k\.weight", ".img_attn.norm.key_norm.scale"),
    (r"\.attn\.norm_added_q\.weight", ".txt_attn.norm.query_norm.scale"),
    (r"\.attn\.norm_added_k\.weight", ".txt_attn.norm.key_norm.scale"),
    (r"\.attn\.to_out\.0", ".img_attn.proj"),
    (r"\.attn\.to_add_out", ".txt_attn.proj"),
    (r"\.ff\.net\.0\.proj", ".img_mlp.0"),
    (r"\.ff\.net\.2", ".img_mlp.2"),
    (r"\.ff_context\.net\.0\.proj", ".txt_mlp.0"),
    (r"\.ff_context\.net\.2", ".txt_mlp.2"),
)


def _unet_name(name: str, tensors: Mapping[str, torch.Tensor], layers_per_block: int) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem in _UNET_ENDS:
        return f"{_UNET_ENDS[stem]}.{kind}"
    side, rest = name.split(".", 1)
    if side == "mid_block":
        part, number, tail = rest.split(".", 2)
        place = 1 if part == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{_inner(part, tail)}"
    block, part, number, tail = rest.split(".", 3)
    each = layers_per_block + 1
    if part == "downsamplers":
        return f"input_blocks.{(int(block) + 1) * each}.0.{tail.replace('conv', 'op')}"
    if part == "upsamplers":
        has_attention = any(other.startswith(f"up_blocks.{block}.attentions") for other in tensors)
        return f"output_blocks.{int(block) * each + layers_per_block}.{2 if has_attention else 1}.{tail}"
    down = side == "down_blocks"
    place = (1 if down else 0) + int(block) * each + int(number)
    return f"{'input' if down else 'output'}_blocks.{place}.{int(part == 'attentions')}.{_inner(part, tail)}"


def _inner(part: str, tail: str) -> str:
    if part == "attentions":
        return tail
    layer, kind = tail.rsplit(".", 1)
    return f"{_RESNET[layer]}.{kind}"
