"""Metric: what validation measures, on which rung of the ladder, and which way is better.

METRICS is the catalogue. A metric is named ``<subject>.<name>`` in recipes, baselines and reports. The
subject of a component metric is the component's folder (``unet``, ``vae_decoder``; ``denoiser`` stands for
whichever the family has); the other two rungs have one subject each, ``trajectory`` and ``pictures``.
"""

from __future__ import annotations

from dataclasses import dataclass

from latentc.recipes.choice import Choice


class Level(Choice):
    """A rung of the ladder, from where an error starts to where it is seen."""

    COMPONENT = "component"
    TRAJECTORY = "trajectory"
    PICTURES = "pictures"


class Direction(Choice):
    """Which side of its limit a value must be on."""

    AT_LEAST = "at least"
    AT_MOST = "at most"


@dataclass(frozen=True)
class Metric:
    """One figure of the report.

    Args:
        level: the rung it belongs to.
        name: second half of its full name.
        direction: what a limit means, so also which way is better.
        unit: of the value; empty for pure numbers.
        title: what the report calls it.
        meaning: one sentence for the reader of the report.
        slack: how far a value may fall behind a baseline that was measured on another machine, in its unit.
        slack_share: the same as a share of the baseline's value; the larger of the two counts.
        ceiling: beyond it a value is rounding noise, and a baseline counts anything better as just as good;
            None where there is no such point.
        guard: a limit that holds even when the recipe names none; None for most.
    """

    level: Level
    name: str
    direction: Direction
    unit: str
    title: str
    meaning: str
    slack: float = 0.0
    slack_share: float = 0.0
    ceiling: float | None = None
    guard: float | None = None


_COMPONENT, _TRAJECTORY, _PICTURES = Level.COMPONENT, Level.TRAJECTORY, Level.PICTURES
_AT_LEAST, _AT_MOST = Direction.AT_LEAST, Direction.AT_MOST

# Slack, why it is what it is: the same bundle gives other last bits on another CPU, since integer and float
# kernels differ there. One evaluation of a component moves by far less than 0.1 dB; a trajectory multiplies
# the difference step by step, and one picture of 64 may flip. A real regression (a layer that lost its
# low-rank branch, a wrong scale) costs whole dB. Means over pictures get less slack than the worst of them.
# Measured on the demo, 1 thread against 2: an INT4 denoiser at 24.8 dB and its pictures at 35.8 dB moved by
# less than 1e-4 dB, a float32 VAE at 126 dB by 0.8 dB. The last is no news, hence the ceilings.
_TENSOR_CEILING_DB = 100.0
_PICTURE_CEILING_DB = 60.0  # about one level in one value of sixteen

METRICS: tuple[Metric, ...] = (
    Metric(
        _COMPONENT, "sqnr_db", _AT_LEAST, "dB", "signal to noise",
        "energy of the original's output over energy of the error, all golden samples together", slack=0.2,
        ceiling=_TENSOR_CEILING_DB,
    ),
    Metric(
        _COMPONENT, "worst_sqnr_db", _AT_LEAST, "dB", "signal to noise, worst sample",
        "the same for the golden sample that came out worst", slack=0.5, ceiling=_TENSOR_CEILING_DB,
    ),
    Metric(
        _COMPONENT, "relative_error", _AT_MOST, "", "relative error",
        "length of the error over length of the original's output", slack=1e-5, slack_share=0.03,
    ),
    Metric(
        _COMPONENT, "cosine", _AT_LEAST, "", "cosine",
        "whether the output points where the original's does; 1 is the same direction", slack=2e-4,
    ),
    Metric(
        _COMPONENT, "not_finite", _AT_MOST, "values", "NaN or infinite",
        "how many output values are no numbers", guard=0.0,
    ),
    Metric(
        _TRAJECTORY, "first_step_sqnr_db", _AT_LEAST, "dB", "latents after the first step",
        "signal to noise before errors can add up", slack=0.3, ceiling=_TENSOR_CEILING_DB,
    ),
    Metric(
        _TRAJECTORY, "final_sqnr_db", _AT_LEAST, "dB", "latents after the last step",
        "signal to noise of what the VAE decoder receives", slack=0.5, ceiling=_TENSOR_CEILING_DB,
    ),
    Metric(
        _TRAJECTORY, "final_cosine", _AT_LEAST, "", "cosine after the last step",
        "whether the final latents point where the original's do", slack=2e-3,
    ),
    Metric(
        _TRAJECTORY, "worst_cosine", _AT_LEAST, "", "cosine, worst step of any prompt",
        "the largest departure from the original's path", slack=1e-2,
    ),
    Metric(
        _PICTURES, "psnr_db", _AT_LEAST, "dB", "PSNR",
        "peak signal to noise of each picture, mean over the prompts; equal pictures count 100 dB", slack=0.5,
        ceiling=_PICTURE_CEILING_DB,
    ),
    Metric(
        _PICTURES, "worst_psnr_db", _AT_LEAST, "dB", "PSNR, worst picture",
        "peak signal to noise of the picture that came out worst", slack=2.0, ceiling=_PICTURE_CEILING_DB,
    ),
    Metric(
        _PICTURES, "ssim", _AT_LEAST, "", "SSIM",
        "structural similarity, mean over the prompts; 1 is equal", slack=0.01,
    ),
    Metric(
        _PICTURES, "worst_ssim", _AT_LEAST, "", "SSIM, worst picture",
        "structural similarity of the picture that came out worst", slack=0.05,
    ),
    Metric(
        _PICTURES, "feature_distance", _AT_MOST, "", "feature distance",
        "1 - cosine of CLIP's features of both pictures, mean; 0 is equal", slack=0.002, slack_share=0.1,
    ),
    Metric(
        _PICTURES, "clip_score", _AT_LEAST, "", "CLIP score",
        "how well the pictures fit their prompts, 100 × cosine, mean", slack=0.3,
    ),
    Metric(
        _PICTURES, "clip_score_drop", _AT_MOST, "", "CLIP score lost",
        "the original's CLIP score less the bundle's", slack=0.3,
    ),
    Metric(
        _PICTURES, "attribute_accuracy", _AT_LEAST, "", "attributes right",
        "share of pictures that show exactly what their prompt says", slack=0.02,
    ),
    Metric(
        _PICTURES, "attribute_accuracy_drop", _AT_MOST, "", "attributes lost",
        "the original's share of right pictures less the bundle's", slack=0.02,
    ),
    Metric(
        _PICTURES, "blank_pictures", _AT_MOST, "pictures", "blank pictures",
        "pictures of one colour where the original shows something", guard=0.0,
    ),
)  # fmt: skip


def metrics_of(level: Level) -> tuple[Metric, ...]:
    """The metrics of one rung, in the report's order."""
    return tuple(metric for metric in METRICS if metric.level is level)
