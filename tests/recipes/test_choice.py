from latentc.recipes.choice import Choice


class Colour(Choice):
    RED = "red"


def test_prints_and_reads_as_its_value() -> None:
    assert (str(Colour.RED), f"{Colour.RED}", Colour("red")) == ("red", "red", Colour.RED)
    assert {"red": 1}[Colour.RED] == 1
