import math
from pathlib import Path

import pytest
from tests.validation.made_report import made_report

from latentc.errors import UsageError
from latentc.validation.picture_view import spread, strip_of_psnrs, view_of_pair
from latentc.validation.report import PictureRow


def test_a_pair_says_what_is_wrong(tmp_path: Path) -> None:
    row = made_report(tmp_path, 1).pictures[0]
    wrong = PictureRow(
        0, row.prompt, row.original, row.result, math.nan, None, 0.012, None, ("size",), ("colour", "shape")
    )
    view = view_of_pair(wrong, tmp_path)
    assert (view.number, view.psnr, view.figures) == (1, "no PSNR", "feature distance 0.012")
    assert view.verdict == "wrong: colour, shape (original wrong: size)"
    assert view.status == "broken"
    assert all(
        uri.startswith("data:image/png;base64,") for uri in (view.original, view.result, view.difference)
    )


def test_nobody_can_tell(tmp_path: Path) -> None:
    row = made_report(tmp_path, 1).pictures[0]
    view = view_of_pair(
        PictureRow(0, "a cat", row.original, row.result, 20.0, 0.5, None, None, None, None), tmp_path
    )
    assert (view.verdict, view.status, view.psnr, view.figures) == ("", "measured", "20.0 dB", "SSIM 0.500")


def test_a_picture_that_is_gone(tmp_path: Path) -> None:
    row = made_report(tmp_path, 1).pictures[0]
    (tmp_path / row.result).unlink()
    with pytest.raises(UsageError, match="cannot be read as a picture"):
        view_of_pair(row, tmp_path)


def test_spread_has_both_ends(tmp_path: Path) -> None:
    pairs = [view_of_pair(row, tmp_path) for row in made_report(tmp_path, 9).pictures]
    assert [pair.number for pair in spread(pairs, 3)] == [pairs[0].number, pairs[4].number, pairs[8].number]
    assert spread(pairs[:2], 6) == tuple(pairs[:2])


@pytest.mark.parametrize("psnrs", [[20.0], [20.0, 20.0], [12.3, 19.9, 34.5], [100.0, 18.0]])
def test_the_scale_holds_every_mark(psnrs: list[float]) -> None:
    strip = strip_of_psnrs(psnrs)
    assert strip is not None
    assert all(0 <= mark <= 100 for mark in strip.marks)
    assert float(strip.ticks[0].text) <= min(psnrs)
    assert float(strip.ticks[-1].text) >= max(psnrs)


def test_no_pictures_no_scale() -> None:
    assert strip_of_psnrs([]) is None
