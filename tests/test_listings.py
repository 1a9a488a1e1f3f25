"""The listings name everything there is, for people and for scripts."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from latentc.cli import app
from latentc.passes.catalogue import PASSES
from latentc.recipes.load import SHIPPED
from latentc.recipes.target import TARGETS

NAMES = {
    "recipes": ("recipe", sorted(file.stem for file in SHIPPED.glob("*.yaml"))),
    "targets": ("name", [target.name for target in TARGETS]),
    "passes": ("pass", [entry.name for entry in PASSES]),
}


@pytest.mark.parametrize("command", NAMES)
def test_everything_is_listed(command: str) -> None:
    key, names = NAMES[command]
    shown = CliRunner().invoke(app, [command], env={"COLUMNS": "400"})
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in names)
    machine = CliRunner().invoke(app, [command, "--json"])
    assert sorted(row[key] for row in json.loads(machine.stdout)) == sorted(names)
