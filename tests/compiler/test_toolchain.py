import re

import onnx
import pytest

from latentc.compiler.toolchain import versions
from latentc.errors import ToolMissing


def test_versions() -> None:
    assert versions("onnx") == {"onnx": onnx.__version__}


@pytest.mark.parametrize(("package", "extra"), [("tensorrt", "tensorrt"), ("no-such-package", "compile")])
def test_missing_package_names_its_extra(package: str, extra: str) -> None:
    with pytest.raises(ToolMissing, match=re.escape(f"pip install 'latentc[{extra}]'")):
        versions("onnx", package)
