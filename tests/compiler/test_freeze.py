"""A frozen recipe says the same as the one it came from, and the next budget is the one that should do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from latentc.compiler.freeze import Frozen, freeze, larger_budget, write_frozen
from latentc.compiler.store import Store
from latentc.errors import GateFailed, PassError, RecipeError
from latentc.recipes.load import LoadedRecipe, load_recipe
from latentc.validation.report import FrontRow

RECIPE = """\
name: tiny
model: {{path: {model}}}
sampling: {{scheduler: ddim, steps: 2, guidance: 1.0, height: 64, width: 64}}
targets: [onnx]
passes:
  denoiser:
    - canonicalize
    - allocate: {{max_ratio: {ratio}, group: 16{more}}}
    - split-low-rank: {{group: 16, optional: true}}
    - quantize-int8-weights: {{optional: true}}
    - quantize-int4: {{group: 16, optional: true}}
calibration: {{prompts: prompts.txt, count: 3, samples: 6, rows: 64, sensitivity: 1}}
validation: {{prompts: prompts.txt, count: 2}}
"""

Load = Callable[..., LoadedRecipe]


@pytest.fixture
def load(tmp_path: Path, tiny_stable_diffusion: Path) -> Load:
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\na star\na cross\na green one\n")

    def make(*overrides: str, more: str = "", ratio: float = 0.33) -> LoadedRecipe:
        file = tmp_path / "tiny.yaml"
        file.write_text(RECIPE.format(model=tiny_stable_diffusion, more=more, ratio=ratio))
        return load_recipe(file, overrides)

    return make


class Silent:
    def started(self, label: str, number: int, total: int, why: str, seconds_left: float | None) -> None: ...
    def progressed(self, fraction: float, words: str) -> None: ...
    def finished(self, label: str, duration_s: float, cached: bool) -> None: ...


def point(ratio: float, relative_error: float, *, taken: bool = False) -> FrontRow:
    return FrontRow("unet", ratio, relative_error, 1, 1, 0, taken)


FRONT = [
    point(0.27, 0.1),
    point(0.3, 0.05),
    point(0.35, 0.02),
    point(0.5, 0.01),
    point(0.3, 0.05, taken=True),
]


@pytest.mark.parametrize(
    ("missing_db", "wanted"),
    [(1.0, 0.35), (7.9, 0.35), (8.1, 0.5), (60.0, 0.5)],  # 0.05 to 0.02 is 7.96 dB
)
def test_the_next_budget_is_the_smallest_that_should_do(missing_db: float, wanted: float) -> None:
    assert larger_budget(FRONT, 0.3, missing_db) == wanted


def test_at_the_front_s_end_there_is_no_larger_budget() -> None:
    assert larger_budget(FRONT, 0.5, 1.0) is None


def test_a_budget_of_time_may_be_more_than_floats_take() -> None:
    slower = [*FRONT[:-1], point(1.2, 0.001), FRONT[-1]]
    assert larger_budget(slower, 0.5, 40.0, largest_ratio=2.0) == 1.2
    assert larger_budget(slower, 0.5, 40.0) == 1.0


def test_written_and_read_again_it_is_the_same_recipe(load: Load, tmp_path: Path) -> None:
    loaded = load("sampling.steps=3", "validation.limits={unet.sqnr_db: 5}")
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere" / "frozen.yaml"
    write_frozen(Frozen(loaded, ()), file)
    again = load_recipe(file)
    assert again.recipe.passes == loaded.recipe.passes
    assert again.recipe.sampling == loaded.recipe.sampling
    assert again.path_of(again.recipe.model.path) == loaded.path_of(loaded.recipe.model.path)
    assert again.path_of(again.recipe.validation.prompts) == tmp_path / "prompts.txt"


def test_nothing_to_freeze(load: Load, tmp_path: Path) -> None:
    loaded = load(more=', plan: ["w=int8"]')
    with pytest.raises(RecipeError) as caught:
        freeze(loaded, (), 0, Store(tmp_path / "store"), Silent())
    assert str(caught.value) == (
        "tiny.yaml: passes: there is no allocate without a plan\nfix: add allocate before split-low-rank"
    )


@pytest.mark.slow
def test_frozen_it_builds_the_same_weights_and_measures_nothing(load: Load, tmp_path: Path) -> None:
    from latentc.compiler.build import plan_of
    from latentc.compiler.run import run_plan

    store = Store(tmp_path / "store")
    loaded = load()
    frozen = freeze(loaded, (), 0, store, Silent())
    write_frozen(frozen, tmp_path / "frozen.yaml")
    again = load_recipe(tmp_path / "frozen.yaml")
    assert "sensitivity" not in {step.label for step in plan_of(again, ()).steps}
    written = [
        (run_plan(plan_of(one, ()), store, Silent())["transform/unet"].path / "model.onnx.data").read_bytes()
        for one in (loaded, again)
    ]
    assert written[0] == written[1]


@pytest.mark.slow
def test_the_budget_is_raised_until_the_limits_hold(load: Load, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(GateFailed, match="no budget up to") as caught:
        freeze(load("validation.limits={unet.sqnr_db: 200}"), (), 1, store, Silent())
    found = re.search(r"unet\.sqnr_db is ([0-9.]+) dB", str(caught.value))
    assert found is not None
    reached_db = float(found[1])
    at_once = freeze(load(f"validation.limits={{unet.sqnr_db: {reached_db - 1}}}"), (), 3, store, Silent())
    assert [one.passed for one in at_once.evaluations] == [True]
    frozen = freeze(load(f"validation.limits={{unet.sqnr_db: {reached_db + 3}}}"), (), 5, store, Silent())
    ratios = [one.max_ratio for one in frozen.evaluations]
    assert len(ratios) > 1
    assert ratios == sorted(ratios)
    assert [one.passed for one in frozen.evaluations] == [False] * (len(ratios) - 1) + [True]


@pytest.mark.slow
def test_a_budget_of_time_is_frozen_too(load: Load, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    timed = ", budget: latency, device: ort-mobile, precisions: [int4, int8, float]"
    with pytest.raises(PassError) as caught:
        freeze(load(more=timed, ratio=0.05), (), 0, store, Silent())
    found = re.search(
        r"allocate\.max_ratio: is 0\.05, but the fastest that these layers can be is ([0-9.]+) of "
        r"float's time, modelled on ort-mobile\nfix: write max_ratio=[0-9.]+ or more",
        str(caught.value),
    )
    assert found is not None
    ratio = (float(found[1]) + 1) / 2
    frozen = freeze(load(more=timed, ratio=ratio), (), 0, store, Silent())
    (options,) = [spec.options for spec in frozen.recipe.recipe.passes["denoiser"] if spec.name == "allocate"]
    assert (options["budget"], options["device"], options["max_ratio"]) == ("latency", "ort-mobile", ratio)
    assert options["plan"]
