"""NNCF bridge: the only file that knows NNCF. Arrays in, arrays out.

NNCF's own ONNX rewriting is not used: it places blocked scales on the wrong axis for Gemm(transB), gives
convolution scales a shape that runtimes refuse, and keeps float32 scales in float16 graphs (measured with
3.4.0). Its tensor functions and its calibration are right, so these serve, and our passes build the nodes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latentc.errors import ToolMissing
from latentc.passes.weights import Floats

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
