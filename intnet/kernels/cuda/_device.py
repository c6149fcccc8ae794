"""What several kernels share on the device: rounding in 32 bits, random words for four elements, sums over a block.

The functions marked :func:`intnet._compile.jit` are pure arithmetic, compiled for the processor too; the others use what only
kernels have, shared memory and atomics, and :data:`device` marks them.

Rounding in 32 bits is that of :mod:`intnet.kernels.simd.requantize`, which says why no step leaves int32: values have up to 32
bits, words up to 31, shifts go to the right by up to 30, random bits are up to 32.
"""

from collections.abc import Callable
from functools import cache, wraps
from types import FunctionType
from typing import Any

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import PSEUDO_STOCHASTIC, STOCHASTIC, rounding_constants
from intnet.kernels.cuda._driver import SIMULATED, THREADS, cuda, empty, kernel
from intnet.kernels.plain.requantize import (
    COUNT_LOST,
    COUNT_SATURATED,
    COUNT_WRAPPED,
    COUNTERS,
    SEEN_MAXIMUM,
    SEEN_MINIMUM,
    requantize_one,
)
from intnet.kernels.vectors import shift_right_32
from intnet.random import philox_4x32_10, random_fraction

SHIFT_MAX, WORD_BITS_MAX, RANDOM_BITS_MAX = 30, 31, 32
"""How far rounding in 32 bits goes."""

INT32_MIN, INT32_MAX = np.int32(-(2**31)), np.int32(2**31 - 1)
INT64_MIN, INT64_MAX = np.int64(-(2**63)), np.int64(2**63 - 1)

_0, _1, _31 = np.int32(0), np.int32(1), np.int32(31)
_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_STORAGE = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}
_ROLES = 3  # the most counters that one kernel adds to


