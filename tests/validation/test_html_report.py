import builtins
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.validation.made_report import made_report

from latentc.errors import ToolMissing
from latentc.recipes.families.flux import FLUX
from latentc.validation.finding import Finding
from latentc.validation.html_report import report_to_html
from latentc.validation.metric import Direction
from latentc.validation.report import BuildFacts, Execution, Report

VOID = {"meta", "link", "img", "br", "hr", "circle", "path", "input"}


class Page(HTMLParser):
    """Checks nesting while it reads, and keeps what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("report")
    return Page(report_to_html(made_report(folder, 12, noise_levels=24), folder))


def test_nothing_is_fetched(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)


def test_style_sheets_fetch_nothing(tmp_path: Path) -> None:
    text = report_to_html(made_report(tmp_path, 1), tmp_path)
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in text


def test_every_picture_is_inside_and_has_words(page: Page) -> None:
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 12 * 3 + 6 * 2  # all pairs, and the head's six
    for attributes in pictures:
        assert str(attributes["src"]).startswith("data:image/png;base64,")
        assert len(str(attributes["alt"])) > 10


def test_links_lead_to_something(page: Page) -> None:
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    targets = {str(attributes["href"])[1:] for tag, attributes in page.tags if tag == "a"}
    assert targets <= ids


def test_headings_are_in_order_and_cells_have_headers(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")


def test_the_verdict_and_every_broken_limit_in_words(page: Page, tmp_path: Path) -> None:
    report = made_report(tmp_path, 12, noise_levels=24)
    assert f"Failed: {report.verdict().removeprefix('failed: ')}" in page.text
    for finding in report.failures[:6]:
        assert finding.sentence() in page.text
    for row in report.pictures:
        assert row.prompt in page.text
    assert "INT4 weights × dynamic INT8 (linears)" in page.text


def test_what_users_wrote_is_text(tmp_path: Path) -> None:
    report = Report(
        "<script>alert(1)</script>",
        "onnx",
        FLUX.name,
        Execution(("a & b",), ("INT4 <activations>",), "a stand-in"),
        (Finding("unet", "sqnr_db", None, 18.0, "dB", Direction.AT_LEAST, "<b>note</b>"),),
        notes=('<img src="x">',),
    )
    page = Page(report_to_html(report, tmp_path))
    assert "<script>alert(1)</script>" in page.text
    assert not any(tag in ("script", "b", "img") for tag, _ in page.tags)
    assert "Simulated only" in page.text
    assert "Ran here instead" in page.text


def test_where_the_bytes_went(page: Page) -> None:
    assert "Taken, of 60 linears: 46 in INT4 and 14 in INT8; 0.315 of their bytes in fp16." in page.text
    (label,) = (
        str(attributes["aria-label"])
        for tag, attributes in page.tags
        if tag == "div" and str(attributes.get("aria-label")).startswith("Foretold signal to noise")
    )
    foretold, measured = re.findall(r"([0-9.]+) dB (?:foretold|measured)\.", label)
    assert page.text.count(f"{foretold} dB foretold") == 1  # in the plot; the label is no text of the page
    assert f"{measured} dB measured" in page.text
    assert "INT4 + rank 8" in page.text


def test_a_given_plan_has_a_table_and_no_front(tmp_path: Path) -> None:
    report = made_report(tmp_path, 1)
    text = report_to_html(replace(report, build=replace(report.build, front=())), tmp_path)
    assert "What each linear got, as the recipe gave it." in Page(text).text
    assert "dB foretold" not in text
    without = report_to_html(replace(report, build=BuildFacts()), tmp_path)
    assert "Where the bytes went" not in Page(without).text


def test_a_budget_of_time_is_called_so(tmp_path: Path) -> None:
    report = made_report(tmp_path, 1)
    timed = tuple(replace(row, device="ort-mobile") for row in report.build.front)
    text = Page(report_to_html(replace(report, build=replace(report.build, front=timed)), tmp_path)).text
    assert "Where the time went" in text
    assert "modelled time of the linears on ort-mobile, floats = 1" in text
    assert "bytes of the linears" not in text


def test_an_empty_report_is_a_page_that_failed(tmp_path: Path) -> None:
    page = Page(report_to_html(Report("r", "onnx", FLUX.name, Execution(()), ()), tmp_path))
    assert "Failed: nothing was measured" in page.text


def test_without_jinja2_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> object:
        if name == "jinja2":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ToolMissing) as caught:
        report_to_html(Report("r", "onnx", FLUX.name, Execution(()), ()), tmp_path)
    assert str(caught.value) == ("the package 'jinja2' is not installed\nfix: pip install 'latentc[eval]'")
