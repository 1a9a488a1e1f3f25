"""Allocate spends a budget where it matters, keeps within it, and does as a plan says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.passes.four_gates import assert_twice_is_once, largest_error
from tests.passes.graphs import model_of

from latentc.errors import PassError
from latentc.passes.allocate import Allocate
from latentc.passes.base import Pass, PassContext
from latentc.passes.cost import Budget
from latentc.passes.layer_gains import write_gains
from latentc.passes.layer_rows import ROWS
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.quantize_int8_weights import QuantizeInt8Weights
from latentc.passes.sequence import run_passes
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.weight_bytes import weigh

LINEARS = """g (float[B,64] x) => (float[B,64] y, float[B,64] z, float[B,64] c)
<float[64,64] w, float[64,64] v, float[64,64] u> {
    y = MatMul (x, w)
    z = MatMul (x, v)
    c = MatMul (x, u) }"""
WEIGHTS = ("w", "v", "u")


def recorded(folder: Path, gains: dict[str, float], seed: int, count: int = 200) -> PassContext:
    """Inputs of the graph, rows for every weight, and ``gains``."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        np.savez(folder / f"{number:04d}.npz", x=random.standard_normal((count, 64)).astype(np.float32))
    (folder / ROWS).mkdir(exist_ok=True)
    for name in WEIGHTS:
        rows = random.standard_normal((96, 64)).astype(np.float32)
        np.save(folder / ROWS / f"{name}.fit.npy", rows[:64])
        np.save(folder / ROWS / f"{name}.held_out.npy", rows[64:])
    write_gains(gains, folder)
    return PassContext(calibration=folder, gains=folder)


def chosen(step: Allocate, context: PassContext) -> dict[str, str]:
    return {change.where: change.what for change in step(model_of(LINEARS), context).changes}


def test_twice_is_once(tmp_path: Path, seed: int) -> None:
    context = recorded(tmp_path, dict.fromkeys(WEIGHTS, 1.0), seed)
    assert_twice_is_once(Allocate(max_ratio=0.4), model_of(LINEARS), context)


def test_no_value_changes(tmp_path: Path, seed: int) -> None:
    context = recorded(tmp_path / "records", dict.fromkeys(WEIGHTS, 1.0), seed)
    model = model_of(LINEARS)
    after = Allocate(max_ratio=0.4)(model, context).model
    assert largest_error(model, after, tmp_path, seed) == 0


def test_the_layer_that_moves_the_picture_gets_the_bits(tmp_path: Path, seed: int) -> None:
    step = Allocate(max_ratio=0.35, largest_rank=0)  # room for one of three in INT8
    for loud in WEIGHTS:
        gains = {name: 1.0 if name == loud else 0.01 for name in WEIGHTS}
        assert chosen(step, recorded(tmp_path, gains, seed)) == {
            name: "int8" if name == loud else "int4" for name in WEIGHTS
        }


@pytest.mark.parametrize("ratio", [0.27, 0.3, 0.34, 0.4, 0.5, 0.52])
def test_what_is_written_is_within_the_budget(ratio: float, tmp_path: Path, seed: int) -> None:
    context = recorded(tmp_path, {"w": 1.0, "v": 0.3, "u": 0.1}, seed)
    passes: list[Pass] = [
        Allocate(max_ratio=ratio),
        SplitLowRank(calibrated=False, optional=True),
        QuantizeInt8Weights(optional=True),
        QuantizeInt4(optional=True),
    ]
    model, _ = run_passes(model_of(LINEARS), passes, context)
    sizes = weigh(model)
    assert sizes.quantized_fp16_bytes == 3 * 2 * 64 * 64
    assert sizes.quantized_bytes <= ratio * sizes.quantized_fp16_bytes
    (taken,) = [point for point in context.ledger.front if point.taken]
    assert taken.ratio == pytest.approx(sizes.quantized_bytes / sizes.quantized_fp16_bytes)


