"""The header is checked against every promise of the format, and the values for NaN and infinity."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentc.compiler.safetensors_file import CHUNK_VALUES, read_safetensors
from latentc.errors import ModelError

AGAIN = "\nfix: copy or download the file again"


def write(path: Path, header: object, data: bytes) -> Path:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_safetensors(path)
    return str(caught.value).replace(str(path), "FILE")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_values_equal_those_of_safetensors_itself(tmp_path: Path, dtype: str) -> None:
    from safetensors.numpy import save_file

    random = np.random.default_rng(0)
    tensors = {
        "b": random.standard_normal((3, 5)).astype(dtype),
        "a": np.ones(7, dtype),
        "c": np.array(2, dtype),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    file = read_safetensors(tmp_path / "x.safetensors")
    assert file.sha256_of_finite() == hashlib.sha256(file.path.read_bytes()).hexdigest()
    for name, values in tensors.items():
        assert file.tensors[name].shape == values.shape
        read = file.float32(name)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, values.astype(np.float32))


def test_bfloat16_equals_torch(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    values = torch.randn(11, 3, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    save_file({"x": values}, tmp_path / "x.safetensors")
    file = read_safetensors(tmp_path / "x.safetensors")
    assert file.sha256_of_finite() == hashlib.sha256(file.path.read_bytes()).hexdigest()
    np.testing.assert_array_equal(file.float32("x"), values.float().numpy())


@given(cut=st.integers(1, 60))
def test_a_truncated_file_is_always_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "x.safetensors"
    write(path, {"a": entry("F32", [5], 0, 20)}, bytes(20))
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    with pytest.raises(ModelError, match="is truncated"):
        read_safetensors(path)


def test_a_truncated_file_says_by_how_much(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"a": entry("F32", [5], 0, 20)}, bytes(13))
    size = path.stat().st_size
    assert refused(path) == (
        f"FILE: is truncated: the file has {size} bytes, its header promises {size + 7}{AGAIN}"
    )


def test_bytes_after_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"a": entry("F32", [5], 0, 20)}, bytes(21))
    size = path.stat().st_size
    assert refused(path) == (
        f"FILE: is too long: the file has {size} bytes, its header promises {size - 1}{AGAIN}"
    )


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry("F32", [5], 4, 24)}, "FILE: a: lies at bytes 4…24 of the data; 0…20 was expected"),
        ({"a": entry("F32", [5], 0, 16)}, "FILE: a: lies at bytes 0…16 of the data; 0…20 was expected"),
        (
            {"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)},
            "FILE: b: lies at bytes 4…12 of the data; 8…16 was expected",
        ),
        ({"a": entry("F32", [-1], 0, 4)}, "FILE: has a malformed safetensors header: -1 is no count"),
        ({"a": {"dtype": "F32"}}, "FILE: has a malformed safetensors header: 'shape'"),
        (b'{"a": 1, "a": 2}', "FILE: has a malformed safetensors header: a key appears twice"),
    ],
)
def test_a_header_that_breaks_a_promise(tmp_path: Path, header: object, message: str) -> None:
    assert refused(write(tmp_path / "x", header, bytes(24))) == message + AGAIN


def test_a_header_of_absurd_length(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    assert refused(path) == (
        f"FILE: is truncated: the file has 10 bytes, its header alone wants {2**60 + 8}{AGAIN}"
    )


def test_an_integer_checkpoint(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"a": entry("I8", [4], 0, 4)}, bytes(4))
    assert refused(path) == (
        "FILE: a: is stored as I8; F16, BF16 and F32 are read\n"
        "fix: save the model in float16: pipeline.to(torch.float16).save_pretrained(FOLDER)"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found(tmp_path: Path, bad: float) -> None:
    values = np.zeros((2, CHUNK_VALUES // 2 + 3), np.float16)
    values[1, -2] = bad  # in the second chunk
    path = write(
        tmp_path / "x",
        {"fine": entry("F16", [2], 0, 4), "w": entry("F16", list(values.shape), 4, 4 + values.nbytes)},
        bytes(4) + values.tobytes(),
    )
    with pytest.raises(ModelError) as caught:
        read_safetensors(path).sha256_of_finite()
    assert str(caught.value).replace(str(path), "FILE") == (
        f"FILE: w: the value at [1, {values.shape[1] - 2}] is {np.float16(bad)}, "
        "finite values were expected\n"
        "fix: take another checkpoint; this one is damaged or its training diverged"
    )
