"""Probe: ten seconds in which this machine shows how fast it reads, writes, multiplies and rounds.

Each figure is the best of some tries, in seconds of the processor: what others do on the machine meanwhile
does not count against it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from latentc.compiler.forecast.machine import Speeds
from latentc.compiler.toolchain import threads
from latentc.passes.int4_weight import best_steps
from latentc.passes.one_thread import one_thread
from latentc.passes.weights import Array

_TRY_S = 0.35
"""How long each thing is tried; at least twice."""
_FILE_BYTES = 192 * 2**20
_ROWS, _K, _N = 512, 1024, 1024
_CHANNELS, _SIDE = 256, 32
_HEADS, _TOKENS, _HEAD = 8, 1024, 64
_GROUP = 64


def probe(folder: Path) -> Speeds:
    """Measure this machine.

    Args:
        folder: on the disk that matters; a file of 200 MB is written there and removed.

    Raises:
        OSError: the disk is full.
    """
    read_s, write_s = _disk_seconds(folder)
    generator = np.random.default_rng(0)
    block = generator.standard_normal(2**24, dtype=np.float32)
    copy = np.empty_like(block)
    symmetric = generator.standard_normal((512, 512))
    symmetric += symmetric.T
    weight = generator.standard_normal((1024, 1024), dtype=np.float32)
    with one_thread():
        eigh_s = _best(lambda: np.linalg.eigh(symmetric))
        round_s = _best(lambda: best_steps(weight, _GROUP))
    speeds = {
        "disk_read_gb_s": _FILE_BYTES / read_s / 1e9,
        "disk_write_gb_s": _FILE_BYTES / write_s / 1e9,
        "memory_gb_s": 2 * block.nbytes / _best(lambda: np.copyto(copy, block)) / 1e9,
        "python_ns": _best(_turns) / _TURNS * 1e9,
        "eigh_s": eigh_s,
        "round_s": round_s,
    }
    return Speeds(**speeds, **_torch_gops(), **_ort_gops(generator))


def _best(work: Callable[[], object], cores: int = 1) -> float:
    """Seconds of the quickest of some tries, of the processor: of ``cores`` that share the work evenly."""
    work()
    tries: list[float] = []
    while sum(tries) < _TRY_S or len(tries) < 2:
        began = time.process_time()
        work()
        tries.append((time.process_time() - began) / cores)
    return min(tries)


_TURNS = 200_000


def _turns() -> int:
    total = 0
    for turn in range(_TURNS):
        total += _turn(turn)
    return total


def _turn(number: int) -> int:
    return number & 1


def _disk_seconds(folder: Path) -> tuple[float, float]:
    """To read and to write _FILE_BYTES."""
    content = np.random.default_rng(0).bytes(2**24)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="probe-") as file:
        began = time.perf_counter()
        for _ in range(_FILE_BYTES // len(content)):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
        write_s = time.perf_counter() - began
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        began = time.perf_counter()
        while file.read(len(content)):
            pass
        return time.perf_counter() - began, write_s


def _torch_gops() -> dict[str, float]:
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads())
    with torch.no_grad():
        x, w = torch.randn(_ROWS, _K), torch.randn(_N, _K)
        image, kernel = torch.randn(1, _CHANNELS, _SIDE, _SIDE), torch.randn(_CHANNELS, _CHANNELS, 3, 3)
        query = torch.randn(1, _HEADS, _TOKENS, _HEAD)
        linear_s = _best(lambda: functional.linear(x, w), threads())
        convolution_s = _best(lambda: functional.conv2d(image, kernel, padding=1), threads())
        attention_s = _best(lambda: functional.scaled_dot_product_attention(query, query, query), threads())
    return {
        "torch_linear_gops": _LINEAR / linear_s / 1e9,
        "torch_convolution_gops": _CONVOLUTION / convolution_s / 1e9,
        "torch_attention_gops": _ATTENTION / attention_s / 1e9,
    }


_Options: TypeAlias = "dict[str, int | list[int]]"
_Node: TypeAlias = "tuple[str, list[str], list[str], _Options]"

_MICROSOFT = ("MatMulNBits", "MatMulIntegerToFloat", "MultiHeadAttention")
"""Operators that only onnxruntime has."""
_LINEAR = 2 * _ROWS * _K * _N
_CONVOLUTION = 2 * _CHANNELS**2 * 9 * _SIDE**2
_ATTENTION = 4 * _HEADS * _TOKENS**2 * _HEAD


def _ort_gops(generator: np.random.Generator) -> dict[str, float]:
    from onnx import TensorProto, helper, numpy_helper

    from latentc.runtime.onnxruntime_session import OnnxruntimeSession

    def seconds(
        nodes: list[_Node],
        shape: tuple[int, ...],
        stored: dict[str, Array],
    ) -> float:
        made = [
            helper.make_node(
                op,
                takes,
                gives,
                domain="com.microsoft" if op in _MICROSOFT else "",
                **options,  # type: ignore[arg-type] # attributes, not the named arguments before them
            )
            for op, takes, gives, options in nodes
        ]
        graph = helper.make_graph(
            made,
            "probe",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in stored.items()],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        x = generator.standard_normal(shape, dtype=np.float32)
        with OnnxruntimeSession("probe", model.SerializeToString(), threads=threads()) as session:
            return _best(lambda: session.run({"x": x}), threads())

    def nbits(bits: int) -> float:
        blocks = _K // _GROUP
        stored: dict[str, Array] = {
            "w": generator.integers(0, 255, (_N, blocks, _GROUP * bits // 8), dtype=np.uint8),
            "s": np.full((_N, blocks), 0.01, np.float32),
        }
        options: _Options = {
            "K": _K,
            "N": _N,
            "bits": bits,
            "block_size": _GROUP,
            "accuracy_level": 4,
        }
        return seconds([("MatMulNBits", ["x", "w", "s"], ["y"], options)], (_ROWS, _K), stored)

    kernel = generator.standard_normal((_CHANNELS, _CHANNELS, 3, 3), dtype=np.float32)
    pads: _Options = {"pads": [1, 1, 1, 1]}
    picture = (1, _CHANNELS, _SIDE, _SIDE)
    attention: list[_Node] = [
        ("Transpose", ["x"], ["t"], {"perm": [0, 1, 3, 2]}),
        ("MatMul", ["x", "t"], ["scores"], {}),
        ("Softmax", ["scores"], ["shares"], {"axis": -1}),
        ("MatMul", ["shares", "x"], ["y"], {}),
    ]
    fused: list[_Node] = [("MultiHeadAttention", ["x", "x", "x"], ["y"], {"num_heads": _HEADS})]
    product: list[_Node] = [
        ("DynamicQuantizeLinear", ["x"], ["q", "step", "zero"], {}),
        ("MatMulIntegerToFloat", ["q", "w", "step", "scale", "zero"], ["y"], {}),
    ]
    weight = generator.standard_normal((_K, _N), dtype=np.float32)
    codes: dict[str, Array] = {
        "w": generator.integers(-127, 127, (_K, _N), dtype=np.int8),
        "scale": np.full(_N, 0.01, np.float32),
    }
    return {
        "ort_linear_gops": _LINEAR
        / seconds([("MatMul", ["x", "w"], ["y"], {})], (_ROWS, _K), {"w": weight})
        / 1e9,
        "ort_int4_gops": _LINEAR / nbits(4) / 1e9,
        "ort_int8_gops": _LINEAR / nbits(8) / 1e9,
        "ort_convolution_gops": _CONVOLUTION
        / seconds([("Conv", ["x", "w"], ["y"], pads)], picture, {"w": kernel})
        / 1e9,
        "ort_product_gops": _LINEAR / seconds(product, (_ROWS, _K), codes) / 1e9,
        "ort_attention_gops": _ATTENTION / seconds(attention, (1, _HEADS, _TOKENS, _HEAD), {}) / 1e9,
        "ort_fused_attention_gops": _ATTENTION / seconds(fused, (1, _TOKENS, _HEADS * _HEAD), {}) / 1e9,
    }
