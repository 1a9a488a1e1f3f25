"""The house itself: links, mirrors, file sizes, light imports."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("compiler", "passes", "recipes", "runtime", "validation")
MAX_LINES = 400
HEAVY = (
    "torch",
    "diffusers",
    "transformers",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "nncf",
    "pydantic",
    "yaml",
    "numpy",
)


def sources() -> list[Path]:
    return sorted(
        path
        for room in (*ROOMS, "src/latentc")
        for path in (ROOT / room).rglob("*.py")
        if not path.is_symlink()
    )


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_one_namespace(room: str) -> None:
    link = ROOT / "src" / "latentc" / room
    assert (link.is_symlink(), link.resolve()) == (True, ROOT / room), (
        f"{link} is not a link to {room}/: was this checked out with core.symlinks=false?"
    )


def test_no_file_outgrows_a_head() -> None:
    sizes = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in sources()}
    assert {name: lines for name, lines in sizes.items() if lines > MAX_LINES} == {}


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc"])
def test_no_file_is_named_for_nothing(name: str) -> None:
    assert [path for path in sources() if path.stem == name] == []


def test_every_module_has_its_mirror() -> None:
    mirrors = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    missing = [
        path.relative_to(ROOT).as_posix()
        for path in sources()
        # families are data, and tests/recipes/families/ goes through all of them alike
        if not path.stem.startswith("__") and not {"train", "families"} & set(path.parts)
        if f"test_{path.stem}" not in mirrors
    ]
    assert missing == []


def imported_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.split()
    )


def test_the_command_line_starts_without_heavy_imports() -> None:
    assert imported_by("latentc.cli") & set(HEAVY) == set()


@pytest.mark.parametrize("path", sorted((ROOT / "runtime").glob("*.py")), ids=lambda path: path.stem)
def test_the_runtime_never_imports_the_compiler_or_torch(path: Path) -> None:
    module = f"latentc.runtime.{path.stem}" if path.stem != "__init__" else "latentc.runtime"
    loaded = imported_by(module)
    assert (
        loaded
        & {"torch", "diffusers", "transformers", "onnx", "onnx_ir", "pydantic", "yaml", "latentc.compiler"}
        == set()
    )
