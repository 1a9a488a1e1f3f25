"""Branch nodes: the nodes that a side path of a linear is made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from latentc.passes.weights import BRANCH_OF, Floats, Linear, bias_add, constant_floats, name_of


def add_beside(graph: ir.Graph, node: ir.Node, products: Sequence[tuple[ir.Node, str]], weight: str) -> None:
    """Add what the last of ``products`` gives to the linear ``node``, after its bias, which runtimes fuse.

    Args:
        graph: holds ``node``.
        node: the MatMul of a linear.
        products: MatMuls in order, each with the ending of its name.
        weight: the name of the linear's weight.
    """
    last = bias_add(node) or node
    output = last.outputs[0]
    stem = name_of(output)
    for product, ending in products:
        product.name = product.outputs[0].name = f"{stem}.{ending}"
        product.outputs[0].dtype = ir.DataType.FLOAT
        product.metadata_props[BRANCH_OF] = weight
    add = ir.node("Add", [output, products[-1][0].outputs[0]])
    add.name = f"{stem}.with_branch"
    add.outputs[0].type, add.outputs[0].shape = output.type, output.shape
    output.replace_all_uses_with(add.outputs[0], replace_graph_outputs=True)
    add.replace_input_with(0, output)
    add.outputs[0].name, output.name = stem, f"{stem}.without_branch"
    graph.insert_after(last, [*(product for product, _ in products), add])


def branch_product(linear: Linear) -> Floats:
    """[K, N]: what branches that read the same value as ``linear`` multiply it by beside its weight.

    Zeros where it was not split. Products of another value (latentc.passes.split_subspace) do not count.
    """
    total = np.zeros(linear.shape, np.float32)
    given = linear.nodes[0].inputs[0]
    for inner in () if given is None else (use.node for use in given.uses()):
        if BRANCH_OF not in inner.metadata_props:
            continue
        right = constant_floats(inner.inputs[1])
        for outer in (use.node for use in inner.outputs[0].uses()):  # of several linears, when they share it
            left = constant_floats(outer.inputs[1])
            if outer.metadata_props.get(BRANCH_OF) == linear.name and right is not None and left is not None:
                total += right @ left
    return total
