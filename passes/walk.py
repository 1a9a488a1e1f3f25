"""Walk: run a graph segment after segment, and let the linears of each be quantized before the next one runs.

    original     x ─ segment 0 ─ x₀ ─ segment 1 ─ x₁ ─ …
    quantized    x ─ segment 0 ─ x₀ ─ segment 1 with linears quantized on x₀ ─ x̂₁ ─ …

Every recorded input goes both ways, a segment at a time, so a walk costs two runs of the graph, however many
segments it has. What segments hand on lies in files, so memory holds the values of one record, and weights
and moments of one segment.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.calibration import is_record_held_out
from latentc.passes.model_file import read_model, write_model
from latentc.passes.model_writer import GRAPH_FILE
from latentc.passes.moments import DriftMoments, DriftSums
from latentc.passes.segments import Segment, segments_of
from latentc.passes.weights import BRANCH_OF, Array, Floats, Linear, constant, name_of, read, read_floats
from latentc.recipes.choice import Choice

if TYPE_CHECKING:
    import onnxruntime


@dataclass(frozen=True)
class Drift:
    """Moments of what a linear multiplies behind quantized ones.

    Args:
        fit: over the recorded inputs that a pass may fit to.
        held_out: over those that it judges by. With few records both are the same.
    """

    fit: DriftMoments
    held_out: DriftMoments


Quantize = Callable[[Linear, Floats, Drift], Floats]
"""Given a linear, its weight [K, N] and what it multiplies: the weight that it has from then on, [K, N]."""


class _Way(Choice):
    ORIGINAL = "original"
    QUANTIZED = "quantized"


def walk(
    model: ir.Model, linears: Sequence[Linear], samples: Sequence[Mapping[str, Array]], quantize: Quantize
) -> None:
    """Call ``quantize`` for each of ``linears`` in order, on what those before it leave of its input.

    Everything else is computed as ``model`` has it, in float32, on one thread, so that it repeats to the last
    bit. ``model`` stays as it is, except that the small weights of branches are computed, for they come with
    those of the linears and would have to be computed again.
    """
    segments = segments_of(model.graph, linears)
    used_again = {linear.name for linear in linears if len(linear.nodes) > 1}
    with tempfile.TemporaryDirectory(prefix="latentc-") as place:
        folder = Path(place)
        write_model(model, folder)
        stored = read_model(folder).graph
        _hold_branches(model.graph, stored)
        runner = _Runner(folder, samples)
        held: dict[str, Floats] = {}
        for segment in segments:
            exact = {name: _weight(stored, name) for name in segment.weights}
            runner.run(segment, exact, held)
            held = {name: weight for name, weight in held.items() if name in used_again}
            drifts = runner.drifts(segment)
            for linear in segment.linears:
                weight = _weight(stored, linear.name)
                held[linear.name] = quantize(linear, weight, drifts[_input_of(linear)])


class _Runner:
    """Runs segments on recorded inputs, both ways, and keeps in files what they hand on."""

    def __init__(self, folder: Path, samples: Sequence[Mapping[str, Array]]) -> None:
        import onnx

        self._folder = folder
        self._samples = samples
        self._proto = onnx.load(folder / GRAPH_FILE, load_external_data=False)
        self._numbers: dict[str, int] = {}
        self._alike: set[str] = set()  # values of the first segment, behind which nothing is quantized yet

    def run(self, segment: Segment, exact: Mapping[str, Floats], held: Mapping[str, Floats]) -> None:
        """Compute what ``segment`` gives.

        Args:
            segment: the next one.
            exact: its weights by name, as they were.
            held: and as they are stored.
        """
        if segment.gives:
            session = self._session(segment, exact)
            ways: dict[_Way, Mapping[str, Floats]] = {_Way.ORIGINAL: exact}
            if exact:
                ways[_Way.QUANTIZED] = {name: held[name] for name in exact}
            else:
                self._alike.update(segment.gives)
            for way, weights in ways.items():
                for number in range(len(self._samples)):
                    taken = {name: self._value(way, number, name) for name in segment.takes}
                    made = session.run(list(segment.gives), {**taken, **weights})
                    for name, value in zip(segment.gives, made, strict=True):
                        np.save(self._file(way, number, name), value)
        for name in segment.dropped:
            for way in _Way:
                for number in range(len(self._samples)):
                    self._file(way, number, name).unlink(missing_ok=True)

    def drifts(self, segment: Segment) -> dict[str, Drift]:
        """Moments of what the segment's linears multiply, by the name of the value."""
        fit, held_out = DriftSums(), DriftSums()
        for number in range(len(self._samples)):
            sums = held_out if is_record_held_out(number) else fit
            for name in dict.fromkeys(map(_input_of, segment.linears)):
                seen, exact = (self._value(way, number, name) for way in (_Way.QUANTIZED, _Way.ORIGINAL))
                sums.add(name, seen.astype(np.float32), exact.astype(np.float32))
        fitted = fit.averages()
        judged = held_out.averages() or fitted  # too few records to hold one out
        return {name: Drift(fitted[name], judged[name]) for name in fitted}

    def _value(self, way: _Way, number: int, name: str) -> Array:
        given = self._samples[number].get(name)
        if given is not None:
            return given
        found: Array = np.load(self._file(way, number, name), allow_pickle=False)
        return found

    def _file(self, way: _Way, number: int, name: str) -> Path:
        there = _Way.ORIGINAL if name in self._alike else way
        value = self._numbers.setdefault(name, len(self._numbers))
        return self._folder / f"{there}.{value}.{number}.npy"

    def _session(self, segment: Segment, weights: Mapping[str, Floats]) -> onnxruntime.InferenceSession:
        """Of the nodes of ``segment`` alone; its quantized weights are inputs."""
        import onnx
        import onnxruntime

        part = onnx.ModelProto()
        part.CopyFrom(self._proto)
        graph = part.graph
        for field in ("node", "input", "output", "initializer", "value_info"):
            graph.ClearField(field)
        whole = self._proto.graph
        graph.node.extend(node for node in whole.node if node.output[0] in segment.outputs)
        read = {name for node in graph.node for name in node.input}
        graph.initializer.extend(one for one in whole.initializer if one.name in read - weights.keys())
        fed: dict[str, Array] = {name: self._value(_Way.ORIGINAL, 0, name) for name in segment.takes}
        for name, array in {**fed, **weights}.items():
            dtype = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            graph.input.append(onnx.helper.make_tensor_value_info(name, dtype, None))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in segment.gives)
        path = self._folder / "segment.onnx"
        path.write_bytes(part.SerializeToString())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _input_of(linear: Linear) -> str:
    value = linear.nodes[0].inputs[0]
    return "" if value is None else name_of(value)


def _weight(graph: ir.Graph, name: str) -> Floats:
    tensor = constant(graph.initializers[name])
    if tensor is None:
        raise PassError("walk", f"'{name}' has no value", "report this graph")
    return read_floats(tensor)


def _hold_branches(graph: ir.Graph, stored: ir.Graph) -> None:
    """Let the weights of branches in ``graph`` be what was computed for ``stored``."""
    waiting = [node.inputs[1] for node in graph if BRANCH_OF in node.metadata_props]
    while waiting:
        value = waiting.pop()
        if value is None:
            continue
        tensor = constant(stored.initializers.get(name_of(value)))
        if tensor is not None:
            value.const_value = ir.Tensor(read(tensor), dtype=tensor.dtype, name=name_of(value))
        elif (node := value.producer()) is not None:
            waiting += node.inputs
