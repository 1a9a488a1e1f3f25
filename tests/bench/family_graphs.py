"""What every published model becomes: parameters, nodes, linears quantized and left alone, seconds of export.

Graphs are traced at the published depth and width, without weights.

    python -m tests.bench.family_graphs [NAME …]
"""

from __future__ import annotations

import sys
import time

from tests.compiler.family_graphs import accounts_of, canonical, distinct_cases, parameters_of, traced

from latentc.errors import LatentcError


def main(names: list[str]) -> None:
    """Print one row of a table a component; ``names`` picks those whose name contains one of them."""
    print("| component | parameters M | nodes | linears to INT4 | left alone | export s |")  # noqa: T201
    print("|---|---:|---:|---:|---|---:|")  # noqa: T201
    for case in distinct_cases():
        if names and not any(name in str(case) for name in names):
            continue
        began_s = time.monotonic()
        try:
            model = traced(case.spec, case.model.config_of(case.spec))
        except LatentcError as error:
            print(f"| {case} | {error} |")  # noqa: T201
            continue
        seconds = time.monotonic() - began_s
        nodes, parameters = len(model.graph), parameters_of(model, case.spec)
        model, matrices = canonical(model, case.spec)
        accounts = accounts_of(model, matrices, case.spec)
        why = "; ".join(dict.fromkeys(accounts.refused.values()))
        alone = f"{len(accounts.refused)}: {why}" if accounts.refused else "0"
        cells = (case, f"{parameters / 1e6:.0f}", nodes, len(accounts.quantized), alone, f"{seconds:.0f}")
        print(f"| {' | '.join(map(str, cells))} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
