"""Flow matching against diffusers' FlowMatchEulerDiscreteScheduler as FluxPipeline sets it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from hypothesis import given
from hypothesis import strategies as st
from tests.runtime.beside_diffusers import DIFFUSERS_WARNING, compare_with_diffusers

from latentc.errors import InternalError
from latentc.runtime.flow_match_euler import shift_of_image
from latentc.runtime.manifest import Json, SchedulerEntry
from latentc.runtime.scheduler import scheduler_from_entry

pytestmark = pytest.mark.filterwarnings(DIFFUSERS_WARNING)


def _flow_configs() -> Iterator[dict[str, Json]]:
    yield {}
    yield {"shift": 3.0}
    yield {"use_dynamic_shifting": True, "shift": 3.0}
    yield {"use_dynamic_shifting": True, "base_shift": 0.3, "max_shift": 1.4, "time_shift_type": "linear"}
    yield {"use_dynamic_shifting": True, "base_image_seq_len": 16, "max_image_seq_len": 64}


@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize("config", list(_flow_configs()))
def test_equal_to_diffusers(config: dict[str, Json], steps: int) -> None:
    compare_with_diffusers("FlowMatchEulerDiscreteScheduler", config, steps)


@given(st.integers(1, 10_000), st.floats(0.1, 2), st.floats(0.1, 2))
def test_shift_is_fluxs_own(tokens: int, base: float, largest: float) -> None:
    assert shift_of_image(tokens, 256, 4096, base, largest) == calculate_shift(
        tokens, 256, 4096, base, largest
    )


def test_dynamic_shifting_needs_the_pictures_size() -> None:
    entry = SchedulerEntry("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True})
    with pytest.raises(InternalError, match="needs the number of image tokens"):
        scheduler_from_entry(entry, 4)
