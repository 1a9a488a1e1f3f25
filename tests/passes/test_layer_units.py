"""What one computation yields is one unit, and a unit's need is what pulling it really takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
from tests.passes.graphs import model_of

from latentc.passes import layer_units as module
from latentc.passes.base import PassContext
from latentc.passes.layer_units import layer_units
from latentc.passes.model_writer import ModelWriter
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.weights import JointTensors, lazy

LINEARS = """g (float[B,256] x) => (float[B,128] y, float[B,128] z) <float[256,128] q, float[256,128] k,
        float[128] b> {
    p = MatMul (x, q)
    y = Add (p, b)
    z = MatMul (x, k) }"""


def small(value: float) -> ir.TensorProtocol:
    return ir.tensor(np.full(4, value, np.float32))


def names(tensors: list[tuple[str, ir.TensorProtocol]]) -> list[list[str]]:
    return [[name for name, _ in unit.tensors] for unit in layer_units(tensors)]


def test_what_is_made_together_is_pulled_together() -> None:
    base = JointTensors(
        lambda: {"a": np.zeros(4), "b": np.zeros(4)},
        {key: (ir.DataType.FLOAT, (4,)) for key in "ab"},
        (),
        0,
    )
    above = JointTensors(lambda: {"c": np.zeros(4)}, {"c": (ir.DataType.FLOAT, (4,))}, (base.tensor("a"),), 0)
    turned = lazy(base.tensor("b"), lambda values: values, (4,), ir.DataType.FLOAT)
    large = ir.tensor(np.zeros(module.SMALL_BYTES // 4, np.float32))
    tensors = [("one", large), ("c", above.tensor("c")), ("two", large), ("b", turned), ("three", large)]
    assert names(tensors) == [["one"], ["c", "two", "b"], ["three"]]


def test_small_neighbours_are_one_unit() -> None:
    large = ir.tensor(np.zeros(module.SMALL_BYTES // 4, np.float32))
    tensors = [("a", small(1)), ("b", small(2)), ("large", large), ("c", small(3)), ("d", small(4))]
    assert names(tensors) == [["a", "b", "large"], ["c", "d"]]
    assert [unit.name for unit in layer_units(tensors)] == ["a", "c"]


def test_linears_that_share_a_branch_are_one_unit(tmp_path: Path) -> None:
    model = model_of(LINEARS)
    split = SplitLowRank(rank=8, max_ratio=1.0, calibrated=False, refinements=0, shared=True)
    model = QuantizeInt4()(split(model, PassContext()).model, PassContext()).model
    (unit,) = ModelWriter(model, tmp_path).units
    assert {"q.codes", "k.codes", "q.right", "q.left", "k.left"} <= {name for name, _ in unit.tensors}
    # the two weights side by side, and what fitting and writing take of anything
    assert 2 * 4 * 256 * 128 < unit.need_bytes < 32 << 20


PEAK = """
import sys
from pathlib import Path
import numpy as np, onnx_ir as ir
from tests.passes.graphs import model_of
from latentc.compiler.budget import resident_bytes
from latentc.passes.base import PassContext
from latentc.passes.model_writer import ModelWriter
from latentc.passes.one_thread import one_thread
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.weights import replace_initializer
K, N = 3072, 3072
graph = f'g (float[B,{K}] x) => (float[B,{N}] y) <float[{K},4] w> {{ y = MatMul (x, w) }}'
model = model_of(graph)
def drawn():
    values = np.random.default_rng(0).standard_normal((N, K), dtype=np.float32)
    return ir.Tensor(values.T)
replace_initializer(model.graph, model.graph.initializers["w"],
                    ir.LazyTensor(drawn, ir.DataType.FLOAT, ir.Shape((K, N))))
for step in (SplitLowRank(calibrated=False, refinements=0), QuantizeInt4()):
    model = step(model, PassContext()).model
writer = ModelWriter(model, Path(sys.argv[1]))
writer.open()
with one_thread():  # what the libraries take once, whatever the layer
    one = np.ones((2048, 2048), np.float32)
    np.linalg.qr((one @ one)[:, :48])
    del one
before = resident_bytes()
with one_thread():
    for unit in writer.units:
        writer.write(unit)
status = Path("/proc/self/status").read_text()  # the resource module counts what forked us as well
peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
print(peak - before, max(unit.need_bytes for unit in writer.units))
"""


def test_a_layer_takes_no_more_memory_than_foretold(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)], check=True, capture_output=True, text=True
    )
    taken, foretold = (int(number) for number in done.stdout.split())
    # foretold is what a layer takes at most: not less than it takes, and no more than twice
    assert taken <= foretold < 2 * taken
