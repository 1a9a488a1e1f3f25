"""Low-rank split + INT4 against plain INT4, at the same activation precision, for both families.

    python tests/bench/split_against_plain.py --store .latentc/store --count 64

Both are built from the shipped recipes for the same target and judged on the same prompts and noise. What a
row does not name is as in the recipe, the linears that stay float too. Plain INT4 gets nothing for the bytes
of the branch; a second row of it gives them to it as smaller groups.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from pydantic import JsonValue

from latentc.recipes.load import load_recipe, recipe_file

FAMILIES = ("shapes-sd", "shapes-flux")
Changes: TypeAlias = "Mapping[str, dict[str, JsonValue] | None]"
"""By pass of a recipe: options to give it in place of the recipe's, or None to leave the pass out."""
VARIANTS: Mapping[str, Changes] = {
    "plain INT4, group 64": {"split-low-rank": None, "quantize-int4": {"group": 64}},
    "plain INT4, group 32": {"split-low-rank": None, "quantize-int4": {"group": 32}},
    "split + INT4 (as shipped)": {},
    "split + INT4, max_ratio 0.30": {"split-low-rank": {"max_ratio": 0.30}},
}
HEAD = "| model | denoiser's linears | of fp16 | SQNR dB | last latent dB | PSNR dB | SSIM | right |"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, default=Path(".latentc/store"))
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--target", default="ort-mobile")
    arguments = parser.parse_args()
    rows = [HEAD]
    rows.append("|---|---|---:|---:|---:|---:|---:|---:|")
    for family in FAMILIES:
        for name, changes in VARIANTS.items():
            rows.append(row(family, name, changes, arguments.store, arguments.count, arguments.target))
            sys.stderr.write(rows[-1] + "\n")
    sys.stdout.write("\n".join(rows) + "\n")
    return 0


def passes_override(family: str, changes: Changes) -> list[str]:
    """What tells ``latentc build`` to take the recipe's passes with these changes; nothing for none."""
    if not changes:
        return []
    shipped = load_recipe(recipe_file(family)).recipe.passes["denoiser"]
    passes = [
        {spec.name: {**spec.options, **(changes.get(spec.name) or {})}}
        for spec in shipped
        if changes.get(spec.name, {}) is not None
    ]
    return ["--set", f"passes.denoiser={json.dumps(passes)}"]


def row(family: str, name: str, changes: Changes, store: Path, count: int, target: str) -> str:
    """Build one variant and read its report."""
    with tempfile.TemporaryDirectory(prefix="latentc-bench-") as out:
        command = [sys.executable, "-m", "latentc", "build", family, "--out", out, "--store", str(store)]
        command += ["--target", target, "--set", f"validation.count={count}", "--set", "validation.limits={}"]
        command += passes_override(family, changes)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise RuntimeError(done.stderr)
        report = json.loads((Path(out) / "report" / "report.json").read_text())
        manifest = json.loads((Path(out) / target / "manifest.json").read_text())
    values = {f"{f['component']}.{f['metric']}": f["value"] for f in report["findings"]}
    denoiser = "unet" if "unet" in manifest["components"] else "transformer"
    entry = manifest["components"][denoiser]
    share = entry["quantized_bytes"] / entry["quantized_fp16_bytes"]
    figures = [
        values.get(f"{denoiser}.sqnr_db"),
        values.get("trajectory.final_sqnr_db"),
        values["pictures.psnr_db"],
    ]
    figures += [values["pictures.ssim"], values.get("pictures.attribute_accuracy")]
    shown = " | ".join("" if value is None else f"{value:.3f}" for value in figures)
    return f"| {family} | {name} | {share:.3f} | {shown} |"


if __name__ == "__main__":
    sys.exit(main())
