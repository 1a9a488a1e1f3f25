"""Attention as our exports have it, in ONNX's text: queries from x, keys and values from y."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
from tests.passes.graphs import inputs_of, model_of

from latentc.passes.base import PassContext
from latentc.passes.weights import Array, read_floats

HEADS, WIDTH = 4, 8
SIZES = {"B": 2, "S": 5, "T": 7}

_ROTATION = """
    turned = Neg ({0}h)
    {0}r = Mul (turned, sine)
    {0}c = Mul ({0}h, cosine)
    {0}p = Add ({0}r, {0}c)"""

_NORM = """
    {0}square = Mul ({0}h, {0}h)
    {0}mean = ReduceMean ({0}square, last)
    {0}root = Sqrt ({0}mean)
    {0}p = Div ({0}h, {0}root)"""


def attention_text(*, biased: bool = True, between: str = "", source: str = "y") -> str:
    """The graph's text.

    Args:
        biased: every linear has a bias.
        between: what queries and keys go through: nothing, ``norm`` or ``rotation``.
        source: ``y`` for cross-attention, ``x`` for self-attention.
    """
    way = {"": "", "norm": _NORM, "rotation": _ROTATION}[between]
    q, k = (way.format(one).replace("turned", f"turned_{one}") for one in "qk")
    biases = "float[32] q_bias, float[32] k_bias, float[32] v_bias, float[24] out_bias," if biased else ""

    def linear(name: str, given: str) -> str:
        if not biased:
            return f"{name} = MatMul ({given}, {name}_weight)"
        return f"{name}0 = MatMul ({given}, {name}_weight)\n    {name} = Add ({name}0, {name}_bias)"

    inputs = "float[B,S,24] x, float[B,T,20] y" if source == "y" else "float[B,S,24] x"
    K = 20 if source == "y" else 24
    end = "" if between else "h"
    return f"""g ({inputs}) => (float[B,S,24] o)
    <float[24,32] q_weight, float[{K},32] k_weight, float[{K},32] v_weight, float[32,24] out_weight, {biases}
     float[8] sine, float[8] cosine, int64[1] last = {{-1}},
     int64[4] split = {{0, 0, 4, 8}}, int64[3] join = {{0, 0, 32}}, float scale = {{0.35355339}}> {{
    {linear("q", "x")}
    {linear("k", source)}
    {linear("v", source)}
    qh = Reshape (q, split)
    kh = Reshape (k, split)
    vh = Reshape (v, split){q}{k}
    qt = Transpose <perm = [0, 2, 1, 3]> (q{end or "p"})
    kt = Transpose <perm = [0, 2, 1, 3]> (k{end or "p"})
    vt = Transpose <perm = [0, 2, 1, 3]> (vh)
    qs = Mul (qt, scale)
    kk = Transpose <perm = [0, 1, 3, 2]> (kt)
    scores = MatMul (qs, kk)
    shares = Softmax <axis = -1> (scores)
    mixed = MatMul (shares, vt)
    back = Transpose <perm = [0, 2, 1, 3]> (mixed)
    z = Reshape (back, join)
    {linear("out", "z").replace("out =", "o =")} }}"""


JOINED = """g (float[B,S,24] x, float[B,T,24] y, int64[1] middle) => (float[B,S,16] o, float[B,T,16] p)
    <float[24,32] q_weight, float[24,32] xv_weight, float[24,32] yv_weight, float[32,16] xo_weight,
     float[32,16] yo_weight, float[32] xv_bias, float[32] yv_bias, float[16] xo_bias,
     int64[4] split = {0, 0, 4, 8}, int64[3] join = {0, 0, 32}, int64[1] first = {0},
     int64[1] end = {100000}, int64[1] tokens = {1}> {
    both = Concat <axis = 1> (x, y)
    q = MatMul (both, q_weight)
    qh = Reshape (q, split)
    qt = Transpose <perm = [0, 2, 1, 3]> (qh)
    kk = Transpose <perm = [0, 2, 3, 1]> (qh)
    scores = MatMul (qt, kk)
    shares = Softmax <axis = -1> (scores)
    xv0 = MatMul (x, xv_weight)
    xv = Add (xv0, xv_bias)
    xh = Reshape (xv, split)
    yv0 = MatMul (y, yv_weight)
    yv = Add (yv0, yv_bias)
    yh = Reshape (yv, split)
    vh = Concat <axis = 1> (xh, yh)
    vt = Transpose <perm = [0, 2, 1, 3]> (vh)
    mixed = MatMul (shares, vt)
    back = Transpose <perm = [0, 2, 1, 3]> (mixed)
    z = Reshape (back, join)
    zx = Slice (z, first, middle, tokens)
    zy = Slice (z, middle, end, tokens)
    o0 = MatMul (zx, xo_weight)
    o = Add (o0, xo_bias)
    p = MatMul (zy, yo_weight) }"""
"""Two streams that attend to each other, as FLUX's double blocks; scores share their linear, and so stay."""

