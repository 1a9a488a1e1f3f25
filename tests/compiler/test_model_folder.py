"""A model folder is screened before any library opens it; each fault gives one whole message."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from latentc.compiler.model_folder import ModelFolder, open_model
from latentc.errors import ModelError
from latentc.recipes.families.flux import FLUX
from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.recipes.family import Component

Damage = Callable[[Path], None]


@pytest.fixture
def root(tiny_stable_diffusion: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(tiny_stable_diffusion, tmp_path / "model"))


def refused(root: Path) -> str:
    """The message, with the folder's own path replaced."""
    with pytest.raises(ModelError) as caught:
        open_model(root)
    return str(caught.value).replace(str(root), "MODEL")


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_sound_folder_opens(tiny_stable_diffusion: Path, tiny_flux: Path) -> None:
    model = open_model(tiny_stable_diffusion)
    assert model.family is STABLE_DIFFUSION
    assert list(model.components) == ["text_encoder", "unet", "vae"]
    assert model.scheduler_class == "DDIMScheduler"
    assert model.scheduler_config["beta_schedule"] == "scaled_linear"
    assert list(model.tokenizers) == ["tokenizer"]
    assert model.folder_of(Component.VAE_DECODER) is model.folder_of(Component.VAE_ENCODER)
    flux = open_model(tiny_flux)
    assert flux.family is FLUX
    assert list(flux.tokenizers) == ["tokenizer", "tokenizer_2"]
    assert flux.folder_of(Component.TEXT_ENCODER_2).class_name == "T5EncoderModel"


def test_a_missing_folder(tmp_path: Path) -> None:
    assert (
        refused(tmp_path / "none") == "MODEL: is no folder\nfix: name the folder that holds model_index.json"
    )


def test_a_folder_that_is_no_pipeline(tmp_path: Path) -> None:
    assert refused(tmp_path) == (
        "MODEL/model_index.json: is missing\n"
        "fix: point to a folder written by save_pretrained of a diffusers pipeline"
    )


def test_an_empty_negative_prompt_is_zeros_as_diffusers_decides_it(
    tmp_path: Path, tiny_stable_diffusion: Path, tiny_stable_diffusion_xl: Path
) -> None:
    assert not open_model(tiny_stable_diffusion, read_weights=False).zeroes_empty_negative
    root = shutil.copytree(tiny_stable_diffusion_xl, tmp_path / "xl")
    assert open_model(root, read_weights=False).zeroes_empty_negative
    rewrite(root / "model_index.json", force_zeros_for_empty_prompt=False)
    assert not open_model(root, read_weights=False).zeroes_empty_negative


def test_a_pipeline_of_an_unknown_class(root: Path) -> None:
    rewrite(root / "model_index.json", _class_name="StableDiffusionSAGPipeline")
    assert refused(root) == (
        "model_index.json: pipeline class 'StableDiffusionSAGPipeline' is of no family that latentc knows\n"
        "fix: did you mean 'StableDiffusionPipeline'?"
    )


def test_a_component_of_an_unknown_class(root: Path) -> None:
    rewrite(root / "model_index.json", unet=["somewhere", "Anything"])
    assert refused(root) == (
        "MODEL/model_index.json: unet: names the class 'Anything', this family needs 'UNet2DConditionModel'\n"
        "fix: use a pipeline of this family, or point its model_index.json to the right class"
    )


@pytest.mark.parametrize(
    ("missing", "fix"),
    [
        ("unet", "copy or download the pipeline again"),
        ("unet/config.json", "copy or download the component again"),
        ("vae/diffusion_pytorch_model.safetensors", "copy or download the component again"),
        ("scheduler/scheduler_config.json", "copy the pipeline's scheduler folder as well"),
    ],
)
def test_a_missing_part(root: Path, missing: str, fix: str) -> None:
    path = root / missing
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert refused(root) == f"MODEL/{missing}: is missing\nfix: {fix}"


def test_a_missing_tokenizer(root: Path) -> None:
    (root / "tokenizer" / "tokenizer.json").unlink()
    assert refused(root) == (
        "MODEL/tokenizer/tokenizer.json: is missing; the runtime reads no other form of tokenizer\n"
        'fix: make it: python -c "from transformers import AutoTokenizer as T; '
        "T.from_pretrained('MODEL/tokenizer').save_pretrained('MODEL/tokenizer')\""
    )