def device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that kernels call, for the device alone.

    The simulator puts its own ``cuda`` into the module of such a function and takes it out when a thread returns, under the
    other threads: so there a call has globals of its own.
    """
    if not SIMULATED:
        return cuda.jit(device=True)(function)
    from numba.cuda.simulator.kernel import _get_kernel_context

    made: tuple[Any, Any] = (None, None)

    @wraps(function)
    def call(*arguments: Any) -> Any:
        nonlocal made
        context, (of, copy) = _get_kernel_context(), made
        if of is not context:
            copy = FunctionType(function.__code__, {**function.__globals__, "cuda": context})
            made = context, copy
        return copy(*arguments)

    return call


# 1. Arrays, on the host --------------------------------------------------------------------------------------------------


def flat(array: Any) -> Any:
    """Return an array on the device as one axis."""
    return array if array.ndim == 1 else array.reshape(-1)


def typed(data: Any, width: int) -> Any:
    """Return a tensor that comes as bytes as signed integers of `width` bytes; one that has its type comes back as it is."""
    if data.dtype != np.uint8:
        return flat(data)
    return data.view(_STORAGE[int(width)])


@cache
def uncounted() -> Any:
    """Return counters that nobody reads."""
    return empty(_ROLES * COUNTERS, np.int64)


@kernel("int64[::1]")
def _write_nothing_seen(out):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = INT64_MIN if i & 1 else INT64_MAX


@kernel("int64[::1]")
def _write_zeros(out):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = 0


def clear(array: Any) -> None:
    """Write zeros into an array of int64 on the device."""
    _write_zeros(array.size, array)


def new_extremes() -> Any:
    """Return the least and the greatest of nothing, on the device, for `take_extremes`."""
    out = empty(2, np.int64)
    _write_nothing_seen(2, out)
    return out


@device
def has_bits(array, bits):
    """Tell whether the integers of an array have up to so many bits; unlike ``itemsize``, known when a kernel is compiled."""
    return np.int64(array.dtype.type(np.int64(1) << np.int64(bits))) == 0


# 2. Random bits ----------------------------------------------------------------------------------------------------------


NO_WORDS = (np.uint32(0),) * 4
"""What stands for random words where there are none."""


@jit
def four_words(group, key_0, key_1, stream, step):
    """Return the random words of the elements ``4 * group`` to ``4 * group + 3``, as uint32.

    That all words are below 2**32 is said once more, so that products need 32 bits only.
    """
    block = np.uint64(group)
    words = philox_4x32_10(
        block & _MASK, block >> _32, np.uint64(step) & _MASK, np.uint64(stream) & _MASK,
        np.uint64(key_0) & _MASK, np.uint64(key_1) & _MASK,
    )  # fmt: skip
    return np.uint32(words[0]), np.uint32(words[1]), np.uint32(words[2]), np.uint32(words[3])


@jit
def one_of_four(words, j):
    """Return ``words[j]``, without memory for them."""
    return words[0] if j == 0 else words[1] if j == 1 else words[2] if j == 2 else words[3]


# 3. Rounding -------------------------------------------------------------------------------------------------------------


def is_narrow(shift: int, mode: int, mask: int, maximum: int, random_bits: int, width: int) -> bool:
    """Tell on the host whether :func:`requantize_narrow` rounds values of `width` bytes like this."""
    few_bits = mode != STOCHASTIC or random_bits <= RANDOM_BITS_MAX
    return few_bits and width <= 4 and 0 <= shift <= SHIFT_MAX and 0 <= mask < 2**WORD_BITS_MAX and maximum < 2**WORD_BITS_MAX


@jit
def narrow_constants(mode, shift, random_bits):
    """Return the four constants of :func:`requantize_narrow`, as int64; what they are depends on the mode."""
    if mode == STOCHASTIC:
        kept = min(np.int64(random_bits), np.int64(shift))
        return np.int64(31) - kept, np.int64(1) << (np.int64(shift) - kept), np.int64(0), np.int64(0)
    if mode == PSEUDO_STOCHASTIC:
        low_bits = np.int64(shift) >> np.int64(1)
        return low_bits, np.int64(1) + (np.int64(shift) & np.int64(1)), (np.int64(1) << low_bits) - np.int64(1), np.int64(0)
    return rounding_constants(mode, shift)


@jit
def round_narrow(value, mode, shift, word, first, second, third, fourth):
    """Return an int32 ``value / 2**shift`` rounded by any mode; `word` is the element's random one.

    `first` to `fourth` are those of :func:`narrow_constants`.
    """
    value, shift, second, third = np.int32(value), np.int64(shift), np.int32(second), np.int32(third)
    rest_mask = np.int32((np.int64(1) << shift) - np.int64(1))
    quotient, rest = shift_right_32(value, shift), np.int32(value & rest_mask)
    if mode == STOCHASTIC:
        kept = shift_right_32(np.int32(np.int64(word) >> np.int64(1)), np.int64(first))
        addend = np.int32(kept * second)
        return np.int32(quotient + shift_right_32(np.int32(rest + addend), shift))
    if mode == PSEUDO_STOCHASTIC:
        safe = max(value, np.int32(-INT32_MAX))
        magnitude = np.int32(-safe) if safe < _0 else safe
        rest = np.int32(magnitude & rest_mask)
        greater = shift_right_32(rest, np.int64(first)) > np.int32(np.int32(rest & third) * second)
        away = np.int32(shift_right_32(magnitude, shift) + (_1 if greater else _0))
        rounded = np.int32(-away) if value < _0 else away
        return quotient if value == INT32_MIN else rounded
    addend = np.int32(
        np.int32(np.int32(first) + np.int32(shift_right_32(value, np.int64(31)) & second)) + np.int32(quotient & third)
    )
    return np.int32(np.int32(quotient + shift_right_32(np.int32(rest + addend), shift)) | np.int32(fourth))


@jit
def requantize_narrow(value, mode, shift, word, first, second, third, fourth, wraps, minimum, maximum, mask, sign):
    """Do what :func:`intnet.kernels.plain.requantize.requantize_one` does, in 32 bits; the last two are numbers, 1 if true."""
    rounded = round_narrow(value, mode, shift, word, first, second, third, fourth)
    if wraps:
        fitted = np.int32(np.int32(np.int32(rounded & np.int32(mask)) ^ np.int32(sign)) - np.int32(sign))
    else:
        fitted = min(max(rounded, np.int32(minimum)), np.int32(maximum))
    return fitted, _1 if fitted != rounded else _0, _1 if (np.int32(value) != _0) & (rounded == _0) else _0


@jit
def requantize_wide(
    value, mode, shift, word, key_0, key_1, stream, step, index, random_bits, wraps, minimum, maximum, mask, sign
):  # fmt: skip
    """Do what :func:`intnet.kernels.plain.requantize.requantize_one` does, for element `index` with its random `word`."""
    fraction = np.int64(0)
    if mode == STOCHASTIC and random_bits <= 32:
        fraction = np.int64(word) >> (np.int64(32) - np.int64(random_bits))
    elif mode == STOCHASTIC:
        fraction = random_fraction(
            np.uint64(key_0), np.uint64(key_1), np.uint64(stream), np.uint64(step), np.int64(index), np.int64(random_bits)
        )
    return requantize_one(value, shift, mode, fraction, random_bits, wraps, minimum, maximum, mask, sign)


# 4. Over a block ---------------------------------------------------------------------------------------------------------
#
# All threads of a block call these, of up to THREADS. They halve the number of partial results step by step, whatever it is.
# In the simulator two shared arrays made in one line are one array.


@device
def block_sum(value):
    """Return the sum over the threads of a block, to its first thread; to the others, something else."""
    room = cuda.shared.array(THREADS, np.int64)
    thread, size = cuda.threadIdx.x, cuda.blockDim.x
    room[thread] = value
    while size > 1:
        half = (size + 1) >> 1
        cuda.syncthreads()
        if thread + half < size:
            room[thread] += room[thread + half]
        size = half
    total = room[thread]
    cuda.syncthreads()  # before it is written again
    return total


@device
def block_extremes(least, greatest):
    """Return the least and the greatest of the threads of a block, to its first thread; to the others, something else."""
    lows = cuda.shared.array(THREADS, np.int64)
    highs = cuda.shared.array(THREADS, np.int64)
    thread, size = cuda.threadIdx.x, cuda.blockDim.x
    lows[thread], highs[thread] = least, greatest
    while size > 1:
        half = (size + 1) >> 1
        cuda.syncthreads()
        if thread + half < size:
            lows[thread] = min(lows[thread], lows[thread + half])
            highs[thread] = max(highs[thread], highs[thread + half])
        size = half
    least, greatest = lows[thread], highs[thread]
    cuda.syncthreads()  # before they are written again
    return least, greatest


@device
def take_extremes(extremes, least, greatest):
    """Take the least and the greatest of a block's threads into ``extremes[:2]``; least > greatest says there is none."""
    low, high = block_extremes(np.int64(least), np.int64(greatest))
    if cuda.threadIdx.x == 0 and low <= high:
        cuda.atomic.min(extremes, 0, low)
        cuda.atomic.max(extremes, 1, high)


