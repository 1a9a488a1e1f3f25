"""Random model: a component at its published configuration with random weights, written shard by shard.

Weights are normal with a deviation of 1 / √fan-in, so that nothing overflows; all of them are cut out of one
tile of normal numbers, whose length shares no factor with any row, so no two rows are alike.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from latentc.compiler.flat import module_on_meta
from latentc.runtime.manifest import Json

TILE = 2**24 + 43
"""A prime: how many different weights there are."""
_TYPES = {"BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_STEM = "diffusion_pytorch_model"


@dataclass(frozen=True)
class RandomModel:
    """What to write.

    Args:
        class_name: of diffusers.
        config: its published configuration.
        dtype: BF16, F16 or F32.
        shard_bytes: how large a file gets at most, one tensor at least.
        seed: of the weights.
        written_bytes: weights beyond that many are holes in the files, which read as zeros, for disks that
            cannot hold them all; None: none are.
    """

    class_name: str
    config: Mapping[str, Json]
    dtype: str
    shard_bytes: int = 10**10
    seed: int = 0
    written_bytes: int | None = None

    def write(self, folder: Path) -> int:
        """Write ``config.json``, shards and their index into ``folder``; how many weights there are."""
        folder.mkdir(parents=True)
        config = {"_class_name": self.class_name, **self.config}
        (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        module = module_on_meta(self.class_name, dict(self.config))
        shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
        shards = list(self._shards(shapes))
        places: dict[str, Json] = {}
        tile = np.random.default_rng(self.seed).standard_normal(TILE, dtype=np.float32)
        tiles: dict[float, NDArray[np.generic]] = {}
        start = done_bytes = 0
        for number, names in enumerate(shards, start=1):
            many = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
            places |= dict.fromkeys(names, f"{_STEM}{many}.safetensors")
            with (folder / f"{_STEM}{many}.safetensors").open("wb") as file:
                file.write(self._header({name: shapes[name] for name in names}))
                for name in names:
                    size_bytes = math.prod(shapes[name]) * _TYPES[self.dtype].itemsize
                    done_bytes += size_bytes
                    if self.written_bytes is not None and done_bytes > self.written_bytes:
                        file.truncate(file.seek(size_bytes, os.SEEK_CUR))
                        continue
                    scale = _scale(shapes[name])
                    if scale not in tiles:
                        tiles[scale] = (tile * np.float32(scale)).astype(_TYPES[self.dtype])
                    for part in _cut(tiles[scale], start, math.prod(shapes[name])):
                        part.tofile(file)
                    start = (start + math.prod(shapes[name])) % TILE
        if len(shards) > 1:
            index = {"metadata": {}, "weight_map": places}
            (folder / f"{_STEM}.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        return sum(math.prod(shape) for shape in shapes.values())

    def _shards(self, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[list[str]]:
        names: list[str] = []
        used_bytes = 0
        for name, shape in shapes.items():
            size_bytes = math.prod(shape) * _TYPES[self.dtype].itemsize
            if names and used_bytes + size_bytes > self.shard_bytes:
                yield names
                names, used_bytes = [], 0
            names.append(name)
            used_bytes += size_bytes
        yield names

    def _header(self, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
        entries: dict[str, Json] = {}
        position = 0
        for name, shape in shapes.items():
            end = position + math.prod(shape) * _TYPES[self.dtype].itemsize
            entries[name] = {"dtype": self.dtype, "shape": list(shape), "data_offsets": [position, end]}
            position = end
        text = json.dumps(entries).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


def _scale(shape: tuple[int, ...]) -> float:
    """A power of two near 1 / √fan-in; vectors are biases and norms."""
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else 4
    return float(2.0 ** -round(math.log2(fan_in) / 2))


def _cut(tile: NDArray[np.generic], start: int, count: int) -> Iterator[NDArray[np.generic]]:
    """``count`` values of the endless repetition of ``tile``, from ``start``."""
    while count:
        part = tile[start : start + count]
        yield part
        count -= len(part)
        start = 0
