"""A recipe's model: a folder, one checkpoint beside its base, or the hub's cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.compiler.original_layouts import stable_diffusion_checkpoint

from latentc.compiler.model_folder import open_model
from latentc.compiler.model_place import ModelPlace, model_place, open_model_of
from latentc.errors import ModelError, RecipeError
from latentc.recipes.load import LoadedRecipe, load_recipe

REVISION = "0123456789abcdef0123456789abcdef01234567"


def recipe_with(folder: Path, model: str) -> LoadedRecipe:
    file = folder / "mine.yaml"
    file.write_text(
        f"name: mine\nmodel: {model}\ntargets: [onnx]\n"
        "sampling: {scheduler: ddim, steps: 2, height: 64, width: 64}\n"
    )
    return load_recipe(file)


def test_a_folder_is_itself(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    assert model_place(recipe_with(tmp_path, "{path: m}")) == ModelPlace(tmp_path / "m")


def test_a_checkpoint_wants_its_base_and_nothing_else_does(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m.safetensors").touch()
    place = model_place(recipe_with(tmp_path, "{path: m.safetensors, base: m}"))
    assert place == ModelPlace(tmp_path / "m", tmp_path / "m.safetensors")
    with pytest.raises(RecipeError) as alone:
        model_place(recipe_with(tmp_path, "{path: m.safetensors}"))
    assert str(alone.value) == (
        "mine.yaml: model.base: is missing, and m.safetensors is one file: "
        "it has neither configs nor tokenizers\n"
        "fix: name a folder in diffusers' layout that has them: base: FOLDER (or base: hub:ORG/NAME)"
    )
    with pytest.raises(RecipeError, match=r"model.base: has no use: .*m is no single checkpoint"):
        model_place(recipe_with(tmp_path, "{path: m, base: m}"))


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin"])
def test_a_pickle_is_refused_with_what_converts_it(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"m{suffix}").touch()
    with pytest.raises(ModelError, match="is a pickle, which can run code") as refusal:
        model_place(recipe_with(tmp_path, f"{{path: m{suffix}, base: m}}"))
    assert f"{tmp_path / 'm.safetensors'}" in refusal.value.fix


def test_what_converts_a_pickle_does(tmp_path: Path) -> None:
    import shlex
    import subprocess
    import sys

    import torch
    from safetensors.torch import load_file

    torch.save({"state_dict": {"w": torch.arange(3.0)}, "global_step": 7}, tmp_path / "m.ckpt")
    with pytest.raises(ModelError) as refusal:
        model_place(recipe_with(tmp_path, "{path: m.ckpt, base: m}"))
    words = shlex.split(refusal.value.fix.partition(": ")[2])
    assert words[0] == "python"
    subprocess.run([sys.executable, *words[1:]], check=True)  # our own message
    assert load_file(tmp_path / "m.safetensors")["w"].tolist() == [0, 1, 2]


def test_a_checkpoint_is_opened_with_the_weights_of_its_base_where_it_lacks_some(
    tiny_stable_diffusion: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base = tmp_path / "base"
    shutil.copytree(tiny_stable_diffusion, base, ignore=shutil.ignore_patterns("diffusion*.safetensors"))
    shutil.copytree(tiny_stable_diffusion / "vae", base / "vae", dirs_exist_ok=True)
    whole = stable_diffusion_checkpoint(tiny_stable_diffusion, tmp_path / "whole.safetensors")
    tensors = {k: v for k, v in load_file(whole).items() if k.startswith("model.diffusion_model.")}
    save_file(tensors, tmp_path / "unet.safetensors")
    model = open_model_of(recipe_with(tmp_path, "{path: unet.safetensors, base: base}"))
    assert model.from_checkpoint == ("unet",)
    assert {"unet/checkpoint", "unet/config.json", "text_encoder/model.safetensors"} <= set(
        model.file_digests
    )


def test_nothing_of_the_base_need_be_there_to_look_at_the_architecture(
    tiny_stable_diffusion: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base = tmp_path / "base"
    shutil.copytree(tiny_stable_diffusion, base, ignore=shutil.ignore_patterns("*.safetensors"))
    whole = stable_diffusion_checkpoint(tiny_stable_diffusion, tmp_path / "whole.safetensors")
    tensors = {k: v for k, v in load_file(whole).items() if k.startswith("model.diffusion_model.")}
    save_file(tensors, tmp_path / "unet.safetensors")
    model = open_model(base, tmp_path / "unet.safetensors", read_values=False, read_weights=False)
    assert model.from_checkpoint == ("unet",)
    assert model.components["vae"].files == ()


def test_a_checkpoint_of_nothing_is_refused(tiny_stable_diffusion: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"something": torch.zeros(2)}, tmp_path / "m.safetensors")
    (tmp_path / "base").symlink_to(tiny_stable_diffusion)
    with pytest.raises(
        ModelError, match=r"holds no component of a StableDiffusionPipeline; .* no model that"
    ):
        open_model_of(recipe_with(tmp_path, "{path: m.safetensors, base: base}"))


@pytest.fixture
def hub_cache(tiny_stable_diffusion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache that holds the tiny model as ``someone/tiny``, and no way to the hub itself."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    repository = cache / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION)
    shutil.copytree(tiny_stable_diffusion, repository / "snapshots" / REVISION)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


@pytest.mark.parametrize("revision", ["", "@main", f"@{REVISION}"])
def test_a_model_of_the_hub_is_taken_from_its_cache(hub_cache: Path, tmp_path: Path, revision: str) -> None:
    model = open_model_of(recipe_with(tmp_path, f"{{path: 'hub:someone/tiny{revision}'}}"))
    assert model.root == hub_cache / "models--someone--tiny" / "snapshots" / REVISION


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("someone/other", "is not in the hub's cache on this machine, and the hub cannot be reached"),
        ("someone/tiny@v9", "is not in the hub's cache on this machine, and the hub cannot be reached"),
        ("no//name", "is no name of a model"),
    ],
)
def test_what_the_hub_does_not_give_is_said(hub_cache: Path, tmp_path: Path, name: str, message: str) -> None:
    assert hub_cache.is_dir()
    with pytest.raises(ModelError, match=message):
        model_place(recipe_with(tmp_path, f"{{path: 'hub:{name}'}}"))
