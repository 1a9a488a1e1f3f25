"""Calibration: recorded inputs of a component, and what flows into its linears when it runs on them."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.model_file import write_model
from latentc.passes.model_writer import GRAPH_FILE
from latentc.passes.value_types import infer_types
from latentc.passes.weights import Array, Floats, name_of

HELD_OUT_EVERY = 3
"""One record or prompt of three is kept to judge by and never fitted to."""


def is_held_out(number: int) -> bool:
    """Whether prompt ``number``, from 0, is kept to judge by."""
    return number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def is_record_held_out(number: int) -> bool:
    """Whether record ``number``, from 0, is kept to judge by: one of three, another one each time.

    With guidance every third record is one of the empty prompt (latentc.compiler.sampling_loop). Were always
    the third held out, the empty prompt alone would judge what the others were fitted to.
    """
    return number % HELD_OUT_EVERY == (HELD_OUT_EVERY - 1 - number // HELD_OUT_EVERY) % HELD_OUT_EVERY


def require_calibration(pass_name: str, folder: Path | None) -> Path:
    """``folder``, or PassError when the recipe records nothing."""
    if folder is None:
        raise PassError(
            pass_name, "needs calibration data, and there is none", "give the recipe a calibration"
        )
    return folder


def read_samples(pass_name: str, folder: Path | None, model: ir.Model) -> list[dict[str, Array]]:
    """The recorded inputs of ``model`` in ``folder``, one entry a file, in the order of the files' names.

    Raises:
        PassError: there is no folder, no file in it, or a file that is no record of these inputs.
    """
    folder = require_calibration(pass_name, folder)
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise PassError(str(folder), "holds no calibration data (*.npz)", "build the calibration step again")
    names = [name_of(value) for value in model.graph.inputs]
    samples = []
    for file in files:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                samples.append({name: arrays[name] for name in names})
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise PassError(
                str(file),
                f"is no record of the inputs {', '.join(names)}: {error}",
                "build the calibration again",
            ) from error
    return samples


def write_typed(model: ir.Model, folder: Path) -> None:
    """Write a copy of ``model`` whose every value has its type, for tools that read types from the file."""
    typed = model.clone()
    infer_types(typed.graph)
    write_model(typed, folder, keep_types=True)


def inner_values(
    model: ir.Model, names: Sequence[str], samples: Sequence[Mapping[str, Array]]
) -> Iterator[dict[str, Floats]]:
    """Run ``model`` on each of ``samples`` and yield the values called ``names``.

    Single-threaded, so that it repeats to the last bit.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory(prefix="latentc-") as place:
        path = Path(place) / GRAPH_FILE
        write_model(model, Path(place))
        proto = onnx.load(path, load_external_data=False)
        given = {value.name for value in (*proto.graph.output, *proto.graph.input)}
        proto.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in names
            if name not in given
        )
        path.write_bytes(proto.SerializeToString())
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        asked = [name for name in names if name not in samples[0]]
        for sample in samples:
            made = dict(zip(asked, session.run(asked, dict(sample)), strict=True)) if asked else {}
            yield {name: np.asarray({**sample, **made}[name], dtype=np.float32) for name in names}
