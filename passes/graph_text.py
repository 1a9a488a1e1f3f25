"""Graph text: a graph as stable lines for people and golden files. The first line is the format's version.

    latentc graph 1
    input x: float32[B,64]
    weight w: float32[64,32] norm 45.2 mix -0.31
    y = MatMul(x, w)
    output y: float32[B,32]

Weights are shown as numbers that survive a last-bit difference between machines: the Frobenius norm and,
for float32, the projection on a fixed wave, relative to it. INT4 codes, indices and booleans are shown by
a hash, and any tensor of few elements whole.
"""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_ir as ir

from latentc.passes.weights import name_of, read

FORMAT = "latentc graph 1"
_WHOLE = 8
_EXACT = (ir.DataType.INT4, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL)


def graph_text(model: ir.Model) -> str:
    """``model`` as text with a final newline; pulls every weight once."""
    graph = model.graph
    opsets = ", ".join(
        f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(model.opset_imports.items())
    )
    lines = [FORMAT, f"opset {opsets}"]
    lines += [f"input {name_of(value)}: {_type_text(value)}" for value in graph.inputs]
    for value in graph.initializers.values():
        if value.const_value is not None:
            lines.append(f"weight {name_of(value)}: {_tensor_text(value.const_value)}")
    for node in graph:
        lines.append(_node_text(node))
    lines += [f"output {name_of(value)}: {_type_text(value)}" for value in graph.outputs]
    return "\n".join(lines) + "\n"


def _node_text(node: ir.Node) -> str:
    outputs = ", ".join(name_of(value) for value in node.outputs)
    inputs = ", ".join("" if value is None else name_of(value) for value in node.inputs)
    attributes = ", ".join(_attribute_text(node.attributes[name]) for name in sorted(node.attributes))
    marks = "".join(
        f"  # {key}: {node.metadata_props[key]}" for key in sorted(node.metadata_props)
    )  # what a pass left for later ones
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"{outputs} = {operator}({inputs}){f' {{{attributes}}}' if attributes else ''}{marks}"


def _attribute_text(attribute: ir.Attr) -> str:
    if attribute.type is ir.AttributeType.TENSOR:
        return f"{attribute.name}={_tensor_text(attribute.as_tensor())}"
    value = attribute.value
    if attribute.type is ir.AttributeType.FLOAT:
        return f"{attribute.name}={attribute.as_float():.6g}"
    if attribute.type is ir.AttributeType.STRING:
        return f'{attribute.name}="{attribute.as_string()}"'
    if isinstance(value, (list, tuple)):
        return f"{attribute.name}=[{', '.join(str(item) for item in value)}]"
    return f"{attribute.name}={value}"


def _type_text(value: ir.Value) -> str:
    dtype = "?" if value.dtype is None else _dtype_text(value.dtype)
    sides = "?" if value.shape is None else ",".join(str(side) for side in value.shape)
    return f"{dtype}[{sides}]"


def _dtype_text(dtype: ir.DataType) -> str:
    return "bool" if dtype is ir.DataType.BOOL else str(dtype.numpy())


def _tensor_text(tensor: ir.TensorProtocol) -> str:
    values = read(tensor)
    shape = ",".join(str(side) for side in values.shape)
    head = f"{_dtype_text(tensor.dtype)}[{shape}]"
    if values.size <= _WHOLE:
        return f"{head} {' '.join(f'{float(item):.4g}' for item in values.reshape(-1))}".rstrip()
    if tensor.dtype in _EXACT:
        content = values.astype(np.int64).tobytes()
        return f"{head} #{hashlib.sha256(content).hexdigest()[:8]}"
    wide = values.astype(np.float64).reshape(-1)
    norm = float(np.linalg.norm(wide))
    if tensor.dtype is not ir.DataType.FLOAT:  # rounded or fitted, where a last bit can turn a direction
        return f"{head} norm {norm:.2g}"
    wave = np.cos(np.arange(wide.size, dtype=np.float64))
    mix = float(wave @ wide) / norm if norm > 0 else 0.0
    return f"{head} norm {norm:.3g} mix {mix:+.2f}"
