import json
from dataclasses import replace
from pathlib import Path

import pytest

from latentc.errors import BundleError
from latentc.recipes.families.flux import FLUX
from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.validation.build_facts import PASSES, facts_of_bundle
from latentc.validation.report import AllotmentRow, BuildFacts, FrontRow, LayerRow, RefusalRow, TrialRow


def written(root: Path, data: object) -> Path:
    (root / PASSES).mkdir()
    (root / PASSES / "unet.json").write_text(json.dumps(data))
    return root


def test_reads_losses_and_refusals(tmp_path: Path) -> None:
    facts = facts_of_bundle(
        written(
            tmp_path,
            {
                "losses": [{"layer": "a", "pass_name": "quantize-int4", "relative_error": 0.1}],
                "trials": [
                    {
                        "layer": "a",
                        "pass_name": "quantize-int4",
                        "way": "gptq",
                        "relative_error": 0.05,
                        "taken": True,
                    }
                ],
                "passes": [
                    {"text": "quantize-int4{group=32}", "refusals": [{"where": "b", "why": "too small"}]}
                ],
            },
        ),
        STABLE_DIFFUSION,
    )
    assert facts == BuildFacts(
        (LayerRow("unet", "a", "quantize-int4", 0.1),),
        (RefusalRow("unet", "quantize-int4", "b", "too small"),),
        trials=(TrialRow("unet", "a", "quantize-int4", "gptq", 0.05, taken=True),),
    )


def test_reads_what_bytes_went_to(tmp_path: Path) -> None:
    point = {"ratio": 0.3, "relative_error": 0.05, "int4_layers": 1, "int8_layers": 2, "float_layers": 0}
    changes = [{"where": "a.weight", "what": "int4+16"}, {"where": "b.weight", "what": "int8"}]
    facts = facts_of_bundle(
        written(
            tmp_path,
            {
                "losses": [],
                "passes": [
                    {"text": "canonicalize", "refusals": [], "changes": [{"where": "c", "what": "folded"}]},
                    {"text": "allocate{max_ratio=0.3}", "refusals": [], "changes": changes},
                ],
                "front": [{**point, "taken": False}, {**point, "taken": True}],
            },
        ),
        STABLE_DIFFUSION,
    )
    row = FrontRow("unet", 0.3, 0.05, 1, 2, 0, taken=False)
    assert facts == BuildFacts(
        front=(row, replace(row, taken=True)),
        allotments=(AllotmentRow("unet", "a.weight", "int4+16"), AllotmentRow("unet", "b.weight", "int8")),
    )


def test_a_bundle_without_them_has_none(tmp_path: Path) -> None:
    assert facts_of_bundle(tmp_path, STABLE_DIFFUSION) == BuildFacts()


def test_a_mistyped_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"unet.json: is incomplete or mistyped: 'losses'"):
        facts_of_bundle(written(tmp_path, {"passes": []}), STABLE_DIFFUSION)


def test_what_the_family_leaves_alone_is_said_with_its_reason(tmp_path: Path) -> None:
    skipped = [{"where": name, "why": "matches skip"} for name in ("proj_out.weight", "own.weight")]
    data = {"losses": [], "passes": [{"text": "quantize-int4", "refusals": skipped, "changes": []}]}
    (tmp_path / PASSES).mkdir()
    (tmp_path / PASSES / "transformer.json").write_text(json.dumps(data))
    assert [row.why for row in facts_of_bundle(tmp_path, FLUX).refusals] == [
        "matches skip: gives the prediction itself: its error is in the latent of every step",
        "matches skip",
    ]
