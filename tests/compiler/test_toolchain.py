import os
import re

import onnx
import pytest

from latentc.compiler.toolchain import threads, versions
from latentc.errors import ToolMissing


def test_versions() -> None:
    assert versions("onnx") == {"onnx": onnx.__version__}


def test_threads_are_the_cores_that_this_process_may_use() -> None:
    cores = os.sched_getaffinity(0)
    assert threads() == len(cores)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert threads() == 1
    finally:
        os.sched_setaffinity(0, cores)


@pytest.mark.parametrize(("package", "extra"), [("tensorrt", "tensorrt"), ("no-such-package", "compile")])
def test_missing_package_names_its_extra(package: str, extra: str) -> None:
    with pytest.raises(ToolMissing, match=re.escape(f"pip install 'latentc[{extra}]'")):
        versions("onnx", package)
