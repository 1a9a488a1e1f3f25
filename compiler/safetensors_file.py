"""Safetensors: read the header ourselves and check every promise of the format before a byte is used.

Format: 8 bytes little-endian header length, that many bytes of JSON, then the data; offsets count from
the data's start, leave no holes and end with the file (safetensors README, "Format").
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentc.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

MAX_HEADER_BYTES = 16 * 2**20
"""The format allows 100 MB; the largest published pipelines need less than 1 MB."""

CHUNK_VALUES = 2**20
"""How many values are read together."""

_COPY_AGAIN = "copy or download the file again"
_DTYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "F32": np.dtype("<f4")}
"""How each allowed type lies in the file; numpy has no bfloat16, its bits are read as integers."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: dtype F16, BF16 or F32, shape, and its bytes' first offset in the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class SafetensorsFile:
    """A safetensors file whose header has been checked; its values are read when asked for."""

    path: Path
    tensors: Mapping[str, StoredTensor]

    def float32(self, name: str) -> npt.NDArray[np.float32]:
        """The values of ``name`` in its shape, in memory of their own.

        They are read a few MiB at a time, and not mapped: mapped pages count as memory of the process.
        """
        tensor = self.tensors[name]
        values = np.empty(tensor.size, np.float32)
        for start, part in self._chunks(tensor):
            _widen(part, tensor.dtype, values[start : start + part.size])
        return values.reshape(tensor.shape)

    def sha256_of_finite(self) -> str:
        """Read every byte once, a few MiB at a time: SHA-256 of the file, in hexadecimal.

        Raises:
            ModelError: a value is NaN or infinite; names the tensor and the first such place.
        """
        with self.path.open("rb") as file:
            digest = hashlib.sha256(file.read(min((t.offset for t in self.tensors.values()), default=-1)))
        for name, tensor in self.tensors.items():  # in the order of the file, which has no holes
            for start, raw in self._chunks(tensor):
                digest.update(raw.data)
                values = np.empty(raw.size, np.float32)
                _widen(raw, tensor.dtype, values)
                finite = np.isfinite(values)
                if not finite.all():
                    flat = start + int(np.argmin(finite))
                    place = [int(i) for i in np.unravel_index(flat, tensor.shape or (1,))]
                    raise ModelError(
                        f"{self.path}: {name}",
                        f"the value at {place} is {values[flat - start]}, finite values were expected",
                        "take another checkpoint; this one is damaged or its training diverged",
                    )
        return digest.hexdigest()

    def _chunks(self, tensor: StoredTensor) -> Iterator[tuple[int, npt.NDArray[np.generic]]]:
        """The values as they lie in the file, each part with its place; a part is gone with the next."""
        dtype = _DTYPES[tensor.dtype]
        buffer = np.empty(min(CHUNK_VALUES, tensor.size), dtype)
        with self.path.open("rb", buffering=0) as file:
            file.seek(tensor.offset)
            for start in range(0, tensor.size, CHUNK_VALUES):
                part = buffer[: tensor.size - start]
                waiting = part.data.cast("B")
                while waiting:
                    count = file.readinto(waiting)
                    if not count:
                        raise ModelError(str(self.path), "became shorter while it was read", _COPY_AGAIN)
                    waiting = waiting[count:]
                yield start, part


def _widen(raw: npt.NDArray[np.generic], dtype: str, out: npt.NDArray[np.float32]) -> None:
    if dtype == "BF16":  # the upper half of a float32
        np.left_shift(raw, np.uint32(16), out=out.view(np.uint32))
    else:
        np.copyto(out, raw)


def read_safetensors(path: Path) -> SafetensorsFile:
    """Check the header of ``path`` against its size.

    Raises:
        ModelError: the file is truncated or malformed, or holds a type other than F16, BF16 or F32.
    """
    where = str(path)
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        header_bytes = int.from_bytes(start, "little")
        if len(start) < 8 or header_bytes > size_bytes - 8:
            raise ModelError(
                where,
                f"is truncated: the file has {size_bytes} bytes, its header alone wants {8 + header_bytes}",
                _COPY_AGAIN,
            )
        if header_bytes > MAX_HEADER_BYTES:
            raise ModelError(
                where,
                f"has a header of {header_bytes} bytes, at most {MAX_HEADER_BYTES} are read",
                _COPY_AGAIN,
            )
        header = _header(where, file.read(header_bytes))
    tensors: dict[str, StoredTensor] = {}
    data_start = 8 + header_bytes
    position = 0
    for name, (dtype, shape, begin, end) in sorted(header.items(), key=lambda item: item[1][2:]):
        if dtype not in _DTYPES:
            raise ModelError(
                f"{where}: {name}",
                f"is stored as {dtype}; F16, BF16 and F32 are read",
                "save the model in float16: pipeline.to(torch.float16).save_pretrained(FOLDER)",
            )
        wanted = math.prod(shape) * _DTYPES[dtype].itemsize
        if begin != position or end - begin != wanted:
            raise ModelError(
                f"{where}: {name}",
                f"lies at bytes {begin}…{end} of the data; {position}…{position + wanted} was expected",
                _COPY_AGAIN,
            )
        tensors[name] = StoredTensor(dtype, shape, data_start + begin)
        position = end
    if data_start + position != size_bytes:
        raise ModelError(
            where,
            f"is {'truncated' if data_start + position > size_bytes else 'too long'}: "
            f"the file has {size_bytes} bytes, its header promises {data_start + position}",
            _COPY_AGAIN,
        )
    return SafetensorsFile(path, tensors)


def _header(where: str, text: bytes) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    try:
        entries = json.loads(text, object_pairs_hook=_without_duplicates)
        return {
            name: (
                str(entry["dtype"]),
                tuple(_count(size) for size in entry["shape"]),
                _count(entry["data_offsets"][0]),
                _count(entry["data_offsets"][1]),
            )
            for name, entry in entries.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ModelError(where, f"has a malformed safetensors header: {error}", _COPY_AGAIN) from error


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key appears twice")
    return entries
