import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.validation.made_reference import GUIDANCE, SIDE_PIXELS, STEPS, small_bundle

from latentc.errors import BundleError, TargetError
from latentc.recipes.families.flux import FLUX
from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.runtime.bundle import Bundle
from latentc.validation.limits import limits_from_recipe
from latentc.validation.picture_metrics import PSNR_CAP_DB
from latentc.validation.reference import Reference, read_reference
from latentc.validation.report import Report
from latentc.validation.tensor_metrics import SQNR_CAP_DB
from latentc.validation.validate import validate

LIMITS = limits_from_recipe({"denoiser.sqnr_db": 20.0, "pictures.psnr_db": 20.0}, STABLE_DIFFUSION)


def values(report: Report) -> dict[str, float | None]:
    return {finding.name: finding.value for finding in report.findings}


def test_a_bundle_against_its_own_pictures_is_equal_to_the_last_bit(
    bundle: Bundle, reference: Reference, tmp_path: Path
) -> None:
    told: list[float] = []
    report = validate(
        bundle, reference, LIMITS, tmp_path, progress=lambda fraction, what: told.append(fraction)
    )
    found = values(report)
    assert report.passed
    for subject in ("text_encoder", "unet", "vae_decoder"):
        assert (found[f"{subject}.sqnr_db"], found[f"{subject}.relative_error"]) == (SQNR_CAP_DB, 0)
        assert found[f"{subject}.not_finite"] == 0
    assert (found["trajectory.first_step_sqnr_db"], found["trajectory.final_sqnr_db"]) == (SQNR_CAP_DB,) * 2
    assert (found["pictures.psnr_db"], found["pictures.worst_psnr_db"]) == (PSNR_CAP_DB,) * 2
    # float64 windows over equal pictures, and a unit vector with itself
    assert found["pictures.ssim"] == pytest.approx(1, abs=1e-12)
    assert found["pictures.feature_distance"] == pytest.approx(0, abs=1e-12)
    assert found["pictures.clip_score_drop"] == 0
    assert found["pictures.attribute_accuracy_drop"] == 0
    assert [step.step for step in report.steps] == [1, 2, 3]
    assert {step.worst_relative_error for step in report.steps} == {0}
    assert told == sorted(told)
    assert told[-1] == 1


def test_the_tables_around_the_findings(bundle: Bundle, reference: Reference, tmp_path: Path) -> None:
    ticks = iter(float(n) for n in range(10_000))
    report = validate(bundle, reference, LIMITS, tmp_path, threads=1, clock=lambda: next(ticks))
    assert (report.recipe, report.target, report.scheduler) == ("small", "onnx", "DDIMScheduler")
    assert report.sampling == {
        "steps": STEPS, "guidance": GUIDANCE, "height": SIDE_PIXELS, "width": SIDE_PIXELS
    }  # fmt: skip
    assert report.execution.stand_in == ""
    assert [size.component for size in report.sizes] == ["text_encoder", "unet", "vae_decoder"]
    on_disk = sum(path.stat().st_size for path in bundle.folder.rglob("*") if path.is_file())
    assert report.bundle_bytes == on_disk
    assert [(timing.name, timing.times) for timing in report.timings] == [
        ("text_encoder", 3),
        ("unet", 24),
        ("vae_decoder", 4),
        ("one step, guidance and scheduler included", 12),
        ("decoding", 4),
        ("one picture", 4),
    ]
    assert report.environment["target runtime"] == "onnxruntime"
    assert len(report.pictures) == 4
    for row in report.pictures:
        assert (tmp_path / row.original).read_bytes() == (tmp_path / row.result).read_bytes()


def test_a_disturbed_denoiser_is_seen_on_every_rung(reference: Reference, tmp_path: Path) -> None:
    reports = [
        validate(small_bundle(tmp_path / f"b{n}", disturbance=amount), reference, LIMITS, tmp_path / f"r{n}")
        for n, amount in enumerate((0.005, 0.05, 0.3))
    ]
    for name in ("unet.sqnr_db", "trajectory.final_sqnr_db", "pictures.psnr_db", "pictures.ssim"):
        measured = [values(report)[name] for report in reports]
        assert measured == sorted(measured, key=lambda value: -(value or 0))
    for report in reports:
        assert values(report)["text_encoder.sqnr_db"] == SQNR_CAP_DB
        assert values(report)["vae_decoder.sqnr_db"] == SQNR_CAP_DB
    assert [report.passed for report in reports] == [True, False, False]
    broken = {finding.name for finding in reports[-1].failures}
    assert broken == {"unet.sqnr_db", "pictures.psnr_db"}


