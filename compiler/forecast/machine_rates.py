"""Machine rates: what this machine's speeds mean for calls of torch and of onnxruntime on it."""

from __future__ import annotations

from dataclasses import replace

from latentc.compiler.forecast.call_work import Kind, Rates
from latentc.compiler.forecast.machine import Machine, Speeds

_TORCH_REACHES = 0.75
"""Of the probe's speeds, in denoisers and decoders of the demo models (0.70 to 0.78)."""
_ORT_NORM_PASSES = 6
"""onnxruntime runs a group norm as ten nodes."""
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


def ort_rates(machine: Machine, threads: int = 0, *, integers: bool = True) -> Rates:
    """Of onnxruntime on this processor.

    Args:
        machine: this one.
        threads: of a session; 0 for all.
        integers: INT8 convolutions multiply as such; in the portable form they do not.
    """
    share = 1.0 if threads == 0 else min(1.0, threads / machine.threads)
    speeds: Speeds = machine.speeds
    rates = Rates(
        {
            Kind.FLOAT_LINEAR: speeds.ort_linear_gops,
            Kind.INT8_LINEAR: speeds.ort_int8_gops,
            Kind.INT4_LINEAR: speeds.ort_int4_gops,
            Kind.FLOAT_CONVOLUTION: speeds.ort_convolution_gops,
            Kind.INT8_CONVOLUTION: (
                speeds.ort_int8_convolution_gops if integers else speeds.ort_convolution_gops
            ),
            Kind.ATTENTION: speeds.ort_attention_gops,
        },
        speeds.memory_gb_s,
        overlaps=False,
        node_us=_ORT_NODE_US,
        float_bytes=4,
        fuses=True,  # what attention moves is in the speed that was measured for it
        norm_passes=_ORT_NORM_PASSES,
    )
    return replace(rates, gops={kind: share * gops for kind, gops in rates.gops.items()})
