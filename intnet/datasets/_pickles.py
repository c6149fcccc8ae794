"""Reading a pickled batch of CIFAR without running anything that is in it.

A pickle may name any function and have it called. Here a name is looked up in a short table of stand-ins, which check
what they are given and build nothing larger than the file; any other name is refused. The loaders also check a file's
MD5 first, so that only an official file comes this far.
"""

import io
import math
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Dtype:
    """What a pickle says of a dtype: its name, such as "u1"."""

    def __init__(self, name: object, *_: object) -> None:
        self.name = name.decode("latin1") if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        """Drop the byte order and the fields, which single bytes have not."""


class _Array:
    """What a pickle says of an array; `uint8` makes it one."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def uint8(self) -> NDArray[np.uint8]:
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise ValueError("is a pickle with an array that has no content")
        _, shape, dtype, by_columns, content = self.state
        if not isinstance(dtype, _Dtype) or dtype.name not in ("u1", "|u1"):
            raise ValueError("is a pickle with an array that does not hold unsigned bytes")
        sizes = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
        if not sizes or not isinstance(content, bytes) or len(content) != math.prod(shape):
            raise ValueError("is a pickle with an array whose size is not that of its content")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_columns else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("is a pickle with bytes that are not written as Latin-1")
    return text.encode("latin1")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,  # how Python 3 writes bytes for Python 2
}


class _ForeignNameError(ValueError):
    """A name that no batch of CIFAR needs."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise _ForeignNameError(
                f"is a pickle that names {f'{module}.{name}'!r}, which a batch of CIFAR does not; it was not run"
            )
        return stand_in


def read_pickle(content: bytes) -> dict[str, Any]:
    """Return the dictionary in `content`, arrays as uint8 and keys as text, else raise ValueError."""
    try:
        stored = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except _ForeignNameError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"is cut short or damaged: it cannot be unpickled ({type(error).__name__})") from error
    if not isinstance(stored, dict):
        raise ValueError("is a pickle that does not hold a dictionary")
    named = {key.decode("latin1") if isinstance(key, bytes) else str(key): item for key, item in stored.items()}
    return {key: item.uint8() if isinstance(item, _Array) else item for key, item in named.items()}
