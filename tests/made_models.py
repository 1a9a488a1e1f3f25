"""Models of random weights, streamed into safetensors: a 12 B model is made with a few MiB of memory.

Names, shapes and shards are those of a real checkpoint; values are those of an initialisation: matrices and
kernels of deviation 1/sqrt(K), norms near 1, biases near 0. The same seed gives the same bytes.

    python -m tests.made_models flux.1-dev FOLDER [--dtype bfloat16] [--seed 0]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from latentc.recipes.config import Config
from latentc.recipes.family import ComponentSpec
from latentc.recipes.published.catalogue import PublishedModel, published_model

if TYPE_CHECKING:
    import torch

SHARD_BYTES = 10 * 10**9
"""Weights of a shard at most; diffusers cuts there as well."""

_CHUNK = 2**22
_SAFETENSORS_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}

Shapes = Mapping[str, tuple[int, ...]]


def write_made_component(
    folder: Path,
    spec: ComponentSpec,
    config: Config,
    *,
    dtype: str = "bfloat16",
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
    written_bytes: int | None = None,
) -> Path:
    """Write ``config.json`` and random weights of one component into ``folder``, and return it.

    Args:
        folder: made when missing.
        spec: says the class.
        config: of the class.
        dtype: float32, float16 or bfloat16.
        seed: of all values.
        shard_bytes: of a file at most, but a tensor is never cut; more than one file get an index.
        written_bytes: weights beyond that many are holes in the files, which read as zeros, for disks that
            cannot hold them all; None: none are.
    """
    from latentc.compiler.flat import module_on_meta

    module = module_on_meta(spec.class_name, json.loads(json.dumps(config)))
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    is_diffusers = _library_of(spec) == "diffusers"
    folder.mkdir(parents=True, exist_ok=True)
    named = {"_class_name": spec.class_name} if is_diffusers else {}
    (folder / "config.json").write_text(json.dumps({**named, **config}, indent=1), encoding="utf-8")
    stem = "diffusion_pytorch_model" if is_diffusers else "model"
    shards = list(_shards(shapes, _bytes_of(dtype), shard_bytes))
    weight_map: dict[str, str] = {}
    total = 0
    for index, shard in enumerate(shards):
        name = f"{stem}-{index + 1:05}-of-{len(shards):05}.safetensors"
        if len(shards) == 1:
            name = f"{stem}.safetensors"
        left = None if written_bytes is None else max(0, written_bytes - total)
        _write_safetensors(folder / name, shard, dtype, seed, left)
        weight_map |= dict.fromkeys(shard, name)
        total += sum(math.prod(shape) for shape in shard.values()) * _bytes_of(dtype)
    if len(shards) == 1:
        return folder
    index_text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1)
    (folder / f"{stem}.safetensors.index.json").write_text(index_text, encoding="utf-8")
    return folder


def write_made_model(
    folder: Path,
    model: PublishedModel,
    *,
    changes: Mapping[str, Config] | None = None,
    dtype: str = "bfloat16",
    seed: int = 0,
) -> Path:
    """Write every component of ``model`` into ``folder``, each in its own, and return it.

    Args:
        folder: made when missing. Tokenizers and the scheduler are not written.
        model: which.
        changes: by part (``transformer``), keys of its config that are to differ, such as the depth.
        dtype: float32, float16 or bfloat16.
        seed: of all values.
    """
    for spec in {spec.folder: spec for spec in model.family.components}.values():
        config = {**model.config_of(spec), **(changes or {}).get(spec.folder, {})}
        write_made_component(folder / spec.folder, spec, config, dtype=dtype, seed=seed)
    index: dict[str, object] = {"_class_name": model.family.pipeline_class}
    index |= {spec.folder: [_library_of(spec), spec.class_name] for spec in model.family.components}
    (folder / "model_index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    return folder


def values_of(name: str, shape: tuple[int, ...], seed: int) -> Iterator[torch.Tensor]:
    """The float32 values of one weight, a few million at a time."""
    import torch

    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
    K = math.prod(shape[1:])
    is_vector = len(shape) < 2
    deviation = 0.05 if is_vector else K**-0.5
    centre = 1.0 if is_vector and name.endswith("weight") else 0.0
    left = math.prod(shape)
    while left:
        length = min(left, _CHUNK)
        yield torch.randn(length, generator=generator).mul_(deviation).add_(centre)
        left -= length


def _library_of(spec: ComponentSpec) -> str:
    return "transformers" if spec.folder.startswith("text_encoder") else "diffusers"


def _write_safetensors(path: Path, shapes: Shapes, dtype: str, seed: int, written_bytes: int | None) -> None:
    import torch

    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    ends: dict[str, int] = {}
    place = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * _bytes_of(dtype)
        header[name] = {
            "dtype": _SAFETENSORS_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [place, place + size],
        }
        place = ends[name] = place + size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        data_start = file.tell()
        for name, shape in shapes.items():
            if written_bytes is not None and ends[name] > written_bytes:
                file.truncate(file.seek(data_start + ends[name]))
                continue
            for values in values_of(name, shape, seed):
                file.write(values.to(getattr(torch, dtype)).view(torch.uint8).numpy().data)


def _shards(shapes: Shapes, bytes_each: int, shard_bytes: int) -> Iterator[dict[str, tuple[int, ...]]]:
    shard: dict[str, tuple[int, ...]] = {}
    filled = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * bytes_each
        if shard and filled + size > shard_bytes:
            yield shard
            shard, filled = {}, 0
        shard[name] = shape
        filled += size
    yield shard


def _bytes_of(dtype: str) -> int:
    return 4 if dtype == "float32" else 2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=tuple(_SAFETENSORS_NAMES), default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    write_made_model(chosen.folder, published_model(chosen.model), dtype=chosen.dtype, seed=chosen.seed)
