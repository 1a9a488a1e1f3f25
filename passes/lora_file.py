"""LoRA file: read the adapters of a safetensors file, whichever tool wrote it.

    PEFT, diffusers    [unet.]a.b.to_q.lora_A.weight            .lora_B.weight        [.alpha]
    older diffusers    unet.a.b.to_q.lora.down.weight           .lora.up.weight       [.alpha]
    kohya              lora_unet_a_b_to_q.lora_down.weight      .lora_up.weight       .alpha

A scale that is not in the tensors is looked for in the file's metadata (diffusers) and in
``adapter_config.json`` beside it (PEFT). Pickles are refused: loading one runs whatever code it holds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from latentc.errors import ModelError
from latentc.passes.options import Json
from latentc.passes.weights import Array, Floats

COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
_KOHYA = {
    "lora_unet": "unet",
    "lora_transformer": "transformer",
    "lora_te": "text_encoder",
    "lora_te1": "text_encoder",
    "lora_te2": "text_encoder_2",
}
_DTYPES: dict[str, np.dtype[np.generic]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_SIDE = re.compile(
    r"(?P<module>.+)\.(?:(?P<down>lora_A|lora\.down|lora_down|lora_linear_layer\.down)"
    r"|lora_B|lora\.up|lora_up|lora_linear_layer\.up)(?:\.[a-z0-9_]+)?\.weight"
)
_LARGEST_HEADER = 100_000_000  # bytes, as the format's own reader
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Adapter:
    """The low-rank update of one module: scale · up @ down.

    Args:
        component: a name of COMPONENTS, or empty when the file does not say.
        module: its name in the component; with ``_`` for ``.`` when the tool wrote it so.
        key: of ``down`` in the file, for messages.
        down: [R, K] or [R, C, kernel…].
        up: [N, R] or [N, R, 1…].
        scale: alpha / R, or what the file says instead.
        is_flat: ``module`` has lost its dots.
    """

    component: str
    module: str
    key: str
    down: Floats
    up: Floats
    scale: float
    is_flat: bool


@dataclass(frozen=True)
class _Entry:
    """A tensor of a safetensors header: offsets count from the end of the header."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @staticmethod
    def from_json(key: str, entry: Mapping[str, Any]) -> _Entry:
        begin, end = entry["data_offsets"]
        return _Entry(key, str(entry["dtype"]), tuple(int(side) for side in entry["shape"]), begin, end)


def read_lora(path: Path) -> tuple[Adapter, ...]:
    """The adapters of ``path``, a safetensors file or a folder that holds one, in the order of their names.

    Raises:
        ModelError: it is no safetensors file, is damaged, holds NaN, or something that is no LoRA.
    """
    file = lora_file(path)
    tensors, metadata = _read_safetensors(file)
    config = _config(file, metadata)
    downs: dict[str, str] = {}
    ups: dict[str, str] = {}
    for key in tensors:
        side = _SIDE.fullmatch(key)
        if side is not None:
            (downs if side["down"] else ups)[side["module"]] = key
        elif not key.endswith(".alpha"):
            raise ModelError(
                f"{file}: {key}",
                "is no part of a plain LoRA (lora_A, lora_B, alpha)",
                "use a LoRA file; DoRA, LoHa and textual inversion are not supported",
            )
    for module in sorted({*downs} ^ {*ups}):
        key = {**downs, **ups}[module]
        missing = "up (lora_B)" if module in downs else "down (lora_A)"
        raise ModelError(f"{file}: {key}", f"has no matching {missing} tensor", "download the LoRA again")
    if not downs:
        raise ModelError(str(file), "holds no LoRA tensors", "check the path in the recipe")
    return tuple(
        _adapter(file, module, downs[module], tensors, ups[module], config) for module in sorted(downs)
    )


def _adapter(
    file: Path,
    module: str,
    down_key: str,
    tensors: Mapping[str, Array],
    up_key: str,
    config: Mapping[str, Json],
) -> Adapter:
    for key in (down_key, up_key):
        if not np.isfinite(tensors[key].astype(np.float32)).all():
            raise ModelError(f"{file}: {key}", "holds NaN or infinity", "download the LoRA again")
    down, up = tensors[down_key].astype(np.float32), tensors[up_key].astype(np.float32)
    rank = down.shape[0] if down.ndim else 0
    if down.ndim < 2 or up.ndim < 2 or up.shape[1] != rank or rank == 0:
        raise ModelError(
            f"{file}: {up_key}",
            f"has shape {list(up.shape)}, which does not fit {list(down.shape)} of {down_key}",
            "download the LoRA again",
        )
    component, name, is_flat = _placed(module)
    alpha = tensors.get(f"{module}.alpha")
    if alpha is not None:
        scale = float(alpha.astype(np.float32).reshape(-1)[0]) / rank
    else:
        scale = _configured_scale(config, component, name, rank)
    return Adapter(component, name, down_key, down, up, scale, is_flat)


