from dataclasses import replace
from pathlib import Path

from tests.validation.made_report import made_report

from latentc.validation.html_view import CONTACT_PAIRS, view_of_report
from latentc.validation.report import BuildFacts, Execution, Report


def test_worst_pictures_first_and_none_lost(tmp_path: Path) -> None:
    report = made_report(tmp_path, 12)
    view = view_of_report(report, tmp_path)
    psnrs = [float(pair.psnr.removesuffix(" dB")) for pair in view.pairs]
    assert psnrs == sorted(psnrs)
    assert sorted(pair.number for pair in view.pairs) == list(range(1, 13))
    assert len(view.contact) == CONTACT_PAIRS
    assert view.terms == "stable-diffusion, DDIMScheduler, 20 steps, guidance 4, 64×64 pixels, 12 prompts"


def test_nothing_but_a_name_is_a_page_too(tmp_path: Path) -> None:
    view = view_of_report(Report("r", "onnx", "flux", Execution(()), ()), tmp_path)
    assert (view.pairs, view.strip, view.chart, view.bytes, view.layers, view.sizes, view.cards) == (
        (),
        None,
        None,
        (),
        (),
        (),
        (),
    )
    assert view.verdict == "nothing was measured"


def test_the_verdict_s_words(tmp_path: Path) -> None:
    report = made_report(tmp_path, 2, noise_levels=60)
    view = view_of_report(replace(report, build=BuildFacts()), tmp_path)
    assert view.verdict.endswith("limits broken")
    assert list(view.failures) == [finding.sentence() for finding in report.failures]
