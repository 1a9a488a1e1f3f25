from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MODULE = "latentc.compiler.stages.rtx_child"


def test_child_leaves_when_its_parent_is_gone(tmp_path: Path) -> None:
    # a pipe to read the request from keeps the child waiting for as long as we like
    request = tmp_path / "request.json"
    os.mkfifo(request)
    child = subprocess.Popen([sys.executable, "-m", MODULE, str(request)], stdin=subprocess.PIPE)
    assert child.stdin is not None
    assert child.poll() is None
    child.stdin.close()  # what the system does for a parent that is killed
    assert child.wait(30) == 9
