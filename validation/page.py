"""Page: a template and what it shows, as self-contained HTML. Only this file knows jinja2."""

from __future__ import annotations

from pathlib import Path

from latentc.errors import ToolMissing
from latentc.validation.table_view import duration, megabytes


def render_page(template: str, **values: object) -> str:
    """The HTML of ``template``, a file beside this one, with ``values``; all texts are escaped.

    Raises:
        ToolMissing: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ToolMissing.package("jinja2", "eval") from error
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["megabytes"] = megabytes
    environment.filters["duration"] = duration
    text = Path(__file__).with_name(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(**values)
