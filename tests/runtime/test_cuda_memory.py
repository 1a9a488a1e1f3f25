"""CUDA memory: clear words where there is no GPU; with one (marker gpu), bytes come back as they went."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latentc.errors import ResourceError, TargetError, ToolMissing
from latentc.runtime import cuda_memory
from latentc.runtime.cuda_memory import CudaDevice

# The driver's control file on a desktop, and a Jetson's own.
GPU_FILES = ("/dev/nvidiactl", "/dev/nvhost-ctrl-gpu", "/dev/nvmap")


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_memory, "_candidates", lambda: iter(["libcudart-of-nobody.so"]))
    with pytest.raises(ToolMissing) as caught:
        CudaDevice()
    assert str(caught.value) == (
        "libcudart: the CUDA runtime library is not found (tried libcudart-of-nobody.so)\n"
        "fix: install CUDA (JetPack brings it), or add its folder to LD_LIBRARY_PATH"
    )


@pytest.mark.skipif(any(Path(name).exists() for name in GPU_FILES), reason="there is a GPU here")
def test_no_gpu() -> None:
    with pytest.raises((TargetError, ToolMissing), match=r"there is no GPU that CUDA can use|libcudart"):
        CudaDevice()


@pytest.mark.gpu
def test_bytes_come_back() -> None:
    device = CudaDevice()
    array = np.arange(1000, dtype=np.float32)
    address = device.allocate(array.nbytes)
    device.upload(address, array)
    back = np.empty_like(array)
    device.download(back, address)
    device.wait()
    np.testing.assert_array_equal(back, array)
    assert device.used_memory_mib() > 0
    with pytest.raises(ResourceError, match="no room for another"):
        device.allocate(2**50)
    device.close()
    device.close()
