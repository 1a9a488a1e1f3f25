"""Explain: why a step is made again, in words, from its key now and its key in the last plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from latentc.runtime.manifest import Json


def reason_stale(now: Mapping[str, Json], before: Mapping[str, Json] | None) -> str:
    """One line that says what differs between two keys of a step.

    Args:
        now: the key of the step as planned.
        before: its key in the last plan of the same name; None when there was none.
    """
    if before is None:
        return "not built yet"
    if now == before:
        return "its artifact is no longer in the store"
    if now.get("version") != before.get("version"):
        return f"the stage changed: version {before.get('version')} → {now.get('version')}"
    differences = list(_differences(now.get("options"), before.get("options"), ""))
    if differences:
        shown = "; ".join(differences[:2])
        return shown if len(differences) <= 2 else f"{shown}; and {len(differences) - 2} more"
    inputs_now, inputs_before = _mapping(now.get("inputs")), _mapping(before.get("inputs"))
    changed = sorted(
        name
        for name in inputs_now.keys() | inputs_before.keys()
        if inputs_now.get(name) != inputs_before.get(name)
    )
    return f"its input changed: {', '.join(changed)}"


def _differences(now: Json, before: Json, path: str) -> Iterator[str]:
    if now == before:
        return
    if isinstance(now, dict) and isinstance(before, dict):
        for key in sorted(now.keys() | before.keys()):
            yield from _differences(now.get(key), before.get(key), f"{path}.{key}" if path else key)
    elif isinstance(now, list) and isinstance(before, list) and len(now) == len(before):
        for index, (one, other) in enumerate(zip(now, before, strict=True)):
            yield from _differences(one, other, f"{path}.{index}")
    else:
        yield f"{path}: {_shown(before)} → {_shown(now)}"


def _shown(value: Json) -> str:
    if isinstance(value, str) and len(value) == 64:
        return value[:8]  # a digest: eight characters tell two apart
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _mapping(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}
