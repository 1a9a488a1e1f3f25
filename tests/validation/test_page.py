from pathlib import Path

import pytest

from latentc.validation import page
from latentc.validation.page import render_page


def test_texts_are_escaped_and_nothing_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jinja2 import UndefinedError

    (tmp_path / "a.html").write_text("<p>{{ text }} {{ 2e6 | megabytes }} {{ 0.5 | duration }}</p>")
    monkeypatch.setattr(page, "__file__", str(tmp_path / "page.py"))
    assert render_page("a.html", text="<b> & co") == "<p>&lt;b&gt; &amp; co 2 MB 0.5 s</p>"
    with pytest.raises(UndefinedError, match="'text' is undefined"):
        render_page("a.html")
