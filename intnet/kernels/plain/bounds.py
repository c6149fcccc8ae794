"""How large the sums of a product can be, from what the operands hold: Hölder's inequality, one pass over an operand.

``|sum of a[k] * b[k]| <= max |a| * sum of |b|``. The sums of magnitudes here are exact as long as `size` times the largest
magnitude is below ``2**63``; whoever calls them sees to that. A part of a sum has the same bound, as it has fewer terms.
"""

import numpy as np

from intnet._compile import jit
from intnet.kernels.plain.reduce import extremes

_AT_ONCE = 2**15  # magnitudes of 16-bit integers, up to 2**15, whose sum is surely an int32
_PERIOD = 256  # elements of a loop that are worth vectors


@jit
def largest_row_sum(values, rows):
    """Return the largest sum of the magnitudes of a row.

    Parameters
    ----------
    values : (rows * columns,) integers
    rows : int64
        At least one.
    """
    columns = values.size // rows
    largest = np.int64(0)
    for row in range(rows):
        total = np.int64(0)
        for start in range(row * columns, (row + 1) * columns, _AT_ONCE):
            total += sum_of_magnitudes(values[start : min(start + _AT_ONCE, (row + 1) * columns)])
        largest = max(largest, total)
    return largest


@jit
def sum_of_magnitudes(values):
    """Return the sum of the magnitudes of integers, of up to ``2**15`` if they have 8 or 16 bits."""
    if values.itemsize <= 2:
        short = np.int32(0)
        for i in range(values.size):
            value = np.int32(values[i])
            short = np.int32(short + np.int32(-value if value < 0 else value))
        return np.int64(short)
    total = np.int64(0)
    for i in range(values.size):
        value = np.int64(values[i])
        total += -value if value < 0 else value
    return total


@jit
def sum_columns(values, room, sums):
    """Add the sums of the magnitudes of columns to `sums`.

    Parameters
    ----------
    values : (rows * columns,) integers
    room : (several times columns,) int32 for 8-bit and 16-bit integers, else int64
        Scratch: so many elements are taken together.
    sums : (columns,) int64, added to
    """
    columns = sums.size
    for first in range(0, values.size, room.size * _AT_ONCE):
        last = min(first + room.size * _AT_ONCE, values.size)
        for i in range(room.size):
            room[i] = 0
        for start in range(first, last, room.size):
            part = values[start : min(start + room.size, last)]
            for i in range(part.size):
                value = np.int64(part[i])
                room[i] += -value if value < 0 else value
        for start in range(0, room.size, columns):
            for i in range(columns):
                sums[i] += np.int64(room[start + i])


@jit
def sums_of_columns(values, columns):
    """Return the sums of the magnitudes of columns, (columns,) int64.

    Parameters
    ----------
    values : (rows * columns,) integers
    columns : int64
        At least one.
    """
    sums = np.zeros(columns, np.int64)
    size = columns * max(np.int64(1), _PERIOD // columns)
    if values.itemsize <= 2:
        sum_columns(values, np.empty(size, np.int32), sums)
    else:
        sum_columns(values, np.empty(size, np.int64), sums)
    return sums


@jit
def largest_column_sum(values, columns):
    """Return the largest sum of the magnitudes of a column, as `sums_of_columns` has them."""
    sums, largest = sums_of_columns(values, columns), np.int64(0)
    for i in range(columns):
        largest = max(largest, sums[i])
    return largest


@jit
def product_is_below(limit, a, m, a_in_rows, b, n, b_in_rows):
    """Tell whether every sum of a matrix product is surely below `limit` in magnitude.

    Parameters
    ----------
    limit : int64
    a, b : (its size,) integers of 8 or 16 bits, not empty
        In C order; up to ``2**31`` terms in a sum.
    m, n : int64
        Rows and columns of the product.
    a_in_rows, b_in_rows : bool
        Whether what is multiplied into one sum lies in a row of the operand, or in a column.
    """
    for attempt in range(2):  # first with the sums of the smaller operand
        if (a.size < b.size) == (attempt == 0):
            total = largest_row_sum(a, m) if a_in_rows else largest_column_sum(a, m)
            least, largest = extremes(b)
        else:
            total = largest_row_sum(b, n) if b_in_rows else largest_column_sum(b, n)
            least, largest = extremes(a)
        if total * max(-np.int64(least), np.int64(largest)) < limit:  # at most 2**46 * 2**15
            return True
    return False
