"""Reader of a reference folder: what the original fp16 pipeline made, and everything needed to ask it again.

The compiler's reference stage writes this folder once for a recipe; validation reads it, on machines
without torch. Nothing here is ever drawn from a random generator again: noise is stored, not seeded.

``reference.json``
    ``{"format": 1, "family": name in latentc.recipes.families.catalogue.FAMILIES, "prompts": [P texts],
    "seeds": [P numbers, for the record], "negative_prompt": text, "steps": number, "guidance": number,
    "height": pixels, "width": pixels, "trajectory_prompts": Q <= P, "toolchain": {package: version}}``
``initial_latents.npz``
    ``latents`` [P, C, h, w]: standard normal noise, before any scaling by the scheduler (what a diffusers
    pipeline takes as ``latents=``; FLUX: before packing).
``step_noise.npz``
    Only for schedulers that draw noise in every step (LCM): ``noise`` [P, steps - 1, C, h, w], standard
    normal.
``token_ids.npz``
    One key a tokenizer folder, ``tokenizer`` and ``tokenizer_2``, [P, T] int64; ``negative.<folder>`` [1, T]
    when guidance needs a second pass.
``embeddings.npz``
    ``text_states`` [P, T, D]; FLUX and Stable Diffusion XL also ``pooled_states`` [P, D];
    ``negative.<name>`` [1, …] when guidance needs a second pass.
``trajectory.npz``
    ``latents`` [Q, steps + 1, C, h, w] of the first Q prompts: [:, 0] as the first step receives it (scaled
    by the scheduler), [:, k] after step k.
``final_latents.npz``
    ``latents`` [P, C, h, w] after the last step, as the scheduler gives them (before the division by
    scaling_factor that precedes the VAE decoder).
``pictures/NNNN.png``
    P pictures, RGB, height × width.
``components/<name>.npz``
    Golden tensors of one component, <name> as in latentc.recipes.family.Component: ``input.<tensor>`` and
    ``output.<tensor>``, stacked on the axis B where the family's spec has one; tensors without B (FLUX's ids)
    as they are. Inputs come from real runs, spread over prompts and steps.
``clip.npz``, ``clip/``
    Optional. ``text_features`` [P, F], rows of length 1; ``clip/vision/model.onnx`` with input ``pixels``
    [B, 3, side, side] and output ``features`` [B, F] (of any length), which judges both sides' pictures;
    ``clip/preprocess.json`` is ``{"side_pixels": number, "mean": [3 numbers], "std": [3 numbers]}``: pictures
    are resized (bicubic), scaled to 0…1, less the mean, divided by std.

Numbers are float32 except ids (int64). Arrays are plain ``numpy.savez`` files without pickles.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from latentc.errors import BundleError, UsageError
from latentc.recipes.families.catalogue import FAMILIES
from latentc.recipes.family import Component
from latentc.runtime.manifest import Json
from latentc.runtime.picture import load_picture
from latentc.validation.typed_json import as_count, as_list, as_number, as_object, as_text, json_object

FORMAT = 1

Floats: TypeAlias = npt.NDArray[np.float32]
Picture: TypeAlias = npt.NDArray[np.uint8]
Tensors: TypeAlias = "dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]"

_REBUILD = "build the reference again: latentc build RECIPE --out DIR"


@dataclass(frozen=True)
class GoldenTensors:
    """What one component of the original took and gave; by tensor name, as the module docstring says."""

    inputs: Tensors
    outputs: Tensors


@dataclass(frozen=True)
class ClipReference:
    """CLIP's features of the prompts, and the graph that makes those of pictures.

    Args:
        text_features: [P, F] float32 of the prompts, rows of length 1.
        vision_model: ONNX file, input ``pixels`` [B, 3, side, side], output ``features`` [B, F].
        side_pixels: what pictures are resized to.
        mean: of the three channels, subtracted from 0…1 values.
        std: of the three channels, divided by after that.
    """

    text_features: Floats
    vision_model: Path
    side_pixels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Reference:
    """A reference folder that has been read and checked; arrays are loaded when asked for.

    Args:
        root: the folder.
        family: name of a latentc.recipes.family.Family.
        prompts: P texts.
        seeds: P numbers, for the record only.
        negative_prompt: what guidance steers away from.
        steps: of the scheduler.
        guidance: classifier-free guidance scale.
        height: pixels.
        width: pixels.
        trajectory_prompts: Q, for how many of the first prompts every step is stored.
        toolchain: package name to version of what made it.
    """

    root: Path
    family: str
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    negative_prompt: str
    steps: int
    guidance: float
    height: int
    width: int
    trajectory_prompts: int
    toolchain: dict[str, str]

    def initial_latents(self) -> Floats:
        """Noise [P, C, h, w] that every picture starts from."""
        return self._latents("initial_latents.npz", "latents", (len(self.prompts),), 4)

    def step_noise(self) -> Floats | None:
        """Noise [P, steps - 1, C, h, w] of schedulers that draw some in every step, else None."""
        if not (self.root / "step_noise.npz").is_file():
            return None
        return self._latents("step_noise.npz", "noise", (len(self.prompts), self.steps - 1), 5)

    def trajectory(self) -> Floats:
        """Latents [Q, steps + 1, C, h, w] before the first and after every step."""
        return self._latents("trajectory.npz", "latents", (self.trajectory_prompts, self.steps + 1), 5)

    def final_latents(self) -> Floats:
        """Latents [P, C, h, w] after the last step."""
        return self._latents("final_latents.npz", "latents", (len(self.prompts),), 4)

    def token_ids(self) -> Tensors:
        """Token ids [P, T] by tokenizer folder, and [1, T] by ``negative.<folder>``."""
        return self._checked("token_ids.npz", "iu")

    def embeddings(self) -> Tensors:
        """Text embeddings [P, …] by tensor name, and [1, …] by ``negative.<name>``."""
        return self._checked("embeddings.npz", "f")

    def picture(self, index: int) -> Picture:
        """The reference picture [H, W, 3] uint8 of prompt ``index``."""
        path = self.root / "pictures" / f"{index:04d}.png"
        try:
            picture: Picture = load_picture(path)
        except UsageError as error:
            raise BundleError(str(path), error.message, _REBUILD) from error
        if picture.shape != (self.height, self.width, 3):
            seen = f"{picture.shape[1]}×{picture.shape[0]}"
            raise BundleError(str(path), f"is {seen} pixels instead of {self.width}×{self.height}", _REBUILD)
        return picture

    def components(self) -> tuple[Component, ...]:
        """The components that have golden tensors, in the family's order."""
        family = next(family for family in FAMILIES if family.name == self.family)
        return tuple(
            spec.component
            for spec in family.components
            if (self.root / "components" / f"{spec.component}.npz").is_file()
        )

    def golden(self, component: Component) -> GoldenTensors:
        """The golden tensors of ``component``; raises BundleError when there are none."""
        name = f"components/{component}.npz"
        inputs: Tensors = {}
        outputs: Tensors = {}
        for key, array in _load(self.root / name).items():
            kind, _, tensor = key.partition(".")
            if kind not in ("input", "output") or not tensor:
                raise BundleError(
                    str(self.root / name),
                    f"has a key '{key}', expected input.<tensor> or output.<tensor>",
                    _REBUILD,
                )
            (inputs if kind == "input" else outputs)[tensor] = array
        if not inputs or not outputs:
            raise BundleError(str(self.root / name), "holds no inputs or no outputs", _REBUILD)
        return GoldenTensors(inputs, outputs)

    def clip(self) -> ClipReference | None:
        """CLIP's features and graph, or None when the reference was made without a CLIP model."""
        if not (self.root / "clip.npz").is_file():
            return None
        features = _load(self.root / "clip.npz")
        path = self.root / "clip" / "preprocess.json"
        preprocess = json_object(path, _REBUILD)
        try:
            return ClipReference(
                np.asarray(features["text_features"], np.float32),
                self.root / "clip" / "vision" / "model.onnx",
                as_count(preprocess["side_pixels"]),
                _three(preprocess["mean"]),
                _three(preprocess["std"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(str(path), f"is incomplete or mistyped: {error}", _REBUILD) from error

    def _latents(self, file: str, key: str, leading: tuple[int, ...], rank: int) -> Floats:
        arrays = _load(self.root / file)
        where = str(self.root / file)
        if key not in arrays:
            raise BundleError(where, f"has the keys {sorted(arrays)}, expected '{key}'", _REBUILD)
        array = arrays[key]
        if array.ndim != rank or array.shape[: len(leading)] != leading:
            wanted = ", ".join([*map(str, leading), *["…"] * (rank - len(leading))])
            raise BundleError(where, f"'{key}' has shape {list(array.shape)}, expected [{wanted}]", _REBUILD)
        return np.asarray(array, np.float32)

    def _checked(self, file: str, kinds: str) -> Tensors:
        arrays = _load(self.root / file)
        for key, array in arrays.items():
            rows = 1 if key.startswith("negative.") else len(self.prompts)
            if array.ndim < 2 or array.shape[0] != rows or array.dtype.kind not in kinds:
                raise BundleError(
                    str(self.root / file),
                    f"'{key}' is {array.dtype} {list(array.shape)}, expected {rows} rows",
                    _REBUILD,
                )
        return arrays


def read_reference(root: Path) -> Reference:
    """Read the table of contents of the reference folder ``root``.

    Raises:
        BundleError: the folder is no reference, is incomplete, or is of another format.
    """
    path = root / "reference.json"
    data = json_object(path, _REBUILD)
    if data.get("format") != FORMAT:
        raise BundleError(
            str(path), f"has format {data.get('format')}, this latentc reads format {FORMAT}", _REBUILD
        )
    try:
        reference = Reference(
            root=root,
            family=as_text(data["family"]),
            prompts=tuple(as_text(prompt) for prompt in as_list(data["prompts"])),
            seeds=tuple(as_count(seed) for seed in as_list(data["seeds"])),
            negative_prompt=as_text(data["negative_prompt"]),
            steps=as_count(data["steps"]),
            guidance=as_number(data["guidance"]),
            height=as_count(data["height"]),
            width=as_count(data["width"]),
            trajectory_prompts=as_count(data["trajectory_prompts"]),
            toolchain={
                name: as_text(version) for name, version in as_object(data.get("toolchain", {})).items()
            },
        )
    except (KeyError, TypeError) as error:
        raise BundleError(str(path), f"is incomplete or mistyped: {error}", _REBUILD) from error
    if reference.family not in {family.name for family in FAMILIES}:
        raise BundleError(str(path), f"names the unknown family '{reference.family}'", _REBUILD)
    if not reference.prompts or len(reference.seeds) != len(reference.prompts):
        raise BundleError(
            str(path),
            f"has {len(reference.prompts)} prompts and {len(reference.seeds)} seeds, "
            "expected one seed a prompt and at least one prompt",
            _REBUILD,
        )
    if not 0 < reference.trajectory_prompts <= len(reference.prompts):
        raise BundleError(
            str(path),
            f"trajectory_prompts is {reference.trajectory_prompts}, expected 1…{len(reference.prompts)}",
            _REBUILD,
        )
    if reference.steps < 1:
        raise BundleError(str(path), f"steps is {reference.steps}, expected at least 1", _REBUILD)
    return reference


def _load(path: Path) -> Tensors:
    try:
        # opened here, since numpy leaves a file open that turns out to be no archive
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(str(path), f"cannot be read: {error}", _REBUILD) from error


def _three(value: Json) -> tuple[float, float, float]:
    red, green, blue = (as_number(item) for item in as_list(value))
    return red, green, blue
