"""Model folder: a diffusers pipeline on disk, screened before any library opens it.

Only json, text and safetensors are read; classes come from a fixed list, and a config cannot ask for code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from latentc.compiler.known_files import KnownFiles
from latentc.compiler.safetensors_file import SafetensorsFile, read_safetensors
from latentc.compiler.toolchain import threads
from latentc.errors import ModelError
from latentc.recipes.families.catalogue import family_of_pipeline
from latentc.recipes.family import Component, Family

if TYPE_CHECKING:
    from latentc.compiler.single_file import ConvertedFile
    from latentc.runtime.manifest import Json

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""Suffixes of files that run code when they are opened."""

_MAX_JSON_BYTES = 16 * 2**20
_CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code", "_attn_implementation_internal")
_UNIMPORTANT = ("_name_or_path", "_diffusers_version", "transformers_version", "torch_dtype", "dtype")
"""Config keys that say where a model came from, not what it is."""


@dataclass(frozen=True)
class ComponentFolder:
    """One subfolder with weights.

    Args:
        path: the subfolder.
        class_name: the one that the family has for it.
        config: as in config.json, without the keys that only say where it came from.
        files: every safetensors file, headers checked; or the one checkpoint that holds it beside others.
    """

    path: Path
    class_name: str
    config: Mapping[str, Json]
    files: tuple[SafetensorsFile | ConvertedFile, ...]

    @property
    def config_json(self) -> str:
        """The config as canonical JSON: equal architectures give equal text."""
        return json.dumps(dict(self.config), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def is_in(self, path: Path | None) -> bool:
        """Whether its weights lie in the file ``path``."""
        return any(file.path == path for file in self.files)

    def file_of(self, tensor: str) -> SafetensorsFile | ConvertedFile | None:
        """The file that holds ``tensor``, or None."""
        return next((file for file in self.files if tensor in file.tensors), None)


@dataclass(frozen=True)
class ModelFolder:
    """A screened pipeline folder.

    Args:
        root: the folder.
        family: what kind of pipeline it is.
        components: by subfolder name, as in diffusers (``vae`` serves encoder and decoder).
        scheduler_class: diffusers' class name.
        scheduler_config: as in scheduler_config.json.
        tokenizers: by subfolder name, such as ``tokenizer`` and ``tokenizer_2``.
        checkpoint: one file that holds components of it, or None.
        scanned: SHA-256 of files of weights that were read when it was opened, by path.
        zeroes_empty_negative: guidance moves away from zeros where no negative prompt is given.
    """

    root: Path
    family: Family
    components: Mapping[str, ComponentFolder]
    scheduler_class: str
    scheduler_config: Mapping[str, Json]
    tokenizers: Mapping[str, Path]
    checkpoint: Path | None = None
    scanned: Mapping[Path, str] = field(default_factory=dict)
    zeroes_empty_negative: bool = False

    def folder_of(self, component: Component) -> ComponentFolder:
        """The subfolder whose weights ``component`` uses; raises ModelError when the family has none."""
        return self.components[self.family.spec(component).folder]

    def digest_of(self, component: Component) -> str:
        """SHA-256 over the config and the weights of ``component``, in hexadecimal."""
        folder = self.family.spec(component).folder
        prefix = f"{folder}/"
        return digest_of_digests({k: v for k, v in self.file_digests.items() if k.startswith(prefix)})

    @property
    def digest(self) -> str:
        """SHA-256 over every file that is read, in hexadecimal."""
        return digest_of_digests(self.file_digests)

    @cached_property
    def file_digests(self) -> Mapping[str, str]:
        """SHA-256 of every file that is read, by its path in the folder with ``/``.

        A checkpoint counts for each component that is taken from it, as if it lay in that one's subfolder.
        """
        paths = [self.root / "model_index.json", self.root / "scheduler" / "scheduler_config.json"]
        for component in self.components.values():
            paths += [component.path / "config.json", *(file.path for file in component.files)]
        for tokenizer in self.tokenizers.values():
            paths += sorted(
                path for path in tokenizer.iterdir() if path.suffix in (".json", ".txt", ".model")
            )
        own = [path for path in paths if path != self.checkpoint]
        digests = {path.relative_to(self.root).as_posix(): self._sha256_of(path) for path in own}
        if self.checkpoint is not None:
            digest = self._sha256_of(self.checkpoint)
            digests |= {f"{name}/checkpoint": digest for name in self.from_checkpoint}
        return digests

    def _sha256_of(self, path: Path) -> str:
        return self.scanned.get(path) or sha256_of(path)

    @property
    def from_checkpoint(self) -> tuple[str, ...]:
        """Subfolder names of the components whose weights the checkpoint holds."""
        return tuple(name for name, component in self.components.items() if component.is_in(self.checkpoint))


def open_model(
    root: Path,
    checkpoint: Path | None = None,
    *,
    read_values: bool = True,
    read_weights: bool = True,
    known: KnownFiles | None = None,
) -> ModelFolder:
    """Screen the pipeline in ``root``.

    Args:
        root: the folder that holds ``model_index.json``.
        checkpoint: one file with the weights of some components, in the layout that its authors published;
            ``root`` has the rest.
        read_values: also read every weight once, to refuse NaN and infinity; False when only the
            architecture matters.
        read_weights: open the safetensors files; False when they need not even be there, and components have
            no files.
        known: files that were read before, and need not be read again.

    Raises:
        ModelError: something is missing, damaged, or not safe to open; names the file and the way out.
    """
    if not root.is_dir():
        raise ModelError(str(root), "is no folder", "name the folder that holds model_index.json")
    refuse_links(root)
    index_path = root / "model_index.json"
    index = read_json(index_path, "point to a folder written by save_pretrained of a diffusers pipeline")
    family = family_of_pipeline(_class_name(index_path, index.get("_class_name")))
    held = None if checkpoint is None else read_safetensors(checkpoint)
    components: dict[str, ComponentFolder] = {}
    for name, wanted in {spec.folder: spec.class_name for spec in family.components}.items():
        components[name] = _component(
            root, name, wanted, index_path, index.get(name), held, read_weights=read_weights
        )
    if held is not None and not any(one.is_in(checkpoint) for one in components.values()):
        from latentc.compiler.single_file import likeness

        raise ModelError(
            str(checkpoint),
            f"holds no component of a {family.pipeline_class}; it looks like {likeness(held)}",
            "name the base that belongs to this checkpoint: model.base in the recipe",
        )
    stored = [file for one in components.values() for file in one.files if isinstance(file, SafetensorsFile)]
    files = stored if held is None else [held, *stored]
    scanned = _scanned(files, known or KnownFiles()) if read_values else {}
    scheduler_path = root / "scheduler" / "scheduler_config.json"
    scheduler = read_json(scheduler_path, "copy the pipeline's scheduler folder as well")
    return ModelFolder(
        root,
        family,
        components,
        _class_name(scheduler_path, scheduler.get("_class_name")),
        scheduler,
        _tokenizers(root, family),
        checkpoint,
        scanned,
        family.zeroes_empty_negative and bool(index.get("force_zeros_for_empty_prompt", True)),
    )


def _scanned(files: Sequence[SafetensorsFile], known: KnownFiles) -> dict[Path, str]:
    """SHA-256 of every file of weights, by its path; several are read at a time."""
    with ThreadPoolExecutor(threads()) as pool:
        digests = pool.map(lambda file: known.sha256(file.path, file.sha256_of_finite), files)
        return dict(zip((file.path for file in files), digests, strict=True))


def _component(
    root: Path,
    name: str,
    wanted: str,
    index_path: Path,
    entry: Json,
    checkpoint: SafetensorsFile | None,
    *,
    read_weights: bool,
) -> ComponentFolder:
    seen = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
    if seen != wanted:
        raise ModelError(
            f"{index_path}: {name}",
            f"names the class {seen!r}, this family needs '{wanted}'",
            "use a pipeline of this family, or point its model_index.json to the right class",
        )
    folder = root / name
    if not folder.is_dir():
        raise ModelError(str(folder), "is missing", "copy or download the pipeline again")
    config_path = folder / "config.json"
    config = read_json(config_path, "copy or download the component again")
    for key in config:
        if key in _CODE_KEYS:
            raise ModelError(
                f"{config_path}: {key}",
                "asks for code from the model",
                "remove the key, or use another model",
            )
    config = {key: value for key, value in config.items() if key not in _UNIMPORTANT}
    if checkpoint is not None:
        from latentc.compiler.single_file import converted

        found = converted(checkpoint, wanted, config)
        if found is not None:
            return ComponentFolder(folder, wanted, config, (found,))
    paths = _weight_files(root, folder) if read_weights else ()
    files = tuple(read_safetensors(path) for path in paths)
    return ComponentFolder(folder, wanted, config, files)


def _weight_files(root: Path, folder: Path) -> tuple[Path, ...]:
    """The one safetensors file of ``folder``, or the shards that its index names."""
    stem = "model" if folder.name.startswith("text_encoder") else "diffusion_pytorch_model"
    index_path = folder / f"{stem}.safetensors.index.json"
    if index_path.is_file():
        weight_map = read_json(index_path, "copy or download the component again").get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelError(
                f"{index_path}: weight_map", "is missing or empty", "copy or download the component again"
            )
        names = sorted({str(name) for name in weight_map.values()})
        for name in names:
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise ModelError(
                    f"{index_path}: weight_map",
                    f"names '{name}', a safetensors file beside it was expected",
                    "copy or download the component again",
                )
            if not (folder / name).is_file():
                raise ModelError(
                    str(folder / name),
                    f"is missing; {index_path.name} names {len(names)} shards",
                    "copy the missing shard as well",
                )
        return tuple(folder / name for name in names)
    for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
        if (folder / name).is_file():
            return (folder / name,)
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise ModelError(
            str(folder / pickles[0]),
            "is a pickle, which can run code when it is opened; safetensors were expected",
            'convert it where you trust it: python -c "from diffusers import DiffusionPipeline as P; '
            f"P.from_pretrained('{root}').save_pretrained('{root}-safe', safe_serialization=True)\"",
        )
    raise ModelError(
        str(folder / f"{stem}.safetensors"), "is missing", "copy or download the component again"
    )


def _tokenizers(root: Path, family: Family) -> dict[str, Path]:
    wanted = [spec.tokenizer for spec in family.text_encoders]
    for name in wanted:
        path = root / name / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                str(path),
                "is missing; the runtime reads no other form of tokenizer",
                'make it: python -c "from transformers import AutoTokenizer as T; '
                f"T.from_pretrained('{root / name}').save_pretrained('{root / name}')\"",
            )
        read_json(path, "copy or download the tokenizer again")
    return {name: root / name for name in wanted}


