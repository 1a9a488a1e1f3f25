"""A real bundle of the smallest graphs that do a pipeline's work, to open, damage and draw with.

text_encoder looks tokens up in a table, unet mixes latent, timestep and prompt through a MatMul, and
vae_decoder is one transposed convolution. Latent pixels are 4 pixels wide.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from latentc.recipes.target import Runtime, target_named
from latentc.runtime.bundle import write_manifest
from latentc.runtime.manifest import (
    ComponentEntry,
    LatentEntry,
    Manifest,
    SamplingEntry,
    SchedulerEntry,
    TensorEntry,
    TokenizerEntry,
)

TOKENS, WIDTH, CHANNELS, DOWNSCALE = 8, 16, 4, 4
WORDS = ("<pad>", "<start>", "<end>", "a", "red", "blue", "circle", "square", "above")

_NUMPY: dict[int, type[np.generic]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.INT64: np.int64,
}
_LATENT = ("B", CHANNELS, "h", "w")


def write_small_bundle(folder: Path, target: str = "onnx") -> Manifest:
    """Write a bundle for ``target`` into ``folder`` (made when missing) and return its manifest.

    Engines' targets get float16 graphs, as the real ones do, and no engine; the unet's weights are external.
    """
    runtime = target_named(target).runtime
    on_engine = runtime is not Runtime.ONNXRUNTIME
    float_type = TensorProto.FLOAT16 if on_engine else TensorProto.FLOAT
    random = np.random.default_rng(2)
    components = {
        "text_encoder": _text_encoder(random, float_type),
        "unet": _unet(random, float_type),
        "vae_decoder": _vae_decoder(random, float_type),
    }
    entries = {}
    for name, model in components.items():
        (folder / name).mkdir(parents=True)
        save_model(model, folder / name / "model.onnx", external=name == "unet")
        onnx_file = f"{name}/model.onnx"
        file = f"{name}/model.engine" if on_engine else onnx_file
        entries[name] = ComponentEntry(
            file, onnx_file if on_engine else "", *_tensors(model), *(100, 50, 160, 200)
        )
    (folder / "tokenizer").mkdir()
    _tokenizer().save(str(folder / "tokenizer" / "tokenizer.json"))
    return write_manifest(
        folder,
        Manifest(
            name="small",
            target=target,
            family="stable-diffusion",
            runtime=str(runtime),
            components=entries,
            tokenizers={"tokenizer": TokenizerEntry("tokenizer/tokenizer.json", TOKENS, 0)},
            scheduler=SchedulerEntry("DDIMScheduler", {"clip_sample": False, "steps_offset": 1}),
            sampling=SamplingEntry(3, 2.0, 32, 24),
            latent=LatentEntry(CHANNELS, DOWNSCALE, 0.5, 0.0),
            recipe={"name": "small"},
            toolchain={"onnx": onnx.__version__},
            simulated=(),
        ),
    )


def save_model(model: onnx.ModelProto, path: Path, *, external: bool) -> None:
    """Write ``model``, its weights beside it in ``<name>.data`` when ``external``."""
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(
        model,
        path,
        save_as_external_data=external,
        location=f"{path.name}.data",
        size_threshold=64,  # onnxruntime wants axes and the like inside the graph
    )


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, tuple[int | str, ...]]],
    outputs: dict[str, tuple[int, tuple[int | str, ...]]],
    weights: dict[str, np.typing.NDArray[np.generic]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _text_encoder(random: np.random.Generator, float_type: int) -> onnx.ModelProto:
    table = random.standard_normal((len(WORDS), WIDTH)).astype(_NUMPY[float_type])
    return _model(
        [helper.make_node("Gather", ["table", "token_ids"], ["text_states"])],
        {"token_ids": (TensorProto.INT64, ("B", TOKENS))},
        {"text_states": (float_type, ("B", TOKENS, WIDTH))},
        {"table": table},
    )


def _unet(random: np.random.Generator, float_type: int) -> onnx.ModelProto:
    real = _NUMPY[float_type]
    nodes = [
        helper.make_node("ReduceMean", ["text_states", "token_axis"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "project"], ["words"]),
        helper.make_node("Unsqueeze", ["words", "pixel_axes"], ["words_4d"]),
        helper.make_node("Mul", ["timestep", "tempo"], ["beat"]),
        helper.make_node("Unsqueeze", ["beat", "all_axes"], ["beat_4d"]),
        helper.make_node("Conv", ["latent", "kernel"], ["mixed"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["mixed", "words_4d"], ["told"]),
        helper.make_node("Add", ["told", "beat_4d"], ["timed"]),
        helper.make_node("Tanh", ["timed"], ["prediction"]),
    ]
    return _model(
        nodes,
        {
            "latent": (float_type, _LATENT),
            "timestep": (float_type, ("B",)),
            "text_states": (float_type, ("B", TOKENS, WIDTH)),
        },
        {"prediction": (float_type, _LATENT)},
        {
            "token_axis": np.array([1], np.int64),
            "pixel_axes": np.array([2, 3], np.int64),
            "all_axes": np.array([1, 2, 3], np.int64),
            "tempo": np.array(0.001, real),
            "project": random.standard_normal((WIDTH, CHANNELS)).astype(real),
            "kernel": (0.3 * random.standard_normal((CHANNELS, CHANNELS, 3, 3))).astype(real),
        },
    )


def _vae_decoder(random: np.random.Generator, float_type: int) -> onnx.ModelProto:
    kernel = (0.3 * random.standard_normal((CHANNELS, 3, DOWNSCALE, DOWNSCALE))).astype(_NUMPY[float_type])
    node = helper.make_node("ConvTranspose", ["latent", "kernel"], ["image"], strides=[DOWNSCALE, DOWNSCALE])
    return _model(
        [node],
        {"latent": (float_type, _LATENT)},
        {"image": (float_type, ("B", 3, "H", "W"))},
        {"kernel": kernel},
    )


def _tensors(model: onnx.ModelProto) -> tuple[tuple[TensorEntry, ...], tuple[TensorEntry, ...]]:
    def entries(values: object) -> tuple[TensorEntry, ...]:
        return tuple(
            TensorEntry(
                value.name,
                np.dtype(_NUMPY[value.type.tensor_type.elem_type]).name,
                tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim),
            )
            for value in values  # type: ignore[attr-defined] # a protobuf container
        )

    return entries(model.graph.input), entries(model.graph.output)


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    return tokenizer
