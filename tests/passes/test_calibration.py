from pathlib import Path

import numpy as np
import pytest
from tests.passes.graphs import inputs_of, model_of

from latentc.compiler.sampling_loop import spread
from latentc.errors import PassError
from latentc.passes.calibration import inner_values, is_held_out, is_record_held_out, read_samples
from latentc.passes.moments import MomentSums

GRAPH = """g (float[B,T,8] x) => (float[B,T,6] y) <float[8,7] w, float[7,6] v> {
    inner = MatMul (x, w)
    y = MatMul (inner, v) }"""


def test_moments_are_the_average_of_outer_products() -> None:
    model = model_of(GRAPH)
    samples = [inputs_of(model, {"B": 2, "T": length}, length) for length in (3, 5)]
    sums = MomentSums()
    for values in inner_values(model, ["x", "inner", "y"], samples):
        sums.add(values)
    found = sums.averages()
    rows = np.concatenate([sample["x"].reshape(-1, 8) for sample in samples]).astype(np.float64)
    w, v = (model.graph.initializers[name].const_value for name in ("w", "v"))
    assert w is not None
    assert v is not None
    inner = rows @ np.asarray(w.numpy())
    y = inner @ np.asarray(v.numpy())
    for name, seen in (("x", rows), ("inner", inner), ("y", y)):
        np.testing.assert_allclose(found[name], seen.T @ seen / 16, atol=1e-4)  # float32 sums of 16 rows


def test_samples_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    model = model_of(GRAPH)
    for index in (1, 0):
        np.savez(tmp_path / f"{index:04d}.npz", x=np.full((1, 1, 8), index, np.float32))
    assert [float(sample["x"][0, 0, 0]) for sample in read_samples("some-pass", tmp_path, model)] == [
        0.0,
        1.0,
    ]


def test_a_record_of_other_inputs_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "0000.npz", z=np.zeros(1))
    with pytest.raises(PassError) as caught:
        read_samples("some-pass", tmp_path, model_of(GRAPH))
    assert str(caught.value) == (
        f"{tmp_path}/0000.npz: is no record of the inputs x: 'x is not a file in the archive'\n"
        "fix: build the calibration again"
    )


def test_every_third_is_held_out() -> None:
    assert [number for number in range(9) if is_held_out(number)] == [2, 5, 8]


def test_of_records_another_one_of_three_each_time() -> None:
    assert [number for number in range(12) if is_record_held_out(number)] == [2, 4, 6, 11]


def test_records_of_the_prompt_and_of_the_empty_one_are_fitted_to_and_held_out() -> None:
    places = spread(32, 16, 20, is_guided=True)
    for side in (True, False):
        halves = [place.half for number, place in enumerate(places) if is_record_held_out(number) == side]
        assert 0.25 < 1 - sum(halves) / len(halves) < 0.4  # a third of all records is of the empty prompt
