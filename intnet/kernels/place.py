"""Where arrays live: on the host, as NumPy's, or on a GPU. What takes an array computes where it lives.

``numba.cuda`` is imported when a GPU is first asked for, and not before.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from intnet.errors import InputError

DEVICES = ("cpu", "gpu", "auto")
"""What `device` may be: "auto" is a GPU where there is one that can be used, else the CPU."""


def resolve_device(device: str) -> str:
    """Return "cpu" or "gpu".

    Raises
    ------
    InputError
        If it is none of DEVICES; DeviceError, which tells what is missing, if a GPU is asked for and none can be used.

    Examples
    --------
    >>> resolve_device("cpu")
    'cpu'
    """
    if device not in DEVICES:
        raise InputError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    if device == "cpu":
        return "cpu"
    driver = _driver()
    if device == "auto":
        return "cpu" if driver.SIMULATED or driver.problem() is not None else "gpu"
    driver.require()
    return "gpu"


def on_device(array: Any) -> bool:
    """Tell whether an array lives on a GPU."""
    return not isinstance(array, np.ndarray)


def to_device(array: Any) -> Any:
    """Return an array on the GPU: a copy of one on the host, in C order, or the array itself."""
    return _driver().to_device(array) if isinstance(array, np.ndarray) else array


def to_host(array: Any) -> NDArray[Any]:
    """Return an array on the host: a copy of one on the GPU, or the array itself."""
    return array if isinstance(array, np.ndarray) else _driver().to_host(array)


def move(array: Any, device: str) -> Any:
    """Return an array on "cpu" or "gpu"."""
    return to_host(array) if device == "cpu" else to_device(array)


def empty_beside(array: Any, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
    """Return an array, not initialized, that lives where `array` does."""
    return np.empty(shape, dtype) if isinstance(array, np.ndarray) else _driver().empty(shape, dtype)


def zeros_beside(array: Any, shape: int | tuple[int, ...], dtype: DTypeLike) -> Any:
    """Return an array of zeros that lives where `array` does."""
    return np.zeros(shape, dtype) if isinstance(array, np.ndarray) else _driver().zeros(shape, dtype)


def move_beside(array: Any, other: Any) -> Any:
    """Return `array` where `other` lives."""
    return to_host(array) if isinstance(other, np.ndarray) else to_device(array)


def constant(array: NDArray[Any]) -> Any:
    """Return a copy on the GPU of an array that never changes, made once: a table, a mask."""
    return _constant(_Same(array))


class _Same:
    """An array by what it is, not by what it holds."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __hash__(self) -> int:
        return id(self.array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.array is other.array


@lru_cache(256)
def _constant(array: _Same) -> Any:
    return _driver().to_device(array.array)


def gpu() -> Any:
    """Return the calls for arrays on a GPU."""
    from intnet.kernels.cuda import calls

    return calls


def _driver() -> Any:
    from intnet.kernels.cuda import _driver as driver

    return driver
