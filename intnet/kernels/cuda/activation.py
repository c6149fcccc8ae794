"""Activations and their gradients on the device, element by element. All arrays are flat and equally long."""

import numpy as np

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
from intnet.kernels.cuda._driver import cuda, kernel
from intnet.kernels.plain.activation import KEEP_BITS
from intnet.random import philox_4x32_10

_TYPES = ("int8", "int16", "int32", "int64")
_DROPPED = np.int64(32 - KEEP_BITS)  # bits of a random word
_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


def _signatures(*arguments):
    """Return signatures for types of elements, which stand for ``dy`` and ``x`` in `arguments`; other pairs compile too."""
    described = ", ".join(arguments)
    pairs = [(kind, kind) for kind in _TYPES]
    if "{x}" in described:
        pairs += [("int8", "int32"), ("int32", "int8"), ("int64", "int8")]
    return [described.format(dy=f"{dy}[::1]", x=f"{x}[::1]") for dy, x in pairs]


@kernel(*_signatures("{dy}", "{dy}"))
def _relu(x, out):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = relu_one(x[i])


@kernel(*_signatures("{dy}", "{x}", "{dy}"))
def _relu_backward(dy, y, out):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = relu_gradient(dy[i], y[i])


@kernel(*_signatures("{dy}", "int64", "int64", "{dy}"))
def _leaky_relu(x, shift, mode, out):
    base, if_negative, if_odd, set_bit = rounding_constants(mode, shift)
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = leaky_relu_one(x[i], shift, base, if_negative, if_odd, set_bit)


@kernel(*_signatures("{dy}", "{x}", "int64", "int64", "{dy}"))
def _leaky_relu_backward(dy, x, shift, mode, out):
    base, if_negative, if_odd, set_bit = rounding_constants(mode, shift)
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = leaky_relu_gradient(dy[i], x[i], shift, base, if_negative, if_odd, set_bit)


@kernel(*_signatures("{dy}", "int64", "int64", "{dy}"))
def _hard_tanh(x, minimum, maximum, out):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = saturate(x[i], minimum, maximum)


@kernel(*_signatures("{dy}", "{x}", "int64", "{dy}"))
def _hard_tanh_backward(dy, x, limit, out):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = hard_tanh_gradient(dy[i], x[i], limit)


@kernel(*_signatures("{dy}", "int64", "{dy}"))
def _sign(x, one, out):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = sign_one(x[i], one)


@kernel(*_signatures("{dy}", "{x}", "int64", "{dy}"))
def _sign_backward_clip(dy, x, limit, out):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = sign_gradient_clip(dy[i], x[i], limit)


@kernel(*_signatures("{dy}", "{x}", "int64", "int64[::1]"))
def _sign_backward_polynomial(dy, x, limit, out):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = sign_gradient_polynomial(dy[i], x[i], limit)


@kernel(*_signatures("{x}", "{dy}", "int64", "{dy}"))
def _look_up(x, table, first, out):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = table[np.uint64(table_index(x[i], first, table.size))]


@kernel(*_signatures("{dy}", "{x}", "int64", "int64[::1]"))
def _logistic_backward(dy, y, one, out):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = logistic_gradient(dy[i], y[i], one)


@kernel(*_signatures("{dy}", "{x}", "int64", "int64[::1]"))
def _tanh_backward(dy, y, one, out):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = tanh_gradient(dy[i], y[i], one)


@kernel(*_signatures("{dy}", "int64", "int64", "int64", "uint64", "uint64", "uint64", "uint64", "{dy}"))
def _dropout(x, start, stop, keep, key_0, key_1, stream, step, out):
    """Four elements a thread: they share a block of random words."""
    first = start >> np.int64(2)
    for i in range(cuda.grid(1), ((stop + np.int64(3)) >> np.int64(2)) - first, cuda.gridsize(1)):
        block = first + np.int64(i)
        counter = np.uint64(block)
        words = philox_4x32_10(counter & _MASK, counter >> _32, step, stream, key_0, key_1)
        place = block << np.int64(2)
        for j in range(4):
            if start <= place + j < stop:
                out[place + j] = drop(x[place + j], np.int64(words[j]) >> _DROPPED, keep)


# The same names and arguments as in ``plain.activation``.


def relu(x, out):
    """Write ``max(x, 0)`` into `out`."""
    _relu(out.size, x, out)


def relu_backward(dy, y, out):
    """Write `dy` where `y` is positive, else 0."""
    _relu_backward(out.size, dy, y, out)


def leaky_relu(x, shift, mode, out):
    """Write `x` where it is not negative, else ``x / 2**shift`` rounded by `mode`."""
    _leaky_relu(out.size, x, np.int64(shift), np.int64(mode), out)


def leaky_relu_backward(dy, x, shift, mode, out):
    """Write `dy` where `x` is not negative, else ``dy / 2**shift`` rounded by `mode`."""
    _leaky_relu_backward(out.size, dy, x, np.int64(shift), np.int64(mode), out)


def hard_tanh(x, minimum, maximum, out):
    """Write the nearest value in ``minimum..maximum``."""
    _hard_tanh(out.size, x, np.int64(minimum), np.int64(maximum), out)


def hard_tanh_backward(dy, x, limit, out):
    """Write `dy` where ``-limit < x < limit``, else 0."""
    _hard_tanh_backward(out.size, dy, x, np.int64(limit), out)


def sign(x, one, out):
    """Write `one` where `x` is not negative, else ``-one``."""
    _sign(out.size, x, np.int64(one), out)


def sign_backward_clip(dy, x, limit, out):
    """Write `dy` where ``abs(x) <= limit``, else 0."""
    _sign_backward_clip(out.size, dy, x, np.int64(limit), out)


def sign_backward_polynomial(dy, x, limit, out):
    """Write ``dy * 2 * (limit - abs(x))`` where ``abs(x) <= limit``, else 0, into `out`, int64."""
    _sign_backward_polynomial(out.size, dy, x, np.int64(limit), out)


def look_up(x, table, first, out):
    """Write ``table[x - first]``, or at the ends what is nearest."""
    _look_up(out.size, x, table, np.int64(first), out)


def logistic_backward(dy, y, one, out):
    """Write ``dy * y * (one - y)`` into `out`, int64."""
    _logistic_backward(out.size, dy, y, np.int64(one), out)


def tanh_backward(dy, y, one, out):
    """Write ``dy * (one**2 - y**2)`` into `out`, int64."""
    _tanh_backward(out.size, dy, y, np.int64(one), out)


def dropout(x, start, stop, keep, key_0, key_1, stream, step, out):
    """Write the elements `start` to `stop` of `x`, or 0 where their 16 random bits are not below `keep`."""
    blocks = (int(stop) + 3) // 4 - int(start) // 4 if stop > start else 0
    _dropout(blocks, x, np.int64(start), np.int64(stop), np.int64(keep), key_0, key_1, stream, step, out)
