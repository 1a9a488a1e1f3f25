"""Every exported graph, bound to its weights, computes what torch computes; and holds no weight itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from tests.compiler.conftest import ExportOf
from tests.tiny_models import write_tiny_flux

from latentc.compiler.bindings import bind, bindings_from_json
from latentc.compiler.model_folder import ModelFolder, open_model
from latentc.compiler.stages.export import Export
from latentc.errors import ModelError
from latentc.recipes.families.flux import FLUX
from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.recipes.family import Component, TensorSpec

SD_COMPONENTS = [spec.component for spec in STABLE_DIFFUSION.components]
# The encoder of FLUX's VAE is Stable Diffusion's without one convolution, as the decoder is.
FLUX_COMPONENTS = [s.component for s in FLUX.components if s.component is not Component.VAE_ENCODER]

# Measured: 3e-7 (text) to 3e-6 (VAE decoder) of the largest value, float32 sums in another order.
TOLERANCE = 1e-5

SHAPES = Path(__file__).parents[3] / "recipes" / "shapes" / "weights"


def inputs_of(
    specs: tuple[TensorSpec, ...],
    bound: ir.Model,
    model: ModelFolder,
    component: Component,
    B: int,
    pixels: int,
) -> dict[str, npt.NDArray[Any]]:
    """Random inputs for ``B`` pictures of ``pixels`` × (``pixels`` + 32)."""
    random = np.random.default_rng(B)
    blocks = model.folder_of(Component.VAE_DECODER).config["block_out_channels"]
    assert isinstance(blocks, list)
    downscale = 2 ** (len(blocks) - 1)
    config = model.folder_of(component).config
    sizes = {"B": B, "T": 9 + B, "H": pixels, "W": pixels + 32}
    sizes |= {"h": pixels // downscale, "w": (pixels + 32) // downscale}
    sizes["S"] = (sizes["h"] // 2) * (sizes["w"] // 2)
    shapes = {value.name: value.shape for value in bound.graph.inputs}
    inputs: dict[str, npt.NDArray[Any]] = {}
    for spec in specs:
        fixed = shapes[spec.name]
        assert fixed is not None
        shape = [sizes[a] if a in sizes else int(str(s)) for a, s in zip(spec.axes, fixed, strict=True)]
        if spec.name == "token_ids":
            inputs[spec.name] = random.integers(0, int(str(config["vocab_size"])), shape)
            # the end token in the middle and again as padding, as CLIP's tokenizer gives it
            inputs[spec.name][:, 7:] = int(str(config["eos_token_id"]))
        elif spec.name == "timestep":
            scale = 1 if model.family is FLUX else 999
            inputs[spec.name] = random.random(shape, np.float32) * np.float32(scale)
        elif spec.name.endswith("_ids"):
            inputs[spec.name] = random.integers(0, 64, shape).astype(np.float32)
        else:
            inputs[spec.name] = random.standard_normal(shape, np.float32)
    return inputs


def torch_result(
    model: ModelFolder, component: Component, inputs: dict[str, npt.NDArray[Any]]
) -> npt.NDArray[np.float32]:
    """What diffusers' or transformers' own module gives, untouched by our wrappers."""
    import diffusers
    import torch
    import transformers

    folder = model.folder_of(component)
    library = diffusers if hasattr(diffusers, folder.class_name) else transformers
    module = getattr(library, folder.class_name).from_pretrained(folder.path, dtype=torch.float32).eval()
    given = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.no_grad():
        if component is Component.VAE_ENCODER:
            result = module.encode(given["image"]).latent_dist.mean
        elif component is Component.VAE_DECODER:
            result = module.decode(given["latent"]).sample
        elif component is Component.UNET:
            result = module(given["latent"], given["timestep"], given["text_states"]).sample
        elif component is Component.TRANSFORMER:
            result = module(
                hidden_states=given["latent"],
                timestep=given["timestep"],
                encoder_hidden_states=given["text_states"],
                pooled_projections=given["pooled_states"],
                img_ids=given["image_ids"],
                txt_ids=given["text_ids"],
                guidance=given.get("guidance"),
            ).sample
        else:
            result = module(given["token_ids"])
            pooled = model.family is FLUX and component is Component.TEXT_ENCODER
            result = result.pooler_output if pooled else result.last_hidden_state
    return np.asarray(result.numpy(), dtype=np.float32)


def check_equal(root: Path, component: Component, artifact: Path, out: Path) -> None:
    """Compare the bound graph with torch at two batch sizes, two picture sizes and two text lengths."""
    import onnxruntime

    model = open_model(root)
    bound = bind(artifact, model)
    specs = model.family.spec(component).inputs_of(model.folder_of(component).config)
    out.mkdir(exist_ok=True)
    path = out / "model.onnx"
    ir.save(bound, path, external_data="model.onnx.data")
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path)
    for B, pixels in ((1, 64), (3, 96)):
        inputs = inputs_of(specs, bound, model, component, B, pixels)
        (actual,) = session.run(None, inputs)
        expected = torch_result(model, component, inputs)
        assert actual.shape == expected.shape
        assert float(np.abs(actual - expected).max()) <= TOLERANCE * float(np.abs(expected).max())


@pytest.mark.parametrize("component", SD_COMPONENTS)
def test_stable_diffusion_equals_torch(
    tiny_stable_diffusion: Path, export_of: ExportOf, component: Component, tmp_path: Path
) -> None:
    check_equal(tiny_stable_diffusion, component, export_of(tiny_stable_diffusion, component), tmp_path)


@pytest.mark.parametrize("component", FLUX_COMPONENTS)
def test_flux_equals_torch(
    tiny_flux: Path, export_of: ExportOf, component: Component, tmp_path: Path
) -> None:
    check_equal(tiny_flux, component, export_of(tiny_flux, component), tmp_path)


@pytest.mark.parametrize("component", SD_COMPONENTS)
def test_a_graph_holds_no_weight(
    tiny_stable_diffusion: Path, export_of: ExportOf, component: Component
) -> None:
    artifact = export_of(tiny_stable_diffusion, component)
    assert sorted(path.name for path in artifact.iterdir()) == ["bindings.json", "graph.onnx"]
    bindings = bindings_from_json((artifact / "bindings.json").read_text())
    model = ir.load(artifact / "graph.onnx")
    names = [value.name for value in model.graph.inputs]
    taken = [spec.name for spec in STABLE_DIFFUSION.spec(component).inputs]
    assert names[: len(taken)] == taken
    assert set(names[len(taken) :]) == set(bindings.weights)
    # what is left are shapes, scales and the sinusoid's frequencies
    assert all(value.const_value is not None for value in model.graph.initializers.values())
    assert (
        sum(value.const_value.size for value in model.graph.initializers.values() if value.const_value) < 200
    )


@pytest.mark.parametrize(
    ("component", "most_nodes"),
    # what diffusers' arithmetic needs; the exporter alone leaves 2.5 times as many
    [(Component.TEXT_ENCODER, 102), (Component.UNET, 429), (Component.VAE_DECODER, 126)],
)
def test_graphs_are_small_and_plain(
    tiny_stable_diffusion: Path, export_of: ExportOf, component: Component, most_nodes: int
) -> None:
    model = ir.load(export_of(tiny_stable_diffusion, component) / "graph.onnx")
    kinds = Counter(node.op_type for node in model.graph)
    assert len(model.graph) <= most_nodes
    assert {node.domain for node in model.graph} == {""}
    assert kinds["CastLike"] == kinds["Identity"] == kinds["Constant"] == kinds["SequenceAt"] == 0
    assert model.opset_imports[""] == 21
    assert model.ir_version == 10
    if component is Component.UNET:
        # attention in the open: two products each, and no cast at all
        assert kinds["Softmax"] == 8
        assert kinds["Cast"] == 0


def test_flux_has_no_double_and_no_sequence(tiny_flux: Path, export_of: ExportOf) -> None:
    model = ir.load(export_of(tiny_flux, Component.TRANSFORMER) / "graph.onnx")
    values = [value for node in model.graph for value in node.outputs]
    assert ir.DataType.DOUBLE not in {value.dtype for value in values}
    assert not {"SplitToSequence", "SequenceAt", "Cast"} & {node.op_type for node in model.graph}


def test_flux_with_guidance_takes_one_more_input(tmp_path: Path, export_of: ExportOf) -> None:
    root = write_tiny_flux(tmp_path / "flux", guidance_embeds=True, single_blocks=0)
    artifact = export_of(root, Component.TRANSFORMER)
    names = [value.name for value in ir.load(artifact / "graph.onnx").graph.inputs]
    assert names[6] == "guidance"
    check_equal(root, Component.TRANSFORMER, artifact, tmp_path)


_CHILD = """
import sys
from pathlib import Path
from latentc.compiler.model_folder import open_model
from latentc.compiler.stages.export import Export
from latentc.recipes.family import Component

