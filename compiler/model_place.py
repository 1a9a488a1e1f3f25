"""Model place: where the pipeline of a recipe lies: a folder, one checkpoint beside a base, or the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latentc.compiler.known_files import KnownFiles
from latentc.compiler.model_folder import PICKLES, ModelFolder, open_model
from latentc.errors import ModelError, RecipeError
from latentc.recipes.load import LoadedRecipe

HUB = "hub:"
"""What stands before ``ORG/NAME`` or ``ORG/NAME@REVISION`` in a recipe."""

_WANTED = (
    "model_index.json",
    "*/*.json",
    "*/*.txt",
    "*/*.model",
    "*/*.safetensors",
)
_VARIANTS = ("*.fp16.*", "*.non_ema.*", "*.ema_only.*")
"""Second copies of the same weights, which double a download."""


@dataclass(frozen=True)
class ModelPlace:
    """Where a pipeline lies.

    Args:
        folder: in diffusers' layout. Beside a checkpoint it has configs, tokenizers and scheduler, and the
            weights of components that the checkpoint lacks.
        checkpoint: a safetensors file in its authors' own layout, or None.
    """

    folder: Path
    checkpoint: Path | None = None


def model_place(loaded: LoadedRecipe) -> ModelPlace:
    """Where the model of ``loaded`` lies; a hub's is downloaded, or taken from the hub's cache.

    Raises:
        RecipeError: ``base`` is missing beside a checkpoint, or has no use.
        ModelError: the checkpoint is a pickle, or the hub does not give the model.
    """
    chosen = loaded.recipe.model
    path = _path(chosen.path, loaded)
    where = f"{loaded.file.name}: model"
    if path.is_file():
        if path.suffix in PICKLES:
            raise _pickle(path)
        if chosen.base is None:
            raise RecipeError(
                f"{where}.base",
                f"is missing, and {path.name} is one file: it has neither configs nor tokenizers",
                "name a folder in diffusers' layout that has them: base: FOLDER (or base: hub:ORG/NAME)",
            )
        return ModelPlace(_path(chosen.base, loaded), path)
    if chosen.base is not None:
        raise RecipeError(
            f"{where}.base", f"has no use: {path} is no single checkpoint", "remove it, or correct model.path"
        )
    return ModelPlace(path)


def open_model_of(
    loaded: LoadedRecipe, *, read_values: bool = True, known: KnownFiles | None = None
) -> ModelFolder:
    """The pipeline that ``loaded`` names, opened; see model_place and open_model for what may be wrong."""
    place = model_place(loaded)
    return open_model(place.folder, place.checkpoint, read_values=read_values, known=known)


def _path(text: str, loaded: LoadedRecipe) -> Path:
    return _from_hub(text.removeprefix(HUB)) if text.startswith(HUB) else loaded.path_of(text)


def _from_hub(text: str) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, _, revision = text.partition("@")
    try:
        folder = snapshot_download(
            name,
            revision=revision or None,
            allow_patterns=list(_WANTED),
            ignore_patterns=list(_VARIANTS),
            local_files_only=constants.HF_HUB_OFFLINE,
        )
    except HFValidationError as error:
        raise ModelError(f"{HUB}{text}", f"is no name of a model: {error}", "write hub:ORG/NAME") from error
    except GatedRepoError as error:
        raise ModelError(
            f"{HUB}{text}",
            "is gated: its owner asks for consent first",
            "accept its terms on the hub's page, run `hf auth login`, then the same command",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelError(
            f"{HUB}{text}", "the hub has no such model or revision", "compare the name with its page"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"{HUB}{text}",
            "is not in the hub's cache on this machine, and the hub cannot be reached",
            "go online, or name a folder that holds the model",
        ) from error
    return Path(folder)


def _pickle(path: Path) -> ModelError:
    safe = path.with_suffix(".safetensors")
    return ModelError(
        str(path),
        "is a pickle, which can run code when it is opened; a safetensors file was expected",
        'convert it where you trust it: python -c "import torch; from safetensors.torch import save_file; '
        f"t = torch.load('{path}', weights_only=True, map_location='cpu'); t = t.get('state_dict', t); "
        f"save_file({{k: v.contiguous().clone() for k, v in t.items() if hasattr(v, 'shape')}}, '{safe}')\"",
    )
