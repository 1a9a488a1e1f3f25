"""Session: one component, ready to run. Callers pass and get float32 and int64, whatever the graph keeps."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from latentc.errors import BundleError, TargetError
from latentc.recipes.family import Component
from latentc.recipes.target import Runtime
from latentc.runtime.bundle import Bundle
from latentc.runtime.manifest import ComponentEntry

# numpy arrays of float32 or int64: a graph's tensors differ, so the element type is not in this type.
Array: TypeAlias = "NDArray[Any]"


class Session(Protocol):
    """A component that runs."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the graph's inputs, in graph order."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph's outputs, in graph order."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once.

        Args:
            inputs: one array for each of ``input_names`` and no other; float32 or int64.

        Returns:
            One array for each of ``output_names``; float32 or int64.

        Raises:
            BundleError: the names, shapes or types are not those of the graph.
            TargetError: the runtime fails.
        """

    def close(self) -> None:
        """Give back the memory; the session cannot run afterwards. Closing twice is fine."""

    def __enter__(self) -> Session:
        """The session itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""


def open_session(
    bundle: Bundle, component: Component, *, threads: int = 0, stand_in: bool = False
) -> Session:
    """Open ``component`` of ``bundle`` with the runtime that the bundle was made for.

    Args:
        bundle: opened; the component's files are hashed here, before the runtime sees them.
        component: which.
        threads: of onnxruntime on the CPU; 0 takes one a physical core.
        stand_in: open the ONNX form in onnxruntime on this machine's CPU instead of the target's own
            runtime; the numbers are the graph's, the speed and the last bits are not the target's. Where
            onnxruntime is the target's own runtime this changes nothing.

    Raises:
        BundleError: the component is missing or damaged.
        TargetError: this machine has no such device, or the engine is not built yet.
        ToolMissing: the runtime's package is not installed.
    """
    entry = component_entry(bundle, component)
    if stand_in or bundle.target.runtime is Runtime.ONNXRUNTIME:
        from latentc.runtime.onnxruntime_session import open_onnxruntime

        file = entry.file if bundle.target.runtime is Runtime.ONNXRUNTIME else entry.onnx
        if not file:
            raise BundleError(
                f"{component}", "carries no ONNX form to stand in for its engine", "build the bundle again"
            )
        return open_onnxruntime(
            bundle,
            str(component),
            file,
            threads=threads,
            # ort-mobile alone promises INT8 activations; a stand-in for a GPU must not add their error.
            int8_activations=bundle.target.name == "ort-mobile",
        )
    if not entry.file.endswith(".engine"):
        raise TargetError(
            f"{component}",
            f"'{entry.file}' is no engine, and target '{bundle.target.name}' runs engines only",
            "build the bundle again",
        )
    from latentc.runtime.tensorrt_session import open_tensorrt

    return open_tensorrt(bundle, component)


def component_entry(bundle: Bundle, component: Component) -> ComponentEntry:
    """The manifest's entry of ``component``; raises BundleError when there is none."""
    entry = bundle.manifest.components.get(str(component))
    if entry is None:
        held = ", ".join(sorted(bundle.manifest.components))
        raise BundleError(
            "manifest.json", f"this bundle has no {component} (it has {held})", "build the bundle again"
        )
    return entry


def check_names(component: str, wanted: tuple[str, ...], given: Mapping[str, Array]) -> None:
    """Raise BundleError unless ``given`` has exactly the names ``wanted``."""
    if set(wanted) != set(given):
        raise BundleError(
            component,
            f"takes the inputs {', '.join(sorted(wanted))}, was given {', '.join(sorted(given))}",
            "build the bundle again with this version of latentc",
        )
