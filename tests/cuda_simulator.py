"""Mends Numba's simulator of a GPU, where two threads that ask for the same shared array at the same time may get two."""

import sys
import threading

import numpy as np
from numba.core import types
from numba.np import numpy_support

_lock = threading.Lock()


def _array(self, shape, dtype):
    """Return the array of the line that asks for it, as the simulator does, one thread after the other."""
    caller = sys._getframe(1)
    place = caller.f_code, caller.f_lineno
    with _lock:
        if place not in self._allocations:
            kind = numpy_support.as_dtype(dtype) if isinstance(dtype, types.Type) else dtype
            self._allocations[place] = np.empty(shape, kind)
        return self._allocations[place]


def mend():
    """Make every thread of a block wait for its turn."""
    from numba.cuda.simulator.kernelapi import FakeCUDAShared  # only there where the simulator is on

    FakeCUDAShared.array = _array
