import onnx_ir as ir
from tests.passes.graphs import model_of, operators

from latentc.passes.base import Pass, PassContext
from latentc.passes.canonicalize import Canonicalize
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.sequence import run_passes


def test_passes_run_in_order_and_report() -> None:
    seen: list[tuple[list[str], str, list[str]]] = []

    def observer(before: ir.Model, step: Pass, after: ir.Model) -> None:
        seen.append((operators(before), str(step), operators(after)))

    model, reports = run_passes(
        model_of("g (float[B,64] x) => (float[B,64] y) <float[64,64] w> { y = Gemm <transB = 1> (x, w) }"),
        [Canonicalize(), QuantizeInt4(group=32)],
        PassContext(),
        observer,
    )
    assert operators(model) == ["Cast", "DequantizeLinear", "MatMul"]
    assert [(report.text, report.version, len(report.changes)) for report in reports] == [
        ("canonicalize", 1, 1),
        ("quantize-int4{group=32}", 5, 1),
    ]
    assert seen == [
        (["Gemm"], "canonicalize", ["MatMul"]),
        (["MatMul"], "quantize-int4{group=32}", ["Cast", "DequantizeLinear", "MatMul"]),
    ]
