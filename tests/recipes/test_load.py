import json
from pathlib import Path

import pytest

from latentc.errors import LatentcError, RecipeError, UsageError
from latentc.recipes.load import SHIPPED, load_recipe, path_of, recipe_file, recipe_schema

GOOD = """\
name: small
model: {path: here}
sampling: {scheduler: ddim, height: 64, width: 64}
targets: [onnx]
passes:
  denoiser:
    - canonicalize
    - split-low-rank: {rank: 8}
"""


def written(folder: Path, text: str, name: str = "r.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_reads_a_recipe_with_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, GOOD)).recipe
    assert (recipe.name, recipe.sampling.steps, recipe.validation.count) == ("small", 20, 64)
    assert [(p.name, p.options) for p in recipe.passes["denoiser"]] == [
        ("canonicalize", {}),
        ("split-low-rank", {"rank": 8}),
    ]


def test_extends_merges_mappings_and_replaces_the_rest(tmp_path: Path) -> None:
    written(tmp_path, GOOD, "base.yaml")
    file = written(tmp_path, "extends: base.yaml\nname: child\nsampling: {steps: 4}\ntargets: [rtx]\n")
    recipe = load_recipe(file).recipe
    assert (recipe.name, recipe.targets) == ("child", ("rtx",))
    assert (recipe.sampling.steps, recipe.sampling.scheduler) == (4, "ddim")


def test_extends_in_a_circle_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "extends: b.yaml\n", "a.yaml")
    written(tmp_path, "extends: a.yaml\n", "b.yaml")
    with pytest.raises(RecipeError, match=r"extends in a circle or too deep: a.yaml → b.yaml → a.yaml"):
        load_recipe(tmp_path / "a.yaml")


def test_set_reaches_into_mappings_and_lists(tmp_path: Path) -> None:
    overrides = [
        "sampling.steps=4",
        "passes.denoiser.1.split-low-rank.rank=16",
        "targets=[rtx, onnx]",
        "validation.limits={pictures.psnr_db: 20}",
    ]
    recipe = load_recipe(written(tmp_path, GOOD), overrides).recipe
    assert recipe.sampling.steps == 4
    assert recipe.passes["denoiser"][1].options == {"rank": 16}
    assert recipe.targets == ("rtx", "onnx")
    assert recipe.validation.limits == {"pictures.psnr_db": 20.0}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "--set steps: has no '='\nfix: write --set path.to.key=value"),
        (
            "passes.denoiser.7=x",
            "--set passes.denoiser.7=x: '7' is no item of a list of 2\nfix: use 0 to 1",
        ),
        (
            "name.first=x",
            "--set name.first=x: 'name.first' leads into a plain value\nfix: set the value above it",
        ),
    ],
)
def test_a_wrong_override_says_so(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(written(tmp_path, GOOD), [override])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name:", "nam:", "r.yaml: nam: there is no key 'nam' here\nfix: did you mean 'name'?"),
        (
            "{path: here}",
            "{pat: here}",
            "r.yaml: model.pat: there is no key 'pat' here\nfix: did you mean 'path'?",
        ),
        ("name: small\n", "", "r.yaml: name: is missing\nfix: add 'name:'"),
        (
            "scheduler: ddim",
            "scheduler: dim",
            'r.yaml: sampling.scheduler: is "dim": '
            "input should be 'ddim', 'euler', 'lcm' or 'flow-match-euler'\n"
            "fix: mend the value",
        ),
        (
            "height: 64",
            "height: 60",
            "r.yaml: sampling.height: is 60: input should be a multiple of 8\nfix: mend the value",
        ),
        (
            "targets: [onnx]",
            "targets: [onnx, onnx]",
            'r.yaml: targets: is ["onnx", "onnx"]: \'onnx\' is named twice\nfix: mend the value',
        ),
        (
            "width: 64",
            "width: '64'",
            'r.yaml: sampling.width: is "64": input should be a valid integer\nfix: mend the value',
        ),
    ],
)
def test_names_the_key_at_fault(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert str(caught.value).replace(str(file), "r.yaml") == message


def test_a_missing_recipe_names_the_nearest() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_file("shapes-ds")
    assert (
        str(caught.value)
        == "shapes-ds: is neither a file nor a shipped recipe\nfix: did you mean 'shapes-sd'?"
    )


def test_demo_paths_are_shipped_models(tmp_path: Path) -> None:
    assert path_of("model", tmp_path) == tmp_path / "model"
    with pytest.raises(LatentcError, match="there is no shipped model 'nothing'"):
        path_of("demo:nothing", tmp_path)


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_recipe_loads_under_its_own_name(file: Path) -> None:
    assert load_recipe(file).recipe.name == file.stem


def test_the_published_schema_is_the_one_in_use() -> None:
    published = json.loads((SHIPPED / "recipe.schema.json").read_text())
    assert published == recipe_schema(), "run: latentc recipes --schema > recipes/recipe.schema.json"
