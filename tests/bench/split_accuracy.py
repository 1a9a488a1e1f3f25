"""The low-rank split of FLUX.1's largest linears against the truncated singular value decomposition.

    python -m tests.bench.split_accuracy

Without recorded inputs and without refinements, as the SVD has none. Beside ‖W - L R‖ over the SVD's it says
what the branch takes out of W, its energy, over what the SVD does: where singular values are flat, as those
of noise, every branch leaves nearly the same behind, and the first figure says little. Seconds are of
processors: the split runs on one, whatever there are.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator

import numpy as np

from latentc.passes.low_rank import BranchType, low_rank_branch
from latentc.passes.weights import Floats

K, N, RANK, GROUP = 3072, 12288, 32, 64
HEAD = "| weight | branch | seconds | residual / SVD's | energy / SVD's | SVD's residual / whole |"


def weights() -> Iterator[tuple[str, Floats]]:
    """The worst case, and one like trained weights: heavy tails, uneven columns and a spectrum that falls."""
    generator = np.random.default_rng(1)
    noise = generator.standard_normal((K, N), dtype=np.float32)
    yield "normal", noise
    tails = generator.standard_t(4, (K, N)) * np.exp(0.5 * generator.standard_normal(N))
    falling = generator.standard_normal((K, 256)) * (30 / np.arange(1, 257))
    yield "heavy tails", (tails + falling @ generator.standard_normal((256, N))).astype(np.float32)


def main() -> int:
    """Print the table."""
    rows = [HEAD, "|---|---|---:|---:|---:|---:|"]
    for name, wide in weights():
        squares = np.linalg.eigvalsh(wide.astype(np.float64) @ wide.T.astype(np.float64))[::-1]
        whole, best = float(squares.sum()), float(squares[:RANK].sum())
        for shape, weight in ((f"{K} x {N}", wide), (f"{N} x {K}", np.ascontiguousarray(wide.T))):
            for branch in BranchType:
                seconds, residual = split(weight, branch)
                left = residual / np.sqrt(whole - best)
                taken = (whole - residual**2) / best
                share = np.sqrt((whole - best) / whole)
                figures = f"{seconds:.2f} | {left:.4f} | {taken:.3f} | {share:.3f}"
                rows.append(f"| {name}, {shape} | {branch} | {figures} |")
    sys.stdout.write("\n".join(rows) + "\n")
    return 0


def split(weight: Floats, branch: BranchType) -> tuple[float, float]:
    """Seconds, the median of three, and ‖W - L R‖."""
    found = []
    for _ in range(3):
        began_s = time.process_time()
        rest = weight - low_rank_branch(weight, RANK, branch, GROUP, refinements=0).product()
        found.append(time.process_time() - began_s)
    return statistics.median(found), float(np.linalg.norm(rest.astype(np.float64)))


if __name__ == "__main__":
    sys.exit(main())
