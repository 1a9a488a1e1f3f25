"""Attention: find it in a canonical graph, with the linears around it that a head-wise rewrite may touch.

    q = Transpose(Reshape(MatMul(x, wq) + bq, [B, S, H, D]))        [B, H, S, D]
    k = Transpose(Reshape(MatMul(y, wk) + bk, [B, T, H, D]))        [B, H, D, T]
    v = Transpose(Reshape(MatMul(y, wv) + bv, [B, T, H, D]))        [B, H, T, D]
    z = Reshape(Transpose(MatMul(Softmax(MatMul(scale · q, k)), v)), [B, S, H · D])
    o = MatMul(z, wo) + bo

Several sources of v may be joined along the tokens, and several readers may each take some of z's tokens, or
z with other channels behind it: so FLUX has it. Where the pattern is broken, the reason is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from latentc.passes.weights import bias_add, constant, name_of, read, shape_of

_SWAPPED = (0, 2, 1, 3)
_TURNED = (0, 2, 3, 1)
_NORMS = {"ReduceMean", "ReduceL2", "Sqrt", "RMSNormalization", "LayerNormalization"}
_ROTATIONS = {"Neg", "Sin", "Cos", "RotaryEmbedding"}


@dataclass(frozen=True)
class Bias:
    """The Add of a constant ``value`` [N], which nothing else reads, behind a linear."""

    add: ir.Node
    value: ir.Value


@dataclass(frozen=True)
class Projection:
    """A linear whose outputs are cut into heads.

    Args:
        product: the MatMul by ``weight`` [K, H · D].
        weight: a float32 constant that nothing else reads.
        bias: [H · D], if there is one.
        cut: the Reshape to [B, T, H, D].
        shape: of ``cut``, with 0 and -1 as the graph has them in its first two places.
        chain: every value from the product up to where the heads meet.
    """

    product: ir.Node
    weight: ir.Value
    bias: Bias | None
    cut: ir.Node
    shape: tuple[int, int, int, int]
    chain: tuple[ir.Value, ...]

    @property
    def name(self) -> str:
        """The weight's name."""
        return name_of(self.weight)

    @property
    def whole(self) -> ir.Value:
        """What is cut: [B, T, H · D], bias included."""
        return (self.bias.add if self.bias else self.product).outputs[0]


@dataclass(frozen=True)
class Reader:
    """A linear that multiplies what attention gives.

    Args:
        value: what of attention it multiplies, [B, S, H · D].
        product: the MatMul by ``weight``.
        weight: a float32 constant [H · D and more, N] that nothing else reads.
        bias: [N], if there is one.
    """

    value: ir.Value
    product: ir.Node
    weight: ir.Value
    bias: Bias | None

    @property
    def name(self) -> str:
        """The weight's name."""
        return name_of(self.weight)


@dataclass(frozen=True)
class Scores:
    """Queries and keys that meet in ``node`` with nothing but a number between; ``scale`` is that number."""

    node: ir.Node
    queries: Projection
    keys: Projection
    scale: float

    @property
    def heads(self) -> tuple[int, int]:
        """How many, and how wide."""
        return self.queries.shape[2:]


@dataclass(frozen=True)
class Values:
    """What ``node`` mixes by the probabilities, and who reads it.

    Args:
        node: the MatMul of probabilities and values.
        sources: the linears that make the values, in the order of their tokens.
        merge: the Reshape to [B, S, H · D].
        readers: the linears that multiply it.
        chain: every value between ``node`` and the readers.
    """

    node: ir.Node
    sources: tuple[Projection, ...]
    merge: ir.Node
    readers: tuple[Reader, ...]
    chain: tuple[ir.Value, ...]

    @property
    def heads(self) -> tuple[int, int]:
        """How many, and how wide."""
        return self.sources[0].shape[2:]


@dataclass(frozen=True)
class Attention:
    """One attention; a text in place of scores or values says why they do not follow the pattern."""

    name: str
    scores: Scores | str
    values: Values | str


class _Broken(Exception):
    """The graph does not follow the pattern; the text says where."""


def find_attentions(graph: ir.Graph) -> Iterator[Attention]:
    """Every attention of ``graph``, in graph order."""
    taken: set[str] = set()
    for node in graph:
        if node.op_type != "Softmax" or node.domain or node.attributes.get_int("axis", -1) not in (-1, 3):
            continue
        product = _producer(node.inputs[0])
        uses = list(node.outputs[0].uses())
        mixes = len(uses) == 1 and uses[0].node.op_type == "MatMul" and uses[0].idx == 0
        if product is None or product.op_type != "MatMul" or not mixes or node.outputs[0].is_graph_output():
            continue
        if any(constant(value) is not None for value in product.inputs):
            continue
        found = _attention(product, uses[0].node)
        if found.name in taken:
            found = replace(found, name=name_of(uses[0].node.outputs[0]))
        taken.add(found.name)
        yield found


