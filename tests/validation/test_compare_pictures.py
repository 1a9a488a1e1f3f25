from pathlib import Path

import numpy as np
import pytest

from latentc.errors import BundleError
from latentc.recipes.shapes.caption import scene_from_caption
from latentc.recipes.shapes.render import render
from latentc.validation.compare_pictures import compare_latents, compare_pictures
from latentc.validation.draw_pictures import Drawing
from latentc.validation.measured import Measured
from latentc.validation.picture_metrics import PSNR_CAP_DB
from latentc.validation.reference import Reference


def drawing_of(reference: Reference) -> Drawing:
    return Drawing(
        reference.trajectory()[:, 1:].copy(),
        reference.final_latents().copy(),
        tuple(reference.picture(n) for n in range(len(reference.prompts))),
    )


def test_an_error_that_starts_at_the_second_step(reference: Reference) -> None:
    drawing, measured = drawing_of(reference), Measured()
    drawing.trajectory[1, 1:] *= np.float32(1.01)
    rows = compare_latents(drawing, reference, measured)
    # 1 % of one of two prompts; 1.01 in float32 is off by 1e-8
    assert [row.worst_relative_error for row in rows] == pytest.approx([0, 0.01, 0.01], abs=1e-6)
    assert [row.relative_error for row in rows] == pytest.approx([0, 0.005, 0.005], abs=1e-6)
    assert measured.values["trajectory", "first_step_sqnr_db"] == 200
    assert measured.values["trajectory", "final_sqnr_db"] == 200


def test_pictures_that_show_what_is_asked_and_a_blank_one(reference: Reference, tmp_path: Path) -> None:
    pictures = [render(scene_from_caption(prompt), side_pixels=32) for prompt in reference.prompts]
    pictures[1] = np.zeros_like(pictures[1])
    drawing = drawing_of(reference)
    measured = Measured()
    rows = compare_pictures(
        Drawing(drawing.trajectory, drawing.final_latents, tuple(pictures)),
        reference,
        measured,
        tmp_path,
        threads=1,
        progress=lambda fraction, what: None,
    )
    assert measured.values["pictures", "blank_pictures"] == 1
    assert rows[1].result_wrong is not None
    assert "count" in rows[1].result_wrong
    right = sum(not row.result_wrong for row in rows)
    assert measured.values["pictures", "attribute_accuracy"] == right / 4
    assert right >= 2  # 32 pixels are half of what the checker is made for
    # the small bundle's own pictures are noise: none is right, so nothing is lost
    assert measured.values["pictures", "attribute_accuracy_drop"] == -right / 4
    assert measured.values["pictures", "worst_psnr_db"] == min(row.psnr_db for row in rows)
    low, high = measured.intervals["pictures", "psnr_db"]
    assert low <= measured.values["pictures", "psnr_db"] <= high
    assert measured.notes == []


def test_what_is_written_is_what_was_compared(reference: Reference, tmp_path: Path) -> None:
    rows = compare_pictures(
        drawing_of(reference),
        reference,
        Measured(),
        tmp_path,
        threads=1,
        progress=lambda fraction, what: None,
    )
    assert [row.psnr_db for row in rows] == [PSNR_CAP_DB] * 4
    assert [row.original for row in rows] == [f"pictures/{n:04d}-original.png" for n in range(4)]
    assert all((tmp_path / row.result).is_file() for row in rows)


def test_pictures_of_another_size(reference: Reference, tmp_path: Path) -> None:
    drawing = drawing_of(reference)
    small = Drawing(
        drawing.trajectory, drawing.final_latents, tuple(np.zeros((16, 16, 3), np.uint8) for _ in range(4))
    )
    with pytest.raises(BundleError) as caught:
        compare_pictures(
            small, reference, Measured(), tmp_path, threads=1, progress=lambda fraction, what: None
        )
    assert str(caught.value) == (
        f"{reference.root / 'reference.json'}: has pictures [32, 32, 3], the bundle draws [16, 16, 3]\n"
        "fix: build the reference again: latentc build RECIPE --out DIR"
    )