def test_the_front_falls_and_more_bytes_never_lose_more(tmp_path: Path, seed: int) -> None:
    context = recorded(tmp_path, {"w": 1.0, "v": 0.3, "u": 0.1}, seed)
    Allocate(max_ratio=0.6, precisions=("int4", "int8", "float"))(model_of(LINEARS), context)
    points = [point for point in context.ledger.front if not point.taken]
    assert [point.ratio for point in points] == sorted(point.ratio for point in points)
    assert [point.relative_error for point in points] == sorted(
        (point.relative_error for point in points), reverse=True
    )
    assert (points[-1].float_layers, points[-1].relative_error) == (3, 0.0)


def test_four_bit_activations_cost_more_than_eight(tmp_path: Path, seed: int) -> None:
    foretold = []
    for bits in (4, 8, 16):
        context = recorded(tmp_path, dict.fromkeys(WEIGHTS, 1.0), seed)
        Allocate(max_ratio=0.3, activations=bits)(model_of(LINEARS), context)
        (taken,) = [point for point in context.ledger.front if point.taken]
        foretold.append(taken.relative_error)
    assert foretold[0] > foretold[1] > foretold[2]


def test_inputs_that_stay_floats_cost_nothing(tmp_path: Path, seed: int) -> None:
    foretold = []
    for unrounded in ((), ("w",), ("*",)):
        context = recorded(tmp_path, dict.fromkeys(WEIGHTS, 1.0), seed)
        Allocate(max_ratio=0.3, activations=4, unrounded=unrounded)(model_of(LINEARS), context)
        (taken,) = [point for point in context.ledger.front if point.taken]
        foretold.append(taken.relative_error)
    assert foretold[0] > foretold[1] > foretold[2]


def test_a_plan_needs_no_record_and_is_followed() -> None:
    step = Allocate(plan=("w=int8", "u=int4+8"))
    assert [step.needs_calibration, step.needs_rows, step.needs_gains] == [False] * 3
    result = step(model_of(LINEARS), PassContext())
    assert {change.where: change.what for change in result.changes} == {"w": "int8", "u": "int4+8"}
    assert [(refusal.where, refusal.why) for refusal in result.refusals] == [("v", "is not in the plan")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"plan": ("int8",)},
            "allocate.plan: 'int8' is no WEIGHT=ALLOTMENT, or its second\nfix: write w=int4+16",
        ),
        (
            {"plan": ("w=int8", "w=int4")},
            "allocate.plan: 'w=int4' is no WEIGHT=ALLOTMENT, or its second\nfix: write w=int4+16",
        ),
        (
            {"plan": ("w=int9",)},
            "allocate.plan: 'w': 'int9' is no allotment\nfix: write float, int8, int4, int4+16 or int4@8+16",
        ),
        ({"precisions": ()}, 'allocate.precisions: is empty\nfix: write precisions=["int4", "int8"]'),
        ({"precisions": ("int5",)}, "allocate.precisions: 'int5' is none\nfix: did you mean 'int8'?"),
        ({"activations": 5}, "allocate.activations: is 5, wanted 4, 8 or 16\nfix: write 8"),
        (
            {"max_ratio": 0.2},
            "allocate.max_ratio: is 0.2, wanted a number from 0.25 to 1.0 of the bytes in fp16\n"
            "fix: write max_ratio=0.3",
        ),
        (
            {"device": "ort-mobile"},
            "allocate.device: is given, and the budget is of bytes\nfix: write budget=latency",
        ),
        (
            {"budget": Budget.LATENCY, "device": "jetson-orin-nano"},
            "allocate.device: there is no target 'jetson-orin-nano'\n"
            "fix: did you mean 'jetson-orin-nano-8gb'?",
        ),
        (
            {"budget": Budget.LATENCY, "device": "ort-mobile", "activations": 4},
            "allocate.activations: is 4, and ort-mobile executes no INT4 × INT4 that could be modelled\n"
            "fix: write activations=8 for onnxruntime, activations=16 for TensorRT, or budget=bytes",
        ),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(PassError) as caught:
        Allocate(**options)  # type: ignore[arg-type] # that is the test
    assert str(caught.value) == message


