import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.passes.graphs import values
from tests.passes.lora_tensors import lora_tensors, write_lora

from latentc.errors import ModelError
from latentc.passes.lora_file import read_lora
from latentc.passes.weights import Array


def pair(module: str, down: str = "lora_A", up: str = "lora_B") -> dict[str, Array]:
    return {f"{module}.{down}.weight": values("d", (4, 8)), f"{module}.{up}.weight": values("u", (6, 4))}


@pytest.mark.parametrize(
    ("tensors", "component", "module", "is_flat"),
    [
        (pair("unet.a.b.to_q"), "unet", "a.b.to_q", False),
        (pair("transformer.a.to_q"), "transformer", "a.to_q", False),
        (pair("base_model.model.a.to_q"), "", "a.to_q", False),
        (pair("a.to_q", "lora_A.default", "lora_B.default"), "", "a.to_q", False),
        (pair("unet.a.to_q", "lora.down", "lora.up"), "unet", "a.to_q", False),
        (pair("unet.a.to_q", "lora_linear_layer.down", "lora_linear_layer.up"), "unet", "a.to_q", False),
        (pair("lora_unet_a_to_q", "lora_down", "lora_up"), "unet", "a_to_q", True),
        (pair("lora_te2_a_fc", "lora_down", "lora_up"), "text_encoder_2", "a_fc", True),
    ],
)
def test_formats(
    tensors: dict[str, Array], component: str, module: str, is_flat: bool, tmp_path: Path
) -> None:
    (adapter,) = read_lora(write_lora(tmp_path / "a.safetensors", tensors))
    assert (adapter.component, adapter.module, adapter.is_flat) == (component, module, is_flat)
    assert (adapter.down.shape, adapter.up.shape, adapter.scale) == ((4, 8), (6, 4), 1.0)


def test_alpha_in_the_tensors(tmp_path: Path) -> None:
    tensors = {**pair("unet.a"), "unet.a.alpha": np.array(2.0, np.float16)}
    (adapter,) = read_lora(write_lora(tmp_path / "a.safetensors", tensors))
    assert adapter.scale == 0.5


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"unet.lora_alpha": 8}, 2.0),
        ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 4.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"a": 16}}, 4.0),
        ({"text_encoder.lora_alpha": 8}, 1.0),
    ],
)
def test_alpha_in_the_metadata_of_diffusers(config: dict[str, object], scale: float, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(pair("unet.a"), path, metadata={"lora_adapter_metadata": json.dumps(config)})
    (adapter,) = read_lora(path)
    assert adapter.scale == scale


def test_a_peft_folder(tmp_path: Path) -> None:
    write_lora(tmp_path / "adapter_model.safetensors", pair("base_model.model.a"))
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 2}')
    (adapter,) = read_lora(tmp_path)
    assert (adapter.module, adapter.scale) == ("a", 0.5)


def test_bfloat16(tmp_path: Path) -> None:
    import ml_dtypes

    tensors: dict[str, Array] = {
        key: value.astype(ml_dtypes.bfloat16) for key, value in pair("unet.a").items()
    }
    (adapter,) = read_lora(write_lora(tmp_path / "a.safetensors", tensors))
    np.testing.assert_allclose(adapter.down, values("d", (4, 8)), rtol=2**-8)


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_lora(path)
    return str(caught.value).replace(str(path), "PATH")


AGAIN = "fix: download the LoRA again"


def test_an_absent_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.safetensors") == (
        "PATH: there is no such file\nfix: check the path in the recipe"
    )


def test_a_pickle(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\x80\x04")
    assert refusal(tmp_path / "a.bin") == (
        "PATH: is a pickle, which can run code when loaded\nfix: convert it to safetensors"
    )
    assert (
        refusal(tmp_path) == "PATH: holds only the pickle a.bin, wanted one\nfix: name the file in the recipe"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "PATH: is no safetensors file, or is cut short"),
        (b"PK\x03\x04 a zip archive", "PATH: is no safetensors file, or is cut short"),
        (
            (4).to_bytes(8, "little") + b"oops",
            "PATH: has a header that cannot be read: Expecting value: line 1 column 1 (char 0)",
        ),
    ],
)
def test_no_safetensors_file(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert refusal(path) == f"{message}\n{AGAIN}"


def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "a.safetensors", lora_tensors())
    size_bytes = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal(path) == (
        f"PATH: unet.block.to_q.lora_B.weight: ends at byte {size_bytes} of {size_bytes - 100}: "
        f"the file is cut short\n{AGAIN}"
    )


def test_nan(tmp_path: Path) -> None:
    tensors = pair("unet.a")
    tensors["unet.a.lora_B.weight"][0, 0] = np.nan
    path = write_lora(tmp_path / "a.safetensors", tensors)
    assert refusal(path) == f"PATH: unet.a.lora_B.weight: holds NaN or infinity\n{AGAIN}"


def test_half_a_pair(tmp_path: Path) -> None:
    tensors = pair("unet.a")
    del tensors["unet.a.lora_B.weight"]
    path = write_lora(tmp_path / "a.safetensors", tensors)
    assert refusal(path) == f"PATH: unet.a.lora_A.weight: has no matching up (lora_B) tensor\n{AGAIN}"


def test_sides_that_do_not_fit(tmp_path: Path) -> None:
    tensors = {**pair("unet.a"), "unet.a.lora_B.weight": values("u", (6, 3))}
    path = write_lora(tmp_path / "a.safetensors", tensors)
    assert refusal(path) == (
        "PATH: unet.a.lora_B.weight: has shape [6, 3], which does not fit [4, 8] of "
        f"unet.a.lora_A.weight\n{AGAIN}"
    )


def test_what_is_no_lora(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "a.safetensors", {"unet.a.lora_magnitude_vector": values("m", (6,))})
    assert refusal(path) == (
        "PATH: unet.a.lora_magnitude_vector: is no part of a plain LoRA (lora_A, lora_B, alpha)\n"
        "fix: use a LoRA file; DoRA, LoHa and textual inversion are not supported"
    )
