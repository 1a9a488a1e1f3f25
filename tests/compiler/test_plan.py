import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from latentc.compiler.budget import Budget
from latentc.compiler.model_folder import open_model
from latentc.compiler.plan import Plan, plan_recipe
from latentc.errors import LatentcError, ModelError
from latentc.recipes.families.sana import SANA
from latentc.recipes.load import load_recipe

RECIPE = """\
name: tiny
model: {{path: {model}}}
sampling: {{scheduler: ddim, steps: 4, guidance: 3.0, height: 64, width: 64}}
targets: [onnx, ort-mobile]
passes:
  denoiser:
    - canonicalize
    - quantize-int8
    - split-low-rank: {{rank: 8}}
    - quantize-int4
calibration: {{prompts: prompts.txt, count: 2, samples: 4}}
validation:
  prompts: prompts.txt
  count: 2
  limits: {{unet.sqnr_db: 3}}
"""

MakePlan = Callable[..., Plan]


@pytest.fixture
def make_plan(tmp_path: Path, tiny_stable_diffusion: Path) -> MakePlan:
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\na green circle\na small red square\n")
    file = tmp_path / "tiny.yaml"
    file.write_text(RECIPE.format(model=tiny_stable_diffusion))

    def make(*overrides: str, targets: tuple[str, ...] = (), budget: Budget | None = None) -> Plan:
        loaded = load_recipe(file, overrides)
        model = open_model(loaded.path_of(loaded.recipe.model.path))
        return plan_recipe(loaded, model, targets or loaded.recipe.targets, budget)

    return make


def changed(one: Plan, other: Plan) -> set[str]:
    before = {step.label: step.digest for step in one.steps}
    return {step.label for step in other.steps if before.get(step.label) != step.digest}


def test_every_step_follows_its_inputs(make_plan: MakePlan) -> None:
    seen: set[str] = set()
    for step in make_plan().steps:
        assert {below.label for below in step.inputs.values()} <= seen, step.label
        assert step.label not in seen
        seen.add(step.label)


def test_a_family_that_cannot_be_drawn_is_refused(tmp_path: Path, tiny_stable_diffusion: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(RECIPE.format(model=tiny_stable_diffusion))
    model = replace(open_model(tiny_stable_diffusion, read_values=False), family=SANA)
    with pytest.raises(ModelError) as caught:
        plan_recipe(load_recipe(file, []), model, ["onnx"])
    assert str(caught.value) == (
        f"{tiny_stable_diffusion}: is of the family 'sana', which latentc exports but cannot "
        "draw with yet: nothing could validate a bundle of it\n"
        "fix: use a model of one of: stable-diffusion, stable-diffusion-xl, flux"
    )


def test_the_same_recipe_is_the_same_plan(make_plan: MakePlan) -> None:
    assert changed(make_plan(), make_plan()) == set()


def test_a_tolerance_changes_validation_alone(make_plan: MakePlan) -> None:
    other = make_plan("validation.limits={unet.sqnr_db: 4}")
    assert changed(make_plan(), other) == {"validate/onnx", "validate/ort-mobile"}


def test_a_rank_changes_one_component_and_what_follows(make_plan: MakePlan) -> None:
    other = make_plan("passes.denoiser.2.split-low-rank.rank=16")
    assert changed(make_plan(), other) == {
        f"{stage}/{rest}"
        for stage, rests in {
            "transform": ["unet"],
            "lower": ["onnx/unet", "ort-mobile/unet"],
            "pack": ["onnx", "ort-mobile"],
            "validate": ["onnx", "ort-mobile"],
        }.items()
        for rest in rests
    }


def test_other_targets_share_everything_up_to_lowering(make_plan: MakePlan) -> None:
    one, both = make_plan(targets=("onnx",)), make_plan()
    assert {label.split("/")[1] for label in changed(one, both)} == {"ort-mobile"}


def test_calibration_sees_no_prompt_that_validation_judges_by(make_plan: MakePlan) -> None:
    options = {step.label: json.dumps(step.key) for step in make_plan().steps}
    assert "a red circle" in options["reference"]
    assert "a red circle" not in options["calibrate"]
    assert "a green circle" in options["calibrate"]


def test_calibration_is_left_out_when_no_pass_needs_it(make_plan: MakePlan) -> None:
    plan = make_plan("passes.denoiser=[canonicalize, quantize-int4]")
    assert "calibrate" not in {step.label for step in plan.steps}


DATA_FREE = ("passes.denoiser=[canonicalize, quantize-int4]", "validation.count=0", "validation.limits={}")


def test_nothing_is_drawn_when_nothing_is_validated(make_plan: MakePlan) -> None:
    labels = [step.label for step in make_plan(*DATA_FREE, targets=("onnx",)).steps]
    assert [label for label in labels if "/" not in label or label.startswith("validate")] == []
    assert labels[-1] == "pack/onnx"


def test_limits_without_pictures_are_refused(make_plan: MakePlan) -> None:
    with pytest.raises(LatentcError) as caught:
        make_plan("validation.count=0")
    assert str(caught.value).rpartition("/")[2] == (
        "tiny.yaml: validation.limits: count is 0, so nothing is drawn that limits could judge\n"
        "fix: remove the limits, or set count to at least 1"
    )


def test_a_budget_below_the_original_is_refused_before_it_is_loaded(make_plan: MakePlan) -> None:
    budget = Budget(1, 1 << 20)
    with pytest.raises(LatentcError) as caught:
        make_plan(budget=budget)
    assert caught.value.exit_code == 6
    assert "drawing with the original takes " in str(caught.value)
    assert str(caught.value).endswith(
        "MiB or more; or take passes that need no recorded inputs, and set validation.count to 0"
    )
    assert changed(make_plan(*DATA_FREE), make_plan(*DATA_FREE, budget=budget)) == set()


@pytest.mark.parametrize(
    ("override", "message", "exit_code"),
    [
        (
            "passes.transformer=[canonicalize]",
            "tiny.yaml: passes.transformer: stable-diffusion has no component 'transformer'",
            2,
        ),
        (
            "passes.denoiser.2={split-low-rnk: {}}",
            "tiny.yaml: passes.denoiser[2]: split-low-rnk: unknown pass 'split-low-rnk'\n"
            "fix: did you mean 'split-low-rank'?",
            2,
        ),
        (
            "passes.denoiser.2.split-low-rank.rnk=2",
            "tiny.yaml: passes.denoiser[2]: split-low-rank: has no option 'rnk'\nfix: did you mean 'rank'?",
            2,
        ),
        (
            "validation.limits={unet.sqnr: 3}",
            "validation.limits.unet.sqnr: there is no metric 'unet.sqnr' in stable-diffusion\n"
            "fix: did you mean 'unet.sqnr_db'?",
            2,
        ),
        (
            "targets=[ort-mobil]",
            "target: there is no target 'ort-mobil'\nfix: did you mean 'ort-mobile'?",
            4,
        ),
        ("validation.count=9", "prompts.txt: has 4 prompts, count asks for 9\nfix: set count to 4", 2),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    make_plan: MakePlan, override: str, message: str, exit_code: int
) -> None:
    with pytest.raises(LatentcError) as caught:
        make_plan(override)
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == exit_code
