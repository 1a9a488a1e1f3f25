from pathlib import Path

import pytest

from latentc.errors import RecipeError
from latentc.recipes.shapes.caption import scene_from_caption
from latentc.recipes.shapes.scene import is_held_out
from latentc.validation.prompts import read_prompts


def test_the_demo_s_prompts_are_held_out_captions_and_always_the_same(tmp_path: Path) -> None:
    prompts = read_prompts("demo:shapes", 64, tmp_path)
    assert len(set(prompts)) == 64
    assert all(is_held_out(scene_from_caption(prompt)) for prompt in prompts)
    assert read_prompts("demo:shapes", 8, tmp_path) == prompts[:8]


def test_a_file_s_lines_without_comments(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("# ours\na cat\n\n  ein Bär \na dog\n", encoding="utf-8")
    assert read_prompts("prompts.txt", 2, tmp_path) == ("a cat", "ein Bär")


@pytest.mark.parametrize(
    ("content", "count", "message"),
    [
        (None, 1, "{path}: there is no such prompt file\nfix: or write 'demo:shapes'"),
        (b"", 1, "{path}: holds no prompts\nfix: one prompt a line"),
        (b"# only\n\n", 1, "{path}: holds no prompts\nfix: one prompt a line"),
        (b"a cat\na dog\na cat\n", 1, "{path}:3: 'a cat' is there already in line 1\n"
         "fix: remove one of them: a prompt that counts twice hides the others"),
        (b"a cat\n", 2, "prompts.txt: has 1 prompts, count asks for 2\nfix: set count to 1"),
        (b"\xff\xfea", 1, "{path}: cannot be read as UTF-8 text: 'utf-8' codec can't decode byte 0xff in "
         "position 0: invalid start byte\nfix: one prompt a line, saved as UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_prompt_set(tmp_path: Path, content: bytes | None, count: int, message: str) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read_prompts("prompts.txt", count, tmp_path)
    assert str(caught.value) == message.format(path=path)


def test_an_unknown_demo_set(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read_prompts("demo:shape", 1, tmp_path)
    assert (
        str(caught.value) == "demo:shape: there is no such demo prompt set\nfix: did you mean 'demo:shapes'?"
    )
