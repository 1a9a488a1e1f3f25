"""Pass seconds: what is fitted takes longer than what is rounded, and skipped layers take nothing."""

from tests.compiler.machines import MACHINE
from tests.compiler.traces import block, traced

from latentc.compiler.forecast.pass_seconds import pass_seconds
from latentc.compiler.forecast.weightless_graph import weightless_graph
from latentc.passes.pass_text import pass_from_text


def seconds(text: str) -> float:
    return pass_seconds(pass_from_text(text), weightless_graph(traced(block(), 1, 16, 128), "b"), MACHINE)


def test_fitting_takes_longer_than_rounding() -> None:
    assert 0 < seconds("quantize-int4") < seconds("quantize-int4{rounding=scale-estimation}")
    plain = seconds("split-low-rank{calibrated=false,refinements=0}")
    assert 0 < plain < seconds("split-low-rank{calibrated=false,refinements=4}")


def test_what_changes_no_weight_takes_nothing() -> None:
    assert seconds("canonicalize") == seconds("quantize-activations") == 0
    assert seconds('quantize-int4{skip=["*"]}') == 0
    assert 0 == seconds('quantize-int8{skip=["conv.*"]}') < seconds("quantize-int8")
