"""What onnxruntime's CPU takes for one operator in each form that it has: why decision 0010 is as it is.

    python -m tests.bench.kernel_speed

One thread and seconds of the processor, which others on the machine change least; the least of some runs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.parser
import onnxruntime

from latentc.passes.weights import Array

HEAD = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>\n'
REPEATS = 9
DRAW = np.random.default_rng(0)
STEP, ZERO = np.array(0.03, np.float32), np.array(128, np.uint8)


@dataclass(frozen=True)
class Form:
    """One way to write an operator.

    Args:
        name: for the table.
        text: the graph in ONNX's text syntax, from input ``x`` to output ``y``.
        constants: initializers by name.
        inputs: what it is fed.
    """

    name: str
    text: str
    constants: Mapping[str, Array]
    inputs: Mapping[str, Array]

    def seconds(self) -> float:
        """Of the processor, the least of some runs."""
        model = onnx.parser.parse_model(HEAD + self.text)
        for name, array in self.constants.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        taken: list[float] = []
        for _ in range(REPEATS):
            started = time.thread_time()
            session.run(None, dict(self.inputs))
            taken.append(time.thread_time() - started)
        return min(taken)


def floats(*sides: int) -> Array:
    """Normal values."""
    return DRAW.standard_normal(sides, dtype=np.float32)


def codes(*sides: int) -> Array:
    """Signed codes of 8 bits."""
    return DRAW.integers(-127, 127, sides).astype(np.int8)


def convolutions(C: int, N: int, side: int) -> tuple[float, list[Form]]:
    """A kernel of 3 by 3 over a picture of ``side`` by ``side``; the unfolded rows are not made here."""
    picture, kernel = {"x": floats(1, C, side, side)}, codes(N, C, 3, 3)
    graph = f"g (float[1,{C},{side},{side}] x) => (float[1,{N},{side},{side}] y)"
    quantize = "q = QuantizeLinear (x, s, z)"
    scale: dict[str, Array] = {"s": STEP, "z": ZERO}
    rows = {"x": DRAW.integers(0, 255, (1, side * side, 9 * C)).astype(np.uint8)}
    return 2.0 * C * N * 9 * side**2, [
        Form(
            "Conv, float32",
            f"{graph} {{ y = Conv <pads = [1,1,1,1]> (x, w) }}",
            {"w": kernel.astype(np.float32)},
            picture,
        ),
        Form(
            "ConvInteger",
            f"{graph} {{ {quantize} c = ConvInteger <pads = [1,1,1,1]> (q, w, z) "
            "f = Cast <to = 1> (c) y = Mul (f, k) }",
            scale | {"w": kernel, "k": floats(1, N, 1, 1)},
            picture,
        ),
        Form(
            "QLinearConv",
            f"{graph} {{ {quantize} c = QLinearConv <pads = [1,1,1,1]> (q, s, z, w, t, u, s, z) "
            "y = DequantizeLinear (c, s, z) }",
            scale | {"w": kernel, "t": np.full(N, 0.01, np.float32), "u": np.zeros(N, np.int8)},
            picture,
        ),
        Form(
            "MatMulIntegerToFloat of rows",
            f"g (uint8[1,{side**2},{9 * C}] x) => (float[1,{side**2},{N}] y) "
            "{ y = com.microsoft.MatMulIntegerToFloat (x, w, s, t, z) }",
            scale | {"w": codes(9 * C, N), "t": np.full(N, 0.01, np.float32)},
            rows,
        ),
    ]


def linears(rows: int, K: int, N: int) -> tuple[float, list[Form]]:
    """Rows by a [K, N] weight."""
    given = {"x": floats(rows, K)}
    graph = f"g (float[{rows},{K}] x) => (float[{rows},{N}] y)"
    blocks = K // 128
    packed = DRAW.integers(0, 255, (N, blocks, 64)).astype(np.uint8)
    return 2.0 * rows * K * N, [
        Form("MatMul, float32", f"{graph} {{ y = MatMul (x, w) }}", {"w": floats(K, N)}, given),
        Form(
            "MatMulNBits, 4 bits",
            f"{graph} {{ y = com.microsoft.MatMulNBits <K = {K}, N = {N}, bits = 4, block_size = 128, "
            "accuracy_level = 4> (x, w, t) }",
            {"w": packed, "t": floats(N * blocks)},
            given,
        ),
        Form(
            "DynamicQuantizeLinear, MatMulIntegerToFloat",
            f"{graph} {{ q, s, z = DynamicQuantizeLinear (x) "
            "y = com.microsoft.MatMulIntegerToFloat (q, w, s, t, z) }",
            {"w": codes(K, N), "t": np.full(N, 0.01, np.float32)},
            given,
        ),
    ]


def attentions(heads: int, tokens: int, width: int) -> tuple[float, list[Form]]:
    """All tokens look at all tokens."""
    given = {name: floats(1, tokens, heads * width) for name in "xkv"}
    sides = f"float[1,{tokens},{heads * width}]"
    graph = f"g ({sides} x, {sides} k, {sides} v) => ({sides} y)"
    shapes: dict[str, Array] = {
        "cut": np.array([0, 0, heads, width]),
        "whole": np.array([0, 0, heads * width]),
    }
    return 4.0 * heads * tokens**2 * width, [
        Form(
            "MatMul, Softmax, MatMul",
            f"{graph} {{ a = Reshape (x, cut) b = Reshape (k, cut) c = Reshape (v, cut) "
            "d = Transpose <perm = [0,2,1,3]> (a) e = Transpose <perm = [0,2,3,1]> (b) "
            "f = Transpose <perm = [0,2,1,3]> (c) h = MatMul (d, e) i = Mul (h, s) p = Softmax (i) "
            "m = MatMul (p, f) n = Transpose <perm = [0,2,1,3]> (m) y = Reshape (n, whole) }",
            shapes | {"s": np.array(width**-0.5, np.float32)},
            given,
        ),
        Form(
            "MultiHeadAttention",
            f"{graph} {{ y = com.microsoft.MultiHeadAttention <num_heads = {heads}> (x, k, v) }}",
            {},
            given,
        ),
    ]


def group_norms(C: int, side: int) -> tuple[float, list[Form]]:
    """32 groups of channels; counted as 8 operations a pixel and channel."""
    given = {"x": floats(1, C, side, side)}
    graph = f"g (float[1,{C},{side},{side}] x) => (float[1,{C},{side},{side}] y)"
    return 8.0 * C * side**2, [
        Form(
            "GroupNormalization",
            f"{graph} {{ y = GroupNormalization <num_groups = 32> (x, a, b) }}",
            {"a": floats(C), "b": floats(C)},
            given,
        ),
        Form(
            "InstanceNormalization of groups",
            f"{graph} {{ r = Reshape (x, cut) n = InstanceNormalization (r, one, none) t = Shape (x) "
            "m = Reshape (n, t) o = Mul (m, a) y = Add (o, b) }",
            {
                "cut": np.array([0, 32, -1]),
                "one": np.ones(32, np.float32),
                "none": np.zeros(32, np.float32),
                "a": floats(C, 1, 1),
                "b": floats(C, 1, 1),
            },
            given,
        ),
    ]


CASES: tuple[tuple[str, Callable[[], tuple[float, list[Form]]]], ...] = (
    ("convolution 320 → 320 at 64 × 64", lambda: convolutions(320, 320, 64)),
    ("convolution 640 → 640 at 32 × 32", lambda: convolutions(640, 640, 32)),
    ("convolution 1280 → 1280 at 16 × 16", lambda: convolutions(1280, 1280, 16)),
    ("convolution 1280 → 1280 at 8 × 8", lambda: convolutions(1280, 1280, 8)),
    ("linear 4096 rows, [384, 2560]", lambda: linears(4096, 384, 2560)),
    ("linear 1280 rows, [3072, 3072]", lambda: linears(1280, 3072, 3072)),
    ("linear 1 row, [3072, 3072]", lambda: linears(1, 3072, 3072)),
    ("attention 8 × 40, 4096 tokens", lambda: attentions(8, 4096, 40)),
    ("attention 24 × 128, 1280 tokens", lambda: attentions(24, 1280, 128)),
    ("group norm 320 at 64 × 64", lambda: group_norms(320, 64)),
)


def main() -> None:
    """Print a table."""
    sys.stdout.write("| operator | form | ms | GFLOPS | of the first |\n|---|---|---:|---:|---:|\n")
    for name, make in CASES:
        operations, forms = make()
        first = 0.0
        for form in forms:
            seconds = form.seconds()
            first = first or seconds
            cells = f"{1e3 * seconds:.2f} | {operations / seconds / 1e9:.0f} | {seconds / first:.2f}"
            sys.stdout.write(f"| {name} | {form.name} | {cells} |\n")


if __name__ == "__main__":
    main()
