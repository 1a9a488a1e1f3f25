"""Latency: the seconds that a linear would take on a device, by the device's roofline.

    float          y = x w
    int4, int8     y = x w, with less to read and, where the device has kernels for it, faster
    int4+R         y = x w + (x right) left                    two thin products and a sum more
    int4@R         y = (x - κ z Pᵀ) w + z L,  z = x P          x P, κ z, z Pᵀ and the difference once an input

Every node counts alone, with all that it reads and writes. What is the same in any form does not count: the
sum with a bias, which is fused, and what is between linears.
"""

from __future__ import annotations

from dataclasses import dataclass

from latentc.errors import PassError, nearest
from latentc.passes.allotment import Allotment, Precision
from latentc.passes.low_rank import BranchType, branch_bytes
from latentc.passes.subspace import subspace_bytes
from latentc.recipes.roofline import Products, Roofline
from latentc.recipes.target import TARGETS, FloatType

_FLOAT_BYTES = {FloatType.FLOAT32: 4, FloatType.FLOAT16: 2}


@dataclass(frozen=True)
class Latency:
    """What linears take on one device.

    Args:
        device: the name of a target.
        roofline: of the device.
        float_bytes: of a number that nobody quantizes there.
    """

    device: str
    roofline: Roofline
    float_bytes: int

    def linear(
        self, K: int, N: int, rows: int, allotment: Allotment, group: int, branch: BranchType
    ) -> float:
        """Seconds of a linear with a [K, N] weight that multiplies ``rows`` rows in a call.

        Args:
            K: inputs.
            N: outputs.
            rows: M, 1 and up.
            allotment: how the weight is stored; the subspace itself, which linears share, does not count.
            group: of the INT4 weights.
            branch: how the branch is stored.
        """
        roofline, R = self.roofline, allotment.rank
        if allotment.precision is Precision.FLOAT:
            return self._product(rows, K, N, roofline.float_products, self.float_bytes * K * N)
        if allotment.precision is Precision.INT8:
            return self._product(rows, K, N, roofline.int8_products, K * N + self.float_bytes * N)
        codes_and_steps = K * N // 2 + self.float_bytes * (K // group) * N
        seconds = self._product(rows, K, N, roofline.int4_products, codes_and_steps, group)
        if allotment.subspace:
            seconds += self._beside(rows, allotment.subspace, N, allotment.subspace * N)
        if R:
            right_bytes = branch_bytes(K, 0, R, branch)
            seconds += self._product(rows, K, R, roofline.float_products, right_bytes)
            seconds += self._beside(rows, R, N, branch_bytes(K, N, R, branch) - right_bytes)
        return seconds

    def subspace(self, K: int, rows: int, directions: int) -> float:
        """Seconds to split ``directions`` off an input [rows, K]."""
        floats, stored_bytes = self.roofline.float_products, subspace_bytes(K, directions)
        inward = self._product(rows, K, directions, floats, stored_bytes)
        back = self._product(rows, directions, K, floats, stored_bytes)
        return inward + self.elementwise(2 * rows * directions) + back + self.elementwise(3 * rows * K)

    def elementwise(self, numbers: int) -> float:
        """Seconds of a node that reads and writes ``numbers`` numbers in all, such as a sum or a scaling."""
        return self._node(0.0, self.float_bytes * numbers)

    def blocks(self, numbers: int, block: int) -> float:
        """Seconds to multiply ``numbers`` numbers, in blocks, by a [block, block] matrix of floats."""
        return self._product(
            numbers // block, block, block, self.roofline.float_products, self.float_bytes * block**2
        )

    def _beside(self, rows: int, R: int, N: int, weight_bytes: int) -> float:
        """A thin product whose result is added to the linear's."""
        product = self._product(rows, R, N, self.roofline.float_products, weight_bytes)
        return product + self.elementwise(3 * rows * N)

    def _product(
        self, rows: int, K: int, N: int, products: Products, weight_bytes: int, group: int = 64
    ) -> float:
        computing = 2.0 * rows * K * N / (1e9 * products.gops_in_groups(group))
        return self._node(computing, weight_bytes + self.float_bytes * rows * (K + N))

    def _node(self, computing: float, moved_bytes: int) -> float:
        moving = moved_bytes / (1e9 * self.roofline.bandwidth_gb_s)
        both = max(computing, moving) if self.roofline.overlaps else computing + moving
        return both + 1e-6 * self.roofline.node_us


def latency_of(device: str, where: str) -> Latency:
    """What is known of ``device``; raises PassError at ``where`` when that is no target, or no one device."""
    known = {target.name: target for target in TARGETS}
    if device not in known:
        raise PassError(where, f"there is no target '{device}'" if device else "is not given", _offer(device))
    target = known[device]
    if target.roofline is None:
        raise PassError(where, f"how fast '{device}' is, is not known: it is no one device", _offer(device))
    return Latency(device, target.roofline, _FLOAT_BYTES[target.float_type])


def _offer(device: str) -> str:
    return nearest(device, [target.name for target in TARGETS if target.roofline is not None])