@pytest.mark.parametrize("device", ["ort-mobile", "jetson-orin-nano-8gb"])
@pytest.mark.parametrize("rows", [1, 4000])
def test_more_time_never_loses_more_and_no_budget_is_exceeded(
    device: str, rows: int, tmp_path: Path, seed: int
) -> None:
    foretold, unmet, met = [], [], []
    for hundredth in range(30, 111, 4):
        context = recorded(tmp_path, {"w": 1.0, "v": 0.3, "u": 0.1}, seed, rows)
        step = Allocate(
            max_ratio=hundredth / 100,
            budget=Budget.LATENCY,
            device=device,
            precisions=("int4", "int8", "float"),
        )
        try:
            step(model_of(LINEARS), context)
        except PassError:
            unmet.append(step.max_ratio)
            continue
        (taken,) = [point for point in context.ledger.front if point.taken]
        met.append(step.max_ratio)
        assert taken.ratio <= step.max_ratio
        assert taken.device == device
        foretold.append(taken.relative_error)
    assert all(ratio < met[0] for ratio in unmet)
    assert foretold == sorted(foretold, reverse=True)
    assert foretold[-1] == 0  # floats take what floats take


@pytest.mark.parametrize(
    ("device", "rows", "fastest"),
    [
        ("jetson-orin-nano-8gb", 1, "int4"),
        ("jetson-orin-nano-8gb", 4000, "float"),  # it multiplies INT4 in FP16, and nothing is won
        ("ort-mobile", 1, "int4"),
        ("ort-mobile", 4000, "int8"),
    ],
)
def test_the_cheapest_way_is_the_fastest_there(
    device: str, rows: int, fastest: str, tmp_path: Path, seed: int
) -> None:
    random = np.random.default_rng(seed)
    np.savez(tmp_path / "0000.npz", x=random.standard_normal((rows, 512)).astype(np.float32))
    (tmp_path / ROWS).mkdir()
    for kind in ("fit", "held_out"):
        np.save(tmp_path / ROWS / f"w.{kind}.npy", random.standard_normal((64, 512)).astype(np.float32))
    write_gains({"w": 1.0}, tmp_path)
    context = PassContext(calibration=tmp_path, gains=tmp_path)
    step = Allocate(
        max_ratio=1.0,
        budget=Budget.LATENCY,
        device=device,
        largest_rank=0,
        precisions=("int4", "int8", "float"),
    )
    step(model_of("g (float[B,512] x) => (float[B,512] y) <float[512,512] w> { y = MatMul (x, w) }"), context)
    least = context.ledger.front[0]
    assert (least.int4_layers, least.int8_layers, least.float_layers) == tuple(
        int(fastest == precision) for precision in ("int4", "int8", "float")
    )


def test_other_figures_of_a_device_are_another_step() -> None:
    timed = Allocate(budget=Budget.LATENCY, device="ort-mobile")
    assert "bandwidth_gb_s=20.0" in str(timed.identity()["roofline"])
    assert "roofline" not in Allocate().identity()
    planned = Allocate(budget=Budget.LATENCY, device="ort-mobile", plan=("w=int8",))
    assert "roofline" not in planned.identity()


def test_a_rank_beyond_the_layer() -> None:
    with pytest.raises(PassError) as caught:
        Allocate(plan=("w=int4+65",))(model_of(LINEARS), PassContext())
    assert str(caught.value) == (
        "allocate.plan: rank 65 is larger than the smallest side of 'w' (64)\nfix: write w=int4+64 at most"
    )


def test_a_layer_that_was_not_measured(tmp_path: Path, seed: int) -> None:
    context = recorded(tmp_path, {"w": 1.0, "v": 1.0}, seed)
    with pytest.raises(PassError) as caught:
        Allocate()(model_of(LINEARS), context)
    assert str(caught.value) == (
        "allocate: 'u': its sensitivity was not measured\n"
        'fix: build the sensitivity step again, or leave the weight alone with skip=["u"]'
    )


def test_after_a_split_it_is_too_late() -> None:
    model = SplitLowRank(calibrated=False, max_ratio=0.5)(model_of(LINEARS), PassContext()).model
    with pytest.raises(PassError, match="'w' is split already"):
        Allocate(plan=("w=int8",))(model, PassContext())
