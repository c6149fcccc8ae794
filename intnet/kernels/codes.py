"""Sums of products with coded weights."""

import numpy as np
from numpy.typing import NDArray

from intnet.kernels import _parallel
from intnet.kernels.plain import codes as plain
from intnet.kernels.product import Integers
from intnet.kernels.reduce import max_magnitude

SUM_BITS = 62
_WORTH_A_THREAD = 1 << 15  # sums
_ENOUGH_BITS = 48  # of the largest quotient, for any block of up to so many bits less two


def combine_coded(
    sums: Integers,
    under: Integers | None,
    scale: int,
    offset: int,
    divisor: int,
    bound: int,
    apart: bool,
    limits: NDArray[np.int64] | None = None,
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
        Whether each row keeps as many bits as its own largest has room for, instead of as many as the largest of all.
    limits : (rows or 1,) int64, at least 0, optional
        No row is shifted up by more bits.

    Returns
    -------
    values : int64, the shape of `sums`
        ``combination * 2**up / divisor``, within ``2**62``, rounded down, the lowest bit set unless that is exact: rounding
        further, by two bits or more, rounds the exact quotient.
    ups : (rows or 1,) int64

    Examples
    --------
    >>> values, ups = combine_coded(np.array([[3, -6]], np.int32), None, 1, 0, 15, 8, False)
    >>> (values / 2.0 ** ups[:, None]).round(6).tolist()
    [[0.2, -0.4]]
    """
    rows, out = len(sums), np.empty(sums.shape, np.int64)
    ups = np.zeros(rows, np.int64)
    if not sums.size:
        return out, np.zeros(1, np.int64)
    most = np.ascontiguousarray(np.broadcast_to(np.int64(SUM_BITS) if limits is None else limits, rows))
    flat, quotients = sums.reshape(rows, -1), out.reshape(rows, -1)
    if under is None:
        below, repeat, offset = np.zeros((rows, 1), sums.dtype), flat.shape[1], 0
    else:
        below = under.reshape(rows, -1)
        repeat = flat.shape[1] // max(1, below.shape[1])
    numbers = np.int64(repeat), np.int64(scale), np.int64(offset), np.int64(divisor)
    pieces = _parallel.pieces_of(rows, minimum=max(1, _WORTH_A_THREAD // max(1, flat.shape[1])))

    def combine(room: int) -> None:
        def piece(first: int, last: int) -> None:
            part = slice(first, last)
            plain.combine_coded(flat[part], below[part], *numbers, np.int64(room), most[part], quotients[part], ups[part])

        _parallel.run(piece, pieces)

    room = SUM_BITS - bound.bit_length()
    combine(-1 if apart else room)
    if apart:
        return out, ups
    largest = max_magnitude(out)
    more = SUM_BITS - ((largest + 1) * divisor).bit_length()
    if more > 0 and 0 < largest < 2**_ENOUGH_BITS and room < most.min():  # the bound was far away
        combine(room + more)
    return out, ups[:1]
