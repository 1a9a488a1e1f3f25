import pytest

from latentc.compiler.explain import reason_stale
from latentc.runtime.manifest import Json

KEY: dict[str, Json] = {
    "stage": "transform",
    "version": 1,
    "options": {"rank": 32, "passes": ["a", "b"]},
    "inputs": {"export": "aa", "calibration": "bb"},
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, "its artifact is no longer in the store"),
        ({"version": 2}, "the stage changed: version 1 → 2"),
        ({"options": {"rank": 16, "passes": ["a", "b"]}}, "rank: 32 → 16"),
        ({"options": {"rank": 32, "passes": ["a", "c"]}}, "passes.1: b → c"),
        ({"options": {"rank": 32}}, "passes: ['a', 'b'] → nothing"),
        ({"inputs": {"export": "ac", "calibration": "bb"}}, "its input changed: export"),
    ],
)
def test_says_what_differs(change: dict[str, Json], reason: str) -> None:
    assert reason_stale({**KEY, **change}, KEY) == reason


def test_says_when_nothing_was_built() -> None:
    assert reason_stale(KEY, None) == "not built yet"
