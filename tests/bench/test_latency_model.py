"""The bench of the latency model runs what is stored, as it is lowered."""

from __future__ import annotations

from tests.bench.latency_model import FLOAT, WAYS, Case, run

from latentc.passes.latency import latency_of


def test_every_way_to_store_a_linear_is_timed() -> None:
    assert {str(way.allotment) for way in WAYS} == {"float", "int8", "int4", "int4+16"}
    for way in (FLOAT, WAYS[-1]):
        case = Case(way, 64, 64, 256)
        ((timed, seconds),) = run([case], 4, 2)
        assert timed == case
        assert 0 < seconds < 1
        assert case.modelled_s(latency_of("ort-mobile", "")) > 0
