"""Machine rates: what this machine's speeds mean for calls of torch and of onnxruntime on it."""

from __future__ import annotations

from dataclasses import replace

from latentc.compiler.forecast.call_work import Kind, Rates
from latentc.compiler.forecast.machine import Machine, Speeds

_TORCH_REACHES = 0.75
"""Of the probe's speeds, in denoisers and decoders of the demo models (0.70 to 0.78)."""
_NORM_PASSES, _FUSED_NORM_PASSES = 6, 2
"""onnxruntime runs a group norm as ten nodes, and as three after normalize-groups."""
_CONVOLUTION_REACHES = 0.85
"""Of a product's speed, in convolutions as products of rows, which have to be laid out."""
_TORCH_NODE_TURNS = 100
_ORT_NODE_US = 4.0
"""What a call costs besides: Python around torch, in turns of the probe's loop, and onnxruntime."""


def torch_rates(machine: Machine) -> Rates:
    """Of the original: float32, every operator alone."""
    speeds = machine.speeds
    linear = _TORCH_REACHES * speeds.torch_linear_gops
    convolution = _TORCH_REACHES * speeds.torch_convolution_gops
    return Rates(
        {
            Kind.FLOAT_LINEAR: linear,
            Kind.INT8_LINEAR: linear,
            Kind.INT4_LINEAR: linear,
            Kind.FLOAT_CONVOLUTION: convolution,
            Kind.INT8_CONVOLUTION: convolution,
            Kind.ATTENTION: _TORCH_REACHES * speeds.torch_attention_gops,
        },
        _TORCH_REACHES * speeds.memory_gb_s,
        overlaps=False,
        node_us=_TORCH_NODE_TURNS * speeds.python_ns / 1000,
        float_bytes=4,
        fuses=True,  # its attention does
    )


def ort_rates(machine: Machine, target_name: str, threads: int = 0) -> Rates:
    """Of onnxruntime on this processor.

    Args:
        machine: this one.
        target_name: whose form the graph has; ``onnx`` stands for all that onnxruntime is given as it was
            exported, where quantized weights become floats before they are multiplied.
        threads: of a session; 0 for all.
    """
    share = 1.0 if threads == 0 else min(1.0, threads / machine.threads)
    speeds: Speeds = machine.speeds
    is_lowered = target_name in ("ort-mobile", "ort-x86")
    convolution = speeds.ort_convolution_gops
    product = speeds.ort_product_gops
    int4, int8 = {
        "ort-mobile": (speeds.ort_int4_gops, speeds.ort_int8_gops),
        "ort-x86": (product, product),
    }.get(target_name, (speeds.ort_linear_gops, speeds.ort_linear_gops))
    rates = Rates(
        {
            Kind.FLOAT_LINEAR: speeds.ort_linear_gops,
            Kind.INT8_LINEAR: int8,
            Kind.INT4_LINEAR: int4,
            Kind.FLOAT_CONVOLUTION: convolution,
            Kind.INT8_CONVOLUTION: _CONVOLUTION_REACHES * product if is_lowered else convolution,
            Kind.ATTENTION: speeds.ort_fused_attention_gops if is_lowered else speeds.ort_attention_gops,
        },
        speeds.memory_gb_s,
        overlaps=False,
        node_us=_ORT_NODE_US,
        float_bytes=4,
        fuses=True,  # what attention moves is in the speed that was measured for it
        norm_passes=_FUSED_NORM_PASSES if is_lowered else _NORM_PASSES,
    )
    return replace(rates, gops={kind: share * gops for kind, gops in rates.gops.items()})