BESIDE = """g (float[B,S,24] x, float[B,S,10] other) => (float[B,S,16] o)
    <float[24,32] q_weight, float[24,32] v_weight, float[42,16] out_weight, float[32] v_bias,
     int64[4] split = {0, 0, 4, 8}, int64[3] join = {0, 0, -1}> {
    q = MatMul (x, q_weight)
    qh = Reshape (q, split)
    qt = Transpose <perm = [0, 2, 1, 3]> (qh)
    kk = Transpose <perm = [0, 2, 3, 1]> (qh)
    scores = MatMul (qt, kk)
    shares = Softmax <axis = -1> (scores)
    v0 = MatMul (x, v_weight)
    v = Add (v0, v_bias)
    vh = Reshape (v, split)
    vt = Transpose <perm = [0, 2, 1, 3]> (vh)
    mixed = MatMul (shares, vt)
    back = Transpose <perm = [0, 2, 1, 3]> (mixed)
    z = Reshape (back, join)
    all = Concat <axis = 2> (z, other)
    o = MatMul (all, out_weight) }"""
"""What attention gives beside other channels, as FLUX's single blocks."""


def recorded(model: ir.Model, folder: Path, seed: int, count: int = 8) -> PassContext:
    """Inputs that lie near a few directions and away from zero, as those of trained networks do."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        np.savez(folder / f"{number:04d}.npz", allow_pickle=False, **feeds_of(model, seed, number))
    return PassContext(calibration=folder)


def feeds_of(model: ir.Model, seed: int, number: int) -> dict[str, Array]:
    """The inputs number ``number`` of a record."""
    feeds = inputs_of(model, {**SIZES, "S": 30, "T": 40}, seed + number)
    directions = np.random.default_rng(seed)
    for name, value in feeds.items():
        K = value.shape[-1]
        if value.dtype == np.float32:
            mixing = directions.standard_normal((K, K)) * 0.7 ** np.arange(K)[:, None]
            rows = value.astype(np.float64) @ mixing + directions.standard_normal(K)
            feeds[name] = rows.astype(np.float32)
        else:
            feeds[name] = np.array([30], np.int64)
    return feeds


def attention_model(*, biased: bool = True, between: str = "", source: str = "y") -> ir.Model:
    return model_of(attention_text(biased=biased, between=between, source=source))


def thin(model: ir.Model, name: str, rank: int) -> None:
    """Give each head of the weight ``name`` [K, H · D] a rank of ``rank``."""
    value = model.graph.initializers[name]
    if value.const_value is None:
        raise AssertionError("a weight has a value")
    weight = read_floats(value.const_value).reshape(-1, HEADS, WIDTH).transpose(1, 0, 2)
    u, s, v = np.linalg.svd(weight, full_matrices=False)
    cut = (u[:, :, :rank] * s[:, None, :rank]) @ v[:, :rank]
    value.const_value = ir.tensor(
        cut.transpose(1, 0, 2).reshape(-1, HEADS * WIDTH).astype(np.float32), name=name
    )
