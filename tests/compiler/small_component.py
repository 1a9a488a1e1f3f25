"""A component model folder small enough to convert and build in a second, with every form that matters:
an INT4 linear with bias and low-rank branch, an INT8 convolution between Q/DQ pairs, and a float linear.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from ml_dtypes import int4, uint4
from numpy.typing import NDArray
from onnx import helper, numpy_helper

K, N, R, C, TOKENS = 128, 64, 8, 16, 12

Arrays = dict[str, NDArray[np.generic]]


def small_component(
    *,
    block: int = 64,
    axis: int = 0,
    unsigned: bool = False,
    transposed: bool = False,
    float_type: type[np.float32] | type[np.float16] = np.float32,
    opset: int = 21,
    seed: int = 0,
) -> onnx.ModelProto:
    """``prediction`` from ``latent`` and ``text_states``.

    Args:
        block: of the INT4 weight.
        axis: that the blocks run along.
        unsigned: UINT4 with a zero point of 8.
        transposed: the INT4 weight goes through a Transpose, which no runtime fuses.
        float_type: of everything that is not quantized.
        opset: of the graph.
        seed: of the weights.
    """
    random = np.random.default_rng(seed)
    codes = random.integers(-7, 8, (N, K) if transposed else (K, N))
    scales = list(codes.shape)
    scales[axis] //= block
    arrays: Arrays = {
        "proj.weight.codes": (codes + 8).astype(uint4) if unsigned else codes.astype(int4),
        "proj.weight.steps": random.uniform(0.01, 0.03, scales).astype(float_type),
        "proj.bias": random.standard_normal(N).astype(float_type),
        "proj.weight.right": (0.05 * random.standard_normal((K, R))).astype(float_type),
        "proj.weight.left": (0.05 * random.standard_normal((R, N))).astype(float_type),
        "head.weight": (0.1 * random.standard_normal((N, C))).astype(float_type),
        "conv.weight.codes": random.integers(-127, 128, (C, 4, 3, 3)).astype(np.int8),
        "conv.weight.steps": np.full(C, 0.01, float_type),
        "conv.weight.zeros": np.zeros(C, np.int8),
        "conv.bias": (0.05 * random.standard_normal(C)).astype(float_type),
        "latent.step": np.array(0.05, float_type),
        "conv.step": np.array(0.08, float_type),
        "zero": np.array(0, np.int8),
        "token_axis": np.array([1], np.int64),
        "pixel_axes": np.array([2, 3], np.int64),
    }
    if unsigned:
        arrays["proj.weight.zeros"] = np.full(scales, 8).astype(uint4)
    zeros = ["proj.weight.zeros"] if unsigned else []
    weight = "proj.weight.upright" if transposed else "proj.weight"
    nodes = [
        _node("QuantizeLinear", ["latent", "latent.step", "zero"], "latent.codes"),
        _node("DequantizeLinear", ["latent.codes", "latent.step", "zero"], "latent.rounded"),
        _node(
            "DequantizeLinear",
            ["conv.weight.codes", "conv.weight.steps", "conv.weight.zeros"],
            "conv.weight",
            axis=0,
        ),
        _node(
            "Conv", ["latent.rounded", "conv.weight", "conv.bias"], "conv", pads=[1] * 4, kernel_shape=[3, 3]
        ),
        _node("QuantizeLinear", ["conv", "conv.step", "zero"], "conv.codes"),
        _node("DequantizeLinear", ["conv.codes", "conv.step", "zero"], "conv.rounded"),
        _node(
            "DequantizeLinear",
            ["proj.weight.codes", "proj.weight.steps", *zeros],
            "proj.weight",
            axis=axis,
            block_size=block,
        ),
        *([_node("Transpose", ["proj.weight"], weight, perm=[1, 0])] if transposed else []),
        _node("MatMul", ["text_states", weight], "proj.product"),
        _node("Add", ["proj.product", "proj.bias"], "proj.plain"),
        _node("MatMul", ["text_states", "proj.weight.right"], "proj.inner"),
        _node("MatMul", ["proj.inner", "proj.weight.left"], "proj.branch"),
        _node("Add", ["proj.plain", "proj.branch"], "proj"),
        _node("ReduceMean", ["proj", "token_axis"], "words", keepdims=0),
        _node("MatMul", ["words", "head.weight"], "head"),
        _node("Unsqueeze", ["head", "pixel_axes"], "head.pixels"),
        _node("Add", ["conv.rounded", "head.pixels"], "prediction"),
    ]
    for node in nodes:
        if node.output[0] in ("proj.inner", "proj.branch"):
            node.metadata_props.add(key="latentc.branch_of", value="proj.weight")
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(float_type))
    graph = helper.make_graph(
        nodes,
        "unet",
        [
            helper.make_tensor_value_info("latent", kind, ["B", 4, "h", "w"]),
            helper.make_tensor_value_info("text_states", kind, ["B", "T", K]),
        ],
        [helper.make_tensor_value_info("prediction", kind, ["B", C, "h", "w"])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def save_component(model: onnx.ModelProto, folder: Path) -> Path:
    """Write ``model`` as a component model folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(
        model,
        folder / "model.onnx",
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=64,
    )
    return folder


def small_inputs(batch: int = 2) -> dict[str, NDArray[np.float32]]:
    """Inputs of the small component, the same for the same batch."""
    random = np.random.default_rng(1)
    return {
        "latent": random.standard_normal((batch, 4, 8, 8)).astype(np.float32),
        "text_states": random.standard_normal((batch, TOKENS, K)).astype(np.float32),
    }


def _node(operator: str, inputs: list[str], output: str, **attributes: int | list[int]) -> onnx.NodeProto:
    node = helper.make_node(operator, inputs, [output], name=output)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return node
