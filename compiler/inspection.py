"""Inspection: what is inside a bundle, a graph or the catalogue of passes, as plain facts for a table."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

from latentc.errors import UsageError
from latentc.runtime.manifest import Json


@dataclass(frozen=True)
class Facts:
    """A few lines and one table."""

    head: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_json(self) -> dict[str, Json]:
        """The same facts for scripts."""
        return {
            "head": list(self.head),
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
        }


@dataclass(frozen=True)
class DescribedPass:
    """A pass of the catalogue: its name, what it does in one line, and its options with defaults."""

    name: str
    what: str
    preserves: bool
    options: dict[str, Json]

    @property
    def options_text(self) -> str:
        """Options as ``rank=32 skip=[]``."""
        return " ".join(f"{name}={json.dumps(value)}" for name, value in self.options.items())


def inspect_path(path: Path) -> Facts:
    """What ``path`` holds.

    Raises:
        UsageError: it is neither a bundle nor an ONNX file.
        BundleError: it is a bundle, and damaged.
    """
    if (path / "manifest.json").is_file():
        return _facts_of_bundle(path)
    model = path / "model.onnx" if path.is_dir() else path
    if model.suffix == ".onnx" and model.is_file():
        return _facts_of_graph(model)
    raise UsageError(
        str(path),
        "is neither a bundle nor an ONNX file",
        "name a folder with a manifest.json, or a .onnx file",
    )


def describe_passes() -> tuple[DescribedPass, ...]:
    """Every pass of the catalogue."""
    from latentc.passes.catalogue import PASSES

    described = []
    for kind in PASSES:
        options: dict[str, Json] = {}
        for option in fields(kind):
            default = option.default if option.default is not MISSING else None
            if option.default_factory is not MISSING:
                default = option.default_factory()
            options[option.name] = json.loads(json.dumps(default, default=str))
        what = (kind.__doc__ or "").strip().splitlines()[0]
        described.append(DescribedPass(kind.name, what, kind.preserves, options))
    return tuple(described)


def _facts_of_bundle(path: Path) -> Facts:
    from latentc.runtime.bundle import verify_bundle

    manifest = verify_bundle(path).manifest
    sampling = asdict(manifest.sampling)
    head = (
        f"{manifest.name} for {manifest.target} ({manifest.family}, {manifest.runtime})",
        f"sampling: {manifest.scheduler.name}, "
        + ", ".join(f"{key} {value}" for key, value in sampling.items()),
        *(f"simulated: {line}" for line in manifest.simulated),
        *(() if manifest.is_validated else ("not validated: nothing was compared with the original",)),
    )
    rows = tuple(
        (
            name,
            entry.file,
            f"{entry.weight_bytes}",
            f"{entry.weight_bytes / entry.fp16_bytes:.3f}" if entry.fp16_bytes else "",
            f"{entry.quantized_bytes / entry.quantized_fp16_bytes:.3f}" if entry.quantized_fp16_bytes else "",
        )
        for name, entry in sorted(manifest.components.items())
    )
    return Facts(head, ("component", "file", "weight bytes", "of fp16", "quantized linears of fp16"), rows)


def _facts_of_graph(path: Path) -> Facts:
    import onnx

    model = onnx.load(path, load_external_data=False)
    counts = Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph.node
    )
    opsets = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import)
    head = (
        f"{len(model.graph.node)} nodes, {len(model.graph.initializer)} initializers, opset {opsets}",
        "inputs: " + ", ".join(value.name for value in model.graph.input),
        "outputs: " + ", ".join(value.name for value in model.graph.output),
    )
    rows = tuple(
        (name, str(count)) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
    return Facts(head, ("operator", "count"), rows)