@device
def count_block(counters, place, wraps, outside, lost, least, greatest):
    """Add what the threads of a block counted to the counters that begin at `place`: one atomic for each that changes."""
    outsides = cuda.shared.array(THREADS, np.int64)
    losts = cuda.shared.array(THREADS, np.int64)
    lows = cuda.shared.array(THREADS, np.int64)
    highs = cuda.shared.array(THREADS, np.int64)
    thread, size = cuda.threadIdx.x, cuda.blockDim.x
    outsides[thread], losts[thread] = np.int64(outside), np.int64(lost)
    lows[thread], highs[thread] = np.int64(least), np.int64(greatest)
    while size > 1:
        half = (size + 1) >> 1
        cuda.syncthreads()
        if thread + half < size:
            outsides[thread] += outsides[thread + half]
            losts[thread] += losts[thread + half]
            lows[thread] = min(lows[thread], lows[thread + half])
            highs[thread] = max(highs[thread], highs[thread + half])
        size = half
    if thread == 0 and lows[0] <= highs[0]:
        if outsides[0] > 0:
            cuda.atomic.add(counters, place + (COUNT_WRAPPED if wraps else COUNT_SATURATED), outsides[0])
        if losts[0] > 0:
            cuda.atomic.add(counters, place + COUNT_LOST, losts[0])
        # What is there only moves outwards: what is within it now stays so.
        if lows[0] < counters[place + SEEN_MINIMUM]:
            cuda.atomic.min(counters, place + SEEN_MINIMUM, lows[0])
        if highs[0] > counters[place + SEEN_MAXIMUM]:
            cuda.atomic.max(counters, place + SEEN_MAXIMUM, highs[0])
    cuda.syncthreads()
