"""Methods: every chain is one that latentc accepts, and SVDQuant's rank is the largest that fits."""

from __future__ import annotations

import pytest
from tests.bench.fidelity.families import FAMILIES, SHAPES_FLUX, SHAPES_SD, Family, Linear
from tests.bench.fidelity.methods import (
    FLUX_SHARE,
    PUBLISHED_RANK,
    Ceiling,
    Method,
    Question,
    Setting,
    ceiling_share,
    chain,
    fp16_bytes,
    modelopt_bytes,
    modelopt_rank,
    svdquant_bytes,
    svdquant_rank,
)

from latentc.compiler.recipe_passes import passes_of
from latentc.recipes.families.catalogue import family_of_pipeline
from latentc.recipes.load import load_recipe, recipe_file

QUESTIONS = [
    Question(family, setting, ceiling) for family in FAMILIES for setting in Setting for ceiling in Ceiling
]
OF_PASSES = (Method.NEAREST, Method.SVDQUANT, Method.SVDQUANT_GPTQ, Method.OURS_INT4, Method.OURS)


def named(question: Question) -> str:
    return f"{question.family.name}-{question.setting}-{question.ceiling}"


@pytest.mark.parametrize("method", OF_PASSES)
@pytest.mark.parametrize("question", QUESTIONS, ids=named)
def test_a_recipe_takes_the_chain(question: Question, method: Method) -> None:
    override = f"passes.denoiser={chain(question, method)}"
    loaded = load_recipe(recipe_file(question.family.name), [override])
    family = family_of_pipeline(question.family.pipeline_class)
    denoiser = passes_of(loaded, family)[family.denoiser]
    rounds_activations = denoiser[-1].name == "quantize-activations"
    assert rounds_activations == (question.setting is not Setting.W4A16)


@pytest.mark.parametrize("question", QUESTIONS, ids=named)
def test_the_rank_is_the_largest_under_the_ceiling(question: Question) -> None:
    family = question.family
    whole = fp16_bytes(family)
    limit = ceiling_share(family, question.ceiling)
    for rank, size in (
        (svdquant_rank(question), svdquant_bytes),
        (modelopt_rank(question), modelopt_bytes),
    ):
        assert size(family, rank) / whole <= limit
        assert rank == PUBLISHED_RANK or size(family, rank + 1) / whole > limit


def test_the_scaled_ceiling_is_rank_32_at_flux_size() -> None:
    K = N = 3072
    codes_and_float32_steps = 0.5 * K * N + 4 * K * N / 64
    branch = 2 * PUBLISHED_RANK * (K + N)
    assert round((codes_and_float32_steps + branch) / (2 * K * N), 3) == FLUX_SHARE


@pytest.mark.parametrize(("family", "count"), [(SHAPES_SD, 50), (SHAPES_FLUX, 59)], ids=["sd", "flux"])
def test_every_linear_is_counted(family: Family, count: int) -> None:
    assert len(family.linears()) == count


def test_linears_that_read_the_same_share_a_scale_and_a_factor() -> None:
    q, k, v = (Linear(f"b.0.attn1.{role}", 64, 64) for role in ("to_q", "to_k", "to_v"))
    alone = Linear("b.0.attn2.to_q", 64, 64)
    single = [Linear(f"single_transformer_blocks.0.{one}", 64, 64) for one in ("attn.to_q", "proj_mlp")]
    joint = [Linear(f"transformer_blocks.0.attn.{one}", 64, 64) for one in ("to_q", "add_q_proj")]

    class Made(Family):
        def linears(self) -> tuple[Linear, ...]:
            return (q, k, v, alone, *single, *joint)

    made = Made("made", "", "transformer", 1.0, (), ())
    codes = 8 * (64 * 64 // 2 + 2 * 64)
    # q, k and v; alone; the single block's; image and text of the joint block
    assert svdquant_bytes(made, 0) - codes == 5 * 4 * 64
    # the same share a right factor, but for the single block's feed-forward
    assert svdquant_bytes(made, 1) - svdquant_bytes(made, 0) == 2 * (6 * 64 + 8 * 64)
