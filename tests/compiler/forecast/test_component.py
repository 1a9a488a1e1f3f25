"""Foretold component: from configs alone, and traced once."""

import sys

import pytest
from tests.compiler import foretold

from latentc.recipes.family import Component


def test_every_component_is_foretold_without_weights() -> None:
    found = {one.component: one for one in foretold.components()}
    assert list(found) == [spec.component for spec in foretold.model().family.components]
    assert found[Component.UNET].pictures == 2, "both halves of guidance go together"
    assert found[Component.VAE_DECODER].pictures == 1
    assert len(found[Component.UNET].sizes) == 2


def test_a_trace_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    first = foretold.components()
    monkeypatch.setitem(
        sys.modules, "latentc.compiler.forecast.trace_module", None
    )  # importing it would fail
    foretold.components.cache_clear()
    assert [one.trace for one in foretold.components()] == [one.trace for one in first]


def test_another_size_is_another_trace() -> None:
    small, large = (
        {one.component: one for one in foretold.components(*changes)}
        for changes in ((), ("sampling.height=128",))
    )
    assert large[Component.UNET].trace.live_bytes > small[Component.UNET].trace.live_bytes
    assert large[Component.TEXT_ENCODER].trace == small[Component.TEXT_ENCODER].trace