def _attention(product: ir.Node, mix: ir.Node) -> Attention:
    scores: Scores | str
    values: Values | str
    try:
        scores = _scores(product)
    except _Broken as broken:
        scores = _between(product) or str(broken)
    try:
        values = _values(mix)
    except _Broken as broken:
        values = str(broken)
    parts: list[Projection] = []
    if isinstance(scores, Scores):
        parts += (scores.queries, scores.keys)
    if isinstance(values, Values):
        parts += values.sources
    return Attention(_stem([part.name for part in parts]) or name_of(mix.outputs[0]), scores, values)


def _stem(names: Sequence[str]) -> str:
    """What dotted ``names`` begin with, all of them; of a single one all but the last word."""
    shared: list[str] = []
    for words in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    return ".".join(shared)


def _scores(product: ir.Node) -> Scores:
    queries, query_scale = _projection(product.inputs[0], _SWAPPED)
    keys, key_scale = _projection(product.inputs[1], _TURNED)
    if queries.shape[2:] != keys.shape[2:]:
        raise _Broken("queries and keys have other heads")
    return Scores(product, queries, keys, query_scale * key_scale)


def _projection(value: ir.Value | None, wanted: tuple[int, ...]) -> tuple[Projection, float]:
    """The linear behind ``value`` [B, H, …] and the number that it is multiplied by on the way."""
    scale = 1.0
    chain: list[ir.Value] = []
    axes: tuple[int, ...] = (0, 1, 2, 3)
    while True:
        node = _alone(value)
        chain.append(node.outputs[0])
        if node.op_type == "Reshape":
            break
        if node.op_type == "Transpose":
            permutation = node.attributes["perm"].as_ints()
            axes = tuple(permutation[axis] for axis in axes)
            value = node.inputs[0]
        elif node.op_type == "Mul":
            value, number = _number_beside(node)
            scale *= number
        else:
            raise _Broken(f"'{name_of(node.outputs[0])}', a {node.op_type}, lies between linear and heads")
    if axes != wanted:
        raise _Broken(f"the axes of '{name_of(node.outputs[0])}' are in another order")
    return _cut(node, chain), scale


def _cut(cut: ir.Node, chain: Sequence[ir.Value]) -> Projection:
    stored = constant(cut.inputs[1])
    if stored is None or shape_of(stored) != (4,):
        raise _Broken(f"'{name_of(cut.outputs[0])}' has no constant shape [B, T, heads, width]")
    product = _alone(cut.inputs[0])
    bias = None
    if product.op_type == "Add":
        add = product
        product = _alone(add.inputs[0] if constant(add.inputs[1]) is not None else add.inputs[1])
        bias = _bias(product)
        if bias is None:
            raise _Broken(f"'{name_of(add.outputs[0])}' adds more than a bias")
    if product.op_type != "MatMul":
        raise _Broken(f"'{name_of(product.outputs[0])}' is a {product.op_type}, wanted a linear")
    weight = _require_own(product.inputs[1])
    N = _sides(weight)[1]
    first, second, heads, width = (int(side) for side in read(stored).tolist())
    heads = N // width if heads == -1 and width > 0 else heads
    width = N // heads if width == -1 and heads > 0 else width
    if heads < 1 or heads * width != N:
        raise _Broken(f"'{name_of(cut.outputs[0])}' does not cut {N} channels into heads")
    before = [node.outputs[0] for node in (product, *([bias.add] if bias else []))]
    return Projection(product, weight, bias, cut, (first, second, heads, width), (*before, *chain))


def _values(mix: ir.Node) -> Values:
    turn = _alone(mix.inputs[1])
    if turn.op_type != "Transpose" or tuple(turn.attributes["perm"].as_ints()) != _SWAPPED:
        raise _Broken(f"'{name_of(turn.outputs[0])}', a {turn.op_type}, lies between values and heads")
    joined = _alone(turn.inputs[0])
    inner: list[ir.Value] = [turn.outputs[0]]
    cuts = [joined]
    if joined.op_type == "Concat" and joined.attributes["axis"].as_int() == 1:
        inner.append(joined.outputs[0])
        cuts = [_alone(value) for value in joined.inputs]
    for cut in cuts:
        if cut.op_type != "Reshape":
            raise _Broken(f"'{name_of(cut.outputs[0])}', a {cut.op_type}, lies between values and heads")
    sources = tuple(_cut(cut, [cut.outputs[0]]) for cut in cuts)
    if len({source.shape[2:] for source in sources}) > 1:
        raise _Broken("the joined values have other heads")
    heads, width = sources[0].shape[2:]
    back = _only_use(mix.outputs[0])
    if back.op_type != "Transpose" or tuple(back.attributes["perm"].as_ints()) != _SWAPPED:
        raise _Broken(f"'{name_of(back.outputs[0])}', a {back.op_type}, follows the heads")
    merge = _only_use(back.outputs[0])
    shape = constant(merge.inputs[1]) if merge.op_type == "Reshape" else None
    if shape is None or shape_of(shape) != (3,) or read(shape)[-1] not in (-1, heads * width):
        raise _Broken(f"'{name_of(merge.outputs[0])}' does not put the heads side by side")
    inner += [mix.outputs[0], back.outputs[0], merge.outputs[0]]
    readers: list[Reader] = []
    for use in _uses(merge.outputs[0]):
        readers += _readers(use, merge.outputs[0], heads * width, inner)
    return Values(mix, sources, merge, tuple(readers), tuple(inner))


