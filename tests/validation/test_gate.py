import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from latentc.errors import BundleError, UsageError
from latentc.runtime.bundle import LIMITS, Bundle, write_manifest
from latentc.validation.gate import REFERENCE, limits_to_json, read_limits, validate_bundle


@pytest.fixture
def folder(tmp_path: Path, bundle: Bundle, reference_folder: Path) -> Path:
    """A bundle that carries its reference, as pack makes it."""
    folder = tmp_path / "onnx"
    shutil.copytree(bundle.folder, folder)
    shutil.copytree(reference_folder, folder / REFERENCE)
    write_manifest(folder, bundle.manifest)
    (folder / LIMITS).write_text(limits_to_json({"unet.sqnr_db": 60}))
    return folder


def test_passes_and_writes_three_files(folder: Path, tmp_path: Path) -> None:
    report = validate_bundle(folder, tmp_path / "report")
    assert report.passed
    assert json.loads((tmp_path / "report" / "report.json").read_text())["passed"] is True
    assert ElementTree.parse(tmp_path / "report" / "junit.xml").getroot().find(".//failure") is None
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000


def test_an_edited_limit_counts_and_leaves_the_bundle_sound(folder: Path, tmp_path: Path) -> None:
    (folder / LIMITS).write_text(limits_to_json({"pictures.psnr_db": 1e6}))
    report = validate_bundle(folder, tmp_path / "report")
    assert [finding.name for finding in report.failures] == ["pictures.psnr_db"]


def test_a_baseline_is_written_and_then_held(folder: Path, tmp_path: Path) -> None:
    baseline, summary = tmp_path / "baseline.json", tmp_path / "summary.md"
    validate_bundle(folder, tmp_path / "a", update_baseline=baseline, summary=summary)
    assert validate_bundle(folder, tmp_path / "b", baseline=baseline).passed
    held = json.loads(baseline.read_text())
    ((key, values),) = held["bundles"].items()
    values["pictures.ssim"] = values["pictures.ssim"] + 5
    baseline.write_text(json.dumps(held))
    failures = [
        finding.name for finding in validate_bundle(folder, tmp_path / "c", baseline=baseline).failures
    ]
    assert (key.split("/")[1], failures) == ("onnx", ["pictures.ssim_change"])
    assert summary.read_text().startswith("## latentc: ")


def test_a_damaged_bundle_is_not_judged(folder: Path, tmp_path: Path) -> None:
    weights = next(folder.rglob("*.onnx"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(BundleError, match="has SHA-256"):
        validate_bundle(folder, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_report_does_not_go_into_the_bundle(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        validate_bundle(folder, folder / "report")
    assert str(caught.value) == (
        f"{folder / 'report'}: lies inside the bundle\nfix: choose a folder beside it with --report DIR"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds a list, wanted a mapping"),
        ("{", "cannot be read"),
        ('{"unet.sqnr_db": "high"}', "unet.sqnr_db: is 'high', wanted a finite number"),
        ('{"unet.sqnr_db": NaN}', "unet.sqnr_db: is nan, wanted a finite number"),
    ],
)
def test_broken_limits_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / LIMITS).write_text(text)
    with pytest.raises(BundleError, match=message):
        read_limits(tmp_path)


def test_limits_survive_their_text(tmp_path: Path) -> None:
    assert read_limits(tmp_path) == {}
    limits = {"unet.sqnr_db": 18.5, "pictures.ssim": 0.9}
    (tmp_path / LIMITS).write_text(limits_to_json(limits))
    assert read_limits(tmp_path) == limits