def _placed(module: str) -> tuple[str, str, bool]:
    """Component, name within it, and whether the name has lost its dots."""
    plain = module.removeprefix("base_model.model.")
    head, _, rest = plain.partition(".")
    if head in COMPONENTS and rest:
        return head, rest, False
    for prefix in sorted(_KOHYA, key=len, reverse=True):
        if plain.startswith(f"{prefix}_") and "." not in plain:
            return _KOHYA[prefix], plain[len(prefix) + 1 :], True
    return "", plain, False


def lora_file(path: Path) -> Path:
    """The safetensors file that ``path`` means: itself, or the only one in the folder; raises ModelError."""
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            pickles = [file.name for file in path.iterdir() if file.suffix in _PICKLES]
            seen = (
                f"only the pickle {pickles[0]}"
                if pickles and not files
                else f"{len(files)} safetensors files"
            )
            raise ModelError(str(path), f"holds {seen}, wanted one", "name the file in the recipe")
        return files[0]
    if path.suffix in _PICKLES:
        raise ModelError(
            str(path), "is a pickle, which can run code when loaded", "convert it to safetensors"
        )
    if not path.is_file():
        raise ModelError(str(path), "there is no such file", "check the path in the recipe")
    return path


def _read_safetensors(file: Path) -> tuple[dict[str, Array], Mapping[str, str]]:
    """Tensors by key, mapped from the file, and the header's metadata."""
    damaged = "download the LoRA again"
    size_bytes = file.stat().st_size
    with file.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        if size_bytes < 8 or header_bytes > min(size_bytes - 8, _LARGEST_HEADER):
            raise ModelError(str(file), "is no safetensors file, or is cut short", damaged)
        text = stream.read(header_bytes)
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", {})
        entries = [_Entry.from_json(str(key), entry) for key, entry in sorted(header.items())]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(str(file), f"has a header that cannot be read: {error}", damaged) from error
    content = np.memmap(file, np.uint8, "r") if size_bytes else np.zeros(0, np.uint8)
    tensors: dict[str, Array] = {}
    for entry in entries:
        where, dtype = f"{file}: {entry.key}", _DTYPES.get(entry.dtype)
        if dtype is None:
            raise ModelError(where, f"has type {entry.dtype}, wanted {', '.join(_DTYPES)}", damaged)
        begin, end = (offset + 8 + header_bytes for offset in (entry.begin, entry.end))
        if not 0 <= entry.begin <= entry.end or end > size_bytes:
            raise ModelError(where, f"ends at byte {end} of {size_bytes}: the file is cut short", damaged)
        if end - begin != math.prod(entry.shape) * dtype.itemsize:
            raise ModelError(where, f"has {end - begin} bytes, which do not fit {list(entry.shape)}", damaged)
        tensors[entry.key] = np.asarray(content[begin:end]).view(dtype).reshape(entry.shape)
    return tensors, metadata


def _config(file: Path, metadata: Mapping[str, str]) -> dict[str, Json]:
    """What the file's metadata or the adapter_config.json beside it says about scales, if anything."""
    text = metadata.get("lora_adapter_metadata")
    beside = file.parent / "adapter_config.json"
    where = f"{file}: lora_adapter_metadata"
    if text is None and beside.is_file():
        where, text = str(beside), beside.read_text(encoding="utf-8")
    if text is None:
        return {}
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ModelError(where, f"is not JSON: {error}", "download the LoRA again") from error
    return config if isinstance(config, dict) else {}


def _configured_scale(config: Mapping[str, Json], component: str, module: str, rank: int) -> float:
    """Alpha / R as a config says; 1 when there is none, which is what diffusers takes."""

    def entry(name: str) -> Json:
        return config.get(f"{component}.{name}", config.get(name))

    alpha = entry("lora_alpha")
    patterns = entry("alpha_pattern")
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if re.fullmatch(rf"(?:.*\.)?{pattern}", module):
            alpha = value
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
        return 1.0
    return alpha / (math.sqrt(rank) if entry("use_rslora") is True else rank)


def modules_text(adapters: tuple[Adapter, ...], most: int = 3) -> str:
    """The keys of ``adapters`` for a message, a few of them."""
    keys = [adapter.key for adapter in adapters]
    shown = ", ".join(f"'{key}'" for key in keys[:most])
    return shown if len(keys) <= most else f"{shown} and {len(keys) - most} more"
