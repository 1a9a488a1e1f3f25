"""The child process that parses and builds with TensorRT for RTX: native code that can crash.

    python -m latentc.compiler.stages.rtx_child REQUEST.json

The request is latentc.compiler.stages.rtx_engine.Request as JSON. Exit code 0 and the engine file mean
success; everything else is told on stderr in the tool's own words.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

_PARENT_IS_GONE = 9


def main(request_file: str) -> None:
    """Build what the request says; raises whatever Polygraphy raises."""
    _end_with_parent()
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))

    # the parent has set POLYGRAPHY_USE_TENSORRT_RTX, which Polygraphy reads when it is imported
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
    from polygraphy.backend.trt import NetworkFromOnnxPath, Profile, engine_bytes_from_network

    profiles = []
    for shapes in request["profiles"]:
        profile = Profile()
        for name, shape in shapes.items():
            profile.add(name, min=shape, opt=shape, max=shape)
        profiles.append(profile)
    config = CreateConfigRTX(
        compute_capabilities=[tuple(pair) for pair in request["compute_capabilities"]], profiles=profiles
    )
    engine = engine_bytes_from_network(NetworkFromOnnxPath(request["onnx"]), config=config)
    Path(request["engine"]).write_bytes(engine)


def _end_with_parent() -> None:
    """Leave when the parent's end of our stdin closes, even if it was killed: no orphan goes on building."""

    def watch() -> None:
        # not through sys.stdin: a thread waiting in its lock makes the interpreter abort when it ends
        while os.read(0, 64):
            pass
        os._exit(_PARENT_IS_GONE)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
