from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.validation.limits import limits_from_recipe
from latentc.validation.measured import Measured

LIMITS = limits_from_recipe({"unet.sqnr_db": 18, "pictures.clip_score": 30}, STABLE_DIFFUSION)


def test_what_was_measured_in_the_report_s_order() -> None:
    measured = Measured(
        values={("pictures", "clip_score"): 31.0, ("unet", "cosine"): 0.99, ("unet", "sqnr_db"): 20.0},
        intervals={("pictures", "clip_score"): (30.5, 31.5)},
    )
    findings = measured.findings(LIMITS)
    assert [finding.name for finding in findings] == ["unet.sqnr_db", "unet.cosine", "pictures.clip_score"]
    assert findings[2].interval == (30.5, 31.5)
    assert all(finding.passed for finding in findings)


def test_a_limit_that_nothing_was_measured_for_says_why() -> None:
    measured = Measured(missing={"unet": "unet is not in the bundle", "pictures.clip_score": "no CLIP"})
    assert [finding.sentence() for finding in measured.findings(LIMITS)] == [
        "unet.sqnr_db is not measured, limit at least 18 dB (unet is not in the bundle)",
        "pictures.clip_score is not measured, limit at least 30 (no CLIP)",
    ]


def test_a_rung_that_failed_breaks_its_guards_without_any_limit() -> None:
    measured = Measured(values={("unet", "cosine"): 1.0}, failed={"pictures": "NaN at step 3"})
    findings = measured.findings(limits_from_recipe({}, STABLE_DIFFUSION))
    assert [finding.sentence() for finding in findings if not finding.passed] == [
        "pictures.blank_pictures is not measured, limit at most 0 pictures (NaN at step 3)"
    ]
