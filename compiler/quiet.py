"""Quiet: silence what diffusers and transformers print while they load, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without their progress bars and advice; errors stay. Their settings are put back afterwards."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    settings = [
        (module, module.get_verbosity(), module.is_progress_bar_enabled())
        for module in (diffusers_logging, transformers_logging)
    ]
    try:
        for module, _, _ in settings:
            module.set_verbosity_error()
            module.disable_progress_bar()
        yield
    finally:
        for module, verbosity, bar in settings:
            module.set_verbosity(verbosity)
            if bar:
                module.enable_progress_bar()
