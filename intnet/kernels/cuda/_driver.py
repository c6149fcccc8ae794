"""The one place that owns ``numba.cuda``: is there a device, its memory, what crosses to it and back, and how kernels start.

Importing this needs no device and no driver; :func:`require` tells what is missing. Every kernel strides over its work by the
size of the grid, so that its results are the same for any number of blocks and threads.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import config, cuda
from numpy.typing import DTypeLike, NDArray

from intnet.errors import DeviceError

__all__ = [
    "KERNELS",
    "SIMULATED",
    "Kernel",
    "Transfers",
    "cuda",
    "empty",
    "is_on_device",
    "kernel",
    "launches",
    "problem",
    "require",
    "to_device",
    "to_host",
    "transfers",
    "zeros",
]

SIMULATED = bool(config.ENABLE_CUDASIM)
"""Whether kernels run in Numba's simulator: plain Python on the CPU, for tests."""

CAPABILITY_MIN = (7, 5)
"""The oldest device the kernels are compiled and tested for: Turing."""

THREADS = 256
"""In a block, where a kernel has no shape of its own."""

_BLOCKS_MAX = 2048  # more only wait: the kernels stride
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # small tensors make small grids
_SIMULATED_SHAPE = (2, 2)  # every thread is one of Python's
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY


# 1. The device -----------------------------------------------------------------------------------------------------------


def problem() -> str | None:
    """Return why no GPU can be used, in one line, or None if one can."""
    if SIMULATED:
        return None
    if not cuda.is_available():
        reason = " ".join(str(cuda.cuda_error() or "no NVIDIA GPU was found").split())
        return (
            f"no GPU can be used: {reason.rstrip('.')}; install NVIDIA's driver and intnet[cuda12] or intnet[cuda13], "
            'or use device="cpu"'
        )
    device = cuda.get_current_device()
    capability = tuple(device.compute_capability)
    if capability < CAPABILITY_MIN:
        name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
        need, have = (".".join(map(str, numbers)) for numbers in (CAPABILITY_MIN, capability))
        return f'{name} has compute capability {have} and the kernels need {need} or later; use device="cpu"'
    return None


def require() -> None:
    """Raise DeviceError if no GPU can be used; warn if it is only simulated."""
    reason = problem()
    if reason is not None:
        raise DeviceError(reason)
    if SIMULATED:
        warnings.warn(
            "NUMBA_ENABLE_CUDASIM is set: the GPU is simulated on the CPU, with the same bits and very slowly; "
            "unset it to use a real one",
            RuntimeWarning,
            stacklevel=3,
        )


# 2. Memory ---------------------------------------------------------------------------------------------------------------


@dataclass
class Transfers:
    """What has crossed between the host and the device: how often, and how many bytes.

    Attributes
    ----------
    to_device, to_host : int
    bytes_to_device, bytes_to_host : int
    """

    to_device: int = 0
    to_host: int = 0
    bytes_to_device: int = 0
    bytes_to_host: int = 0


transfers = Transfers()
"""Since the program began."""


def is_on_device(array: Any) -> bool:
    """Tell whether an array lives on the device."""
    return not isinstance(array, np.ndarray) and hasattr(array, "copy_to_host")


def to_device(array: NDArray[Any]) -> Any:
    """Copy an array to the device, in C order."""
    array = np.ascontiguousarray(array)
    transfers.to_device += 1
    transfers.bytes_to_device += array.nbytes
    with _memory_of(array.shape, array.dtype):
        return cuda.to_device(array)


def to_host(array: Any) -> NDArray[Any]:
    """Copy an array from the device."""
    transfers.to_host += 1
    transfers.bytes_to_host += array.size * array.dtype.itemsize
    return array.copy_to_host()


def empty(shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
    """Return an array on the device, not initialized."""
    with _memory_of(shape, dtype):
        return cuda.device_array(shape, np.dtype(dtype))


def zeros(shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
    """Return an array of zeros on the device; nothing crosses to it but the order to write them."""
    array = empty(shape, dtype)
    flat = array.reshape(-1) if array.ndim != 1 else array
    if flat.size:
        _fill(flat.size, flat, np.int64(0))
    return array


@contextmanager
def _memory_of(shape: int | tuple[int, ...], dtype: DTypeLike) -> Iterator[None]:
    """Name the size that was asked for where the device has no more memory."""
    try:
        yield
    except Exception as error:
        code = getattr(error, "code", None)
        if code is None or int(code) != _OUT_OF_MEMORY:
            raise
        size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        raise DeviceError(
            f"the GPU has no memory left for an array of {size / 2**20:.1f} MiB (shape {shape}, {np.dtype(dtype)}); "
            "lower the batch size or the width of the network"
        ) from None


# 3. Kernels --------------------------------------------------------------------------------------------------------------

KERNELS: list["Kernel"] = []
"""All kernels, for the test that compiles them without a device."""

_shape: tuple[int, int] | None = None


@contextmanager
def launches(blocks: int, threads: int) -> Iterator[None]:
    """Start the kernels within with so many blocks and threads, where they have no shape of their own: for tests."""
    global _shape
    if not 1 <= threads <= THREADS:
        raise ValueError(f"a block has 1..{THREADS} threads, for which reductions have room, got {threads}")
    before, _shape = _shape, (blocks, threads)
    try:
        yield
    finally:
        _shape = before


class Kernel:
    """A function compiled for the GPU, and the types it can be compiled for without one.

    Call it with the number of elements it strides over, then its arguments; or :meth:`at` with a grid of its own.
    """

    def __init__(self, function: Callable[..., None], signatures: tuple[str, ...]) -> None:
        self.function, self.signatures = function, signatures
        self._compiled = cuda.jit(function)
        KERNELS.append(self)

    def __call__(self, count: int, *arguments: Any) -> None:
        """Start it on so many elements; nothing happens for none."""
        if count <= 0:
            return
        if _shape is not None:
            blocks, threads = _shape
        elif SIMULATED:
            blocks, threads = _SIMULATED_SHAPE
        else:
            blocks, threads = min(-(-count // THREADS), _BLOCKS_MAX), THREADS
        self._compiled[blocks, threads](*arguments)

    def at(self, blocks: int | tuple[int, ...], threads: int | tuple[int, ...], *arguments: Any) -> None:
        """Start it with a grid of its own."""
        self._compiled[blocks, threads](*arguments)


def kernel(*signatures: str) -> Callable[[Callable[..., None]], Kernel]:
    """Make a kernel of a function; every signature is one that it is compiled for in the tests, such as "int8[::1], int64"."""
    return lambda function: Kernel(function, signatures)


@kernel("int64[::1], int64", "int32[::1], int64", "int8[::1], int64")
def _fill(out, value):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = value
