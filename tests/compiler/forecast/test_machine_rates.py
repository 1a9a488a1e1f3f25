"""Machine rates: each runtime multiplies at what was measured for it."""

from tests.compiler.machines import MACHINE

from latentc.compiler.forecast.call_work import Kind
from latentc.compiler.forecast.machine_rates import ort_rates, torch_rates


def test_torch_computes_in_floats() -> None:
    rates = torch_rates(MACHINE)
    assert rates.gops[Kind.INT4_LINEAR] == rates.gops[Kind.FLOAT_LINEAR] < MACHINE.speeds.torch_linear_gops
    assert rates.gops[Kind.FLOAT_CONVOLUTION] < MACHINE.speeds.torch_convolution_gops


def test_each_form_multiplies_in_its_own_way() -> None:
    speeds = MACHINE.speeds
    exported, mobile, x86 = (ort_rates(MACHINE, name).gops for name in ("onnx", "ort-mobile", "ort-x86"))
    assert exported[Kind.INT8_CONVOLUTION] == exported[Kind.FLOAT_CONVOLUTION]
    assert exported[Kind.INT4_LINEAR] == exported[Kind.FLOAT_LINEAR] == speeds.ort_linear_gops
    assert mobile[Kind.INT4_LINEAR] == speeds.ort_int4_gops
    assert x86[Kind.INT4_LINEAR] == x86[Kind.INT8_LINEAR] == speeds.ort_product_gops
    assert mobile[Kind.INT8_CONVOLUTION] == x86[Kind.INT8_CONVOLUTION] < speeds.ort_product_gops
    assert mobile[Kind.ATTENTION] == speeds.ort_fused_attention_gops


def test_one_thread_is_a_share_of_all() -> None:
    whole, half = ort_rates(MACHINE, "ort-mobile"), ort_rates(MACHINE, "ort-mobile", 1)
    assert whole.gops[Kind.INT4_LINEAR] == MACHINE.speeds.ort_int4_gops
    assert all(half.gops[kind] == whole.gops[kind] / 2 for kind in whole.gops)
    assert ort_rates(MACHINE, "ort-mobile", 8).gops == whole.gops
