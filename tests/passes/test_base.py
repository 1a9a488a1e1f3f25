from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.passes.graphs import model_of

from latentc.errors import PassError
from latentc.passes.base import LayerLoss, LossLedger, PassContext, Trial
from latentc.passes.catalogue import PASSES
from latentc.passes.fuse_lora import FuseLora
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.quantize_int8 import QuantizeInt8
from latentc.passes.split_low_rank import SplitLowRank

NOTHING = "g (float[B,8] x) => (float[B,8] y) <float[8,8] w> { y = MatMul (x, w) }"


def test_a_pass_that_changes_nothing_is_an_error() -> None:
    with pytest.raises(PassError) as caught:
        QuantizeInt4()(model_of(NOTHING), PassContext())
    assert str(caught.value) == (
        "quantize-int4: changed nothing (w: has 64 weights, fewer than 4096: "
        "the nodes around it would cost more than it saves)\n"
        "fix: remove the pass from the recipe, or give it optional: true"
    )


def test_a_pass_that_may_change_nothing_is_not() -> None:
    result = QuantizeInt4(optional=True)(model_of(NOTHING), PassContext())
    assert (result.changes, [refusal.where for refusal in result.refusals]) == ((), ["w"])


def test_a_pass_leaves_its_argument_alone() -> None:
    model = model_of("g (float[B,64] x) => (float[B,64] y) <float[64,64] w> { y = MatMul (x, w) }")
    QuantizeInt4()(model, PassContext())
    assert [node.op_type for node in model.graph] == ["MatMul"]
    assert list(model.graph.initializers) == ["w"]


def test_files_are_the_options_that_are_paths() -> None:
    assert FuseLora(Path("a")).files() == (Path("a"),)
    assert QuantizeInt4().files() == ()


def test_who_needs_calibration() -> None:
    assert [
        step.needs_calibration
        for step in (QuantizeInt8(), SplitLowRank(), SplitLowRank(calibrated=False), QuantizeInt4())
    ] == [True, True, False, False]


def test_a_loss_is_recorded_once() -> None:
    ledger = LossLedger()
    for _ in range(2):
        ledger.record(LayerLoss("w", "quantize-int4", 0.1))
    assert len(ledger.losses) == 1


@pytest.mark.parametrize("pass_class", PASSES, ids=lambda entry: entry.name)
def test_file_class_and_name_agree(pass_class: type[QuantizeInt4]) -> None:
    words = pass_class.name.split("-")
    assert pass_class.__module__ == f"latentc.passes.{'_'.join(words)}"
    assert pass_class.__name__ == "".join(word.capitalize() for word in words)


def test_what_a_thread_records_apart_is_its_own() -> None:
    ledger = LossLedger()
    first, second = (LayerLoss(name, "p", 0.5) for name in "ab")
    with ledger.apart() as own, ThreadPoolExecutor(1) as pool:
        ledger.record(first)
        pool.submit(ledger.record, second).result()
        ledger.try_out(Trial("a", "p", "way", 0.25, taken=True))
    assert (own.losses, len(own.trials), ledger.losses, ledger.trials) == ([first], 1, [second], [])
    ledger.add(own)
    ledger.add(own)  # each once
    assert (ledger.losses, len(ledger.trials)) == ([second, first], 1)
