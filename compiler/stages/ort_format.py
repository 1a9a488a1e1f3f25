"""ONNX → .ort through onnxruntime: fused once here, so that a phone only has to map the file and run.

    DequantizeLinear(INT4) → MatMul → Add          =>  MatMulNBits{bits=4, accuracy_level=4}
    DequantizeLinear(INT8) → MatMul → Add          =>  MatMulNBits{bits=8, accuracy_level=4}
    Quantize/DequantizeLinear(INT8) around Conv    =>  QLinearConv

The options are those of onnxruntime's own converter with style Fixed and ``target_platform=arm``, except for
the level: ``extended`` is the highest whose result runs on every CPU. Above it come layouts of the CPU that
converts (blocked NCHWc on AVX), and onnxruntime itself warns against shipping those.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentc.compiler.stages.ort_flatbuffer import Table, canonical_ort, read_ort
from latentc.errors import InternalError, ToolMissing

ORT_FILE = "model.ort"

ACCURACY_LEVEL = 4
"""Of MatMulNBits: activations are rounded to INT8 at run time, the form that ARM and x86 have kernels for."""

INT8_BLOCK = 64
"""Of MatMulNBits whose weight has one step an output: how many inputs a copy of it serves; 32 by default."""

# A flatbuffer's offsets are 31 bits; onnxruntime fails to save beyond. The rest is room for the graph itself.
LARGEST_WEIGHT_BYTES = 2**31 - 2**26


@dataclass(frozen=True)
class OrtNode:
    """A node of an .ort file.

    Args:
        operator: ``domain::operator``, without a domain when it is ONNX's own.
        inputs: names; an absent one is empty.
        integers: integer attributes.
    """

    operator: str
    inputs: tuple[str, ...]
    integers: dict[str, int]


@dataclass(frozen=True)
class OrtContent:
    """An .ort file's nodes and the bytes of its initializers by name."""

    nodes: tuple[OrtNode, ...]
    initializer_bytes: dict[str, int]


def ort_from_onnx(onnx_file: Path, ort_file: Path) -> None:
    """Convert ``onnx_file`` (external data beside it) into ``ort_file``; the same input gives the same bytes.

    Raises:
        InternalError: onnxruntime refuses the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ToolMissing.package("onnxruntime", "compile") from error

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(ort_file)
    options.log_severity_level = 3
    for key, value in (
        ("session.save_model_format", "ORT"),
        ("session.qdqisint8allowed", "1"),  # ARM's form; x86 would turn signed activations into unsigned ones
        ("session.qdq_matmulnbits_accuracy_level", str(ACCURACY_LEVEL)),
        ("session.qdq_matmulnbits_block_size", str(INT8_BLOCK)),
        ("session.intra_op.allow_spinning", "0"),
    ):
        options.add_session_config_entry(key, value)
    try:
        onnxruntime.InferenceSession(
            str(onnx_file),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["NchwcTransformer"],
        )
    except Exception as error:  # onnxruntime's own classes all derive from Exception alone
        raise InternalError(str(onnx_file), f"onnxruntime cannot convert it to .ort: {error}") from error
    ort_file.write_bytes(canonical_ort(ort_file.read_bytes()))


def content_of_ort(ort_file: Path) -> OrtContent:
    """What ``ort_file`` holds; nodes of subgraphs are included, their initializers are not."""
    graph = read_ort(ort_file.read_bytes()).table("model").table("graph")
    found: list[OrtNode] = []
    _collect(graph, found)
    stored = {tensor.text("name"): len(tensor.data("raw_data")) for tensor in graph.tables("initializers")}
    return OrtContent(tuple(found), stored)


def _collect(graph: Table, found: list[OrtNode]) -> None:
    for node in graph.tables("nodes"):
        domain, operator = node.text("domain"), node.text("op_type")
        attributes = node.tables("attributes")
        integers = {
            attribute.text("name"): attribute.integer("i")
            for attribute in attributes
            if attribute.integer("type") == 2  # AttributeType.INT
        }
        found.append(OrtNode(f"{domain}::{operator}" if domain else operator, node.texts("inputs"), integers))
        for attribute in attributes:
            for inner in [*attribute.tables("g"), *attribute.tables("graphs")]:
                _collect(inner, found)


def write_operators_config(ort_files: Sequence[Path], names: Sequence[str], config: Path) -> None:
    """Write the operators and types of ``ort_files``, as onnxruntime's build takes for a reduced library.

    Args:
        ort_files: at least one.
        names: how each is called in the file's heading; paths of this machine have no place there.
        config: the file to write, for ``--include_ops_by_config`` of onnxruntime's build.
    """
    # in a child: the tool changes the import path and the logging of the process it runs in
    code = (
        "import sys; from pathlib import Path\n"
        "from onnxruntime.tools.ort_format_model import create_config_from_models as create\n"
        "create([Path(name) for name in sys.argv[2:]], Path(sys.argv[1]), True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(config), *map(str, ort_files)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or not config.is_file():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InternalError(config.name, f"onnxruntime's operator listing failed: {last}")
    body = [line for line in config.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    heading = ["# Operators and types of:", *(f"# - {name}" for name in sorted(names))]
    config.write_text("\n".join([*heading, *body]) + "\n", encoding="utf-8")
