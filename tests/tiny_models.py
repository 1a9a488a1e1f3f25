"""Tiny pipelines with random weights in diffusers' own folder layout, for tests of every room.

Each is loadable with ``from_pretrained``, in fp16 safetensors, and the same bytes for the same seed.
Linear layers of the denoisers have K and N that are multiples of 64, so a group of 64 fits. A latent
pixel is 4 pixels wide; the natural picture is 64×64.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

TOKENS = 16
"""T of both CLIP tokenizers, padded."""

PICTURE_PIXELS = 64
"""The natural height and width of the pictures."""

WORDS = (
    "a",
    "an",
    "and",
    "the",
    "red",
    "green",
    "blue",
    "small",
    "large",
    "circle",
    "square",
    "triangle",
    "above",
    "below",
    "left",
    "right",
    "of",
    "on",
)


def write_tiny_stable_diffusion(folder: Path, seed: int = 0) -> Path:
    """Write a StableDiffusionPipeline into ``folder`` (made when missing) and return it."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = StableDiffusionPipeline(
        vae=_half(AutoencoderKL(latent_channels=4, use_quant_conv=True, use_post_quant_conv=True, **_VAE)),
        text_encoder=_clip_text_model(),
        tokenizer=clip_tokenizer(folder),
        unet=_half(unet),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def write_tiny_stable_diffusion_xl(
    folder: Path, seed: int = 0, *, force_zeros_for_empty_prompt: bool = True
) -> Path:
    """Write a StableDiffusionXLPipeline into ``folder`` (made when missing) and return it.

    Its text encoders differ in width, and its tokenizers in what they pad with, as the published ones do.
    """
    import torch
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    told_width, pooled_width = 16, 32
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=64 + 128,
        attention_head_dim=(2, 4),
        norm_num_groups=16,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=told_width,
        projection_class_embeddings_input_dim=6 * told_width + pooled_width,
    )
    second = {**_CLIP_TEXT, "hidden_size": 128, "projection_dim": pooled_width, "pad_token_id": 0}
    pipeline = StableDiffusionXLPipeline(
        vae=_half(
            AutoencoderKL(
                latent_channels=4,
                use_quant_conv=True,
                use_post_quant_conv=True,
                scaling_factor=0.13025,
                force_upcast=False,
                **_VAE,
            )
        ),
        text_encoder=_clip_text_model(),
        tokenizer=clip_tokenizer(folder),
        text_encoder_2=_half(CLIPTextModelWithProjection(CLIPTextConfig(**second))),
        tokenizer_2=clip_tokenizer(folder, pad_token="!"),
        unet=_half(unet),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        force_zeros_for_empty_prompt=force_zeros_for_empty_prompt,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def write_tiny_flux(
    folder: Path, seed: int = 0, *, guidance_embeds: bool = False, single_blocks: int = 2
) -> Path:
    """Write a FluxPipeline into ``folder`` (made when missing) and return it."""
    import torch
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
    )
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=single_blocks,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(8, 12, 12),
    )
    second_tokenizer = t5_tokenizer()
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=T5_PIECES,
            d_model=64,
            d_kv=32,
            d_ff=128,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    )
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_half(
            AutoencoderKL(
                latent_channels=4,
                use_quant_conv=False,
                use_post_quant_conv=False,
                scaling_factor=0.36,
                shift_factor=0.12,
                **_VAE,
            )
        ),
        text_encoder=_clip_text_model(),
        tokenizer=clip_tokenizer(folder),
        text_encoder_2=_half(t5),
        tokenizer_2=second_tokenizer,
        transformer=_half(transformer),
    )
    pipeline.save_pretrained(folder)
    return folder


def write_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Write a CLIPModel with its tokenizer and image processor into ``folder`` and return it."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config=_CLIP_TEXT,
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": PICTURE_PIXELS,
            "patch_size": 16,
        },
        projection_dim=32,
    )
    model = CLIPModel(config)
    _half(model)
    model.save_pretrained(folder)
    tokenizer: Any = clip_tokenizer(folder)
    tokenizer.save_pretrained(folder)
    side = {"height": PICTURE_PIXELS, "width": PICTURE_PIXELS}
    CLIPImageProcessorPil(size={"shortest_edge": PICTURE_PIXELS}, crop_size=side).save_pretrained(folder)
    return folder


def write_tiny_lora(folder: Path, seed: int = 0, rank: int = 4) -> Path:
    """Write a LoRA for the tiny Stable Diffusion's UNet attention, in diffusers' format.

    Returns:
        ``folder``, which holds ``pytorch_lora_weights.safetensors`` with factors that change the picture.
    """
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for block, width in (("down_blocks.0", 64), ("up_blocks.1", 64)):
        for attention in ("attn1", "attn2"):
            for linear in ("to_q", "to_k", "to_v", "to_out.0"):
                key = f"unet.{block}.attentions.0.transformer_blocks.0.{attention}.{linear}"
                for side, shape in (("lora_A", (rank, width)), ("lora_B", (width, rank))):
                    weights[f"{key}.{side}.weight"] = torch.randn(shape, generator=generator).half() * 0.2
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "pytorch_lora_weights.safetensors", metadata={"format": "pt"})
    return folder


T5_PIECES = 4 + len(WORDS) + 39

_CLIP_TEXT: dict[str, object] = {
    "vocab_size": 256 * 2 + 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": TOKENS,
    "bos_token_id": 512,
    "eos_token_id": 513,
    "pad_token_id": 513,
}

_VAE: dict[str, object] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": PICTURE_PIXELS,
}


def _half(module: torch.nn.Module) -> torch.nn.Module:
    """Spread every weight, biases and norms too, so that no error hides behind a zero; then fp16."""
    import torch

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1:
                centre = 0.0 if name.endswith("bias") else 1.0
                parameter.copy_(centre + 0.1 * torch.randn(parameter.shape))
    halved: torch.nn.Module = module.eval().to(torch.float16)
    return halved


def _clip_text_model() -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    return _half(CLIPTextModel(CLIPTextConfig(**_CLIP_TEXT)))


def clip_tokenizer(folder: Path, pad_token: str = "<|endoftext|>") -> object:
    """CLIP's tokenizer over single bytes: every text is known, no merges are needed."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({name: i for i, name in enumerate(names)}), encoding="utf-8")
    merges.write_text("#version: 0.2\n", encoding="utf-8")
    try:
        return CLIPTokenizer(
            vocab=str(vocabulary), merges=str(merges), model_max_length=TOKENS, pad_token=pad_token
        )
    finally:
        vocabulary.unlink()
        merges.unlink()


def t5_tokenizer() -> object:
    """T5's unigram tokenizer: the words of the shapes grammar and single letters."""
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -3.0) for word in WORDS]
    pieces += [(letter, -8.0) for letter in "abcdefghijklmnopqrstuvwxyz,.-0123456789"]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=32)
