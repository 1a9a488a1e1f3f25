"""Lower: a component model folder becomes what one target opens.

    onnx         model.onnx + model.onnx.data, as they are
    ort-x86      model.onnx + model.onnx.data with products of integers
    ort-mobile   model.ort, or model.onnx + model.onnx.data beyond 2 GiB
    rtx          model.onnx in float16 and model.engine, built here without a GPU
    jetson-*     model.onnx in float16, proven by TensorRT for RTX; the board builds model.engine

What a target cannot take is refused by node before time is spent. The folder also holds component.json.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from latentc.compiler.stage import Progress, Stage
from latentc.compiler.stages.component_entry import Lowered, entry_of_model, write_lowered
from latentc.compiler.stages.engine_shapes import AxisSizes, shapes_of
from latentc.compiler.stages.rtx_engine import PACKAGES as RTX_PACKAGES
from latentc.compiler.toolchain import versions
from latentc.recipes.target import FloatType, Runtime, Target, target_named
from latentc.runtime.manifest import Json

if TYPE_CHECKING:
    import onnx_ir as ir

    from latentc.passes.base import Pass

# Boards build their engines themselves; here the same parser and builder make one for the nearest
# architecture that TensorRT for RTX has (Ampere, INT4 and INT8 as on 8.7), and throw it away.
_PROOF_CAPABILITIES = ("8.6",)


@dataclass(frozen=True)
class Lower(Stage):
    """Turn a transformed component into the files of one target.

    Args:
        target_name: a name from latentc.recipes.target.TARGETS.
        component: value of a latentc.recipes.family.Component.
        sizes: exact sizes that engines are made for (latentc.compiler.stages.engine_shapes.engine_sizes),
            the usual ones first; empty for targets without engines.
    """

    name: ClassVar[str] = "lower"
    version: ClassVar[int] = 3

    target_name: str
    component: str
    sizes: tuple[AxisSizes, ...] = ()

    def options(self) -> dict[str, Json]:
        """What of the target changes the bytes (all Jetsons share theirs), and the packages that do."""
        target = target_named(self.target_name)
        options: dict[str, Json] = {
            "component": self.component,
            "form": target.name if lowering_passes(target) else str(target.runtime),
            "float_type": str(target.float_type),
            "compute_capabilities": list(target.compute_capabilities),
            "engine_on_device": target.engine_on_device,
            "sizes": [dict(sizes) for sizes in self.sizes],
            "toolchain": dict(versions("onnx", "onnx-ir", *_packages(target))),
        }
        if target.float_type is FloatType.FLOAT16:
            options["cast"] = _cast().identity()
        options["passes"] = [step.identity() for step in lowering_passes(target)]
        return options

    def run(self, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
        """Read ``inputs["transform"]``; write the target's files and component.json.

        Raises:
            TargetError: the target cannot do what the graph asks; names the node.
            ToolMissing: the target's compiler is not installed.
        """
        from latentc.compiler.stages.simulated import refuse_simulated
        from latentc.passes.model_file import read_model

        target = target_named(self.target_name)
        source = inputs["transform"]
        if _is_portable(target):
            lowered = self._copy_onnx(source, out, progress)
        else:
            model = read_model(source)
            refuse_simulated(model, target, self.component)
            if _is_mobile(target):
                lowered = self._lower_for_mobile(model, source, out, progress)
            elif lowering_passes(target):
                lowered = self._lower_for_x86(target, model, out, progress)
            else:
                lowered = self._lower_for_tensorrt(target, model, out, progress)
        write_lowered(lowered, out)
        progress(1.0, f"{self.component}: done")

    def _copy_onnx(self, source: Path, out: Path, progress: Progress) -> Lowered:
        from latentc.compiler.stages.simulated import simulated_in
        from latentc.passes.model_file import read_model
        from latentc.passes.model_writer import DATA_FILE, GRAPH_FILE

        progress(0.0, f"{self.component}: copying the graph and its weights")
        for name in (GRAPH_FILE, DATA_FILE):
            shutil.copyfile(source / name, out / name)
        model = read_model(out)
        entry = entry_of_model(model, f"{self.component}/{GRAPH_FILE}", "")
        return Lowered(entry, simulated_in(model, self.component))

    def _lower_for_mobile(self, model: ir.Model, source: Path, out: Path, progress: Progress) -> Lowered:
        from latentc.compiler.stages.onnxruntime_limits import (
            check_for_onnxruntime,
            check_fused,
            float_convolutions,
            quantized_linear_names,
        )
        from latentc.compiler.stages.ort_format import (
            LARGEST_WEIGHT_BYTES,
            ORT_FILE,
            content_of_ort,
            ort_from_onnx,
        )
        from latentc.passes.base import PassContext
        from latentc.passes.model_file import read_model, write_model
        from latentc.passes.model_writer import DATA_FILE, GRAPH_FILE
        from latentc.passes.weight_bytes import quantized_names

        others = quantized_names(model)  # scales and rotations, and what allocate left in floats
        weights = tuple(f"{weight}." for weight in quantized_linear_names(model))
        known = entry_of_model(model, f"{self.component}/{ORT_FILE}", "")
        for step in lowering_passes(target_named(self.target_name)):
            model = step(model, PassContext()).model
        check_for_onnxruntime(model, self.target_name, self.component)
        if (source / DATA_FILE).stat().st_size > LARGEST_WEIGHT_BYTES:
            write_model(model, out)
            return Lowered(entry_of_model(read_model(out), f"{self.component}/{GRAPH_FILE}", ""))
        progress(0.1, f"{self.component}: fusing into .ort")
        with tempfile.TemporaryDirectory(prefix="latentc-", dir=out.parent) as folder:
            write_model(model, Path(folder))
            ort_from_onnx(Path(folder) / GRAPH_FILE, out / ORT_FILE)
        progress(0.8, f"{self.component}: checking what was fused")
        content = content_of_ort(out / ORT_FILE)
        check_fused(model, content.nodes, self.component)
        entry = replace(
            known,
            weight_bytes=sum(content.initializer_bytes.values()),
            # codes, steps and branch are named after the weight that they stand for
            quantized_bytes=sum(
                size
                for name, size in content.initializer_bytes.items()
                if name.startswith(weights) or name in others
            ),
        )
        floats = float_convolutions(model, content.nodes)
        simulated = (
            f"{self.component}: {len(floats)} INT8 convolutions run in float32 on rounded values "
            f"({', '.join(floats[:3])}{', …' if len(floats) > 3 else ''})",
        )
        return Lowered(entry, simulated if floats else ())

    def _lower_for_x86(self, target: Target, model: ir.Model, out: Path, progress: Progress) -> Lowered:
        from latentc.compiler.stages.onnxruntime_limits import quantized_linear_names
        from latentc.passes.base import PassContext
        from latentc.passes.model_file import write_model
        from latentc.passes.model_writer import GRAPH_FILE

        weights = tuple(f"{weight}." for weight in quantized_linear_names(model))
        known = entry_of_model(model, f"{self.component}/{GRAPH_FILE}", "")
        for step in lowering_passes(target):
            model = step(model, PassContext()).model
        write_model(model, out, lambda done, name: progress(done, f"{self.component}: {name}"))
        sizes = {
            name: value.const_value.nbytes
            for name, value in model.graph.initializers.items()
            if value.const_value
        }
        quantized_bytes = sum(size for name, size in sizes.items() if name.startswith(weights))
        return Lowered(replace(known, weight_bytes=sum(sizes.values()), quantized_bytes=quantized_bytes))

    def _lower_for_tensorrt(self, target: Target, model: ir.Model, out: Path, progress: Progress) -> Lowered:
        from latentc.compiler.stages.rtx_engine import build_rtx_engine
        from latentc.compiler.stages.tensorrt_limits import check_for_tensorrt
        from latentc.passes.base import PassContext
        from latentc.passes.model_file import read_model, write_model
        from latentc.passes.model_writer import GRAPH_FILE

        progress(0.0, f"{self.component}: casting to {target.float_type}")
        model = _cast()(model, PassContext()).model
        check_for_tensorrt(model, target.name, self.component)
        write_model(model, out, lambda done, name: progress(0.1 + 0.3 * done, f"{self.component}: {name}"))
        graph_file = out / GRAPH_FILE
        engine_file = out / "model.engine"
        entry = entry_of_model(
            read_model(out), f"{self.component}/{engine_file.name}", f"{self.component}/{GRAPH_FILE}"
        )
        capabilities = _PROOF_CAPABILITIES if target.engine_on_device else target.compute_capabilities
        progress(0.4, f"{self.component}: TensorRT for RTX builds for {', '.join(capabilities)}")
        # one shape is proof enough of what parses and builds
        wanted = self.sizes[:1] if target.engine_on_device else self.sizes
        profiles = [shapes_of(entry.inputs, sizes) for sizes in wanted]
        build_rtx_engine(self.component, graph_file, engine_file, capabilities, profiles)
        if not target.engine_on_device:
            return Lowered(entry)
        engine_file.unlink()
        version = versions(*RTX_PACKAGES)["tensorrt-rtx-cu13"]
        proof = f"parsed and built by TensorRT for RTX {version} for architecture {', '.join(capabilities)}"
        return Lowered(entry, proof=proof)


def _is_portable(target: Target) -> bool:
    return target.runtime is Runtime.ONNXRUNTIME and not lowering_passes(target)


def _is_mobile(target: Target) -> bool:
    return target.name == "ort-mobile"


def _packages(target: Target) -> tuple[str, ...]:
    if target.runtime is not Runtime.ONNXRUNTIME:
        return RTX_PACKAGES
    return ("onnxruntime", "flatbuffers") if _is_mobile(target) else ()


def lowering_passes(target: Target) -> tuple[Pass, ...]:
    """What brings a graph into the form that onnxruntime's CPU is fast with; empty for other targets."""
    from latentc.passes.dynamic_products import DynamicProducts
    from latentc.passes.fuse_attention import FuseAttention
    from latentc.passes.integer_products import IntegerProducts
    from latentc.passes.normalize_groups import NormalizeGroups

    form = (IntegerProducts(optional=True), FuseAttention(optional=True), NormalizeGroups(optional=True))
    if target.name == "ort-x86":
        return (DynamicProducts(optional=True), *form)
    return form if _is_mobile(target) else ()


def _cast() -> Pass:
    from latentc.passes.pass_text import pass_from_text

    return pass_from_text("cast")
