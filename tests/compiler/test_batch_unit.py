"""What is kept of a batch comes back with every record at its place, to the bit."""

from __future__ import annotations

import numpy as np

from latentc.compiler.batch_unit import BatchUnit, arrays_from_unit, unit_from_arrays
from latentc.compiler.row_capture import BatchRows
from latentc.compiler.sampling_loop import Place, Record


def test_a_batch_comes_back(seed: int) -> None:
    random = np.random.default_rng(seed)

    def floats(*shape: int) -> np.typing.NDArray[np.float32]:
        return random.standard_normal(shape, np.float32)

    unit = BatchUnit(
        floats(2, 4, 8, 8),
        random.integers(0, 256, (2, 8, 8, 3), np.uint8),
        {
            Place(17, 3, 1): Record(
                {"latent": floats(1, 4), "ids": np.array([7])}, {"out.put": floats(1, 4)}
            ),
            Place(16, 0, 0): Record({"latent": floats(1, 4)}, {"out.put": floats(1, 4)}),
        },
        BatchRows(np.array([3, 0, 6], np.int64), np.arange(32, dtype=np.uint8)),
    )
    again = unit_from_arrays(arrays_from_unit(unit))
    np.testing.assert_array_equal(again.final_latents, unit.final_latents)
    np.testing.assert_array_equal(again.pictures, unit.pictures)
    assert again.pictures.dtype == np.uint8
    assert again.rows is not None
    assert unit.rows is not None
    np.testing.assert_array_equal(again.rows.calls, unit.rows.calls)
    np.testing.assert_array_equal(again.rows.sha256, unit.rows.sha256)
    assert list(again.denoiser) == list(unit.denoiser)
    for place, record in unit.denoiser.items():
        for wanted, found in (
            (record.inputs, again.denoiser[place].inputs),
            (record.outputs, again.denoiser[place].outputs),
        ):
            assert list(found) == list(wanted)
            for name, array in wanted.items():
                assert found[name].dtype == array.dtype
                np.testing.assert_array_equal(found[name], array)


def test_a_batch_without_rows_comes_back_without(seed: int) -> None:
    latents = np.random.default_rng(seed).standard_normal((1, 4, 2, 2), np.float32)
    unit = BatchUnit(latents, np.zeros((1, 2, 2, 3), np.uint8), {}, None)
    assert unit_from_arrays(arrays_from_unit(unit)).rows is None
