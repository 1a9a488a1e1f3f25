"""Trace: what one call of a component computes at the recipe's size, from its config alone, in seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from latentc.compiler.forecast.trace import TRACE_FILE, trace_to_json
from latentc.compiler.stage import Progress, Stage
from latentc.compiler.stages.engine_shapes import AxisSizes
from latentc.compiler.toolchain import versions
from latentc.recipes.families.catalogue import family_named
from latentc.recipes.family import Component
from latentc.runtime.manifest import Json


@dataclass(frozen=True)
class TraceCall(Stage):
    """Run a component without weights, and write down what it would compute, in ``trace.json``.

    Args:
        family: name of a latentc.recipes.family.Family.
        component: value of a latentc.recipes.family.Component.
        class_name: of the diffusers or transformers module.
        config_json: the module's config as canonical JSON.
        sizes: of its dynamic axes.
    """

    name: ClassVar[str] = "trace"
    version: ClassVar[int] = 1

    family: str
    component: str
    class_name: str
    config_json: str
    sizes: AxisSizes

    def options(self) -> dict[str, Json]:
        """The architecture, the sizes and the versions of what defines it."""
        return {
            "family": self.family,
            "component": self.component,
            "class_name": self.class_name,
            "config": json.loads(self.config_json),
            "sizes": dict(self.sizes),
            "toolchain": dict(versions("torch", "diffusers", "transformers")),
        }

    def run(self, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
        """Write ``trace.json`` into ``out``; takes no inputs.

        Raises:
            ModelError: the config is refused by its class, or asks for more than the family has.
        """
        from latentc.compiler.flat import flat_component, module_without_values, on_meta
        from latentc.compiler.forecast.trace_module import trace_module

        progress(0.0, f"tracing {self.component}")
        module = module_without_values(self.class_name, json.loads(self.config_json))
        flat = flat_component(family_named(self.family).spec(Component(self.component)), module)
        trace = trace_module(on_meta(flat)[0], dict(self.sizes))
        (out / TRACE_FILE).write_text(trace_to_json(trace), encoding="utf-8")
