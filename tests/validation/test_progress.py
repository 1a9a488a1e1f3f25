from latentc.validation.progress import part_of


def test_part_of() -> None:
    told: list[tuple[float, str]] = []
    part = part_of(lambda fraction, what: told.append((fraction, what)), 0.5, 0.75)
    part(0, "a")
    part(1, "b")
    assert told == [(0.5, "a"), (0.75, "b")]
