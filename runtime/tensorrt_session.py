"""TensorRT: runs engines. With build_tensorrt.py the only file of this room that knows the library.

``tensorrt`` on a Jetson and ``tensorrt_rtx`` on an RTX desktop have the same Python interface. An engine is
a program: its bytes are compared with what the manifest (or, when built on this board, engine.json) says,
those same bytes are deserialized, and host code inside engines stays forbidden.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import ModuleType, TracebackType
from typing import Any, TypeAlias

import numpy as np

from latentc.errors import BundleError, TargetError, ToolMissing
from latentc.recipes.family import Component
from latentc.recipes.target import Runtime
from latentc.runtime.bundle import Bundle, engine_record
from latentc.runtime.cuda_memory import CudaDevice
from latentc.runtime.engine_record import record_from_json
from latentc.runtime.onnxruntime_session import widened
from latentc.runtime.session import Array, check_names, component_entry

PACKAGES: Mapping[Runtime, str] = {Runtime.TENSORRT: "tensorrt", Runtime.TENSORRT_RTX: "tensorrt_rtx"}
SizeRange: TypeAlias = "tuple[tuple[int, ...], tuple[int, ...]]"
"""The smallest and the largest shape of an input."""
_EXTRAS: Mapping[str, str] = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}


def import_tensorrt(package: str) -> ModuleType:
    """The module ``package`` (tensorrt or tensorrt_rtx); raises ToolMissing naming the extra."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ToolMissing.package(package, _EXTRAS[package]) from error


def collecting_logger(library: ModuleType, messages: list[str]) -> object:
    """A logger of ``library`` that puts errors and warnings into ``messages``."""
    base: Any = library.ILogger

    class Logger(base):  # type: ignore[misc] # a base class known at run time only
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: IntEnum, message: str) -> None:
            if severity <= base.Severity.WARNING:
                messages.append(f"{severity.name.lower()}: {message}")

    return Logger()


