"""Second and third rung: what a bundle drew against what the original drew, latents first, then pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from latentc.errors import BundleError
from latentc.recipes.shapes.scene import Scene
from latentc.runtime.picture import save_png
from latentc.validation.attributes import SMALLEST_SIDE_PIXELS, scenes_of_prompts, wrong_attributes
from latentc.validation.bootstrap import mean_interval
from latentc.validation.draw_pictures import Drawing
from latentc.validation.features import PictureFeatures, clip_score, feature_distance
from latentc.validation.measured import Measured
from latentc.validation.picture_metrics import WINDOW_PIXELS, is_blank, psnr_db, ssim
from latentc.validation.progress import Progress
from latentc.validation.reference import Reference
from latentc.validation.report import PictureRow, StepRow
from latentc.validation.tensor_metrics import cosine, relative_error, sqnr_db

_TRAJECTORY, _PICTURES = "trajectory", "pictures"
_CLIP_METRICS = ("feature_distance", "clip_score", "clip_score_drop")
_ATTRIBUTE_METRICS = ("attribute_accuracy", "attribute_accuracy_drop")


def compare_latents(drawing: Drawing, reference: Reference, measured: Measured) -> tuple[StepRow, ...]:
    """Add the trajectory's figures to ``measured``, and return a row a step.

    Raises:
        BundleError: the reference's latents have another shape.
    """
    golden, finals = reference.trajectory()[:, 1:], reference.final_latents()
    mine = drawing.trajectory
    for name, ours, theirs in (
        ("trajectory", mine, golden),
        ("final_latents", drawing.final_latents, finals),
    ):
        if ours.shape != theirs.shape:
            raise BundleError(
                str(reference.root / f"{name}.npz"),
                f"has latents {list(theirs.shape[1:])}, the bundle draws {list(ours.shape[1:])}",
                "build the reference again: latentc build RECIPE --out DIR",
            )
    rows = []
    cosines = []
    for step in range(golden.shape[1]):
        errors = [relative_error(a, b) for a, b in zip(mine[:, step], golden[:, step], strict=True)]
        alike = [cosine(a, b) for a, b in zip(mine[:, step], golden[:, step], strict=True)]
        cosines += alike
        rows.append(StepRow(step + 1, float(np.mean(errors)), float(np.max(errors)), float(np.mean(alike))))
    final_cosines = [cosine(a, b) for a, b in zip(drawing.final_latents, finals, strict=True)]
    measured.values |= {
        (_TRAJECTORY, "first_step_sqnr_db"): sqnr_db(mine[:, 0], golden[:, 0]),
        (_TRAJECTORY, "final_sqnr_db"): sqnr_db(drawing.final_latents, finals),
        (_TRAJECTORY, "final_cosine"): float(np.mean(final_cosines)),
        (_TRAJECTORY, "worst_cosine"): float(np.min(cosines + final_cosines)),
    }
    return tuple(rows)


def compare_pictures(
    drawing: Drawing, reference: Reference, measured: Measured, out: Path, *, threads: int, progress: Progress
) -> tuple[PictureRow, ...]:
    """Write both sides' pictures into ``out``/pictures, add figures to ``measured``, return a row a prompt.

    Raises:
        BundleError: a picture of the reference cannot be read or has another size; CLIP's graph is damaged.
        UsageError: a picture cannot be written.
    """
    folder = _empty_pictures(out)
    clip = reference.clip()
    scenes = _scenes(reference, measured)
    if clip is None:
        _without(
            "CLIP score and feature distance were", "the reference has no CLIP model", _CLIP_METRICS, measured
        )
    rows: list[PictureRow] = []
    original_scores: list[float] = []
    blank = 0
    with nullcontext() if clip is None else PictureFeatures(clip, threads) as features:
        for index, (prompt, result) in enumerate(zip(reference.prompts, drawing.pictures, strict=True)):
            progress(index / len(reference.prompts), f"comparing picture {index + 1}")
            original = reference.picture(index)
            if original.shape != result.shape:
                raise BundleError(
                    str(reference.root / "reference.json"),
                    f"has pictures {list(original.shape)}, the bundle draws {list(result.shape)}",
                    "build the reference again: latentc build RECIPE --out DIR",
                )
            names = f"{index:04d}-original.png", f"{index:04d}-result.png"
            save_png(original, folder / names[0])
            save_png(result, folder / names[1])
            blank += is_blank(result) and not is_blank(original)
            distance = score = None
            if features is not None and clip is not None:
                mine, theirs = features.of_picture(result), features.of_picture(original)
                distance = feature_distance(mine, theirs)
                score = clip_score(mine, clip.text_features[index])
                original_scores.append(clip_score(theirs, clip.text_features[index]))
            rows.append(
                PictureRow(
                    index=index,
                    prompt=prompt,
                    original=f"pictures/{names[0]}",
                    result=f"pictures/{names[1]}",
                    psnr_db=psnr_db(result, original),
                    ssim=ssim(result, original) if min(result.shape[:2]) >= WINDOW_PIXELS else None,
                    feature_distance=distance,
                    clip_score=score,
                    original_wrong=None if scenes is None else wrong_attributes(original, scenes[index]),
                    result_wrong=None if scenes is None else wrong_attributes(result, scenes[index]),
                )
            )
    _summarise(rows, original_scores, measured)
    measured.values[_PICTURES, "blank_pictures"] = float(blank)
    progress(1.0, "compared the pictures")
    return tuple(rows)


def _scenes(reference: Reference, measured: Measured) -> tuple[Scene, ...] | None:
    scenes = scenes_of_prompts(reference.prompts)
    if scenes is None:
        why = "the prompts are not all sentences of the shapes grammar"
    elif reference.height != reference.width or reference.height < SMALLEST_SIDE_PIXELS:
        why = (
            f"pictures of {reference.width}×{reference.height} pixels are not square, "
            f"or below {SMALLEST_SIDE_PIXELS} pixels"
        )
    else:
        return scenes
    _without("Attribute accuracy was", why, _ATTRIBUTE_METRICS, measured)
    return None


def _without(title: str, why: str, names: Sequence[str], measured: Measured) -> None:
    measured.notes.append(f"{title} not measured: {why}.")
    measured.missing |= {f"{_PICTURES}.{name}": why for name in names}


def _summarise(rows: Sequence[PictureRow], original_scores: Sequence[float], measured: Measured) -> None:
    """Means and worst of the rows; a column that was not measured for every row is left out."""
    _mean("psnr_db", [row.psnr_db for row in rows], measured)
    _mean("ssim", [row.ssim for row in rows], measured)
    _mean("feature_distance", [row.feature_distance for row in rows], measured)
    _mean("clip_score", [row.clip_score for row in rows], measured)
    measured.values[_PICTURES, "worst_psnr_db"] = float(np.min([row.psnr_db for row in rows]))
    similarities = [row.ssim for row in rows if row.ssim is not None]
    if similarities:
        measured.values[_PICTURES, "worst_ssim"] = float(np.min(similarities))
    if original_scores:
        drop = float(np.mean(original_scores)) - measured.values[_PICTURES, "clip_score"]
        measured.values[_PICTURES, "clip_score_drop"] = drop
    results = [row.result_wrong for row in rows if row.result_wrong is not None]
    originals = [row.original_wrong for row in rows if row.original_wrong is not None]
    if results:
        right = [0.0 if wrong else 1.0 for wrong in results]
        _mean("attribute_accuracy", right, measured)
        original_share = sum(not wrong for wrong in originals) / len(originals)
        measured.values[_PICTURES, "attribute_accuracy_drop"] = original_share - float(np.mean(right))


def _mean(name: str, column: Sequence[float | None], measured: Measured) -> None:
    values = [value for value in column if value is not None]
    if len(values) < len(column) or not values:
        return
    measured.values[_PICTURES, name] = float(np.mean(values))
    if all(math.isfinite(value) for value in values):
        measured.intervals[_PICTURES, name] = mean_interval(values)


def _empty_pictures(out: Path) -> Path:
    """The folder for pictures, without what an earlier validation left there."""
    folder = out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for side in ("original", "result"):
        for old in folder.glob(f"[0-9][0-9][0-9][0-9]-{side}.png"):
            old.unlink()
    return folder