model = open_model(Path(sys.argv[1]), read_values=False)
folder = model.folder_of(Component.TEXT_ENCODER_2)
stage = Export(model.family.name, "text_encoder_2", folder.class_name, folder.config_json)
stage.run({}, Path(sys.argv[2]), lambda fraction, words: None)
"""


def test_the_same_architecture_gives_the_same_bytes_in_another_process(
    tiny_flux: Path, export_of: ExportOf, tmp_path: Path
) -> None:
    here = export_of(tiny_flux, Component.TEXT_ENCODER_2)
    subprocess.run(
        [sys.executable, "-c", _CHILD, str(tiny_flux), str(tmp_path)],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": "1234"},
    )
    for name in ("graph.onnx", "bindings.json"):
        assert (tmp_path / name).read_bytes() == (here / name).read_bytes()
    # and nothing of the machine is in them
    assert b"site-packages" not in (here / "graph.onnx").read_bytes()


def test_options_are_the_architecture_and_not_where_it_came_from(tiny_stable_diffusion: Path) -> None:
    folder = open_model(tiny_stable_diffusion, read_values=False).folder_of(Component.UNET)
    stage = Export("stable-diffusion", "unet", folder.class_name, folder.config_json)
    options = stage.options()
    config = options["config"]
    assert isinstance(config, dict)
    assert config["block_out_channels"] == [64, 128]
    assert "_diffusers_version" not in config
    assert str(tiny_stable_diffusion) not in json.dumps(options)


def test_a_unet_that_takes_more_is_refused(tiny_stable_diffusion: Path, tmp_path: Path) -> None:
    folder = open_model(tiny_stable_diffusion, read_values=False).folder_of(Component.UNET)
    config = {**folder.config, "time_cond_proj_dim": 256}
    stage = Export("stable-diffusion", "unet", folder.class_name, json.dumps(config))
    with pytest.raises(ModelError) as caught:
        stage.run({}, tmp_path, lambda _fraction, _words: None)
    assert str(caught.value) == (
        "unet/config.json: time_cond_proj_dim is '256', which asks for inputs that this family does not have"
        "\nfix: use a checkpoint of the family that model_index.json names"
    )


def test_a_config_of_nonsense_is_refused(tmp_path: Path) -> None:
    stage = Export("stable-diffusion", "unet", "UNet2DConditionModel", '{"block_out_channels": "wide"}')
    with pytest.raises(ModelError, match=r"^UNet2DConditionModel: config.json: the class refuses it: "):
        stage.run({}, tmp_path, lambda _fraction, _words: None)


@pytest.mark.parametrize(
    ("name", "component"),
    [("shapes-sd", Component.VAE_DECODER), ("shapes-flux", Component.TEXT_ENCODER_2)],
)
def test_the_demo_models_equal_torch(
    name: str, component: Component, export_of: ExportOf, tmp_path: Path
) -> None:
    root = SHAPES / name
    if not (root / "model_index.json").is_file():
        pytest.skip(f"{name} is not in this checkout")
    check_equal(root, component, export_of(root, component), tmp_path)
