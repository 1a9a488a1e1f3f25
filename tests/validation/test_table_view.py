import math

import pytest

from latentc.validation.report import LayerRow, RefusalRow, SizeRow, TrialRow
from latentc.validation.table_view import (
    duration,
    layer_bars,
    megabytes,
    refusal_groups,
    size_bars,
    trial_tables,
)


def test_layers_worst_first_and_nan_before_them() -> None:
    bars = layer_bars(
        [
            LayerRow("unet", "a.weight", "quantize-int4", 0.05),
            LayerRow("unet", "b.weight", "quantize-int4", 0.1),
            LayerRow("unet", "c.weight", "quantize-int8", math.nan),
        ]
    )
    assert [(bar.label, bar.text, bar.percent) for bar in bars] == [
        ("unet/c", "not finite", 100), ("unet/b", "10 %", 100), ("unet/a", "5 %", 50)
    ]  # fmt: skip


def test_layers_without_any_loss() -> None:
    assert [bar.percent for bar in layer_bars([LayerRow("unet", "a", "p", 0.0)])] == [0]


def test_sizes_and_their_sum() -> None:
    views = size_bars([SizeRow("unet", 2_000_000, 500_000, 1_500_000, 300_000), SizeRow("vae", 0, 0, 0, 0)])
    assert [(view.label, view.fp16, view.bundle, view.share) for view in views] == [
        ("unet", "2 MB", "0.5 MB", "0.25"),
        ("vae", "0 kB", "0 kB", ""),
        ("all components", "2 MB", "0.5 MB", "0.25"),
    ]
    assert (views[0].fp16_percent, views[0].quantized_percent, views[0].rest_percent) == (100, 15, 10)
    assert size_bars([]) == ()


def test_trials_by_pass_and_layer() -> None:
    rows = [
        TrialRow("unet", "a.weight", "smooth", "as it is", 0.2, taken=False),
        TrialRow("unet", "a.weight", "smooth", "a=0.5 b=0.5", 0.1, taken=True),
        TrialRow("unet", "b.weight", "smooth", "as it is", 0.2, taken=True),
        TrialRow("unet", "b.weight", "smooth", "a=0.5 b=0", math.nan, taken=False),
        TrialRow("unet", "a.weight", "quantize-int4", "gptq", 0.04, taken=True),
    ]
    smooth, quantize = trial_tables(rows)
    assert (smooth.pass_name, smooth.summary) == (
        "smooth",
        "2 layers: a=0.5 b=0.5 taken in 1, as it is taken in 1",
    )
    assert smooth.layers == (
        ("unet/a", (("as it is", "20 %", False), ("a=0.5 b=0.5", "10 %", True))),
        ("unet/b", (("as it is", "20 %", True), ("a=0.5 b=0", "not finite", False))),
    )
    assert quantize.summary == "1 layer: gptq taken in 1"
    many = [TrialRow("unet", f"{n}", "smooth", f"a={n}", 0.1, taken=True) for n in range(6)]
    assert trial_tables(many)[0].summary.endswith("taken in 1, 3 other ways in the rest")
    assert trial_tables([]) == ()


def test_refusals_by_reason() -> None:
    rows = [
        RefusalRow("unet", "quantize-int4", "a", "too small"),
        RefusalRow("unet", "quantize-int4", "b", "shared"),
        RefusalRow("unet", "quantize-int4", "c", "too small"),
    ]
    assert refusal_groups(rows) == (
        ("quantize-int4: too small", ("unet/a", "unet/c")),
        ("quantize-int4: shared", ("unet/b",)),
    )


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(999, "0.999 kB"), (250_000, "0.25 MB"), (1.7e9, "1.7e+03 MB")]
)
def test_megabytes(size_bytes: int, text: str) -> None:
    assert megabytes(size_bytes) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.0021, "2.1 ms"), (0.412, "0.412 s"), (73.0, "73 s")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
