"""Peer: one step of what another tool needs for an INT4 denoiser: ``peer_child.py STEP ARGUMENTS``.

    export PIPELINE OUT      torch's own exporter on the loaded denoiser, float32, static shapes
    nncf ONNX OUT            NNCF's compress_weights, INT4 in groups of 64, nothing left in 8 bits
    olive ONNX OUT           Olive's OnnxBlockWiseRtnQuantization, blocks of 64
    modelopt ONNX OUT        Model Optimizer's INT4, rtn_dq, blocks of 64
    load ONNX                onnxruntime opens and runs the model once

It imports nothing of latentc, so that it runs in the environment of the peer; OUT is a model file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

GROUP = 64


def export(pipeline: str, out: str) -> None:
    """Export the denoiser of a pipeline as its documentation says: load it, give it to torch."""
    import json

    import diffusers
    import torch

    index = json.loads((Path(pipeline) / "model_index.json").read_text())
    class_name = index["unet"][1]
    unet = getattr(diffusers, class_name).from_pretrained(
        pipeline, subfolder="unet", torch_dtype=torch.float32
    )
    latent = torch.randn(1, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    text = torch.randn(1, 77, unet.config.cross_attention_dim)
    timestep = torch.tensor([500.0])
    arguments: dict[str, object] = {"sample": latent, "timestep": timestep, "encoder_hidden_states": text}
    if unet.config.addition_embed_type == "text_time":
        pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
        arguments["added_cond_kwargs"] = {
            "text_embeds": torch.randn(1, pooled),
            "time_ids": torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]]),
        }
    with torch.no_grad():
        program = torch.onnx.export(unet.eval(), kwargs=arguments, dynamo=True, opset_version=20)
    if program is None:
        raise SystemExit("the exporter returned nothing")
    program.save(out, external_data=True)


def nncf(source: str, out: str) -> None:
    """Compress the weights of an ONNX model without data."""
    import nncf as library
    import onnx
    from nncf.onnx.quantization.backend_parameters import BackendParameters

    # without external data, which NNCF reads itself when it needs it
    model = onnx.load(source, load_external_data=False)
    compressed = library.compress_weights(
        model,
        mode=library.CompressWeightsMode.INT4_SYM,
        group_size=GROUP,
        ratio=1.0,
        all_layers=True,
        advanced_parameters=library.AdvancedCompressionParameters(
            backend_params={BackendParameters.EXTERNAL_DATA_DIR: str(Path(source).parent)}
        ),
    )
    onnx.save(compressed, out, save_as_external_data=True, location=f"{Path(out).name}.data")


def olive(source: str, out: str) -> None:
    """Round an ONNX model's weights to nearest."""
    from olive.hardware.accelerator import DEFAULT_CPU_ACCELERATOR
    from olive.model import ONNXModelHandler
    from olive.passes.olive_pass import create_pass_from_dict
    from olive.passes.onnx.rtn_quantization import OnnxBlockWiseRtnQuantization

    step = create_pass_from_dict(
        OnnxBlockWiseRtnQuantization,
        {"bits": 4, "block_size": GROUP, "is_symmetric": True, "save_as_external_data": True},
        disable_search=True,
        accelerator_spec=DEFAULT_CPU_ACCELERATOR,
    )
    step.run(ONNXModelHandler(source), out)


def modelopt(source: str, out: str) -> None:
    """Round an ONNX model's weights to nearest, as DequantizeLinear."""
    import onnx
    from modelopt.onnx.quantization.int4 import quantize

    model = quantize(onnx.load(source), calibration_method="rtn_dq", block_size=GROUP)
    onnx.save(model, out, save_as_external_data=True, location=f"{Path(out).name}.data")


def load(source: str) -> None:
    """Run the model once on zeros; fails when onnxruntime refuses it or the output is not finite."""
    import numpy as np
    import onnxruntime

    usual = {"B": 1, "h": 64, "w": 64, "T": 77}
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    inputs = {
        value.name: np.zeros(
            [size if isinstance(size, int) else usual[size] for size in value.shape], np.float32
        )
        for value in session.get_inputs()
    }
    output = session.run(None, inputs)[0]
    if not np.isfinite(output).all():
        raise SystemExit("the output is not finite")
    sys.stdout.write(f"runs: {output.shape}\n")


STEPS: Mapping[str, Callable[..., None]] = {
    "export": export,
    "nncf": nncf,
    "olive": olive,
    "modelopt": modelopt,
    "load": load,
}

if __name__ == "__main__":
    STEPS[sys.argv[1]](*sys.argv[2:])
