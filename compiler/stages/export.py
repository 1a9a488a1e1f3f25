"""Export: one component's graph from its architecture alone, a few MB, without any weight."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from latentc.compiler.stage import Progress, Stage
from latentc.compiler.toolchain import versions
from latentc.recipes.families.catalogue import UNKNOWN, family_named
from latentc.recipes.family import Component
from latentc.runtime.manifest import Json


@dataclass(frozen=True)
class Export(Stage):
    """Trace a component into ``graph.onnx`` and say which weights it needs in ``bindings.json``.

    Args:
        family: name of a latentc.recipes.family.Family, or UNKNOWN.
        component: value of a latentc.recipes.family.Component.
        class_name: of the diffusers or transformers module.
        config_json: the module's config as canonical JSON (ComponentFolder.config_json).
    """

    name: ClassVar[str] = "export"
    version: ClassVar[int] = 2

    family: str
    component: str
    class_name: str
    config_json: str

    def options(self) -> dict[str, Json]:
        """The architecture and the versions of everything that traces it."""
        return {
            "family": self.family,
            "component": self.component,
            "class_name": self.class_name,
            "config": json.loads(self.config_json),
            "toolchain": dict(versions("torch", "diffusers", "transformers", "onnxscript", "onnx-ir")),
        }

    def run(self, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
        """Write ``graph.onnx`` and ``bindings.json`` into ``out``; takes no inputs.

        Raises:
            ModelError: the config is refused by its class, or asks for more than the family has.
        """
        import onnx_ir as ir

        from latentc.compiler.bindings import BINDINGS_FILE, GRAPH_FILE, Binding, Bindings, bindings_to_json
        from latentc.compiler.checkpoint_keys import keys_of
        from latentc.compiler.export_graph import graph_of
        from latentc.compiler.flat import config_of, flat_component, module_on_meta
        from latentc.compiler.unknown_class import LOST, spec_of_class

        progress(0.0, f"making {self.class_name} without weights")
        config = json.loads(self.config_json)
        module = module_on_meta(self.class_name, config)
        if self.family == UNKNOWN:
            progress(0.1, f"warning: {self.class_name}: {LOST}")
            spec = spec_of_class(self.class_name, self.component, config_of(module))
        else:
            spec = family_named(self.family).spec(Component(self.component))
        shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        flat = flat_component(spec, module)
        if self.family == UNKNOWN:  # nothing proves that what is traced at one size is right at another
            flat = replace(flat, steps={})
        progress(0.2, f"tracing {self.component}")
        model = graph_of(flat, self.component)
        taken = {tensor.name for tensor in flat.inputs}
        weights = {
            name: Binding(keys_of(self.class_name, name), shapes[name])
            for name in (str(value.name) for value in model.graph.inputs)
            if name not in taken
        }
        unused = [key for name in shapes if name not in weights for key in keys_of(self.class_name, name)]
        ir.save(model, out / GRAPH_FILE)
        bindings = Bindings(self.component, self.class_name, spec.folder, weights, tuple(unused))
        (out / BINDINGS_FILE).write_text(bindings_to_json(bindings), encoding="utf-8")
        progress(1.0, f"{self.component}: {len(model.graph)} nodes, {len(weights)} weights")
