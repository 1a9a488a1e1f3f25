"""A bundle of a tiny Stable Diffusion XL: built, judged, and drawn with."""

import json
from pathlib import Path

from tests.end_to_end.command import latentc
from tests.tiny_models import write_tiny_stable_diffusion_xl

from latentc.runtime.picture import load_picture

RECIPE = """\
name: tiny-xl
model: {path: model}
sampling: {scheduler: euler, steps: 2, guidance: 3.0, height: 64, width: 64}
targets: [ort-mobile]
passes:
  denoiser:
    - canonicalize
    - split-low-rank: {rank: 8}
    - quantize-int4
calibration: {prompts: prompts.txt, count: 1, samples: 2}
validation:
  prompts: prompts.txt
  count: 2
  limits: {unet.sqnr_db: 5, text_encoder_2.sqnr_db: 30, trajectory.final_sqnr_db: 3}
"""


def test_builds_and_draws(tmp_path: Path) -> None:
    write_tiny_stable_diffusion_xl(tmp_path / "model")
    (tmp_path / "tiny-xl.yaml").write_text(RECIPE)
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\na green triangle\n")
    done = latentc(tmp_path, "build", "tiny-xl.yaml", "--out", "out")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "ort-mobile" / "manifest.json").read_text())
    assert manifest["family"] == "stable-diffusion-xl"
    assert manifest["zeroes_empty_negative"] is True
    assert [one["name"] for one in manifest["components"]["text_encoder_2"]["outputs"]] == [
        "text_states",
        "pooled_states",
    ]
    assert json.loads((tmp_path / "out" / "report" / "report.json").read_text())["passed"] is True
    assert latentc(tmp_path, "verify", "out/ort-mobile").returncode == 0
    for name, negative in (("plain.png", ""), ("other.png", "a blue square")):
        done = latentc(
            tmp_path, "run", "out/ort-mobile", "--prompt", "a red circle", "--negative-prompt", negative,
            "--out", name,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert load_picture(tmp_path / name).shape == (64, 64, 3)
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "other.png").read_bytes()
