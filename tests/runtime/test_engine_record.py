"""engine.json reads back as it was written, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentc.errors import BundleError
from latentc.runtime.engine_record import EngineRecord, record_from_json, record_to_json

shapes = st.lists(st.integers(1, 4096), max_size=4).map(tuple)
records = st.builds(
    EngineRecord,
    engine_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    onnx_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    library=st.sampled_from(["tensorrt", "tensorrt_rtx"]),
    version=st.just("10.3.0"),
    compute_capability=st.just("8.7"),
    profile=st.dictionaries(st.text(max_size=5), st.tuples(shapes, shapes, shapes), max_size=3),
)


@given(records)
def test_round_trip(record: EngineRecord) -> None:
    text = record_to_json(record)
    assert record_from_json("unet/engine.json", text) == record
    assert record_to_json(record_from_json("unet/engine.json", text)) == text


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"engine_sha256": 1}', "null"])
def test_anything_else(text: str) -> None:
    with pytest.raises(BundleError, match=r"^unet/engine\.json: is no engine record: "):
        record_from_json("unet/engine.json", text)
