import pytest

from latentc.errors import PassError
from latentc.passes.catalogue import PASSES, pass_named


def test_names_are_unique_and_found() -> None:
    assert [pass_named(entry.name) for entry in PASSES] == list(PASSES)
    assert len({entry.name for entry in PASSES}) == len(PASSES)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(PassError) as caught:
        pass_named("canonicalise")
    assert str(caught.value) == "passes: unknown pass 'canonicalise'\nfix: did you mean 'canonicalize'?"