def _readers(use: ir.Node, value: ir.Value, K: int, inner: list[ir.Value]) -> Iterator[Reader]:
    """The linears behind ``use``, which takes ``value``; what it puts between is added to ``inner``."""
    result = use.outputs[0]
    if use.op_type == "Slice":
        axes = constant(use.inputs[3]) if len(use.inputs) > 3 else None
        if axes is None or read(axes).tolist() != [1] or use.inputs[0] is not value:
            raise _Broken(f"'{name_of(result)}' slices something other than tokens")
        inner.append(result)
        for reader in _uses(result):
            yield _reader(reader, result, result, K)
    elif use.op_type == "Concat":
        if use.attributes["axis"].as_int() not in (-1, 2) or use.inputs[0] is not value:
            raise _Broken(f"'{name_of(result)}' does not put other channels behind the heads")
        inner.append(result)
        yield _reader(_only_use(result), result, value, K)
    else:
        yield _reader(use, value, value, K)


def _reader(product: ir.Node, given: ir.Value, value: ir.Value, K: int) -> Reader:
    if product.op_type != "MatMul" or product.inputs[0] is not given:
        raise _Broken(f"'{name_of(product.outputs[0])}', a {product.op_type}, reads what attention gives")
    weight = _require_own(product.inputs[1])
    rows = _sides(weight)[0]
    if rows < K or (given is not value) != (rows > K):
        raise _Broken(f"'{name_of(weight)}' has {rows} rows for {K} channels")
    return Reader(value, product, weight, _bias(product))


def _bias(product: ir.Node) -> Bias | None:
    add = bias_add(product)
    if add is None:
        return None
    return Bias(add, _require_own(next(value for value in add.inputs if constant(value) is not None)))


def _between(product: ir.Node) -> str:
    """What is known to stand between linears and scores; empty when it is neither a norm nor RoPE."""
    seen: set[str] = set()
    ahead = [value for value in product.inputs if value is not None]
    met: set[ir.Value] = set()
    while ahead:
        value = ahead.pop()
        node = value.producer()
        if node is None or value in met:
            continue
        met.add(value)
        is_linear = node.op_type == "MatMul" and constant(node.inputs[1]) is not None
        if not is_linear:
            seen.add(node.op_type)
            ahead += [given for given in node.inputs if given is not None]
    found = []
    if seen & _NORMS:
        found.append("normalized (QK-norm)")
    if seen & _ROTATIONS:
        found.append("turned by their positions (RoPE)")
    return f"queries and keys are {' and '.join(found)} before they meet" if found else ""


def _producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _alone(value: ir.Value | None) -> ir.Node:
    """The node that makes ``value``, which nothing else may read."""
    node = _producer(value)
    if value is None or node is None:
        raise _Broken("a linear is missing")
    if len(list(value.uses())) != 1 or value.is_graph_output() or len(node.outputs) != 1:
        raise _Broken(f"'{name_of(value)}' is read by others as well")
    return node


def _uses(value: ir.Value) -> list[ir.Node]:
    if value.is_graph_output():
        raise _Broken(f"'{name_of(value)}' is an output of the graph")
    return [use.node for use in value.uses()]


def _only_use(value: ir.Value) -> ir.Node:
    uses = _uses(value)
    if len(uses) != 1:
        raise _Broken(f"'{name_of(value)}' is read by {len(uses)} nodes, wanted one")
    return uses[0]


def _number_beside(node: ir.Node) -> tuple[ir.Value | None, float]:
    """The computed input of a Mul, and the single number that the other one is."""
    for index in (0, 1):
        stored = constant(node.inputs[index])
        if stored is not None and stored.size == 1:
            return node.inputs[1 - index], float(read(stored).reshape(-1)[0])
    raise _Broken(f"'{name_of(node.outputs[0])}' multiplies by more than a number")


def _require_own(value: ir.Value | None) -> ir.Value:
    """``value``, a float32 constant that one node reads."""
    stored = constant(value)
    if value is None or stored is None:
        raise _Broken("a weight is no constant" if value is None else f"'{name_of(value)}' is no constant")
    if stored.dtype is not ir.DataType.FLOAT:
        raise _Broken(f"'{name_of(value)}' is stored as {stored.dtype.numpy()}, wanted float32")
    if len(list(value.uses())) != 1:
        raise _Broken(f"'{name_of(value)}' is read by others as well")
    return value


def _sides(weight: ir.Value) -> tuple[int, int]:
    stored = constant(weight)
    if stored is None or len(shape_of(stored)) != 2:
        raise _Broken(f"'{name_of(weight)}' is no matrix")
    K, N = shape_of(stored)
    return K, N
