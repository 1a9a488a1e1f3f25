"""The child process that turns ONNX into an engine: native code, which may crash on a graph it dislikes.

    python -m latentc.runtime.build_tensorrt REQUEST.json

The request is latentc.runtime.engine.EngineRequest as JSON. Exit code 0, the engine and the report mean
success; anything else is told on stderr, the reason in its last line. Works with TensorRT 10.3, 10.16 and
11.4 on a board, and with TensorRT for RTX, which builds without a GPU for a compute capability it is told.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from latentc.runtime.engine import EngineRequest, request_from_json
from latentc.runtime.tensorrt_session import collecting_logger, import_tensorrt

_PR_SET_PDEATHSIG = 1


class RefusedError(Exception):
    """The library refuses the graph or the build; the text says why in one line."""


def build(request: EngineRequest) -> None:
    """Build the engine and write the report; raises RefusedError with the library's own words."""
    library = import_tensorrt(request.package)
    messages: list[str] = []
    builder: Any = library.Builder(collecting_logger(library, messages))
    network = builder.create_network(_network_flags(library))
    parser = library.OnnxParser(network, collecting_logger(library, messages))
    if not parser.parse_from_file(request.onnx):
        raise RefusedError(_parser_words(parser) or _last_error(messages))
    config = builder.create_builder_config()
    config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, request.workspace_mib * 2**20)
    config.builder_optimization_level = request.optimization_level
    if request.compute_capability:
        name = "SM" + request.compute_capability.replace(".", "")
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(library.ComputeCapability, name), 0)
    _add_profile(builder, network, config, request)
    cache_path = Path(request.timing_cache) if request.timing_cache else None
    if cache_path is not None:
        cache = config.create_timing_cache(cache_path.read_bytes() if cache_path.is_file() else b"")
        # A cache of another GPU or version is refused by the library; then this build starts a new one.
        if not config.set_timing_cache(cache, ignore_mismatch=False):
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RefusedError(_last_error(messages))
    _write(Path(request.engine), memoryview(engine))
    if cache_path is not None:
        _write(cache_path, memoryview(config.get_timing_cache().serialize()))
    report = {"version": str(library.__version__), "layers": int(network.num_layers)}
    _write(Path(request.report), json.dumps(report).encode())


def main(request_file: str) -> int:
    """Build what the request file says; the exit code."""
    # No orphan goes on building for an hour when the parent is killed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        build(request_from_json(Path(request_file).read_text(encoding="utf-8")))
    except RefusedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _network_flags(library: ModuleType) -> int:
    """Strongly typed, so that no layer changes its precision; the only kind there is from TensorRT 11 on."""
    flag = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _add_profile(builder: Any, network: Any, config: Any, request: EngineRequest) -> None:  # noqa: ANN401 # the library ships no types
    profile = builder.create_optimization_profile()
    dynamic = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if -1 not in tuple(tensor.shape):
            continue
        if tensor.name not in request.profile:
            raise RefusedError(f"input '{tensor.name}' is dynamic and has no sizes")
        profile.set_shape(tensor.name, *request.profile[tensor.name])
        dynamic = True
    if dynamic and config.add_optimization_profile(profile) < 0:
        raise RefusedError("the range of sizes is refused")


def _parser_words(parser: Any) -> str:  # noqa: ANN401 # the library ships no types
    words = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        words.append(f"node '{error.node_name()}' ({error.node_operator()}): {error.desc()}")
    return "; ".join(words).replace("\n", " ")


def _last_error(messages: list[str]) -> str:
    errors = [message for message in messages if "error" in message.split(":", 1)[0]]
    return (errors or messages or ["no reason given"])[-1].replace("\n", " ")


def _write(path: Path, data: memoryview | bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
