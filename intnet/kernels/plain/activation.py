"""Activations and their gradients, element by element. All arrays are flat and equally long, of any integer types."""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import (
    drop,
    hard_tanh_gradient,
    leaky_relu_gradient,
    logistic_gradient,
    relu_gradient,
    rounding_constants,
    saturate,
    sign_gradient_clip,
    sign_gradient_polynomial,
    table_index,
    tanh_gradient,
)
from intnet.arithmetic import leaky_relu as leaky_relu_one
from intnet.arithmetic import relu as relu_one
from intnet.arithmetic import sign as sign_one
from intnet.random import fill_fractions, room_for

KEEP_BITS = 16  # random bits that decide whether an element is dropped
_WINDOW = 1024  # elements at a time, so that their random bits stay in the first-level cache


@jit
def relu(x, out):
    """Write ``max(x, 0)`` into `out`, of the type of `x`."""
    for i in range(x.shape[0]):
        out[i] = relu_one(x[i])


@jit
def relu_backward(dy, y, out):
    """Write `dy` where `y` is positive, else 0, into `out`, of the type of `dy`."""
    for i in range(dy.shape[0]):
        out[i] = relu_gradient(dy[i], y[i])


@jit
def leaky_relu(x, shift, mode, out):
    """Write `x` where it is not negative, else ``x / 2**shift``, into `out`, of the type of `x`.

    Parameters
    ----------
    x : (size,) integers
    shift : int64, 0..62
    mode : int64
        One of FLOOR .. JAM.
    out : (size,), written
    """
    base, if_negative, if_odd, set_bit = rounding_constants(mode, shift)
    for i in range(x.shape[0]):
        out[i] = leaky_relu_one(x[i], shift, base, if_negative, if_odd, set_bit)


@jit
def leaky_relu_backward(dy, x, shift, mode, out):
    """Write `dy` where `x` is not negative, else ``dy / 2**shift``, into `out`, of the type of `dy`; as in `leaky_relu`."""
    base, if_negative, if_odd, set_bit = rounding_constants(mode, shift)
    for i in range(dy.shape[0]):
        out[i] = leaky_relu_gradient(dy[i], x[i], shift, base, if_negative, if_odd, set_bit)


@jit
def hard_tanh(x, minimum, maximum, out):
    """Write the nearest value in ``minimum..maximum``, both of the type of `x`, into `out`, of that type too."""
    for i in range(x.shape[0]):
        out[i] = saturate(x[i], minimum, maximum)


@jit
def hard_tanh_backward(dy, x, limit, out):
    """Write `dy` where ``-limit < x < limit``, else 0, into `out`, of the type of `dy`; `limit` is int64, not negative."""
    for i in range(dy.shape[0]):
        out[i] = hard_tanh_gradient(dy[i], x[i], limit)


@jit
def sign(x, one, out):
    """Write `one` where `x` is not negative, else ``-one``, into `out`, of a type that holds both."""
    for i in range(x.shape[0]):
        out[i] = sign_one(x[i], one)


@jit
def sign_backward_clip(dy, x, limit, out):
    """Write `dy` where ``abs(x) <= limit``, else 0, into `out`, of the type of `dy`; `limit` is int64, not negative."""
    for i in range(dy.shape[0]):
        out[i] = sign_gradient_clip(dy[i], x[i], limit)


@jit
def sign_backward_polynomial(dy, x, limit, out):
    """Write ``dy * 2 * (limit - abs(x))`` where ``abs(x) <= limit``, else 0, into `out`, int64, which it must fit."""
    for i in range(dy.shape[0]):
        out[i] = sign_gradient_polynomial(dy[i], x[i], limit)


@jit
def look_up(x, table, first, out):
    """Write ``table[x - first]``, or at the ends what is nearest, into `out`, of the type of `table`."""
    for i in range(x.shape[0]):
        out[i] = table[np.uint64(table_index(x[i], first, table.shape[0]))]


@jit
def logistic_backward(dy, y, one, out):
    """Write ``dy * y * (one - y)`` into `out`, int64, which it must fit."""
    for i in range(dy.shape[0]):
        out[i] = logistic_gradient(dy[i], y[i], one)


@jit
def tanh_backward(dy, y, one, out):
    """Write ``dy * (one**2 - y**2)`` into `out`, int64, which it must fit."""
    for i in range(dy.shape[0]):
        out[i] = tanh_gradient(dy[i], y[i], one)


@jit
def dropout(x, start, stop, keep, key_0, key_1, stream, step, out):
    """Write the elements `start` to `stop` of `x`, or 0 where their 16 random bits are not below `keep`, into `out`.

    Parameters
    ----------
    x : (size,) integers
    start, stop : int64
    keep : int64, 0..2**16
    key_0, key_1, stream, step : uint64
        The sequence: element i takes the upper 16 bits of its word i, see :mod:`intnet.random`.
    out : (size,) of the type of `x`, written
    """
    room = np.empty(room_for(_WINDOW, KEEP_BITS), np.int64)
    for begin in range(start, stop, _WINDOW):
        end = min(begin + _WINDOW, stop)
        skip = fill_fractions(key_0, key_1, stream, step, begin, end - begin, KEEP_BITS, room)
        fractions, values, target = room[skip:], x[begin:end], out[begin:end]
        for i in range(values.shape[0]):
            target[i] = drop(values[i], fractions[i], keep)
