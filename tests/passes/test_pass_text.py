import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentc.errors import PassError
from latentc.passes.canonicalize import Canonicalize
from latentc.passes.cast import Cast
from latentc.passes.fuse_lora import FuseLora
from latentc.passes.low_rank import BranchType
from latentc.passes.options import Json
from latentc.passes.pass_text import pass_from_options, pass_from_text
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.split_low_rank import SplitLowRank

NAMES = st.lists(st.text(min_size=1, max_size=12), max_size=3).map(tuple)


@given(
    st.integers(1, 4096),
    st.floats(0.25, 2.0),
    st.sampled_from(list(BranchType)),
    st.sampled_from([16, 32, 64, 128, 256]),
    NAMES,
    st.booleans(),
)
def test_text_of_a_split_reads_back(
    rank: int, ratio: float, branch: BranchType, group: int, skip: tuple[str, ...], optional: bool
) -> None:
    step = SplitLowRank(
        rank=rank, max_ratio=ratio, branch=branch, group=group, skip=skip, calibrated=False, optional=optional
    )
    assert pass_from_text(str(step)) == step


@given(st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text), st.floats(-100, 100))
def test_text_of_a_lora_reads_back(path: str, scale: float) -> None:
    step = pass_from_options("fuse-lora", {"path": path, "scale": scale})
    assert pass_from_text(str(step)) == step


@given(NAMES)
def test_text_of_a_cast_reads_back(keep: tuple[str, ...]) -> None:
    assert pass_from_text(str(Cast(keep=keep))) == Cast(keep=keep)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("canonicalize", Canonicalize()),
        ("split-low-rank", SplitLowRank(rank=32)),
        ("split-low-rank{rank=16}", SplitLowRank(rank=16)),
        (" quantize-int4 { group = 128 , skip = [ a.*, b ] } ", QuantizeInt4(group=128, skip=("a.*", "b"))),
        (
            'quantize-int4{skip=["a b", "true"], optional=true}',
            QuantizeInt4(skip=("a b", "true"), optional=True),
        ),
    ],
)
def test_text_to_pass(text: str, step: object) -> None:
    assert pass_from_text(text) == step


def test_defaults_are_left_out_of_the_text() -> None:
    assert str(SplitLowRank(rank=16, group=64)) == "split-low-rank{rank=16}"
    assert str(QuantizeInt4()) == "quantize-int4"


FORM = "fix: write it like split-low-rank{rank=32}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"pass text '': at character 1: seen the end, wanted the name of a pass\n{FORM}"),
        ("cast}", f"pass text 'cast}}': at character 5: seen '}}', wanted nothing more\n{FORM}"),
        ("cast{keep}", f"pass text 'cast{{keep}}': at character 10: seen '}}', wanted '='\n{FORM}"),
        (
            "split-low-rank{rank=1, rank=2}",
            "pass text 'split-low-rank{rank=1, rank=2}': at character 28: seen '=2}', "
            f"wanted a second value for 'rank'\n{FORM}",
        ),
        ("split-low-rnk", "passes: unknown pass 'split-low-rnk'\nfix: did you mean 'split-low-rank'?"),
    ],
)
def test_refused_texts(text: str, message: str) -> None:
    with pytest.raises(PassError) as caught:
        pass_from_text(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "split-low-rank",
            {"rnk": 32},
            "split-low-rank: has no option 'rnk'\nfix: did you mean 'rank'?",
        ),
        (
            "split-low-rank",
            {"rank": "many"},
            "split-low-rank.rank: is many, wanted a whole number from 1 to 4096\n"
            "fix: leave it out for the default, rank=32",
        ),
        (
            "split-low-rank",
            {"rank": True},
            "split-low-rank.rank: is true, wanted a whole number from 1 to 4096\n"
            "fix: leave it out for the default, rank=32",
        ),
        (
            "split-low-rank",
            {"rank": 0},
            "split-low-rank.rank: is 0, wanted a whole number from 1 to 4096\n"
            "fix: leave it out for the default, rank=32",
        ),
        (
            "split-low-rank",
            {"max_ratio": float("nan")},
            "split-low-rank.max_ratio: is nan, wanted a number from 0.25 to 2.0\n"
            "fix: leave it out for the default, max_ratio=0.3",
        ),
        (
            "split-low-rank",
            {"branch": "int9"},
            "split-low-rank.branch: is int9, wanted one of float16, int8\nfix: did you mean 'int8'?",
        ),
        (
            "split-low-rank",
            {"skip": "a"},
            "split-low-rank.skip: is a, wanted a list of texts\nfix: leave it out for the default, skip=[]",
        ),
        (
            "quantize-int4",
            {"group": 48},
            "quantize-int4.group: is 48, wanted a power of two\nfix: write group=64",
        ),
        ("fuse-lora", {}, "fuse-lora: lacks the option 'path'\nfix: give path a path"),
        (
            "fuse-lora",
            {"path": 3},
            "fuse-lora.path: is 3, wanted a path\nfix: give path a path",
        ),
    ],
)
def test_refused_options(name: str, options: dict[str, Json], message: str) -> None:
    with pytest.raises(PassError) as caught:
        pass_from_options(name, options)
    assert str(caught.value) == message


def test_a_whole_number_serves_as_a_number() -> None:
    step = pass_from_options("fuse-lora", {"path": "a.safetensors", "scale": 1})
    assert isinstance(step, FuseLora)
    assert (step.scale, type(step.scale)) == (1.0, float)
