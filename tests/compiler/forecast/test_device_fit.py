"""Device fit: a verdict, and the least change that helps."""

from dataclasses import replace

from tests.compiler import foretold

from latentc.compiler.forecast.device_fit import DeviceFit, fit
from latentc.compiler.forecast.device_memory import device_memory
from latentc.recipes.family import Component
from latentc.recipes.target import Target, target_named

NANO = target_named("jetson-orin-nano-4gb")


def judged(memory_bytes: int, target: Target = NANO) -> DeviceFit:
    small = replace(target, memory_mib=memory_bytes // 2**20)
    return fit(foretold.components(), small, Component.UNET, 64, 64)


def test_a_tiny_model_fits_everywhere() -> None:
    verdict = fit(foretold.components(), NANO, Component.UNET, 64, 64)
    assert (verdict.fits, verdict.advice) == (True, "")


def test_another_board_is_named_when_no_change_helps() -> None:
    verdict = judged(2**28)
    assert (verdict.fits, verdict.advice) == (False, "--target jetson-orin-nano-4gb")


def test_nothing_is_promised_where_nothing_helps() -> None:
    assert judged(2**26, target_named("ort-mobile")).advice == ""


def test_fewer_bits_for_an_encoder_are_offered() -> None:
    big = []
    for one in foretold.components():
        if one.component is Component.TEXT_ENCODER:
            weights = {name: (64 * shape[0], *shape[1:]) for name, shape in one.trace.weights.items()}
            from latentc.compiler.forecast.weightless_graph import weightless_graph

            graph = weightless_graph(replace(one.trace, weights=weights), "text_encoder")
            big.append(replace(one, plain=graph, built=graph))
        else:
            big.append(one)
    needed = device_memory(big, target_named("onnx")).needed
    target = replace(target_named("onnx"), memory_mib=int(0.97 * needed) // 2**20)
    verdict = fit(big, target, Component.UNET, 64, 64)
    assert not verdict.fits
    assert verdict.advice == "--set 'passes.text_encoder=[canonicalize,quantize-int4]'"
