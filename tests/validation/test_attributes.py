from pathlib import Path

from latentc.recipes.shapes.caption import scene_from_caption
from latentc.recipes.shapes.render import render
from latentc.validation.attributes import scenes_of_prompts, wrong_attributes
from latentc.validation.prompts import read_prompts


def test_rendered_scenes_show_what_they_say(tmp_path: Path) -> None:
    prompts = read_prompts("demo:shapes", 16, tmp_path)
    scenes = scenes_of_prompts(prompts)
    assert scenes is not None
    assert [wrong_attributes(render(scene), scene) for scene in scenes] == [()] * 16


def test_what_is_wrong_has_a_name() -> None:
    asked = scene_from_caption("a large red circle at the top on a white background")
    shown = scene_from_caption("a large blue star at the top on a white background")
    assert wrong_attributes(render(shown), asked) == ("colour", "shape")


def test_one_other_prompt_makes_the_metric_not_applicable() -> None:
    grammar = "a large red circle at the top on a white background"
    assert scenes_of_prompts([grammar]) is not None
    assert scenes_of_prompts([grammar, "a photo of a cat"]) is None
