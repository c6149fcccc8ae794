"""Activations and their gradients, shared among threads. Arrays are C-contiguous integers of any signed type and shape.

An element-wise function leaves the exponent of its argument as it is, unless it says otherwise.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intnet.kernels import _parallel
from intnet.kernels.place import gpu, on_device
from intnet.kernels.plain import activation as plain
from intnet.kernels.product import Integers
from intnet.random import sequence_words

IDENTITY, CLIP, POLYNOMIAL = range(3)  # the straight-through windows of `sign_backward`
_WORTH_A_THREAD = 1 << 19  # bytes of a result: they take as long as starting a thread


def relu(x: Integers) -> Integers:
    """Return ``max(x, 0)``, of the type of `x`."""
    return _each(plain.relu, (x,), (), x.dtype)


def relu_backward(dy: Integers, y: Integers) -> Integers:
    """Return `dy` where the result `y` of `relu` is positive, else 0; of the type of `dy`.

    The argument of `relu` may stand for its result, as both are positive in the same places.
    """
    return _each(plain.relu_backward, (dy, y), (), dy.dtype)


def leaky_relu(x: Integers, shift: int, rounding_code: int) -> Integers:
    """Return `x` where it is not negative, else ``x / 2**shift`` rounded; of the type of `x`, which nothing leaves.

    Parameters
    ----------
    x : integers
    shift : int, 0..62
        The slope is ``2**-shift``.
    rounding_code : int
        FLOOR .. JAM of :mod:`intnet.arithmetic`. Values that are not negative are exact, under JAM too.

    Returns
    -------
    integers, the shape of `x`
    """
    return _each(plain.leaky_relu, (x,), (np.int64(shift), np.int64(rounding_code)), x.dtype)


def leaky_relu_backward(dy: Integers, x: Integers, shift: int, rounding_code: int) -> Integers:
    """Return `dy` where the argument `x` was not negative, else ``dy / 2**shift`` rounded; as in `leaky_relu`.

    Nothing leaves the type of `dy`: for a shift of one or more, a quotient rounded up is at most the value itself, or 1.
    """
    return _each(plain.leaky_relu_backward, (dy, x), (np.int64(shift), np.int64(rounding_code)), dy.dtype)


def hard_tanh(x: Integers, limit: int) -> Integers:
    """Return the nearest value in ``-limit..limit``, of the type of `x`; `limit` in ``0..2**63 - 1``, in units of `x`."""
    bounds = np.iinfo(x.dtype)
    kind = x.dtype.type
    return _each(plain.hard_tanh, (x,), (kind(max(-limit, bounds.min)), kind(min(limit, bounds.max))), x.dtype)


def hard_tanh_backward(dy: Integers, x: Integers, limit: int) -> Integers:
    """Return `dy` where ``-limit < x < limit``, else 0; of the type of `dy`."""
    return _each(plain.hard_tanh_backward, (dy, x), (np.int64(limit),), dy.dtype)


def sign(x: Integers, one: int) -> Integers:
    """Return `one` where `x` is not negative, else ``-one``; of the type of `x`, which must hold both."""
    return _each(plain.sign, (x,), (np.int64(one),), x.dtype)


def sign_backward(dy: Integers, x: Integers, window_code: int, limit: int) -> Integers:
    """Return the gradient of `sign` by a straight-through window: what stands for a derivative that is 0 nearly everywhere.

    Parameters
    ----------
    dy : integers
    x : integers, the shape of `dy`
        The argument of `sign`.
    window_code : int
        - IDENTITY: `dy`, the array itself;
        - CLIP: `dy` where ``abs(x) <= limit``, else 0 (Hubara et al. 2016, arXiv:1602.02830, sec. 1.3);
        - POLYNOMIAL: ``dy * 2 * (limit - abs(x))`` where ``abs(x) <= limit``, else 0, exactly. It is `limit` times the real
          ``dy * (2 - 2 abs(x) / limit)`` (Bi-Real Net: Liu et al. 2018, arXiv:1808.00278, sec. 3.3): for a `limit` of
          ``2**k``, the exponent of the result is that of `dy` minus k.
    limit : int, 0..2**62 - 1
        In units of `x`. For POLYNOMIAL, the magnitude of `dy` times twice the limit must fit int64.

    Returns
    -------
    the type of `dy`; int64 for POLYNOMIAL
    """
    if window_code == IDENTITY:
        return dy
    if window_code == CLIP:
        return _each(plain.sign_backward_clip, (dy, x), (np.int64(limit),), dy.dtype)
    return _each(plain.sign_backward_polynomial, (dy, x), (np.int64(limit),), np.int64)


def look_up(x: Integers, table: Integers, first: int) -> Integers:
    """Return ``table[x - first]``: a function of integers that its values define, sigmoid or tanh say.

    Parameters
    ----------
    x : integers
    table : (length,) integers, not empty
        The results for ``first .. first + length - 1``. What lies before has that of the first, what lies behind of the last.
    first : int
        The whole table must lie in int64.

    Returns
    -------
    the type of `table`, the shape of `x`
    """
    return _each(plain.look_up, (x,), (table, np.int64(first)), table.dtype)


def logistic_backward(dy: Integers, y: Integers, one: int) -> NDArray[np.int64]:
    """Return ``dy * y * (one - y)``: `dy` times the slope of the logistic function whose result is `y`, with 1 as `one`.

    Exact; for a `one` of ``2**k``, the exponent of the result is that of `dy` minus 2 k. Words of up to 16 bits and a `one`
    up to ``2**15`` give at most ``2**15 * 2**15 * 2**16 = 2**46``; wider ones are the caller's to bound, below ``2**63``.
    """
    return _each(plain.logistic_backward, (dy, y), (np.int64(one),), np.int64)


def tanh_backward(dy: Integers, y: Integers, one: int) -> NDArray[np.int64]:
    """Return ``dy * (one**2 - y**2)``: `dy` times the slope of tanh whose result is `y`, with 1 as `one`.

    Exact; for a `one` of ``2**k``, the exponent of the result is that of `dy` minus 2 k. Words of up to 16 bits and a `one`
    up to ``2**15`` give at most ``2**15 * 2**30 = 2**45``; wider ones are the caller's to bound, below ``2**63``.
    """
    return _each(plain.tanh_backward, (dy, y), (np.int64(one),), np.int64)


def dropout(x: Integers, keep: int, seed: int, stream: int, step: int) -> Integers:
    """Return `x` with some elements set to 0: kept is element i if its 16 random bits are below `keep`.

    Backward is the same call on `dy`. The division by the probability ``keep / 2**16`` is the caller's.

    Parameters
    ----------
    x : integers
    keep : int, 0..2**16
    seed, stream, step : int
        The sequence: element i in C order takes the upper 16 bits of its word i, see :mod:`intnet.random`.

    Returns
    -------
    the type and shape of `x`
    """
    if on_device(x):
        return gpu().dropout(x, keep, seed, stream, step)
    out: Integers = np.empty(x.shape, x.dtype)
    source, target = x.reshape(-1), out.reshape(-1)
    sequence = sequence_words(seed, stream, step)
    _parallel.run(
        lambda first, last: plain.dropout(source, first, last, keep, *sequence, target),
        _parallel.pieces_of(x.size, multiple=4, minimum=1 << 14),
    )
    return out


def _each(kernel: Callable, arrays: tuple[Integers, ...], arguments: tuple, kind: Any) -> Any:
    """Apply ``kernel(*flat arrays, *arguments, out)``, in pieces where there is enough to do."""
    if on_device(arrays[0]):
        return gpu().each(kernel.__name__, arrays, arguments, kind)
    out = np.empty(arrays[0].shape, kind)
    flat = [array.reshape(-1) for array in (*arrays, out)]
    pieces = _parallel.pieces_of(out.size, minimum=_WORTH_A_THREAD // out.itemsize)
    if len(pieces) == 1:
        kernel(*flat[:-1], *arguments, flat[-1])
        return out

    def piece(first: int, last: int) -> None:
        *inputs, part = (array[first:last] for array in flat)
        kernel(*inputs, *arguments, part)

    _parallel.run(piece, pieces)
    return out