def test_a_config_that_is_no_json(root: Path) -> None:
    (root / "unet" / "config.json").write_text("{")
    assert refused(root).startswith("MODEL/unet/config.json: is not JSON: ")


def test_a_config_that_asks_for_code(root: Path) -> None:
    rewrite(root / "text_encoder" / "config.json", auto_map={"AutoModel": "evil.py"})
    assert refused(root) == (
        "MODEL/text_encoder/config.json: auto_map: asks for code from the model\n"
        "fix: remove the key, or use another model"
    )


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt"])
def test_a_pickle_alone(root: Path, suffix: str) -> None:
    weights = root / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(suffix))
    assert refused(root) == (
        f"MODEL/unet/diffusion_pytorch_model{suffix}: is a pickle, which can run code when it is opened; "
        "safetensors were expected\n"
        'fix: convert it where you trust it: python -c "from diffusers import DiffusionPipeline as P; '
        "P.from_pretrained('MODEL').save_pretrained('MODEL-safe', safe_serialization=True)\""
    )


def split_into_shards(root: Path) -> Path:
    """Make two shards and their index of the UNet, as diffusers does for large models."""
    from safetensors.numpy import load_file, save_file

    folder = root / "unet"
    whole = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    shards = {"a-00001-of-00002.safetensors": names[:50], "a-00002-of-00002.safetensors": names[50:]}
    for shard, members in shards.items():
        save_file({name: tensors[name] for name in members}, folder / shard)
    whole.unlink()
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {name: s for s, members in shards.items() for name in members}})
    )
    return index


def test_shards(root: Path) -> None:
    whole = open_model(root)
    split_into_shards(root)
    sharded = open_model(root)
    assert len(sharded.components["unet"].files) == 2
    file = sharded.components["unet"].file_of("conv_in.weight")
    assert file is not None
    kept = whole.components["unet"].files[0]
    assert sum(len(f.tensors) for f in sharded.components["unet"].files) == len(kept.tensors)


def test_a_missing_shard(root: Path) -> None:
    split_into_shards(root)
    (root / "unet" / "a-00002-of-00002.safetensors").unlink()
    assert refused(root) == (
        "MODEL/unet/a-00002-of-00002.safetensors: is missing; "
        "diffusion_pytorch_model.safetensors.index.json names 2 shards\n"
        "fix: copy the missing shard as well"
    )


def test_an_index_that_leaves_its_folder(root: Path) -> None:
    index = split_into_shards(root)
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": "../vae/x.safetensors"}}))
    assert refused(root) == (
        "MODEL/unet/diffusion_pytorch_model.safetensors.index.json: weight_map: names "
        "'../vae/x.safetensors', a safetensors file beside it was expected\n"
        "fix: copy or download the component again"
    )


def test_a_link_that_leaves_the_folder(root: Path, tmp_path: Path) -> None:
    config = root / "unet" / "config.json"
    outside = tmp_path / "outside.json"
    config.rename(outside)
    config.symlink_to(outside)
    assert refused(root) == (
        f"MODEL/unet/config.json: is a link that leaves the model folder, to {outside}\n"
        "fix: put a copy in its place"
    )


def test_links_into_a_hub_cache_are_followed(tiny_stable_diffusion: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    shutil.copytree(tiny_stable_diffusion, snapshot)
    weights = snapshot / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(blobs / "abc")
    weights.symlink_to(blobs / "abc")
    assert open_model(snapshot).family is STABLE_DIFFUSION


def test_digests_follow_the_content_of_their_own_component(root: Path) -> None:
    def digests(model: ModelFolder) -> dict[Component, str]:
        return {spec.component: model.digest_of(spec.component) for spec in model.family.components}

    before, whole = digests(open_model(root)), open_model(root).digest
    rewrite(root / "unet" / "config.json", sample_size=32)
    after = digests(open_model(root))
    assert open_model(root).digest != whole
    assert before.pop(Component.UNET) != after.pop(Component.UNET)
    assert before == after


def test_the_config_text_ignores_where_the_model_came_from(root: Path) -> None:
    before = open_model(root, read_values=False).components["unet"].config_json
    rewrite(root / "unet" / "config.json", _name_or_path="/elsewhere", _diffusers_version="0.1")
    assert open_model(root, read_values=False).components["unet"].config_json == before
