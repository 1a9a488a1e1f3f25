from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st

from latentc.compiler.stage import Progress, ResumableStage, Stage, Step
from latentc.runtime.manifest import Json


@dataclass(frozen=True)
class Holder(Stage):
    """Only carries options."""

    name: ClassVar[str] = "holder"
    version: ClassVar[int] = 1

    held: tuple[tuple[str, int], ...]

    def options(self) -> dict[str, Json]:
        return dict(self.held)

    def run(self, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Counting(ResumableStage):
    """Writes how many units it found, and keeps one more."""

    name: ClassVar[str] = "counting"
    version: ClassVar[int] = 1

    def options(self) -> dict[str, Json]:
        return {}

    def resume(self, inputs: Mapping[str, Path], out: Path, units: Path, progress: Progress) -> None:
        found = len(list(units.iterdir()))
        (units / str(found)).write_text("")
        (out / "found").write_text(str(found))


def test_a_resumable_stage_runs_without_a_place_to_keep_units(tmp_path: Path) -> None:
    for _ in range(2):
        Counting().run({}, tmp_path, lambda _done, _words: None)
        assert [path.name for path in tmp_path.iterdir()] == ["found"]
        assert (tmp_path / "found").read_text() == "0"


@given(st.dictionaries(st.text(), st.integers()))
def test_the_digest_does_not_depend_on_key_order(options: dict[str, int]) -> None:
    forward = Step("a", Holder(tuple(options.items())), {})
    backward = Step("a", Holder(tuple(reversed(options.items()))), {})
    assert forward.digest == backward.digest


@given(st.dictionaries(st.text(), st.integers()), st.dictionaries(st.text(), st.integers()))
def test_other_options_give_another_digest(one: dict[str, int], other: dict[str, int]) -> None:
    digests = {Step("a", Holder(tuple(options.items())), {}).digest for options in (one, other)}
    assert len(digests) == (1 if one == other else 2)


def test_the_digest_covers_inputs_but_not_the_label() -> None:
    base = Step("a", Holder(()), {})
    assert Step("b", Holder(()), {}).digest == base.digest
    assert Step("a", Holder(()), {"below": base}).digest != base.digest
    changed = Step("a", Holder((("x", 1),)), {})
    assert Step("c", Holder(()), {"below": base}).digest != Step("c", Holder(()), {"below": changed}).digest
