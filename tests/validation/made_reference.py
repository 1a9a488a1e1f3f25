"""A reference folder made by a bundle itself, so that the bundle against it is equal to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.runtime.small_bundle import save_model, write_small_bundle

from latentc.recipes.family import Component
from latentc.runtime.bundle import Bundle, open_bundle, write_manifest
from latentc.runtime.generate import open_pipeline
from latentc.runtime.noise import initial_latent
from latentc.runtime.picture import pixels_from_image, save_png
from latentc.runtime.pipeline import Pipeline, Step
from latentc.validation.prompts import read_prompts

SIDE_PIXELS = 32
STEPS = 3
GUIDANCE = 2.0
TRAJECTORIES = 2


def small_bundle(folder: Path, target: str = "onnx", disturbance: float = 0.0) -> Bundle:
    """The small bundle, its denoiser's weights moved by ``disturbance`` of their own size."""
    manifest = write_small_bundle(folder, target)
    if disturbance:
        path = folder / "unet" / "model.onnx"
        model = onnx.load(path)
        random = np.random.default_rng(7)
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if tensor.name in ("kernel", "project"):
                moved = array + disturbance * array.std() * random.standard_normal(array.shape)
                tensor.CopyFrom(numpy_helper.from_array(moved.astype(array.dtype), tensor.name))
        (folder / "unet" / "model.onnx.data").unlink()
        save_model(model, path, external=True)
        write_manifest(folder, manifest)
    return open_bundle(folder)


def write_reference(folder: Path, bundle: Bundle, prompts: int = 4, *, clip: bool = True) -> Path:
    """What ``bundle`` draws, as if it were the original; ``clip`` adds a graph of mean colours."""
    texts = read_prompts("demo:shapes", prompts, folder)
    (folder / "pictures").mkdir(parents=True)
    (folder / "components").mkdir()
    latents = initial_latent(
        range(prompts), bundle.manifest.latent.channels, SIDE_PIXELS // 4, SIDE_PIXELS // 4
    )
    with open_pipeline(bundle, stand_in=True) as pipeline:
        states = pipeline.encode_text(texts).text_states
        negative = pipeline.encode_text([""])
        trajectory, finals, seen = [], [], []
        for index in range(prompts):
            steps: list[Step] = []
            final = pipeline.denoise(
                latents[index : index + 1],
                pipeline.encode_text([texts[index]]),
                negative=negative,
                steps=STEPS,
                guidance=GUIDANCE,
                observer=steps.append,
            )
            trajectory.append(np.stack([latents[index], *(step.latent[0] for step in steps)]))
            finals.append(final[0])
            seen += steps
            save_png(pixels_from_image(pipeline.decode(final))[0], folder / "pictures" / f"{index:04d}.png")
        _write_components(folder, pipeline, seen, np.stack(finals))
    np.savez(folder / "initial_latents.npz", latents=latents)
    np.savez(folder / "final_latents.npz", latents=np.stack(finals))
    np.savez(folder / "trajectory.npz", latents=np.stack(trajectory[:TRAJECTORIES]))
    np.savez(folder / "token_ids.npz", tokenizer=np.zeros((prompts, 8), np.int64))
    _save(folder / "embeddings.npz", {"text_states": states, "negative.text_states": negative.text_states})
    if clip:
        _write_clip(folder, prompts)
    description = {
        "format": 1,
        "family": bundle.family.name,
        "prompts": list(texts),
        "seeds": list(range(prompts)),
        "negative_prompt": "",
        "steps": STEPS,
        "guidance": GUIDANCE,
        "height": SIDE_PIXELS,
        "width": SIDE_PIXELS,
        "trajectory_prompts": TRAJECTORIES,
        "toolchain": {"torch": "2.13.0"},
    }
    (folder / "reference.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def _write_components(
    folder: Path, pipeline: Pipeline, steps: list[Step], finals: npt.NDArray[np.float32]
) -> None:
    token_ids = np.arange(24, dtype=np.int64).reshape(3, 8) % 9
    golden = {
        Component.TEXT_ENCODER: {"token_ids": token_ids},
        Component.UNET: {
            name: np.concatenate([step.inputs[name] for step in steps]) for name in steps[0].inputs
        },
        Component.VAE_DECODER: {"latent": finals},
    }
    for component, inputs in golden.items():
        rows = len(next(iter(inputs.values())))
        outputs = [
            pipeline.run(component, {name: array[row : row + 1] for name, array in inputs.items()})
            for row in range(rows)
        ]
        _save(
            folder / "components" / f"{component}.npz",
            {f"input.{name}": array for name, array in inputs.items()}
            | {f"output.{name}": np.concatenate([output[name] for output in outputs]) for name in outputs[0]},
        )


def _save(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type] # numpy's stub takes every keyword for allow_pickle


def _write_clip(folder: Path, prompts: int) -> None:
    """'CLIP' whose features are mean colours of 8×8 fields: real to onnxruntime, and enough to compare by."""
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["pixels"], ["fields"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Flatten", ["fields"], ["features"]),
        ],
        "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ("B", 3, 32, 32))],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ("B", 48))],
    )
    (folder / "clip" / "vision").mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    save_model(model, folder / "clip" / "vision" / "model.onnx", external=False)
    preprocess = {"side_pixels": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    (folder / "clip" / "preprocess.json").write_text(json.dumps(preprocess), encoding="utf-8")
    random = np.random.default_rng(3).standard_normal((prompts, 48)).astype(np.float32)
    features = random / np.linalg.norm(random, axis=1, keepdims=True)
    np.savez(folder / "clip.npz", text_features=features)
