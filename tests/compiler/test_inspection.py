from pathlib import Path

import onnx.parser
import pytest

from latentc.compiler.inspection import describe_passes, inspect_path
from latentc.errors import UsageError
from latentc.passes.catalogue import PASSES


def test_every_pass_is_described_in_one_line() -> None:
    described = describe_passes()
    assert [one.name for one in described] == [kind.name for kind in PASSES]
    for one in described:
        assert one.what.endswith(".")
        assert "optional" in one.options


def test_a_graph_is_counted(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]>'
        "g (float[2] x) => (float[2] z) { y = Add(x, x) z = Add(y, x) }"
    )
    onnx.save(model, tmp_path / "model.onnx")
    facts = inspect_path(tmp_path)
    assert facts.rows == (("Add", "2"),)
    assert facts.head[0] == "2 nodes, 0 initializers, opset ai.onnx 21"
    assert facts.to_json()["rows"] == [{"operator": "Add", "count": "2"}]


def test_what_is_neither_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is neither a bundle nor an ONNX file"):
        inspect_path(tmp_path)
