"""Prediction: bundles, devices and speeds of a recipe, from its configs."""

import json

from tests.compiler import foretold

from latentc.compiler.forecast.prediction import predict


def test_all_that_is_foretold() -> None:
    found = predict(
        foretold.recipe(),
        foretold.model(),
        ("ort-mobile", "jetson-orin-nano-8gb"),
        ("reference",),
        foretold.store(),
        measured=False,
    )
    assert [one.label for one in found.stages] == ["reference"]
    assert [one.target for one in found.bundles] == ["ort-mobile", "jetson-orin-nano-8gb"]
    mobile, jetson = found.bundles
    assert mobile.total == mobile.reference + sum(one.total for one in mobile.components.values())
    assert mobile.total > jetson.total, "float32 against float16"
    orins = [one.target for one in found.fits if one.target.startswith("jetson")]
    assert len(orins) == 6
    assert orins[0] == "jetson-orin-nano-8gb", "the recipe's own come first"
    speeds = {one.device: one for one in found.speeds}
    assert set(speeds) == {"this CPU, ort-mobile", "ort-mobile", *orins}
    assert all(one.picture_s > 4 * one.step_s > 0 for one in speeds.values())
    again = json.loads(json.dumps(found.to_json()))
    assert again["bundles"][0]["components"]["unet"]["weights"] == mobile.components["unet"].weights
    assert {one["target"] for one in again["devices"]} == {one.target for one in found.fits}
