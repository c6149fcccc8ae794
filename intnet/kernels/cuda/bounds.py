"""How large the sums of a product can be, on the GPU: see :mod:`intnet.kernels.plain.bounds`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from intnet.kernels.cuda._device import flat
from intnet.kernels.cuda._driver import empty, to_host
from intnet.kernels.cuda.reduce import add_up, extremes

__all__ = ["largest_row_sum", "sums_of_columns"]

_FEW = 1 << 10  # sums that cross to the host as fast as one does


def largest_row_sum(values: Any, rows: int) -> int:
    """Do what :func:`intnet.kernels.plain.bounds.largest_row_sum` does."""
    rows, values, sums = int(rows), flat(values), empty(int(rows), np.int64)
    add_up(values, rows, values.size // rows, 1, True, sums)
    return int(to_host(sums).max()) if rows <= _FEW else extremes(sums)[1]


def sums_of_columns(values: Any, columns: int) -> NDArray[np.int64]:
    """Do what :func:`intnet.kernels.plain.bounds.sums_of_columns` does; the sums come to the host."""
    columns, values, sums = int(columns), flat(values), empty(int(columns), np.int64)
    add_up(values, 1, values.size // columns, columns, True, sums)
    return to_host(sums)
