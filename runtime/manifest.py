"""The manifest: what a bundle holds and how to run it. The one file format every side agrees on.

``manifest.json`` lies at the root of a bundle, is canonical JSON (sorted keys, two spaces, one final
newline, no time stamps) and lists every other file with its size and SHA-256.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

from latentc.errors import BundleError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

FORMAT = 1


@dataclass(frozen=True)
class TensorEntry:
    """An input or output: name, numpy dtype name, dimensions (a number, or an axis name if dynamic)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class ComponentEntry:
    """One graph of the bundle.

    Args:
        file: what the session opens: ``.onnx``, ``.ort`` or ``.engine``, relative to the bundle.
        onnx: the ONNX form that the engine is made from, when ``file`` is or will be an engine.
        inputs: in graph order.
        outputs: in graph order.
        weight_bytes: bytes of all stored weights.
        quantized_bytes: bytes of the weights of quantized linears, low-rank branch and scales included.
        quantized_fp16_bytes: what the same linears take in fp16.
        fp16_bytes: what all weights take in fp16.
    """

    file: str
    onnx: str
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    weight_bytes: int
    quantized_bytes: int
    quantized_fp16_bytes: int
    fp16_bytes: int


@dataclass(frozen=True)
class TokenizerEntry:
    """A tokenizer: its ``tokenizer.json``, padded length in tokens and the id that pads."""

    file: str
    max_length: int
    pad_id: int


@dataclass(frozen=True)
class SchedulerEntry:
    """Which scheduler, with diffusers' own config values (only those that the scheduler reads)."""

    name: str
    config: dict[str, Json]


@dataclass(frozen=True)
class SamplingEntry:
    """What `latentc run` does when not told otherwise; pixels, classifier-free guidance scale."""

    steps: int
    guidance: float
    height: int
    width: int


@dataclass(frozen=True)
class LatentEntry:
    """The latent space: ``latent = (encoded - shift_factor) * scaling_factor``; pixels per latent pixel."""

    channels: int
    downscale: int
    scaling_factor: float
    shift_factor: float


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """A bundle's table of contents.

    Args:
        name: the recipe's name.
        target: a name from latentc.recipes.target.TARGETS.
        family: a name from latentc.recipes.families.catalogue.FAMILIES.
        runtime: the value of a latentc.recipes.target.Runtime.
        components: by folder name, as latentc.recipes.family.Component.
        tokenizers: by folder name, ``tokenizer`` and ``tokenizer_2``.
        scheduler: which, and its configuration.
        sampling: defaults of a run.
        latent: the latent space.
        recipe: the resolved recipe that made this bundle, as plain JSON.
        toolchain: package name to version of what made it.
        simulated: what this bundle only simulates, in words; empty when everything is executed as stated.
        files: every file except the manifest, by path with ``/``.
        format: version of this format.
        zeroes_empty_negative: guidance moves away from zeros where no negative prompt is given. Bundles of
            before this was known lack it; they are of families that encode the empty prompt.
    """

    name: str
    target: str
    family: str
    runtime: str
    components: dict[str, ComponentEntry]
    tokenizers: dict[str, TokenizerEntry]
    scheduler: SchedulerEntry
    sampling: SamplingEntry
    latent: LatentEntry
    recipe: dict[str, Json]
    toolchain: dict[str, str]
    simulated: tuple[str, ...]
    files: dict[str, FileEntry] = field(default_factory=dict)
    format: int = FORMAT
    zeroes_empty_negative: bool = False

    @property
    def is_validated(self) -> bool:
        """Whether the bundle was compared with the original, and carries what that needs."""
        validation = self.recipe.get("validation")
        return not isinstance(validation, dict) or validation.get("count") != 0


def manifest_to_json(manifest: Manifest) -> str:
    """Canonical text of ``manifest``: the same manifest gives the same bytes."""
    return json.dumps(asdict(manifest), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def manifest_from_json(text: str) -> Manifest:
    """Read a manifest; raises BundleError on another format or a missing or mistyped key."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise BundleError("manifest.json", f"is not JSON: {error}", "copy the bundle again") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        seen = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise BundleError(
            "manifest.json",
            f"has format {seen}, this latentc reads format {FORMAT}",
            "build the bundle again",
        )
    try:
        return Manifest(
            name=data["name"],
            target=data["target"],
            family=data["family"],
            runtime=data["runtime"],
            components={
                name: ComponentEntry(
                    **{
                        **entry,
                        "inputs": tuple(_tensor(t) for t in entry["inputs"]),
                        "outputs": tuple(_tensor(t) for t in entry["outputs"]),
                    }
                )
                for name, entry in data["components"].items()
            },
            tokenizers={name: TokenizerEntry(**entry) for name, entry in data["tokenizers"].items()},
            scheduler=SchedulerEntry(**data["scheduler"]),
            sampling=SamplingEntry(**data["sampling"]),
            latent=LatentEntry(**data["latent"]),
            recipe=data["recipe"],
            toolchain=data["toolchain"],
            simulated=tuple(data["simulated"]),
            files={name: FileEntry(**entry) for name, entry in data["files"].items()},
            format=data["format"],
            zeroes_empty_negative=data.get("zeroes_empty_negative", False),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            "manifest.json", f"is incomplete or mistyped: {error}", "build the bundle again"
        ) from error


def _tensor(data: dict[str, object]) -> TensorEntry:
    return TensorEntry(str(data["name"]), str(data["dtype"]), tuple(data["shape"]))  # type: ignore[arg-type] # JSON
