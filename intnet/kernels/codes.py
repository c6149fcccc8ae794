"""Sums of products with coded weights."""

import numpy as np
from numpy.typing import NDArray

from intnet.kernels import _parallel
from intnet.kernels.plain import codes as plain
from intnet.kernels.product import Integers

SUM_BITS = 62
_WORTH_A_THREAD = 1 << 15  # sums


def combine_coded(
    sums: Integers, under: Integers | None, scale: int, offset: int, divisor: int, bound: int, apart: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ``(scale * sums + offset * under) / divisor`` with as many bits as a word has room for.

    Parameters
    ----------
    sums : (rows, ..., n) C-contiguous int32 or int64
    under : (rows, ..., n or 1) C-contiguous int32 or int64, or None
        None stands for zeros; else of as many axes, all but the last of the same length.
    scale, offset, divisor : int
        ``divisor >= 1``.
    bound : int, below 2**62
        No combination is larger.
    apart : bool
        Whether each row keeps as many bits as its own largest has room for, instead of as many as `bound` leaves.

    Returns
    -------
    values : int64, the shape of `sums`
        ``combination * 2**up / divisor``, rounded down, the lowest bit set unless that is exact: rounding further, by two bits
        or more, rounds the exact quotient.
    ups : (rows or 1,) int64

    Examples
    --------
    >>> values, ups = combine_coded(np.array([[3, -6]], np.int32), None, 1, 0, 15, 8, False)
    >>> (values / 2.0 ** ups[:, None]).round(6).tolist()
    [[0.2, -0.4]]
    """
    rows, out = len(sums), np.empty(sums.shape, np.int64)
    ups = np.zeros(rows, np.int64)
    flat, quotients = sums.reshape(rows, -1), out.reshape(rows, -1)
    if under is None:
        below, repeat, offset = np.zeros((rows, 1), sums.dtype), flat.shape[1], 0
    else:
        below = under.reshape(rows, -1)
        repeat = flat.shape[1] // max(1, below.shape[1])
    room = -1 if apart else SUM_BITS - bound.bit_length()
    numbers = np.int64(repeat), np.int64(scale), np.int64(offset), np.int64(divisor), np.int64(room)

    def piece(first: int, last: int) -> None:
        plain.combine_coded(flat[first:last], below[first:last], *numbers, quotients[first:last], ups[first:last])

    minimum = max(1, _WORTH_A_THREAD // max(1, flat.shape[1]))
    _parallel.run(piece, _parallel.pieces_of(rows, minimum=minimum))
    return out, ups if apart else ups[:1]
