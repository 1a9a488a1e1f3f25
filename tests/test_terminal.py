import io

import pytest

from latentc.errors import LatentcError
from latentc.terminal import ProgressLines, duration_text, say_error, say_table, size_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0.4 s"), (12, "12 s"), (59.9, "60 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(812, "812 B"), (4300, "4.2 KiB"), (5 * 2**20, "5.0 MiB"), (2**41, "2048.0 GiB")]
)
def test_sizes(size_bytes: float, text: str) -> None:
    assert size_text(size_bytes) == text


def test_an_error_is_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    say_error(LatentcError("a.yaml: key", "is 1\nwanted 2", "write 2"))
    assert capsys.readouterr().err == "error: a.yaml: key: is 1\n       wanted 2\nfix: write 2\n"


def test_a_table_lines_up(capsys: pytest.CaptureFixture[str]) -> None:
    say_table(["a", "long"], [["wide cell", "x"], ["y", "z"]])
    assert capsys.readouterr().out == "a          long\nwide cell  x\ny          z\n"


def test_plain_lines_off_a_terminal() -> None:
    stream = io.StringIO()
    lines = ProgressLines(stream)
    lines.started("export/unet", 1, 2, "not built yet", None)
    lines.progressed(0.5, "half")
    lines.finished("export/unet", 1.25, cached=False)
    lines.finished("pack", 0.0, cached=True)
    assert stream.getvalue() == "[1/2] export/unet: not built yet\n[1/2] export/unet: done in 1.2 s\n"
    assert lines.cached == 1


def test_one_redrawn_line_on_a_terminal_fits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    lines = ProgressLines(stream)
    lines.started("transform/unet", 3, 9, "passes.1.rank: 32 → 16 and a very long reason indeed", 12.0)
    lines.finished("transform/unet", 2.0, cached=False)
    drawn, done = stream.getvalue().split("\r\x1b[K")[1:]
    assert len(drawn) == 39
    assert done == "[3/9] transform/unet: done in 2.0 s\n"


def test_a_step_slower_than_the_last_run_is_estimated_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    stream = Terminal()
    lines = ProgressLines(stream)
    lines.started("transform/unet", 1, 2, "not built yet", 10.0)
    lines.progressed(0.0, "binding")
    now_s = 108.0
    lines.progressed(0.02, "begun")
    assert stream.getvalue().endswith("   2% begun, about 2.0 s left")
    now_s = 110.0
    lines.progressed(0.02, "begun")
    assert stream.getvalue().endswith("   2% begun")
    now_s = 140.0
    lines.progressed(0.25, "a quarter")
    assert stream.getvalue().endswith("  25% a quarter, about 2 min 00 s left in this step")


def test_time_left_in_a_step_until_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    stream = Terminal()
    lines = ProgressLines(stream)
    lines.started("export/unet", 1, 2, "not built yet", None)
    lines.progressed(0.0, "begun")
    now_s = 104.0
    lines.progressed(0.5, "half")
    assert stream.getvalue().endswith("[1/2] export/unet  50% half, about 4.0 s left in this step")
    now_s = 108.0
    lines.progressed(1.0, "all")
    assert stream.getvalue().endswith("[1/2] export/unet 100% all")


def test_time_left_counts_nothing_that_was_found_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    stream = Terminal()
    lines = ProgressLines(stream)
    lines.started("calibrate", 1, 2, "not built yet; 60% of it is done", None)
    lines.progressed(0.6, "loading")
    now_s = 120.0
    lines.progressed(0.8, "drawing")
    assert stream.getvalue().endswith(" 80% drawing, about 20 s left in this step")
