"""The whole of latentc on a tiny pipeline: one build, and everything that may happen to it."""

import json
import shutil
from pathlib import Path

import pytest
from tests.end_to_end.command import latentc
from tests.tiny_models import write_tiny_stable_diffusion

RECIPE = """\
name: tiny
model: {path: model}
sampling: {scheduler: ddim, steps: 2, guidance: 3.0, height: 64, width: 64}
targets: [onnx, ort-mobile]
passes:
  denoiser:
    - canonicalize
    - quantize-int8
    - split-low-rank: {rank: 8}
    - quantize-int4
calibration: {prompts: prompts.txt, count: 1, samples: 2}
validation:
  prompts: prompts.txt
  count: 2
  limits: {unet.sqnr_db: 5}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe that has been built once, into ``out``."""
    folder = tmp_path_factory.mktemp("end-to-end")
    write_tiny_stable_diffusion(folder / "model")
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "prompts.txt").write_text("a red circle\na blue square\na green triangle\n")
    done = latentc(folder, "build", "tiny.yaml", "--out", "out")
    assert done.returncode == 0, done.stderr
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_delivers_bundles_and_a_report(place: Path) -> None:
    report = json.loads((place / "out" / "report" / "report.json").read_text())
    assert report["passed"] is True
    assert set(report["targets"]) == {"onnx", "ort-mobile"}
    for target in report["targets"]:
        assert latentc(place, "verify", f"out/{target}").returncode == 0
        assert (place / "out" / "report" / target / "report.html").is_file()


def test_a_second_build_is_all_from_the_store_and_the_same_bytes(place: Path) -> None:
    before = files_of(place / "out" / "ort-mobile")
    done = latentc(place, "build", "tiny.yaml", "--out", "again")
    assert done.returncode == 0, done.stderr
    steps = int(done.stdout.split(" steps from the store")[0].rsplit(" ", 1)[1])
    assert f"({steps} of {steps} steps from the store" in done.stdout
    assert files_of(place / "again" / "ort-mobile") == before


def test_plan_says_why(place: Path) -> None:
    plan = latentc(place, "plan", "tiny.yaml", "--set", "passes.denoiser.2.split-low-rank.rank=4", "--json")
    rows = {row["step"]: row for row in json.loads(plan.stdout)["steps"]}
    assert rows["export/unet"]["cached"] is True
    assert "rank" in rows["transform/unet"]["why"]
    assert rows["validate/onnx"]["why"] == "its input changed: pack"


def test_a_changed_tolerance_runs_validation_alone(place: Path) -> None:
    done = latentc(
        place, "build", "tiny.yaml", "--out", "strict", "--set", "validation.limits={unet.sqnr_db: 90}"
    )
    assert done.returncode == 1
    ran = [line.split("] ")[1].split(":")[0] for line in done.stderr.splitlines() if ": done in" in line]
    assert ran == ["validate/onnx", "validate/ort-mobile"]
    assert "error: the result is outside the recipe's limits" in done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads((place / "strict" / "report" / "report.json").read_text())
    assert {f["component"] + "." + f["metric"] for f in report["findings"] if not f["passed"]} == {
        "unet.sqnr_db"
    }


def test_validate_needs_only_the_bundle(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "out" / "ort-mobile", tmp_path / "shipped")
    done = latentc(tmp_path, "validate", "shipped", "--report", "report")
    assert done.returncode == 0, done.stderr
    (tmp_path / "shipped" / "limits.json").write_text('{"pictures.psnr_db": 500}')
    assert latentc(tmp_path, "validate", "shipped", "--report", "report").returncode == 1


def test_run_draws_the_same_picture_twice(place: Path) -> None:
    for name in ("a.png", "b.png"):
        done = latentc(
            place, "run", "out/ort-mobile", "--prompt", "a red circle", "--seed", "3", "--out", name
        )
        assert done.returncode == 0, done.stderr
    assert (place / "a.png").read_bytes() == (place / "b.png").read_bytes()


def test_an_output_folder_that_holds_something_else_is_left_alone(place: Path) -> None:
    precious = place / "mine" / "onnx" / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    done = latentc(place, "build", "tiny.yaml", "--out", "mine")
    assert done.returncode == 2
    assert "holds something that is no latentc bundle" in done.stderr
    assert files_of(place / "mine") == {"onnx/thesis.txt": b"years of work"}


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["build", "missing.yaml", "--out", "x"], 2, "error: missing.yaml: there is no such file"),
        (
            ["build", "tiny.yaml", "--out", "x", "--target", "nano"],
            4,
            "error: target: there is no target 'nano'",
        ),
        (
            ["build", "tiny.yaml", "--out", "x", "--set", "passes.denoiser.2.split-low-rank.rank=4096"],
            2,
            "rank 4096 is larger than the smallest side of",
        ),
        (
            ["build", "tiny.yaml", "--out", "x", "--set", "model.path=nowhere"],
            3,
            "is no folder",
        ),
        (["run", "model", "--prompt", "x", "--out", "x.png"], 7, "has no manifest.json"),
        (["run", "out/onnx", "--prompt", "x", "--out", "x.jpg"], 2, "is not a .png file"),
        (["build"], 2, "Missing argument 'RECIPE'"),
    ],
)
def test_bad_input_is_one_message(place: Path, arguments: list[str], exit_code: int, message: str) -> None:
    done = latentc(place, *arguments)
    assert done.returncode == exit_code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_build_that_draws_nothing_says_so(place: Path) -> None:
    free = [
        "--set=passes.denoiser=[canonicalize, {split-low-rank: {rank: 8, calibrated: false}}, quantize-int4]",
        "--set=validation.count=0",
        "--set=validation.limits={}",
        "--target=onnx",
    ]
    done = latentc(place, "build", "tiny.yaml", "--out", "free", "--memory", "4GiB", *free)
    assert done.returncode == 0, done.stderr
    assert "not validated" in done.stdout
    assert "nothing was compared with the original: validation.count is 0" in done.stdout
    assert not (place / "free" / "report").exists()
    assert "not validated: nothing was compared" in latentc(place, "inspect", "free/onnx").stdout
    assert latentc(place, "verify", "free/onnx").returncode == 0
    picture = ("--prompt", "a red circle", "--out", "free.png", "--steps", "1")
    assert latentc(place, "run", "free/onnx", *picture).returncode == 0
    refused = latentc(place, "validate", "free/onnx")
    assert (refused.returncode, "carries no pictures of the original" in refused.stderr) == (7, True)


def test_a_budget_that_no_layer_fits_is_refused(place: Path) -> None:
    done = latentc(place, "build", "tiny.yaml", "--out", "small", "--memory", "1MiB")
    assert done.returncode == 6
    assert "MiB of memory, the budget is 1 MiB" in done.stderr
