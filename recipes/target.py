"""Targets: what each device and its runtime truly execute. TARGETS is the catalogue."""

from __future__ import annotations

from dataclasses import dataclass

from latentc.errors import TargetError, nearest
from latentc.recipes.choice import Choice
from latentc.recipes.roofline import X86_CORE, Roofline, orin


class Runtime(Choice):
    """The library that executes a bundle's graphs."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


class FloatType(Choice):
    """The floating-point type of what is not quantized."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


@dataclass(frozen=True)
class Target:
    """A place to run.

    Args:
        name: what ``--target`` takes.
        runtime: the library that runs it.
        float_type: the type of weights and activations that no pass quantizes.
        memory_mib: what a process can use on the device, in MiB.
        compute_capabilities: CUDA architectures an engine is made for, such as ``8.7``; empty on CPUs.
        executes: what really runs, as 'weights × activations' in the report's words.
        engine_on_device: the engine is built on the board by ``latentc engine build``.
        note: one line for ``latentc targets``.
        roofline: how fast it is; None where it is no one device.
    """

    name: str
    runtime: Runtime
    float_type: FloatType
    memory_mib: int
    compute_capabilities: tuple[str, ...]
    executes: tuple[str, ...]
    engine_on_device: bool
    note: str
    roofline: Roofline | None = None


_ORIN_EXECUTES = ("INT4 weights × FP16", "INT8 × INT8", "FP16 × FP16")

TARGETS: tuple[Target, ...] = (
    Target(
        "onnx",
        Runtime.ONNXRUNTIME,
        FloatType.FLOAT32,
        8192,
        (),
        ("INT4 weights × FP32", "INT8 × INT8", "FP32 × FP32"),
        False,
        "the portable form: ONNX with Q/DQ, runs wherever onnxruntime does",
    ),
    Target(
        "ort-mobile",
        Runtime.ONNXRUNTIME,
        FloatType.FLOAT32,
        3072,
        (),
        ("INT4 weights × dynamic INT8 (linears)", "INT8 × INT8 (convolutions)", "FP32 × FP32"),
        False,
        "phones and small CPUs: .ort files, INT4 linears as MatMulNBits, INT8 convolutions",
        X86_CORE,
    ),
    Target(
        "ort-x86",
        Runtime.ONNXRUNTIME,
        FloatType.FLOAT32,
        8192,
        (),
        ("INT8 × dynamic INT8 (linears)", "INT8 × INT8 (convolutions)", "FP32 × FP32"),
        False,
        "x86 CPUs with VNNI: all products on integers, 4-bit weights as INT8; faster, larger",
    ),
    Target(
        "rtx",
        Runtime.TENSORRT_RTX,
        FloatType.FLOAT16,
        6144,
        ("8.6", "8.9", "12.0"),
        ("INT4 weights × FP16", "INT8 × INT8", "FP16 × FP16"),
        False,
        "RTX desktops: TensorRT for RTX engines, built on any machine, no GPU needed to build",
    ),
    *(
        Target(
            name,
            Runtime.TENSORRT,
            FloatType.FLOAT16,
            memory_mib,
            ("8.7",),
            _ORIN_EXECUTES,
            True,
            "Jetson Orin: strongly typed ONNX; the engine is built on the board",
            roofline,
        )
        for name, memory_mib, roofline in (
            # memory is what is left to a process: 7.3 of 8 GiB is usable, notes of jetson-containers #342.
            # Clocks and multiprocessors are from memory, and so is the bandwidth but for 8 GB Nano and AGX.
            ("jetson-orin-nano-4gb", 3400, orin(4, 1.02, 51.0)),
            ("jetson-orin-nano-8gb", 7300, orin(8, 1.02, 102.0)),
            ("jetson-orin-nx-8gb", 7300, orin(8, 1.173, 102.0)),
            ("jetson-orin-nx-16gb", 15000, orin(8, 1.173, 102.0)),
            ("jetson-agx-orin-32gb", 30500, orin(14, 0.93, 204.8)),
            ("jetson-agx-orin-64gb", 61500, orin(16, 1.3, 204.8)),
        )
    ),
)


def target_named(name: str) -> Target:
    """The target called ``name``; raises TargetError naming the nearest one."""
    for target in TARGETS:
        if target.name == name:
            return target
    raise TargetError("target", f"there is no target '{name}'", nearest(name, [t.name for t in TARGETS]))
