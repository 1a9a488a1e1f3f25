import signal
import subprocess
import sys

import pytest
import typer

from latentc.border import INTERRUPTED, guarded
from latentc.errors import ModelError


def exit_code_of(error: BaseException) -> int:
    @guarded
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        command()
    return caught.value.exit_code


def test_every_branch_has_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(ModelError("unet/x.safetensors", "is truncated", "copy it again")) == 3
    assert capsys.readouterr().err == "error: unet/x.safetensors: is truncated\nfix: copy it again\n"
    assert exit_code_of(MemoryError()) == 6
    assert exit_code_of(KeyboardInterrupt()) == INTERRUPTED


def test_a_missing_package_names_its_extra(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(ModuleNotFoundError("No module named 'onnx_ir'", name="onnx_ir")) == 5
    assert capsys.readouterr().err.endswith("fix: pip install 'latentc[compile]'\n")
    assert exit_code_of(ModuleNotFoundError("No module named 'latentc.x'", name="latentc.x")) == 70


def test_a_defect_is_one_line_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(ZeroDivisionError("oops")) == 70
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: test_border.py:")
    assert first.endswith("ZeroDivisionError: oops")
    assert "report it" in second


def test_a_terminate_signal_ends_like_ctrl_c() -> None:
    code = (
        "import time\nfrom latentc.border import guarded\nimport typer\napp = typer.Typer()\n"
        "@app.command()\n@guarded\ndef wait() -> None:\n"
        "    print('ready', flush=True)\n    time.sleep(60)\napp()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=20) == INTERRUPTED
        assert b"the same command goes on from there" in child.stderr.read()
