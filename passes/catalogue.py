"""Catalogue: every pass, in the order in which a recipe would use them. Adding a pass adds one row."""

from __future__ import annotations

from latentc.errors import PassError, nearest
from latentc.passes.allocate import Allocate
from latentc.passes.base import Pass
from latentc.passes.canonicalize import Canonicalize
from latentc.passes.cast import Cast
from latentc.passes.compress_heads import CompressHeads
from latentc.passes.dynamic_products import DynamicProducts
from latentc.passes.fuse_attention import FuseAttention
from latentc.passes.fuse_lora import FuseLora
from latentc.passes.integer_products import IntegerProducts
from latentc.passes.normalize_groups import NormalizeGroups
from latentc.passes.quantize_activations import QuantizeActivations
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.quantize_int8 import QuantizeInt8
from latentc.passes.quantize_int8_weights import QuantizeInt8Weights
from latentc.passes.rotate import Rotate
from latentc.passes.smooth import Smooth
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.split_subspace import SplitSubspace

PASSES: tuple[type[Pass], ...] = (
    Canonicalize,
    FuseLora,
    CompressHeads,
    QuantizeInt8,
    Smooth,
    Rotate,
    Allocate,
    SplitSubspace,
    SplitLowRank,
    QuantizeInt8Weights,
    QuantizeInt4,
    QuantizeActivations,
    IntegerProducts,
    DynamicProducts,
    FuseAttention,
    NormalizeGroups,
    Cast,
)


def pass_named(name: str) -> type[Pass]:
    """The pass class called ``name``; raises PassError naming the nearest one."""
    for pass_class in PASSES:
        if pass_class.name == name:
            return pass_class
    raise PassError("passes", f"unknown pass '{name}'", nearest(name, [entry.name for entry in PASSES]))
