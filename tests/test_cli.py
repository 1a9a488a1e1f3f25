import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from latentc.cli import app
from latentc.listings import listings

COMMANDS = (
    "build",
    "plan",
    "validate",
    "run",
    "engine build",
    "bench",
    "inspect",
    "verify",
    "doctor",
    "recipes",
)


def said(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "latentc", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("command", [*COMMANDS, "targets", "passes", ""])
def test_help_ends_with_a_command_that_can_be_pasted(command: str) -> None:
    text = said(*command.split(), "--help")
    last = text.strip().splitlines()[-1]
    assert last.strip().startswith(("Try: latentc", "red.png", '"')) or "Try: latentc" in text
    assert text.splitlines()[0].startswith("Usage: ")


def test_every_command_of_the_contract_is_there() -> None:
    commands = [*app.registered_commands, *listings.registered_commands]
    names = {command.name or command.callback.__name__ for command in commands if command.callback}
    wanted = {
        "build",
        "freeze",
        "plan",
        "validate",
        "run",
        "bench",
        "inspect",
        "verify",
        "doctor",
        "recipes",
        "targets",
        "passes",
    }
    assert names == wanted
    groups = [group for group in app.registered_groups if group.typer_instance is not listings]
    assert [group.name for group in groups] == ["engine"]


def test_freezing_into_a_folder_that_is_not_there() -> None:
    result = CliRunner().invoke(app, ["freeze", "shapes-flux", "--out", "nowhere/frozen.yaml"])
    assert result.exit_code == 2
    assert result.stderr == (
        "error: --out nowhere/frozen.yaml: there is no folder 'nowhere'\nfix: make it first\n"
    )


def test_lists_speak_json_too() -> None:
    for command in ("recipes", "targets", "passes", "doctor"):
        assert said(command, "--json").startswith("[")


def test_the_version_is_the_package_s() -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    match = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
    assert match is not None
    assert said("--version") == f"latentc {match[1]}\n"
