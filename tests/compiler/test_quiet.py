"""Silence ends with the block, however it ends."""

from __future__ import annotations

import pytest

from latentc.compiler.quiet import quiet_loading


def settings() -> list[tuple[int, bool]]:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    return [
        (module.get_verbosity(), module.is_progress_bar_enabled())
        for module in (diffusers_logging, transformers_logging)
    ]


def test_settings_are_put_back_after_an_error() -> None:
    before = settings()

    def load() -> None:
        with quiet_loading():
            assert all(not bar for _, bar in settings())
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        load()
    assert settings() == before


def test_bars_that_were_off_stay_off() -> None:
    from diffusers.utils import logging as diffusers_logging

    was_on = diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.disable_progress_bar()
    try:
        with quiet_loading():
            pass
        assert not diffusers_logging.is_progress_bar_enabled()
    finally:
        if was_on:
            diffusers_logging.enable_progress_bar()
