"""Methods: each row of the table as a chain of passes for the denoiser, and what it may take in bytes.

Convolutions stay as they are in every row, so that rows compare linears alone; so does FLUX's last linear.
Activations are rounded in the same groups in every row, and only where SVDQuant rounds them.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.fidelity.families import GROUP, Family, Linear

from latentc.passes.weights import matches
from latentc.recipes.choice import Choice

PUBLISHED_RANK = 32
GRID = 20
"""Steps of SVDQuant's search for smoothing scales."""
REFINEMENTS = 100
"""How often SVDQuant fits a branch again at most."""
SMOOTHING_RANK = 8
"""Of the branch that our search for smoothing scales reckons with: allocate gives few linears more."""
FLUX_SHARE = 0.302
"""Of fp16: INT4 in groups of 64 with float32 steps and a branch of rank 32 in float16, at K = N = 3072."""


class Setting(Choice):
    """Bits of weights and activations."""

    W4A16 = "W4A16"
    W4A8 = "W4A8"
    W4A4 = "W4A4"

    @property
    def bits(self) -> int:
        """Of the activations; 16 are not rounded."""
        return int(self.value.removeprefix("W4A"))


class Ceiling(Choice):
    """How many bytes a method may take."""

    LITERAL = "literal"
    """What SVDQuant takes with rank 32, much on layers as small as these."""
    SCALED = "scaled"
    """FLUX_SHARE, with SVDQuant's rank lowered to fit."""


class Method(Choice):
    """The rows."""

    NEAREST = "nearest"
    SCALE_ESTIMATION = "scale-estimation"
    SVDQUANT = "svdquant"
    SVDQUANT_GPTQ = "svdquant-gptq"
    MODELOPT = "modelopt"
    OURS_INT4 = "ours-int4"
    """OURS without INT8 linears, whose INT8 activations make W4A4 a mix; asked only there."""
    OURS = "ours"


TITLES = {
    Method.NEAREST: "round-to-nearest",
    Method.SCALE_ESTIMATION: "NNCF scale estimation",
    Method.SVDQUANT: "SVDQuant",
    Method.SVDQUANT_GPTQ: "SVDQuant + GPTQ",
    Method.MODELOPT: "Model Optimizer svdquant",
    Method.OURS_INT4: "ours, INT4 alone",
    Method.OURS: "ours",
}


@dataclass(frozen=True)
class Question:
    """What one row is about: a model's family, bits, and a ceiling of bytes."""

    family: Family
    setting: Setting
    ceiling: Ceiling


def codes_bytes(linear: Linear, group: int) -> int:
    """INT4 codes and float16 steps of ``linear``."""
    return linear.K * linear.N // 2 + 2 * (linear.K // group) * linear.N


def svdquant_bytes(family: Family, rank: int) -> int:
    """All linears with SVDQuant's: the plain ones, the others with branch and a scale an input channel.

    The scales are float32, as our files have them, and linears that read the same input share one. Queries,
    keys and values are one linear to SVDQuant and share the right factor of their branch.
    """
    treated = [linear for linear in family.linears() if not family.is_plain(linear)]
    rights = sum(
        {linear.name if _is_lone(linear) else _input_of(linear): linear.K for linear in treated}.values()
    )
    branches = 2 * rank * (rights + sum(linear.N for linear in treated))
    scales = 4 * sum({_input_of(linear): linear.K for linear in treated}.values())
    return sum(codes_bytes(linear, GROUP) for linear in family.linears()) + branches + scales


def modelopt_bytes(family: Family, rank: int) -> int:
    """All linears with Model Optimizer's, which has a float16 scale an input channel for each linear."""
    treated = [linear for linear in family.linears() if not family.is_plain(linear)]
    branches = sum(2 * rank * (linear.K + linear.N) + 2 * linear.K for linear in treated)
    return sum(codes_bytes(linear, GROUP) for linear in family.linears()) + branches


def fp16_bytes(family: Family) -> int:
    """All linears that rows quantize, in fp16."""
    return sum(2 * linear.K * linear.N for linear in family.linears())


def ceiling_share(family: Family, ceiling: Ceiling) -> float:
    """The most that a row may take, over fp16."""
    if ceiling is Ceiling.SCALED:
        return FLUX_SHARE
    return svdquant_bytes(family, PUBLISHED_RANK) / fp16_bytes(family)


def svdquant_rank(question: Question) -> int:
    """The largest rank, at most PUBLISHED_RANK, with which SVDQuant fits under the ceiling."""
    free = ceiling_share(question.family, question.ceiling) * fp16_bytes(question.family)
    return max(rank for rank in range(1, PUBLISHED_RANK + 1) if svdquant_bytes(question.family, rank) <= free)


def modelopt_rank(question: Question) -> int:
    """As svdquant_rank, for Model Optimizer."""
    free = ceiling_share(question.family, question.ceiling) * fp16_bytes(question.family)
    return max(rank for rank in range(1, PUBLISHED_RANK + 1) if modelopt_bytes(question.family, rank) <= free)


