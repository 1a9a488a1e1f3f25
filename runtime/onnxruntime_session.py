"""onnxruntime: the only file that knows it. Runs ``.onnx`` (with external data) and ``.ort`` on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from latentc.errors import BundleError, TargetError, ToolMissing
from latentc.runtime.bundle import Bundle
from latentc.runtime.session import Array, check_names

if TYPE_CHECKING:
    import onnxruntime

_DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}

# INT8 kernels of Q/DQ convolutions are taken on x86 only with this; ARM has them by default.
_INT8_OPTION = ("session.qdqisint8allowed", "1")

# What activations become inside INT4 linears: left to its default, onnxruntime makes them INT8 everywhere.
_ACCURACY_OPTION = "session.qdq_matmulnbits_accuracy_level"
_ACCURACY_LEVELS: Mapping[bool, str] = {True: "4", False: "1"}  # INT8, float32

# KleidiAI, onnxruntime's first choice on ARM, rounds the activations of an INT4 linear with one scale a row;
# the other kernels, x86's too, with one a block. Only without it does a phone compute what was validated.
_SAME_ROUNDING_OPTION = ("mlas.disable_kleidiai", "1")

_ONLY_ERRORS = 3


class OnnxruntimeSession:
    """See latentc.runtime.session.Session.

    Args:
        component: its name, for messages.
        model: path of a model with external data, or the bytes of one without.
        threads: 0 takes one a physical core.
        int8_activations: INT4 linears multiply with dynamic INT8 activations instead of float32.

    Raises:
        ToolMissing: onnxruntime is not installed.
        BundleError: onnxruntime refuses the model, or it has a type that no session converts.
    """

    def __init__(
        self, component: str, model: str | bytes, *, threads: int = 0, int8_activations: bool = False
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ToolMissing(
                "", "the package 'onnxruntime' is not installed", "pip install onnxruntime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ONLY_ERRORS
        options.intra_op_num_threads = threads
        # The planner that lets values share memory compares every freed one by its symbolic shape: 1.2 of the
        # 1.8 s that SD 1.5's UNet took to load. What is freed goes back to the arena either way.
        options.enable_mem_reuse = False
        options.add_session_config_entry(*_INT8_OPTION)
        options.add_session_config_entry(*_SAME_ROUNDING_OPTION)
        options.add_session_config_entry(_ACCURACY_OPTION, _ACCURACY_LEVELS[int8_activations])
        try:
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # onnxruntime's exceptions have no common base of their own.
            raise BundleError(
                component,
                f"onnxruntime {onnxruntime.__version__} refuses the graph: {error}",
                "build the bundle again, or install a newer onnxruntime",
            ) from error
        self._component = component
        self._session: onnxruntime.InferenceSession | None = session
        self._inputs = {tensor.name: _dtype(component, tensor) for tensor in session.get_inputs()}
        self._outputs = tuple(tensor.name for tensor in session.get_outputs())

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the graph's inputs."""
        return tuple(self._inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph's outputs."""
        return self._outputs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once; see Session.run."""
        if self._session is None:
            raise TargetError(self._component, "the session is closed")
        check_names(self._component, self.input_names, inputs)
        fed = {name: np.ascontiguousarray(inputs[name], dtype=dtype) for name, dtype in self._inputs.items()}
        try:
            results = self._session.run(list(self._outputs), fed)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in fed.items())
            raise TargetError(
                self._component, f"onnxruntime cannot run it with {shapes}: {error}", "check height and width"
            ) from error
        return {name: widened(array) for name, array in zip(self._outputs, results, strict=True)}

    def close(self) -> None:
        """Give back the memory."""
        self._session = None

    def __enter__(self) -> OnnxruntimeSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_onnxruntime(
    bundle: Bundle, component: str, file: str, *, threads: int, int8_activations: bool
) -> OnnxruntimeSession:
    """Open ``file`` of ``bundle`` after hashing it and what lies beside it.

    A graph alone is handed over as the bytes that were hashed. One with external data goes by path, so that
    onnxruntime maps its weights instead of copying them: on a phone that is the difference between fitting
    and not. Someone who can change files between hash and map can change this program as well.
    """
    data = [name for name in bundle.beside(file) if name.startswith(f"{file}.")]
    for name in data:
        bundle.checked(name)
    model = str(bundle.checked(file)) if data else bundle.checked_bytes(file)
    return OnnxruntimeSession(component, model, threads=threads, int8_activations=int8_activations)


def widened(array: Array) -> Array:
    """float16 as float32, int32 as int64, anything else as it is."""
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return array.astype(np.int64) if array.dtype == np.int32 else array


def _dtype(component: str, tensor: onnxruntime.NodeArg) -> type[np.generic]:
    if tensor.type not in _DTYPES:
        raise BundleError(
            component,
            f"input '{tensor.name}' has type {tensor.type}, wanted one of {', '.join(sorted(_DTYPES))}",
            "build the bundle again with this version of latentc",
        )
    return _DTYPES[tensor.type]
