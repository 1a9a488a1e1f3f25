import pytest

from latentc.errors import TargetError
from latentc.recipes.target import TARGETS, Runtime, target_named


def test_names_are_unique_and_found() -> None:
    assert len({target.name for target in TARGETS}) == len(TARGETS)
    assert [target_named(target.name) for target in TARGETS] == list(TARGETS)


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(TargetError) as caught:
        target_named("jetson-orin-nano")
    assert str(caught.value) == (
        "target: there is no target 'jetson-orin-nano'\nfix: did you mean 'jetson-orin-nano-8gb'?"
    )


def test_engines_of_a_board_are_built_on_the_board() -> None:
    assert {t.engine_on_device for t in TARGETS if t.runtime is Runtime.TENSORRT} == {True}
    assert {t.compute_capabilities for t in TARGETS if t.name.startswith("jetson")} == {("8.7",)}
