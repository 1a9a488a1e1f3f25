"""Layer gains: how much of a linear's error reaches the final latents, as it was measured on the original."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from latentc.errors import PassError

GAINS_FILE = "gains.json"
"""Weight name to gain, in the folder of a sensitivity step."""

_FIX = "build the sensitivity step again"


def write_gains(gains: Mapping[str, float], folder: Path) -> None:
    """Write ``folder``/gains.json."""
    text = json.dumps(dict(gains), indent=1, sort_keys=True) + "\n"
    (folder / GAINS_FILE).write_text(text, encoding="utf-8")


def read_gains(pass_name: str, folder: Path | None) -> dict[str, float]:
    """By weight name: squared relative error of the final latents over that of the linear's output.

    Raises:
        PassError: there is no folder, or what lies there is no gains of numbers from 0 up.
    """
    if folder is None:
        raise PassError(
            pass_name, "needs to know how sensitive each layer is, and was not told", "run it in a recipe"
        )
    path = folder / GAINS_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        gains = {str(name): float(gain) for name, gain in dict(data).items()}
    except (OSError, ValueError, TypeError) as error:
        raise PassError(str(path), f"cannot be read as gains: {error}", _FIX) from error
    for name, gain in gains.items():
        if not (math.isfinite(gain) and gain >= 0):
            raise PassError(f"{path}: '{name}'", f"is {gain}, wanted a number from 0 up", _FIX)
    return gains
