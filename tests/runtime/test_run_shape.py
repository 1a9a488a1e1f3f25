"""What a run asks of a schedule."""

from __future__ import annotations

import pytest

from latentc.errors import TargetError, UsageError
from latentc.runtime.run_shape import RunShape


def test_steps_within_a_limit() -> None:
    RunShape(4).at_most(4, "there are")
    with pytest.raises(UsageError) as caught:
        RunShape(5).at_most(4, "there are")
    assert str(caught.value) == "--steps: is 5, but there are 4\nfix: ask for at most 4 steps"


def test_eta_where_there_is_none() -> None:
    RunShape(4).without_eta("Euler")
    with pytest.raises(TargetError) as caught:
        RunShape(4, eta=0.5).without_eta("Euler")
    assert str(caught.value) == "eta: Euler has no eta (asked for 0.5)\nfix: leave eta at 0"