class TensorrtSession:
    """See latentc.runtime.session.Session.

    Args:
        component: its name, for messages.
        engine: the engine's bytes, already checked.
        library: the module that reads it.
        device: where it runs; closed with the session.

    Raises:
        TargetError: the library refuses the engine: another version, another GPU, or too little memory.
    """

    def __init__(self, component: str, engine: bytes, library: ModuleType, device: CudaDevice) -> None:
        self._component = component
        self._device = device
        self._library = library
        self._messages: list[str] = []
        self._logger = collecting_logger(library, self._messages)
        runtime = library.Runtime(self._logger)
        runtime.engine_host_code_allowed = False
        self._runtime = runtime  # an engine is valid only as long as its runtime
        self._engine: Any = runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise self._failure("cannot read the engine")
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise self._failure("has no memory for the engine's activations")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        is_input = {name: self._engine.get_tensor_mode(name) == library.TensorIOMode.INPUT for name in names}
        self._inputs = {name: self._dtype(name) for name in names if is_input[name]}
        self._outputs = {name: self._dtype(name) for name in names if not is_input[name]}
        self._profiles = tuple(
            {name: self._sizes(name, index) for name in self._inputs}
            for index in range(self._engine.num_optimization_profiles)
        )
        self._buffers: dict[str, tuple[int, int]] = {}

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the engine's inputs."""
        return tuple(self._inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the engine's outputs."""
        return tuple(self._outputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the engine once; see Session.run."""
        if self._context is None:
            raise TargetError(self._component, "the session is closed")
        check_names(self._component, self.input_names, inputs)
        fed = {name: np.ascontiguousarray(inputs[name], dtype=dtype) for name, dtype in self._inputs.items()}
        profile = profile_for(self._component, self._profiles, {name: fed[name].shape for name in fed})
        if profile != self._context.active_optimization_profile:
            if not self._context.set_optimization_profile_async(profile, self._device.stream):
                raise self._failure(f"cannot switch to profile {profile}")
            self._device.wait()
        for name, array in fed.items():
            if not self._context.set_input_shape(name, array.shape):
                raise self._failure(f"does not take '{name}' as {list(array.shape)}")
            self._device.upload(self._bound(name, array.nbytes), array)
        results = {}
        for name, dtype in self._outputs.items():
            results[name] = np.empty(tuple(self._context.get_tensor_shape(name)), dtype)
            self._bound(name, results[name].nbytes)
        if not self._context.execute_async_v3(self._device.stream):
            raise self._failure("cannot run the engine")
        for name, array in results.items():
            self._device.download(array, self._buffers[name][0])
        self._device.wait()
        return {name: widened(array) for name, array in results.items()}

    def close(self) -> None:
        """Give back the memory, on the GPU as well."""
        if self._context is not None:
            self._context, self._engine, self._runtime = None, None, None
            self._device.close()

    def __enter__(self) -> TensorrtSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _bound(self, name: str, size_bytes: int) -> int:
        """The device address of tensor ``name``, with room for ``size_bytes``, known to the context."""
        address, room_bytes = self._buffers.get(name, (0, -1))
        if room_bytes < size_bytes:
            if room_bytes >= 0:
                self._device.free(address)
            address = self._device.allocate(size_bytes)
            self._buffers[name] = (address, size_bytes)
        self._context.set_tensor_address(name, address)
        return address

    def _sizes(self, name: str, profile: int) -> SizeRange:
        low, _, high = self._engine.get_tensor_profile_shape(name, profile)
        return tuple(low), tuple(high)

    def _dtype(self, name: str) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self._library.nptype(self._engine.get_tensor_dtype(name)))
        return dtype

    def _failure(self, words: str) -> TargetError:
        reason = self._messages[-1] if self._messages else "no reason given"
        return TargetError(
            self._component,
            f"{self._library.__name__} {self._library.__version__} {words}: {reason}",
            "run 'latentc engine build' again on this board, with this version of the library",
        )


def profile_for(
    component: str, profiles: Sequence[Mapping[str, SizeRange]], shapes: Mapping[str, tuple[int, ...]]
) -> int:
    """The index of the first of an engine's profiles that takes ``shapes``.

    An engine made for exact shapes has a profile for each; one made for a range has one profile.

    Raises:
        TargetError: none does.
    """
    misfits = []
    for index, profile in enumerate(profiles):
        wrong = next((name for name, shape in shapes.items() if not _within(shape, profile[name])), None)
        if wrong is None:
            return index
        misfits.append((wrong, profile[wrong]))
    name, (low, high) = misfits[0] if misfits else (next(iter(shapes)), ((), ()))
    raise TargetError(
        component,
        f"the engine takes '{name}' from {list(low)} to {list(high)}, given {list(shapes[name])}",
        "ask for another height or width, or build the engine for that size",
    )


def _within(shape: tuple[int, ...], sizes: SizeRange) -> bool:
    low, high = sizes
    return len(shape) == len(low) and all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True))


def open_tensorrt(bundle: Bundle, component: Component) -> TensorrtSession:
    """Open the engine of ``component``; raises what latentc.runtime.session.open_session says."""
    engine = engine_bytes(bundle, component)
    library = import_tensorrt(PACKAGES[bundle.target.runtime])
    device = CudaDevice()
    try:
        return TensorrtSession(str(component), engine, library, device)
    except BaseException:
        device.close()
        raise


def engine_bytes(bundle: Bundle, component: Component) -> bytes:
    """The bytes of the engine of ``component``, compared with the manifest or with engine.json.

    Raises:
        TargetError: the engine is not built yet.
        BundleError: it is damaged, or was built from another graph.
    """
    entry = component_entry(bundle, component)
    if entry.file in bundle.manifest.files:
        return bundle.checked_bytes(entry.file)
    path, record_path = bundle.folder / entry.file, bundle.folder / engine_record(entry.file)
    if not path.is_file() or not record_path.is_file():
        raise TargetError(
            f"{component}",
            "its engine is not built yet",
            f"on the board: latentc engine build {bundle.folder}",
        )
    record = record_from_json(engine_record(entry.file), record_path.read_text(encoding="utf-8"))
    data = path.read_bytes()
    for what, seen, wanted in (
        ("its bytes", hashlib.sha256(data).hexdigest(), record.engine_sha256),
        ("the graph it was built from", record.onnx_sha256, bundle.manifest.files[entry.onnx].sha256),
    ):
        if seen != wanted:
            raise BundleError(
                entry.file,
                f"{what} has SHA-256 {seen}, wanted {wanted}",
                f"on the board: latentc engine build {bundle.folder}",
            )
    return data
