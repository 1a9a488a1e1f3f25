"""The command line in a process of its own, as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path


def latentc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What ``latentc`` does with ``arguments`` in ``folder``, whose ``cache`` holds its store."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "latentc", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
