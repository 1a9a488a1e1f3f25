"""NNCF bridge: the only file that knows NNCF. Arrays in, arrays out.

NNCF's own ONNX rewriting is not used: it places blocked scales on the wrong axis for Gemm(transB), gives
convolution scales a shape that runtimes refuse, and keeps float32 scales in float16 graphs (measured with
3.4.0). Its tensor functions and its calibration are right, so these serve, and our passes build the nodes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latentc.errors import ToolMissing
from latentc.passes.weights import Array, Floats

if TYPE_CHECKING:
    from nncf.quantization.algorithms.weight_compression.config import WeightCompressionConfig


@contextmanager
def _silent() -> Iterator[None]:
    """Import and call NNCF without its log lines and without its telemetry."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"  # read once, when nncf is imported: with it no telemetry session is opened
    try:
        import nncf  # noqa: F401 # the first import is the one that reads the variable
    except ImportError as error:
        raise ToolMissing.package("nncf", "compile") from error
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _int4_config(group: int) -> WeightCompressionConfig:
    from nncf import CompressWeightsMode
    from nncf.quantization.algorithms.weight_compression.config import WeightCompressionConfig

    return WeightCompressionConfig(mode=CompressWeightsMode.INT4_SYM, group_size=group)


def int4_steps(weight: Floats, group: int) -> Floats:
    """NNCF's step sizes of ``weight`` for symmetric INT4: largest magnitude of each group / 8, signed.

    Args:
        weight: [K, N] float32, K a multiple of ``group``.
        group: consecutive weights along K that share a step.

    Returns:
        [K / group, N] float32, never zero; negative where the largest weight of the group is positive.
    """
    with _silent():
        from nncf.quantization.algorithms.weight_compression.weight_lowering import (
            calculate_integer_quantization_params,
            reshape_weight_for_grouped_quantization,
        )
        from nncf.tensor import Tensor

        grouped, axis = reshape_weight_for_grouped_quantization(Tensor(weight), (0,), group)
        steps, _ = calculate_integer_quantization_params(grouped, axis, _int4_config(group))
    K, N = weight.shape
    return np.asarray(steps.data, dtype=np.float32).reshape(K // group, N)


def estimated_int4_steps(weight: Floats, rows: Floats, group: int) -> Floats:
    """Sizes of the steps that NNCF's scale estimation finds for symmetric INT4.

    NNCF gives steps a sign to reach the sixteenth level; here they come without, as runtimes want them.

    Args:
        weight: [K, N] float32, K a multiple of ``group``.
        rows: [R, K], what the weight is multiplied with; all of them are used.
        group: consecutive weights along K that share a step.

    Returns:
        [K / group, N] float32, 0 and up.
    """
    with _silent():
        from nncf.common.tensor_statistics.statistics import WCTensorStatistic
        from nncf.quantization.algorithms.weight_compression.scale_estimation import ScaleEstimation
        from nncf.tensor import Tensor

        given = WCTensorStatistic([Tensor(row) for row in rows], [(1, rows.shape[1])] * len(rows))
        steps, _ = ScaleEstimation.calculate_quantization_params(
            given, Tensor(weight), (0,), _int4_config(group), subset_size=len(rows)
        )
    K, N = weight.shape
    return np.abs(np.asarray(steps.data, dtype=np.float32).reshape(K // group, N))


def int4_codes(weight: Floats, steps: Floats, group: int) -> NDArray[np.int8]:
    """NNCF's INT4 codes of ``weight`` for given step sizes.

    Args:
        weight: [K, N] float32.
        steps: [K / group, N] float32, not zero.
        group: consecutive weights along K that share a step.

    Returns:
        [K, N], each from -8 to 7, with ``codes * steps`` nearest to ``weight``.
    """
    with _silent():
        from nncf.quantization.algorithms.weight_compression.parameters import CompressedWeight
        from nncf.quantization.algorithms.weight_compression.weight_lowering import compress_weight
        from nncf.tensor import Tensor

        given = CompressedWeight(None, Tensor(steps[:, None, :]), None)
        compressed = compress_weight(Tensor(weight), (0,), _int4_config(group), given)
    return np.asarray(compressed.tensor.data, dtype=np.int8).reshape(weight.shape)


@dataclass(frozen=True)
class ActivationSteps:
    """What NNCF's calibration found out about a graph's convolutions.

    Args:
        steps: by the name of a tensor that a Conv reads: its step for symmetric int8.
        biases: by name: the bias with NNCF's correction of the shift that rounding causes.
    """

    steps: Mapping[str, float]
    biases: Mapping[str, Floats]


def calibrated_convolutions(
    folder: Path, samples: Sequence[Mapping[str, Array]], correct_biases: bool
) -> ActivationSteps:
    """Run NNCF's post-training quantization on the Convs of ``folder``'s float32 graph and read its result.

    Args:
        folder: holds ``model.onnx`` and its data; every value of the graph has its type.
        samples: inputs of the graph by name; all of them are used.
        correct_biases: let NNCF correct biases.
    """
    with _silent():
        import nncf
        import onnx
        from nncf.onnx.quantization.backend_parameters import BackendParameters
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters

        model = onnx.load(folder / "model.onnx", load_external_data=False)
        others = sorted({node.op_type for node in model.graph.node} - {"Conv"})
        quantized = nncf.quantize(
            model,
            nncf.Dataset(samples),
            preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric, which TensorRT asks for
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(types=others, validate=False),
            advanced_parameters=AdvancedQuantizationParameters(
                disable_bias_correction=not correct_biases,
                backend_params={BackendParameters.EXTERNAL_DATA_DIR: str(folder)},
            ),
        )
        constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
        steps: dict[str, float] = {}
        biases: dict[str, Floats] = {}
        for node in quantized.graph.node:
            if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
                step = onnx.numpy_helper.to_array(constants[node.input[1]], str(folder))
                steps[node.input[0]] = float(step.reshape(()))
            elif node.op_type == "Conv" and len(node.input) > 2 and node.input[2] in constants:
                bias = onnx.numpy_helper.to_array(constants[node.input[2]], str(folder))
                biases[node.input[2]] = bias.astype(np.float32)
    return ActivationSteps(steps, biases)
