import os
import subprocess
import sys

import numpy as np
import pytest

from latentc.passes.nncf_bridge import int4_codes, int4_steps


def test_steps_are_signed_eighths_of_the_largest() -> None:
    weight = np.array([[1.0], [-4.0], [2.0], [3.0]] * 4, np.float32)
    np.testing.assert_array_equal(int4_steps(weight, 16), [[0.5]])
    np.testing.assert_array_equal(int4_steps(-weight, 16), [[-0.5]])


def test_codes_are_the_nearest() -> None:
    weight = np.linspace(-4, 3.5, 16, dtype=np.float32).reshape(16, 1)
    codes = int4_codes(weight, np.array([[0.5]], np.float32), 16)
    np.testing.assert_array_equal(codes[:, 0], np.arange(-8, 8))
    assert codes.dtype == np.int8


@pytest.mark.parametrize("given", [None, "set by the user"])
def test_nncf_is_silent_and_the_environment_stays(given: str | None) -> None:
    code = (
        "import os, numpy as np\n"
        "from latentc.passes.nncf_bridge import int4_steps\n"
        "int4_steps(np.ones((4096, 256), np.float32), 64)\n"
        "from nncf.telemetry.wrapper import telemetry, NNCFTelemetryStub\n"
        "print(os.environ.get('NNCF_CI'), isinstance(telemetry, NNCFTelemetryStub))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NNCF_CI"}
    if given is not None:
        environment["NNCF_CI"] = given
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert (result.stdout, result.stderr) == (f"{given} True\n", "")
