"""Original: the diffusers pipeline itself, with fp16 weights, computed in float32.

The weights are rounded to float16 (as the pipeline runs elsewhere) and widened again, since a CPU computes
float16 slowly and differently from a GPU; so the reference is the fp16 pipeline without its rounding noise.
Its modules run on CUDA where there is some (latentc.compiler.toolchain.accelerator), in float32 as well; what
they take and give, and the scheduler, is on the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from latentc.compiler.checkpoint_modules import modules_from_checkpoint
from latentc.compiler.flat import FlatModule
from latentc.compiler.quiet import quiet_loading
from latentc.compiler.sampling_options import SCHEDULER_CLASSES
from latentc.compiler.toolchain import accelerator, threads
from latentc.errors import ModelError, ToolMissing
from latentc.recipes.families.flux import FLUX
from latentc.recipes.families.stable_diffusion_xl import STABLE_DIFFUSION_XL
from latentc.recipes.family import Component, Family

if TYPE_CHECKING:
    import numpy.typing as npt

    from latentc.compiler.sampling_options import LoraFile, SamplingOptions

Tensors: TypeAlias = "dict[str, torch.Tensor]"


@dataclass(frozen=True)
class DenoiserCall:
    """One call of the denoiser, as an observer sees it.

    Args:
        step: 0 and up.
        inputs: by the family's names; with guidance the negative half of B comes first.
        prediction: what the denoiser gave, both halves.
        latents: [B, C, h, w] after the step.
    """

    step: int
    inputs: Tensors
    prediction: torch.Tensor
    latents: torch.Tensor


class Original:
    """A loaded pipeline with its adapters fused.

    Args:
        family: what kind of pipeline it is.
        options: which one, and how it draws.

    Raises:
        ModelError: diffusers cannot load the folder or an adapter, or an adapter matches no layer.
    """

    def __init__(self, family: Family, options: SamplingOptions) -> None:
        self.family = family
        self.options = options
        torch.set_num_threads(threads())
        self._device = _device()
        self._pipeline = _load(family, options).to(self._device)
        pipeline = self._pipeline
        self.modules = {
            spec.component: FlatModule(getattr(pipeline, spec.folder), spec) for spec in family.components
        }

    @property
    def denoiser(self) -> torch.nn.Module:
        """The diffusers module that is called in every step."""
        flat: Any = self.modules[self.family.denoiser]
        module: torch.nn.Module = flat.original
        return module

    @property
    def is_guided(self) -> bool:
        """Whether each step runs a negative half too, as StableDiffusionPipeline decides it."""
        return self.family.doubles_batch and self.options.guidance > 1.0

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """C, h and w of one picture's latent."""
        config = self._pipeline.vae.config
        factor = 2 ** (len(config.block_out_channels) - 1)
        return config.latent_channels, self.options.height // factor, self.options.width // factor

    def token_ids(self, prompts: Sequence[str]) -> dict[str, npt.NDArray[np.int64]]:
        """Token ids [P, T] by tokenizer folder, padded and cut as the pipeline does."""
        return {
            spec.tokenizer: _token_ids(getattr(self._pipeline, spec.tokenizer), prompts, spec.longest_text)
            for spec in self.family.text_encoders
        }

    @torch.no_grad()
    def embed(self, token_ids: Mapping[str, npt.NDArray[np.int64]]) -> Tensors:
        """What the text encoders give, by its names in the family: ``text_states`` [P, T, D] and more.

        Where two give the same, it stands side by side on the last axis, in the family's order.
        """
        given: dict[str, list[torch.Tensor]] = {}
        for spec in self.family.text_encoders:
            outputs = self.run(spec.component, torch.from_numpy(token_ids[spec.tokenizer]))
            for name, tensor in outputs.items():
                given.setdefault(name, []).append(tensor)
        return {name: torch.cat(tensors, dim=-1) for name, tensors in given.items()}

    def embed_negative(self) -> Tensors | None:
        """``embed`` of the negative prompt where ``is_guided``; for none zeros, where diffusers has them."""
        if not self.is_guided:
            return None
        prompt = self.options.negative_prompt
        negative = self.embed(self.token_ids([prompt]))
        if not prompt and self._pipeline.config.get("force_zeros_for_empty_prompt", False):
            return {name: torch.zeros_like(tensor) for name, tensor in negative.items()}
        return negative

    @property
    def init_noise_sigma(self) -> float:
        """What the first step's latents are scaled by."""
        if self.family is FLUX:
            return 1.0
        return float(self._scheduled().init_noise_sigma)

    def scheduler(self) -> Any:  # noqa: ANN401 # diffusers is untyped
        """A fresh scheduler of the chosen class with the model folder's settings."""
        import diffusers

        scheduler_class = getattr(diffusers, SCHEDULER_CLASSES[self.options.scheduler])
        return scheduler_class.from_config(self._pipeline.scheduler.config)

    def _scheduled(self) -> Any:  # noqa: ANN401 # diffusers is untyped
        scheduler = self.scheduler()
        with warnings.catch_warnings():
            # diffusers 0.42's Euler gives a torch tensor to numpy in a form that numpy 2 calls old
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            scheduler.set_timesteps(self.options.steps)
        return scheduler

    def denoise(
        self,
        noise: torch.Tensor,
        embeddings: Tensors,
        negative: Tensors | None,
        step_noise: Callable[[int], torch.Tensor],
        observe: Callable[[DenoiserCall], None],
        *,
        gradients: bool = False,
    ) -> torch.Tensor:
        """Run the whole schedule, as the pipeline's own ``__call__`` does for the same latents.

        Args:
            noise: [B, C, h, w] of deviation 1.
            embeddings: of the B prompts.
            negative: of the one negative prompt, when ``is_guided``.
            step_noise: fresh noise [B, C, h, w] for a step's index; asked only by LCM.
            observe: called after each step.
            gradients: the result takes them, with respect to whatever parameters require them. Every call of
                the denoiser is computed again when they flow back through it, so memory holds the activations
                of one call (checkpointing: Chen et al. 2016, arXiv 1604.06174).

        Returns:
            [B, C, h, w].
        """
        with torch.set_grad_enabled(gradients):
            if self.family is FLUX:
                return self._denoise_flux(noise, embeddings, observe)
            return self._denoise_stable_diffusion(noise, embeddings, negative, step_noise, observe)

    def run(self, component: Component, *inputs: torch.Tensor) -> Tensors:
        """The outputs of ``component`` by name, for ``inputs`` in its family's order, all on the CPU."""
        module = self.modules[component]
        given = [tensor.to(self._device) for tensor in inputs]
        result: torch.Tensor | tuple[torch.Tensor, ...]
        if torch.is_grad_enabled():
            result = checkpoint(module, *given, use_reentrant=False)
        else:
            result = module(*given)
        outputs = (result,) if isinstance(result, torch.Tensor) else result
        return {spec.name: tensor.cpu() for spec, tensor in zip(module.outputs, outputs, strict=True)}

    def _predict(self, inputs: Tensors) -> torch.Tensor:
        names = [spec.name for spec in self.modules[self.family.denoiser].inputs]
        return self.run(self.family.denoiser, *(inputs[name] for name in names))["prediction"]

    def _denoise_stable_diffusion(
        self,
        noise: torch.Tensor,
        embeddings: Tensors,
        negative: Tensors | None,
        step_noise: Callable[[int], torch.Tensor],
        observe: Callable[[DenoiserCall], None],
    ) -> torch.Tensor:
        constant = self._constant_inputs(embeddings)
        if negative is not None:
            negative_inputs = self._constant_inputs(negative)
            constant = {
                name: torch.cat([negative_inputs[name].expand_as(tensor), tensor])
                for name, tensor in constant.items()
            }
        scheduler = self._scheduled()
        latents: torch.Tensor = noise * scheduler.init_noise_sigma
        for step, time in enumerate(scheduler.timesteps):
            doubled = torch.cat([latents, latents]) if negative is not None else latents
            inputs = {
                "latent": scheduler.scale_model_input(doubled, time),
                "timestep": time.to(torch.float32).expand(len(doubled)),
                **constant,
            }
            prediction = self._predict(inputs)
            guided = prediction
            if negative is not None:
                away, towards = prediction.chunk(2)
                guided = away + self.options.guidance * (towards - away)
            latents = _step(scheduler, guided, step, latents, step_noise)
            observe(DenoiserCall(step, inputs, prediction, latents))
        return latents

    def _constant_inputs(self, embeddings: Tensors) -> Tensors:
        """What the UNet takes besides latent and time, the same in every step."""
        if self.family is not STABLE_DIFFUSION_XL:
            return embeddings
        size = (self.options.height, self.options.width)
        # the picture's own size, no crop, the size that is wanted, as StableDiffusionXLPipeline has it
        told = torch.tensor([*size, 0, 0, *size], dtype=torch.float32)
        return {**embeddings, "time_ids": told.expand(len(embeddings["text_states"]), -1)}

    def _denoise_flux(
        self, noise: torch.Tensor, embeddings: Tensors, observe: Callable[[DenoiserCall], None]
    ) -> torch.Tensor:
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        pipeline, options, steps = self._pipeline, self.options, self.options.steps
        B, C, h, w = noise.shape
        latents: torch.Tensor = pipeline._pack_latents(noise, B, C, h, w)
        scheduler = self.scheduler()
        config = scheduler.config
        shift = calculate_shift(
            latents.shape[1],
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        sigmas = None if config.get("use_flow_sigmas") else np.linspace(1.0, 1 / steps, steps)
        if sigmas is None:
            scheduler.set_timesteps(steps, mu=shift)
        else:
            scheduler.set_timesteps(sigmas=sigmas, mu=shift)
        constant = {
            "text_states": embeddings["text_states"],
            "pooled_states": embeddings["pooled_states"],
            "image_ids": pipeline._prepare_latent_image_ids(B, h // 2, w // 2, noise.device, noise.dtype),
            "text_ids": torch.zeros(embeddings["text_states"].shape[1], 3),
        }
        if pipeline.transformer.config.guidance_embeds:
            constant["guidance"] = torch.full([B], options.guidance)
        for step, time in enumerate(scheduler.timesteps):
            inputs = {"latent": latents, "timestep": time.to(noise.dtype).expand(B) / 1000, **constant}
            prediction = self._predict(inputs)
            latents = scheduler.step(prediction, time, latents, return_dict=False)[0]
            unpacked = self._unpack(latents)
            observe(DenoiserCall(step, inputs, prediction, unpacked))
        return self._unpack(latents)

    def _unpack(self, latents: torch.Tensor) -> torch.Tensor:
        pipeline, options = self._pipeline, self.options
        unpacked: torch.Tensor = pipeline._unpack_latents(
            latents, options.height, options.width, pipeline.vae_scale_factor
        )
        return unpacked

    def decoder_input(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents as the scheduler gives them, as the VAE decoder takes them."""
        config = self._pipeline.vae.config
        scaled: torch.Tensor = latents / config.scaling_factor + (config.shift_factor or 0.0)
        return scaled

    @torch.no_grad()
    def pictures(self, latents: torch.Tensor) -> npt.NDArray[np.uint8]:
        """[B, H, W, 3] of latents [B, C, h, w] as the scheduler gives them."""
        image = self.run(Component.VAE_DECODER, self.decoder_input(latents))["image"]
        unit = self._pipeline.image_processor.postprocess(image, output_type="np")
        pictures: npt.NDArray[np.uint8] = (unit * 255).round().astype(np.uint8)
        return pictures


def _device() -> torch.device:
    """Where the modules run; on CUDA in whole float32, and not in TF32, which keeps ten bits of it."""
    if not accelerator():
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ToolMissing(
            "torch",
            f"cannot use the {accelerator()} of this machine",
            "install the torch that fits its driver, or set CUDA_VISIBLE_DEVICES= to stay on the CPU",
        )
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


def _step(
    scheduler: Any,  # noqa: ANN401 # diffusers is untyped
    prediction: torch.Tensor,
    step: int,
    latents: torch.Tensor,
    step_noise: Callable[[int], torch.Tensor],
) -> torch.Tensor:
    """The scheduler's own step; LCM's noise is ours, since it would draw from torch's generator."""
    time = scheduler.timesteps[step]
    result = scheduler.step(prediction, time, latents)
    after: torch.Tensor = result.prev_sample
    if type(scheduler).__name__ == "LCMScheduler" and step + 1 < len(scheduler.timesteps):
        # diffusers, scheduling_lcm.py, step 7, with the noise given
        signal = scheduler.alphas_cumprod[scheduler.timesteps[step + 1]]
        after = signal.sqrt() * result.denoised + (1 - signal).sqrt() * step_noise(step)
    return after


def _load(family: Family, options: SamplingOptions) -> Any:  # noqa: ANN401 # diffusers is untyped
    import diffusers

    extras: dict[str, Any] = dict.fromkeys(family.unloaded)
    if options.checkpoint is not None:
        extras |= modules_from_checkpoint(options.model_root, options.checkpoint)
    with quiet_loading():
        try:
            pipeline = getattr(diffusers, family.pipeline_class).from_pretrained(
                options.model_root,
                dtype=torch.float16,
                use_safetensors=True,
                local_files_only=True,
                **extras,
            )
            pipeline.to(torch.float32)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ModelError(
                str(options.model_root),
                f"diffusers cannot load it: {error}",
                "check that it loads with from_pretrained",
            ) from error
        _fuse(pipeline, options.loras)
    return pipeline


def _fuse(pipeline: Any, loras: Sequence[LoraFile]) -> None:  # noqa: ANN401 # diffusers is untyped
    """Let diffusers and peft fuse the adapters, all at once and each with its scale."""
    if not loras:
        return
    names = [f"adapter_{place}" for place in range(len(loras))]
    for name, lora in zip(names, loras, strict=True):
        try:
            pipeline.load_lora_weights(lora.path.parent, weight_name=lora.path.name, adapter_name=name)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ModelError(
                str(lora.path), f"diffusers cannot load it as a LoRA: {error}", "check where it was trained"
            ) from error
        if not any(name in found for found in pipeline.get_list_adapters().values()):
            raise ModelError(
                str(lora.path), "matches no layer of this model", "use a LoRA made for this model"
            )
    pipeline.set_adapters(names, [lora.scale for lora in loras])
    pipeline.fuse_lora(adapter_names=names)
    pipeline.unload_lora_weights()


def _token_ids(
    tokenizer: Any,  # noqa: ANN401 # transformers is untyped
    prompts: Sequence[str],
    limit: int,
) -> npt.NDArray[np.int64]:
    """Ids padded to the tokenizer's own length, or ``limit`` where that is smaller and not 0."""
    length = tokenizer.model_max_length
    encoded = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=min(length, limit or length),
        truncation=True,
        return_tensors="np",
    )
    return np.asarray(encoded.input_ids, dtype=np.int64)
