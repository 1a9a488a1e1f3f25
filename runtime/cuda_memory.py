"""CUDA memory and streams through libcudart: the only file that knows it.

ctypes on the library that every JetPack and every CUDA installation already has, instead of a Python
package, since a board installs nothing beyond latentc's base dependencies.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from latentc.errors import ResourceError, TargetError, ToolMissing

_SONAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")
_FOLDERS = ("/usr/local/cuda/lib64", "/usr/local/cuda/targets/aarch64-linux/lib")

_TO_DEVICE = 1
_TO_HOST = 2
_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation

# cudaDeviceAttr of the driver's API: major and minor of the compute capability.
_CAPABILITY_ATTRIBUTES = (75, 76)


class CudaDevice:
    """The first CUDA device: its compute capability, a stream, and buffers that belong to that stream.

    Raises:
        ToolMissing: there is no libcudart.
        TargetError: there is no CUDA device, or its driver is too old.
    """

    def __init__(self) -> None:
        self._library = _load()
        count = ctypes.c_int(0)
        code = self._library.cudaGetDeviceCount(ctypes.byref(count))
        if code != 0 or count.value == 0:
            seen = self._words(code) if code else "no CUDA-capable device is detected"
            raise TargetError(
                "device", f"there is no GPU that CUDA can use ({seen})", "run this on the target's board"
            )
        stream = ctypes.c_void_p()
        self._check("cudaStreamCreate", self._library.cudaStreamCreate(ctypes.byref(stream)))
        self._stream = stream
        self._buffers: dict[int, int] = {}

    @property
    def stream(self) -> int:
        """The handle of the stream that copies and runs are queued on."""
        return self._stream.value or 0

    @property
    def compute_capability(self) -> str:
        """Such as ``8.7``."""
        parts = []
        for attribute in _CAPABILITY_ATTRIBUTES:
            value = ctypes.c_int(0)
            code = self._library.cudaDeviceGetAttribute(ctypes.byref(value), attribute, 0)
            self._check("cudaDeviceGetAttribute", code)
            parts.append(str(value.value))
        return ".".join(parts)

    def used_memory_mib(self) -> float:
        """Memory in use on the device by all processes, in MiB; on a Jetson the CPU's is the same memory."""
        free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
        self._check("cudaMemGetInfo", self._library.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)))
        return (total.value - free.value) / 2**20

    def allocate(self, size_bytes: int) -> int:
        """The address of ``size_bytes`` of device memory; raises ResourceError when there are not as many."""
        pointer = ctypes.c_void_p()
        code = self._library.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(max(size_bytes, 1)))
        if code == _OUT_OF_MEMORY:
            raise ResourceError(
                "device memory",
                f"no room for another {size_bytes / 2**20:.1f} MiB",
                "use --low-memory, a smaller picture, or close other programs",
            )
        self._check("cudaMalloc", code)
        address = pointer.value or 0
        self._buffers[address] = size_bytes
        return address

    def free(self, address: int) -> None:
        """Give back what ``allocate`` returned."""
        self._buffers.pop(address)
        self._check("cudaFree", self._library.cudaFree(ctypes.c_void_p(address)))

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copy the contiguous ``array`` to ``address``; queued, so keep it alive until ``wait``."""
        self._copy(address, array.ctypes.data, array.nbytes, _TO_DEVICE)

    def download(self, array: NDArray[Any], address: int) -> None:
        """Copy from ``address`` into the contiguous ``array``, whose contents count after ``wait``."""
        self._copy(array.ctypes.data, address, array.nbytes, _TO_HOST)

    def wait(self) -> None:
        """Wait until everything queued is done."""
        self._check("cudaStreamSynchronize", self._library.cudaStreamSynchronize(self._stream))

    def close(self) -> None:
        """Give back all buffers and the stream."""
        for address in list(self._buffers):
            self.free(address)
        if self._stream.value:
            self._check("cudaStreamDestroy", self._library.cudaStreamDestroy(self._stream))
            self._stream = ctypes.c_void_p()

    def _copy(self, to: int, source: int, size_bytes: int, direction: int) -> None:
        code = self._library.cudaMemcpyAsync(
            ctypes.c_void_p(to),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size_bytes),
            ctypes.c_int(direction),
            self._stream,
        )
        self._check("cudaMemcpyAsync", code)

    def _check(self, call: str, code: int) -> None:
        if code != 0:
            raise TargetError(
                "device", f"{call} fails: {self._words(code)}", "see dmesg for the driver's reason"
            )

    def _words(self, code: int) -> str:
        self._library.cudaGetErrorString.restype = ctypes.c_char_p
        words = self._library.cudaGetErrorString(ctypes.c_int(code))
        return words.decode() if isinstance(words, bytes) else f"error {code}"


def _load() -> ctypes.CDLL:
    tried = []
    for name in _candidates():
        try:
            return ctypes.CDLL(name)
        except OSError:
            tried.append(name)
    raise ToolMissing(
        "libcudart",
        f"the CUDA runtime library is not found (tried {', '.join(tried)})",
        "install CUDA (JetPack brings it), or add its folder to LD_LIBRARY_PATH",
    )


def _candidates() -> Iterator[str]:
    """Names to try: the loader's own search path first, then where JetPack puts it."""
    found = ctypes.util.find_library("cudart")
    if found:
        yield found
    yield from _SONAMES
    for folder in _FOLDERS:
        for path in sorted(Path(folder).glob("libcudart.so*"), reverse=True):
            yield str(path)
