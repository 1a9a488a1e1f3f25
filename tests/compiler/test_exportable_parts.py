"""Parts that ONNX cannot say are replaced wherever they lie; every replacement is of a class that exists."""

from __future__ import annotations

from torch import nn

from latentc.compiler.exportable_parts import make_exportable
from latentc.compiler.rotary_table import RotaryTable


def test_parts_are_replaced_at_any_depth() -> None:
    from diffusers.models.transformers.transformer_flux import FluxPosEmbed

    module = nn.ModuleDict(
        {"inner": nn.ModuleDict({"positions": FluxPosEmbed(10000, [2, 4])}), "other": nn.SiLU()}
    )
    make_exportable(module)
    assert isinstance(module.get_submodule("inner.positions"), RotaryTable)
    assert isinstance(module["other"], nn.SiLU)