def test_an_engine_s_bundle_runs_its_onnx_as_a_stand_in_and_says_so(
    reference: Reference, tmp_path: Path
) -> None:
    report = validate(small_bundle(tmp_path / "b", "jetson-orin-nano-8gb"), reference, LIMITS, tmp_path / "r")
    assert report.passed  # float16 weights against float32 ones: far above 20 dB
    assert report.execution.stand_in.startswith(
        "tensorrt did not run: the bundle's ONNX form ran in onnxruntime "
    )
    assert report.execution.executes == ("INT4 weights × FP16", "INT8 × INT8", "FP16 × FP16")
    sqnr = values(report)["unet.sqnr_db"]
    assert sqnr is not None
    # float16 keeps 11 bits: 66 dB for a single rounding, less for sums of rounded products
    assert 45 < sqnr < 90


def test_the_target_s_own_runtime_is_an_error_where_it_is_not(reference: Reference, tmp_path: Path) -> None:
    with pytest.raises(TargetError):
        validate(
            small_bundle(tmp_path / "b", "jetson-orin-nano-8gb"), reference, LIMITS, tmp_path, stand_in=False
        )


def test_a_bundle_that_gives_nan_is_a_failed_report_and_no_crash(
    reference: Reference, tmp_path: Path
) -> None:
    broken = small_bundle(tmp_path / "b", disturbance=float("nan"))
    report = validate(broken, reference, LIMITS, tmp_path / "r")
    assert not report.passed
    assert [finding.sentence() for finding in report.failures] == [
        "unet.sqnr_db is nan dB, limit at least 20 dB",
        "unet.worst_sqnr_db is nan dB",
        "unet.relative_error is nan",
        "unet.cosine is nan",
        "unet.not_finite is 6144 values, limit at most 0 values",
        "pictures.psnr_db is not measured, limit at least 20 dB (unet gives NaN or infinity at step 0)",
        "pictures.blank_pictures is not measured, limit at most 0 pictures "
        "(unet gives NaN or infinity at step 0)",
    ]
    assert "Drawing failed: unet gives NaN or infinity at step 0." in report.notes


def test_a_limit_on_what_cannot_be_measured_fails(
    bundle: Bundle, reference_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "reference"
    shutil.copytree(reference_folder, folder)
    (folder / "clip.npz").unlink()
    (folder / "components" / "vae_decoder.npz").unlink()
    limits = limits_from_recipe({"pictures.clip_score": 20, "vae_decoder.sqnr_db": 30}, STABLE_DIFFUSION)
    report = validate(bundle, read_reference(folder), limits, tmp_path / "r")
    assert [finding.sentence() for finding in report.failures] == [
        "vae_decoder.sqnr_db is not measured, limit at least 30 dB "
        "(vae_decoder has no golden tensors in the reference)",
        "pictures.clip_score is not measured, limit at least 20 (the reference has no CLIP model)",
    ]
    assert report.notes == (
        "vae_decoder has no golden tensors in the reference, so it was not compared on its own.",
        "CLIP score and feature distance were not measured: the reference has no CLIP model.",
    )


def test_other_prompts_have_no_attributes(bundle: Bundle, reference: Reference, tmp_path: Path) -> None:
    other = replace(reference, prompts=("a cat", *reference.prompts[1:]))
    report = validate(bundle, other, LIMITS, tmp_path)
    assert report.passed
    assert "pictures.attribute_accuracy" not in values(report)
    assert report.notes == (
        "Attribute accuracy was not measured: the prompts are not all sentences of the shapes grammar.",
    )


def test_old_pictures_do_not_stay(bundle: Bundle, reference: Reference, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("9999-result.png", "mine.png"):
        (tmp_path / "pictures" / name).write_bytes(b"")
    validate(bundle, reference, LIMITS, tmp_path)
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert "9999-result.png" not in names
    assert "mine.png" in names


def test_a_reference_of_another_family(bundle: Bundle, reference: Reference, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        validate(bundle, replace(reference, family=FLUX.name), LIMITS, tmp_path)
    assert str(caught.value) == (
        f"{reference.root}: is a reference for 'flux', the bundle is 'stable-diffusion'\n"
        "fix: name the reference that was made with this bundle"
    )


def test_a_reference_of_other_latents(bundle: Bundle, reference_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "reference"
    shutil.copytree(reference_folder, folder)
    np.savez(folder / "final_latents.npz", latents=np.zeros((4, 4, 2, 2), np.float32))
    with pytest.raises(BundleError) as caught:
        validate(bundle, read_reference(folder), LIMITS, tmp_path / "r")
    assert str(caught.value) == (
        f"{folder / 'final_latents.npz'}: has latents [4, 2, 2], the bundle draws [4, 8, 8]\n"
        "fix: build the reference again: latentc build RECIPE --out DIR"
    )
