"""Safetensors: read the header ourselves and check every promise of the format before a byte is used.

Format: 8 bytes little-endian header length, that many bytes of JSON, then the data; offsets count from
the data's start, leave no holes and end with the file (safetensors README, "Format").
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentc.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

MAX_HEADER_BYTES = 16 * 2**20
"""The format allows 100 MB; the largest published pipelines need less than 1 MB."""

CHUNK_VALUES = 4 * 2**20
"""How many values are looked at together when a file is scanned."""

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

    @cached_property
    def _bytes(self) -> npt.NDArray[np.uint8]:
        return np.memmap(self.path, dtype=np.uint8, mode="r")

    def float32(self, name: str) -> npt.NDArray[np.float32]:
        """The values of ``name`` in its shape; a copy unless they are stored as float32."""
        tensor = self.tensors[name]
        return _as_float32(self._raw(tensor), tensor.dtype).reshape(tensor.shape)

    def require_finite(self) -> None:
        """Read every value once, a few MiB at a time.

        Raises:
            ModelError: a value is NaN or infinite; names the tensor and the first such place.
        """
        for name, tensor in self.tensors.items():
            for start, values in self._chunks(tensor):
                finite = np.isfinite(values)
                if not finite.all():
                    flat = start + int(np.argmin(finite))
                    place = [int(i) for i in np.unravel_index(flat, tensor.shape or (1,))]
                    raise ModelError(
                        f"{self.path}: {name}",
                        f"the value at {place} is {values[flat - start]}, finite values were expected",
                        "take another checkpoint; this one is damaged or its training diverged",
                    )

    def _raw(self, tensor: StoredTensor) -> npt.NDArray[np.generic]:
        dtype = _DTYPES[tensor.dtype]
        end = tensor.offset + tensor.size * dtype.itemsize
        return self._bytes[tensor.offset : end].view(dtype)

    def _chunks(self, tensor: StoredTensor) -> Iterator[tuple[int, npt.NDArray[np.floating]]]:
        raw = self._raw(tensor)
        for start in range(0, tensor.size, CHUNK_VALUES):
            part = raw[start : start + CHUNK_VALUES]
            yield start, _as_float32(part, "BF16") if tensor.dtype == "BF16" else part  # type: ignore[misc]


def _as_float32(raw: npt.NDArray[np.generic], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "BF16":  # the upper half of a float32
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw.astype(np.float32, copy=False)


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