def refuse_links(root: Path) -> None:
    """Refuse links that leave the tree; those of a hub cache end beside it and are allowed."""
    inside = root.resolve()
    # In a hub cache a snapshot's files are links to ../../blobs/<sha256> of the same model.
    blobs = inside.parents[1] / "blobs" if inside.parent.name == "snapshots" else inside
    for path in sorted(root.rglob("*")):
        if not path.is_symlink():
            continue
        target = path.resolve()
        if not (target.is_relative_to(inside) or target.is_relative_to(blobs)):
            raise ModelError(
                str(path), f"is a link that leaves the model folder, to {target}", "put a copy in its place"
            )


def read_json(path: Path, fix: str) -> dict[str, Json]:
    """The object in a model's json file; raises ModelError with ``fix`` when there is none."""
    if not path.is_file():
        raise ModelError(str(path), "is missing", fix)
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ModelError(str(path), f"is larger than {_MAX_JSON_BYTES} bytes", fix)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(str(path), f"is not JSON: {error}", fix) from error
    if not isinstance(value, dict):
        raise ModelError(str(path), f"holds a {type(value).__name__}, an object was expected", fix)
    return value


def _class_name(path: Path, value: Json) -> str:
    if not isinstance(value, str):
        raise ModelError(f"{path}: _class_name", f"is {value!r}, a class name was expected", "")
    return value


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal, read a few MiB at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(4 * 2**20):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of_digests(digests: Mapping[str, str]) -> str:
    """One SHA-256 for many files, each by its name and its own SHA-256."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
