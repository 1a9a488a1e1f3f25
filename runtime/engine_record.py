"""engine.json: which onnx, library and GPU the engine beside it was built from and for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TypeAlias

from latentc.errors import BundleError

Shape: TypeAlias = "tuple[int, ...]"
Profile: TypeAlias = "dict[str, tuple[Shape, Shape, Shape]]"
"""The smallest, likeliest and largest shape of each input."""


@dataclass(frozen=True)
class EngineRecord:
    """What lies beside an engine.

    Args:
        engine_sha256: of the engine's bytes.
        onnx_sha256: of the graph that it was built from, as the manifest lists it.
        library: Python package that built it, ``tensorrt`` or ``tensorrt_rtx``.
        version: of that package; engines run on no other.
        compute_capability: of the GPU, such as ``8.7``.
        profile: the shapes that it takes.
    """

    engine_sha256: str
    onnx_sha256: str
    library: str
    version: str
    compute_capability: str
    profile: Profile


def record_to_json(record: EngineRecord) -> str:
    """Canonical text of ``record``."""
    return json.dumps(asdict(record), indent=2, sort_keys=True) + "\n"


def record_from_json(name: str, text: str) -> EngineRecord:
    """Read the record in file ``name``; raises BundleError when it is none."""
    try:
        data = json.loads(text)
        return EngineRecord(
            engine_sha256=str(data["engine_sha256"]),
            onnx_sha256=str(data["onnx_sha256"]),
            library=str(data["library"]),
            version=str(data["version"]),
            compute_capability=str(data["compute_capability"]),
            profile={
                key: (_shape(low), _shape(likely), _shape(high))
                for key, (low, likely, high) in data["profile"].items()
            },
        )
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            name, f"is no engine record: {error}", "run 'latentc engine build' again"
        ) from error


def _shape(data: list[int]) -> Shape:
    return tuple(int(size) for size in data)
