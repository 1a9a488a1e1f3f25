"""Machine rates: each runtime multiplies at what was measured for it."""

from tests.compiler.machines import MACHINE

from latentc.compiler.forecast.call_work import Kind
from latentc.compiler.forecast.machine_rates import ort_rates, torch_rates


def test_torch_computes_in_floats() -> None:
    rates = torch_rates(MACHINE)
    assert rates.gops[Kind.INT4_LINEAR] == rates.gops[Kind.FLOAT_LINEAR] < MACHINE.speeds.torch_linear_gops
    assert rates.gops[Kind.FLOAT_CONVOLUTION] < MACHINE.speeds.torch_convolution_gops


def test_only_the_mobile_form_multiplies_kernels_as_integers() -> None:
    rates = ort_rates(MACHINE, integers=False)
    assert rates.gops[Kind.INT8_CONVOLUTION] == rates.gops[Kind.FLOAT_CONVOLUTION]


def test_one_thread_is_a_share_of_all() -> None:
    whole, half = ort_rates(MACHINE), ort_rates(MACHINE, 1)
    assert whole.gops[Kind.INT4_LINEAR] == MACHINE.speeds.ort_int4_gops
    assert all(half.gops[kind] == whole.gops[kind] / 2 for kind in whole.gops)
    assert ort_rates(MACHINE, 8).gops == whole.gops