def chain(question: Question, method: Method) -> str:
    """The passes of the denoiser as YAML in one line; raises ValueError for MODELOPT, which has none."""
    if method is Method.MODELOPT:
        raise ValueError("Model Optimizer runs in its own environment, without passes")
    makers = {
        Method.NEAREST: lambda: _rounded(question, "nearest"),
        Method.SCALE_ESTIMATION: lambda: _rounded(question, "scale-estimation"),
        Method.SVDQUANT: lambda: _svdquant(question, "nearest"),
        Method.SVDQUANT_GPTQ: lambda: _svdquant(question, "gptq"),
        Method.OURS_INT4: lambda: _ours(question, "precisions: [int4], "),
        Method.OURS: lambda: _ours(question, ""),
    }
    return f"[{', '.join(['canonicalize', *makers[method](), *_activations(question, method)])}]"


def _rounded(question: Question, rounding: str) -> list[str]:
    """Rounding alone, in the smallest groups that the ceiling allows."""
    family = question.family
    share = ceiling_share(family, question.ceiling)
    group = min(
        group
        for group in (16, 32, GROUP)
        if sum(codes_bytes(linear, group) for linear in family.linears()) <= share * fp16_bytes(family)
    )
    return [_int4(family, group, rounding)]


def _svdquant(question: Question, rounding: str) -> list[str]:
    """SVDQuant (arXiv 2411.05007) with the settings that its authors released."""
    family, rank = question.family, svdquant_rank(question)
    skip = _listed((*family.plain, *family.floating))
    # Without rounded activations 8 bits stand in for the smoothing's search, which lose next to nothing.
    bits = min(8, question.setting.bits)
    split = (
        f"rank: {rank}, max_ratio: 2.0, branch: float16, group: {GROUP}, refinements: {REFINEMENTS}, "
        "calibrated: false, rounding: nearest"
    )
    joined = _listed((*family.plain, *family.floating, _LONE))
    lone = [f"{{split-low-rank: {{{split}, skip: {skip}}}}}"] if family.is_flux else []
    return [
        f"{{smooth: {{{_smoothing(bits, rank)}, skip: {skip}}}}}",
        f"{{split-low-rank: {{{split}, shared: true, skip: {joined}}}}}",
        *lone,
        _int4(family, GROUP, rounding),
    ]


def _ours(question: Question, precisions: str) -> list[str]:
    """Our own chain: bits and rank of each linear by what the final latents lose, codes by GPTQ.

    An INT8 linear takes INT8 activations; where SVDQuant rounds no activations, neither does this. The codes
    of INT4 activations are asymmetric, which takes no bytes.
    """
    family = question.family
    skip, plain = _listed(family.floating), _listed((*family.plain, *family.floating))
    bits = min(8, question.setting.bits)
    share = ceiling_share(family, question.ceiling)
    codes = _codes(question)
    return [
        f"{{smooth: {{{_smoothing(bits, SMOOTHING_RANK)}, skip: {plain}{codes}}}}}",
        f"{{allocate: {{{precisions}max_ratio: {share:.4f}, activations: {question.setting.bits}, "
        f"unrounded: {plain}, group: {GROUP}, skip: {skip}{codes}}}}}",
        f"{{split-subspace: {{group: {GROUP}, optional: true, skip: {skip}}}}}",
        f"{{split-low-rank: {{group: {GROUP}, rounding: gptq, optional: true, skip: {skip}}}}}",
        "{quantize-int8-weights: {optional: true}}",
        _int4(family, GROUP, "gptq"),
    ]


def _smoothing(bits: int, rank: int) -> str:
    """The scales stand before the linears and count, as the bytes above say: nothing is folded."""
    return f"fold: false, grid: {GRID}, bits: {bits}, group: {GROUP}, rank: {rank}"


def _int4(family: Family, group: int, rounding: str) -> str:
    return f"{{quantize-int4: {{group: {group}, rounding: {rounding}, skip: {_listed(family.floating)}}}}}"


def _activations(question: Question, method: Method) -> list[str]:
    if question.setting is Setting.W4A16:
        return []
    skip = _listed((*question.family.plain, *question.family.floating))
    codes = _codes(question) if method in (Method.OURS, Method.OURS_INT4) else ""
    return [
        f"{{quantize-activations: {{bits: {question.setting.bits}, group: {GROUP}, skip: {skip}{codes}}}}}"
    ]


def _codes(question: Question) -> str:
    """An option more for passes that round activations: INT8 ones are symmetric as onnxruntime has them."""
    return ", symmetric: false" if question.setting is Setting.W4A4 else ""


def _listed(patterns: tuple[str, ...]) -> str:
    """Patterns as a YAML list; quoted, since a leading asterisk means something else there."""
    return "[" + ", ".join(f'"{pattern}"' for pattern in patterns) + "]"


_LONE = "*.proj_mlp.weight"
"""Reads what queries, keys and values read, and has a branch of its own in SVDQuant all the same."""
_SHARING = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "proj_mlp")


def _input_of(linear: Linear) -> str:
    """A name of what ``linear`` reads: the same for linears that read the same."""
    parent, _, role = linear.name.rpartition(".")
    if role not in _SHARING or (parent.endswith("attn2") and role == "to_q"):
        return linear.name
    block = parent.removesuffix(".attn") if role == "proj_mlp" or "single" in parent else parent
    if parent.endswith("attn2"):
        return "text_states"
    return f"{block}.{'text' if role.startswith('add_') else 'image'}"


def _is_lone(linear: Linear) -> bool:
    return matches(f"{linear.name}.weight", (_LONE,))
