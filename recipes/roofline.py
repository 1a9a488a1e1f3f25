"""Roofline: how fast a device multiplies by stored weights, as data (Williams, Waterman and Patterson 2009).

A product takes what its arithmetic takes at the speed that is sustained, and what its bytes take at the
bandwidth: the longer of the two where the device reads while it computes, both where it does not. Every
figure here is measured (``make bench-latency``, docs/measurements.md) or says that it is not.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Products:
    """Products of activations by weights that are stored in one way.

    Args:
        executes: what really runs, as 'weights × activations'.
        gops: 10⁹ operations a second that large products sustain; a multiplication and an addition are two.
        by_group: the same for weights whose steps serve fewer or more than 64 inputs, as (group, gops), the
            smallest group first; empty where that changes nothing.
    """

    executes: str
    gops: float
    by_group: tuple[tuple[int, float], ...] = ()

    def gops_in_groups(self, group: int) -> float:
        """For ``group`` inputs a step: what is known of the next smaller group, if of any."""
        known = [gops for size, gops in self.by_group if size <= group]
        return known[-1] if known else self.gops


@dataclass(frozen=True)
class Roofline:
    """One device.

    Args:
        bandwidth_gb_s: 10⁹ bytes a second that weights are read with when none of them is in a cache.
        overlaps: reading hides behind arithmetic.
        node_us: what a node costs besides, such as the start of a kernel.
        float_products: by weights that no pass quantizes.
        int8_products: by weights that quantize-int8-weights took.
        int4_products: by weights that quantize-int4 took.
        source: where the figures come from, a sentence for listings.
    """

    bandwidth_gb_s: float
    overlaps: bool
    node_us: float
    float_products: Products
    int8_products: Products
    int4_products: Products
    source: str


X86_CORE = Roofline(
    bandwidth_gb_s=20.0,
    overlaps=False,
    node_us=3.0,
    float_products=Products("FP32 × FP32", 108.0),
    int8_products=Products("INT8 weights × dynamic INT8", 160.0),
    int4_products=Products(
        "INT4 weights × dynamic INT8", 135.0, ((16, 90.0), (32, 125.0), (64, 135.0), (128, 185.0))
    ),
    source="measured with onnxruntime 1.31.1 on one core of an x86 server (docs/measurements.md)",
)
"""Stands for phones and small CPUs, which nobody has measured here: more and slower cores change the seconds
more than the ratios, and a budget is a ratio. One row in groups of 16 takes up to twice what is modelled."""

# From memory, unproven: what of the peaks in a datasheet engines reach, and what a kernel's start costs.
_SUSTAINED = 0.6
_STREAMED = 0.8
_START_US = 5.0
_FP16_PER_CYCLE = 2048
"""Operations of an Ampere multiprocessor's tensor cores in a cycle, dense FP16. With it clocks give the INT8
figures of the datasheets, which are sparse (four times this), less the share of DLA on NX and AGX."""


def orin(multiprocessors: int, clock_ghz: float, memory_gb_s: float) -> Roofline:
    """A Jetson Orin: INT4 and INT8 weights are read as such and multiplied in FP16, so they save only bytes.

    Args:
        multiprocessors: of its GPU.
        clock_ghz: of the GPU in the fastest power mode of JetPack 6.2.
        memory_gb_s: bandwidth of its memory as the datasheet has it, in the same mode.
    """
    gops = _SUSTAINED * multiprocessors * clock_ghz * _FP16_PER_CYCLE
    return Roofline(
        bandwidth_gb_s=_STREAMED * memory_gb_s,
        overlaps=True,
        node_us=_START_US,
        float_products=Products("FP16 × FP16", gops),
        int8_products=Products("INT8 weights × FP16", gops),
        int4_products=Products("INT4 weights × FP16", gops),
        source="modelled from a datasheet's figures, unproven: nothing here was measured on a board",
    )
