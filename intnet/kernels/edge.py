"""Where floats become integers, and integers floats: the only kernels that may see a float.

A float is an integer times a power of two, ``m * 2**e`` with ``abs(m) < 2**53``. Its bits are taken apart, and the integer m
is shifted by the rules that requantize integers: nothing is rounded twice, and every mode works, from subnormal numbers to
the largest.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intnet._compile import jit
from intnet.arithmetic import (
    CEIL,
    FLOOR,
    JAM,
    PSEUDO_STOCHASTIC,
    STOCHASTIC,
    TIES_AWAY,
    TIES_EVEN,
    TIES_NEG,
    TIES_POS,
    TIES_ZERO,
    TO_AWAY,
    TO_ZERO,
)
from intnet.errors import InputError
from intnet.kernels import _parallel
from intnet.kernels.plain.requantize import WINDOW, count, extent, fit, requantize_run, shifts_of, store, window_end
from intnet.kernels.requantization import (
    NO_SEQUENCE,
    PIECE,
    Integers,
    add_counters,
    new_counters,
    shifts_of_layout,
    storage_of,
    word_of,
)
from intnet.random import fill_fractions, room_for, sequence_words

Floats = NDArray[np.float32] | NDArray[np.float64]

_INT64_MIN, _INT64_MAX = np.int64(-(2**63)), np.int64(2**63 - 1)
# Of a float64: 1 sign bit, 11 exponent bits, 52 bits after the leading one, which is not stored.
_STORED_BITS = np.int64(52)
_STORED = np.int64(2**52 - 1)
_LEADING = np.int64(2**52)
_EXPONENTS = np.int64(2**11 - 1)
_BIAS = np.int64(1075)  # value = mantissa * 2**(exponent field - bias), the mantissa with its 53 bits


# 1. Kernels --------------------------------------------------------------------------------------------------------------


@jit
def _widen(values, doubles):
    """Copy floats to the front of a float64 array: every float32 is a float64."""
    for i in range(values.size):
        doubles[i] = values[i]


@jit
def _take_apart(bits, exponents, mode, mantissas, shifts):
    """Write the integer that each float is and its shift to the exponent of the result.

    Shifts beyond 62 are brought to 62, where they give the same result; but for PSEUDO_STOCHASTIC, whose rule they enter.
    Returns how many are not finite, and how many that are not zero became zero on the way.
    """
    not_finite, lost = np.int64(0), np.int64(0)
    same = exponents.size == 1
    for i in range(bits.size):
        pattern = np.int64(bits[i])
        field = (pattern >> _STORED_BITS) & _EXPONENTS
        negative = pattern >> np.int64(63)  # -1 or 0
        leading = _LEADING if field > 0 else np.int64(0)  # zero and subnormal numbers have none
        mantissa = (((pattern & _STORED) | leading) ^ negative) - negative
        shift = (exponents[0] if same else exponents[i]) + _BIAS - max(field, np.int64(1))
        if mode == STOCHASTIC:  # cuts the rest to at most 62 bits in any case
            cut = mantissa >> min(max(shift - np.int64(62), np.int64(0)), np.int64(63))
            lost += np.int64(mantissa != 0) & np.int64(cut == 0)
            mantissa = cut
        # For the others a magnitude below 2**53 over 2**62 is as good as over more: not zero, and far below a half.
        mantissas[i] = mantissa
        shifts[i] = shift if mode == PSEUDO_STOCHASTIC else min(shift, np.int64(62))
        not_finite += np.int64(field == _EXPONENTS)
    return not_finite, lost


@jit
def _is_ordinary(doubles, exponent):
    """Tell whether the shortcut below is exact: all finite, no result of 2**62 or more, no power or product subnormal."""
    if exponent < -900 or exponent > 900:
        return False
    most = np.float64(2.0) ** min(exponent + 62, 1023)
    least = np.float64(2.0) ** max(exponent - 900, -1022) if exponent > 0 else np.float64(0)
    strange = np.int64(0)
    for i in range(doubles.size):
        magnitude = abs(doubles[i])
        strange += np.int64(not magnitude < most) | np.int64(0 < magnitude < least)
    return strange == 0


@jit
def _round_floats(doubles, made, exponent, mode, wraps, minimum, maximum, mask, sign, one):
    """Quantize ordinary floats, without taking them apart: bit for bit as the rules do, because every step is exact.

    Scaling by a power of two is; so is splitting a magnitude into its whole part and the rest.
    """
    scale = np.float64(2.0) ** -exponent
    nearest = TIES_EVEN <= mode <= TIES_ZERO
    beyond = 0.5 if nearest else 0.0
    # Whether a rest beyond that rounds away from zero, and a tie, by sign.
    away_positive = nearest or mode in (CEIL, TO_AWAY)
    away_negative = nearest or mode in (FLOOR, TO_AWAY, JAM)
    tie_positive, tie_negative = mode in (TIES_POS, TIES_AWAY), mode in (TIES_NEG, TIES_AWAY)
    tie_odd = mode == TIES_EVEN
    set_bit = np.int64(1) if mode == JAM else np.int64(0)
    zero = outside = lost = np.int64(0)
    for i in range(doubles.size):
        scaled = doubles[i] * scale
        magnitude = abs(scaled)
        whole = np.floor(magnitude)
        rest = magnitude - whole
        negative = scaled < 0
        quotient = np.int64(whole)
        tie = (tie_negative if negative else tie_positive) | (tie_odd & ((quotient & 1) == 1))
        away = ((rest > beyond) & (away_negative if negative else away_positive)) | (nearest & (rest == 0.5) & tie)
        quotient += one if away else zero
        rounded = (-quotient if negative else quotient) | set_bit
        fitted = fit(rounded, wraps, minimum, maximum, mask, sign)
        outside += one if fitted != rounded else zero
        lost += one if (scaled != 0) & (rounded == zero) else zero
        made[i] = fitted
    return outside, lost


@jit
def _round_floats_in_hardware(doubles, made, exponent, mode, wraps, minimum, maximum, mask, sign, one):
    """Do the same for the four modes that processors have: FLOOR, TO_ZERO, CEIL, TIES_EVEN."""
    scale = np.float64(2.0) ** -exponent
    zero = outside = lost = np.int64(0)
    for i in range(doubles.size):
        scaled = doubles[i] * scale
        if mode == TIES_EVEN:
            whole = np.rint(scaled)
        elif mode == FLOOR:
            whole = np.floor(scaled)
        elif mode == CEIL:
            whole = np.ceil(scaled)
        else:
            whole = np.trunc(scaled)
        rounded = np.int64(whole)
        fitted = fit(rounded, wraps, minimum, maximum, mask, sign)
        outside += one if fitted != rounded else zero
        lost += one if (scaled != 0) & (rounded == zero) else zero
        made[i] = fitted
    return outside, lost


@jit
def _round_floats_stochastically(doubles, made, exponent, fractions, random_bits, wraps, minimum, maximum, mask, sign, one):
    """Do the same for stochastic rounding: the rest, with its sign, is cut to `random_bits` bits towards minus infinity."""
    scale, unit = np.float64(2.0) ** -exponent, np.float64(2.0) ** random_bits
    zero = outside = lost = np.int64(0)
    for i in range(doubles.size):
        scaled = doubles[i] * scale
        whole = np.trunc(scaled)
        cut = np.floor((scaled - whole) * unit)
        rounded = np.int64(whole) + ((np.int64(cut) + fractions[i]) >> random_bits)
        fitted = fit(rounded, wraps, minimum, maximum, mask, sign)
        outside += one if fitted != rounded else zero
        lost += one if (scaled != 0) & (rounded == zero) else zero
        made[i] = fitted
    return outside, lost


@jit
def _quantize(
    values, out, out_width, start, stop, exponents, length, mode, wraps, minimum, maximum, mask, sign,
    sequence, first_index, random_bits, counters,
):  # fmt: skip
    """Write elements of ``values / 2**exponents``, rounded and fitted into the word; return how many are not finite.

    The arguments are those of :func:`intnet.kernels.plain.requantize`, with exponents for shifts, and floats, not bytes, for
    values.
    """
    key_0, key_1, stream, step = sequence
    fractions = np.empty(room_for(WINDOW, random_bits) if mode == STOCHASTIC else 1, np.int64)
    drawn = fractions
    room = np.empty(WINDOW if exponents.size > 1 else 1, np.int64)
    mantissas, shifts, made = np.empty(WINDOW, np.int64), np.empty(WINDOW, np.int64), np.empty(WINDOW, np.int64)
    doubles = np.empty(WINDOW, np.float64)
    bits = doubles.view(np.int64)
    one = min(stop - start, np.int64(1))
    not_finite, outside, lost = np.int64(0), np.int64(0), np.int64(0)
    least, greatest = _INT64_MAX, _INT64_MIN
    end = start
    while end < stop:
        begin, end = end, window_end(end, stop, length, exponents)
        size = end - begin
        _widen(values[begin:end], doubles)
        here = shifts_of(exponents, length, begin, end, room)
        if mode == STOCHASTIC:
            skip = fill_fractions(key_0, key_1, stream, step, first_index + begin, size, random_bits, fractions)
            drawn = fractions[skip:]
        if mode == PSEUDO_STOCHASTIC or here.size > 1 or not _is_ordinary(doubles[:size], here[0]):
            strange, cut_away = _take_apart(bits[:size], here, mode, mantissas, shifts)
            not_finite += strange
            lost += cut_away
            some_outside, some_lost = requantize_run(
                mantissas[:size], made, shifts[:size], mode, drawn, random_bits,
                wraps, minimum, maximum, mask, sign, one,
            )  # fmt: skip
        elif mode == STOCHASTIC:
            some_outside, some_lost = _round_floats_stochastically(
                doubles[:size], made, here[0], drawn, random_bits, wraps, minimum, maximum, mask, sign, one
            )
        elif mode in (TIES_EVEN, FLOOR, CEIL, TO_ZERO):
            some_outside, some_lost = _round_floats_in_hardware(
                doubles[:size], made, here[0], mode, wraps, minimum, maximum, mask, sign, one
            )
        else:
            some_outside, some_lost = _round_floats(
                doubles[:size], made, here[0], mode, wraps, minimum, maximum, mask, sign, one
            )
        store(made[:size], out, out_width, begin)
        outside += some_outside
        lost += some_lost
        least, greatest = extent(made[:size], least, greatest)
    count(counters, wraps, outside, lost, least, greatest)
    return not_finite


# 2. Calls ----------------------------------------------------------------------------------------------------------------


def quantize(
    values: Floats,
    exponents: ArrayLike,
    rounding: int,
    overflow: int,
    word_bits: int,
    *,
    signed: bool = True,
    layout: Sequence[int] | None = None,
    random_bits: int = 32,
    seed: int = 0,
    stream: int = 0,
    step: int = 0,
    first_index: int = 0,
    counters: NDArray[np.int64] | None = None,
) -> Integers:
    """Return the integers ``values / 2**exponents``, rounded once and fitted into a word.

    Parameters
    ----------
    values : array of float32 or float64, any shape
        Real numbers, finite; taken in C order.
    exponents : int, or array that broadcasts to (1 or outer, blocks, inner)
        The power of two that one unit of the result stands for; magnitudes below 2**62.
    rounding, overflow, word_bits, signed, layout, random_bits, seed, stream, step, first_index, counters
        As in :func:`intnet.kernels.requantize`. For pseudo-stochastic rounding the discarded bits are those of the 53-bit
        mantissa of a float64.

    Returns
    -------
    array of signed integers, shape of `values`
        Of the narrowest type that holds the word.

    Raises
    ------
    InputError
        If a value is infinite or not a number.

    Examples
    --------
    >>> from intnet.arithmetic import TIES_EVEN
    >>> quantize(np.array([0.5, -0.375, 100.0]), -2, TIES_EVEN, 1, 8)
    array([  2,  -2, 127], dtype=int8)
    """
    out = np.empty(values.shape, storage_of(word_bits, signed))
    layout = (1, 1, values.size, 1) if layout is None else layout
    arguments = (
        shifts_of_layout(exponents, layout),
        np.int64(max(1, layout[2])),
        np.int64(rounding),
        *word_of(word_bits, signed, overflow),
        sequence_words(seed, stream, step) if rounding == STOCHASTIC else NO_SEQUENCE,
        np.int64(first_index),
        np.int64(random_bits),
    )
    tensors = (np.ascontiguousarray(values).reshape(-1), out.reshape(-1).view(np.uint8), np.int64(out.itemsize))

    def piece(start: int, stop: int) -> tuple[int, NDArray[np.int64]]:
        counted = new_counters()
        return _quantize(*tensors, np.int64(start), np.int64(stop), *arguments, counted), counted

    results = _parallel.run(piece, _parallel.pieces_of(values.size, multiple=4, minimum=PIECE))
    if any(not_finite for not_finite, _ in results):
        raise _not_finite(values)
    if counters is not None:
        add_counters(counters, [counted for _, counted in results])
    return out


def _not_finite(values: Floats) -> InputError:
    places = np.flatnonzero(~np.isfinite(values))
    index = tuple(int(i) for i in np.unravel_index(places[0], values.shape))
    where = f"index {index[0] if len(index) == 1 else index}" if index else "the only one"
    return InputError(
        f"values to quantize must be finite; {places.size} of {values.size} are not, the first at {where}: "
        f"{values.reshape(-1)[places[0]]}"
    )


def exponents_of(
    values: Floats, layout: Sequence[int], word_bits: int, minimum: int, maximum: int, *, share_outer: bool = False
) -> NDArray[np.int64]:
    """Return for each block the smallest exponent with which its numbers fit into a word, before rounding.

    That is the smallest e with ``abs(x) < 2**(word_bits - 1 + e)`` for all x of the block, which is
    ``floor(log2(max abs x)) - word_bits + 2``, in ``minimum..maximum``; the minimum for a block of zeros or of nothing.
    Rounding may still carry the largest to ``2**(word_bits - 1)``, where the overflow mode decides.

    This is SWALP's block exponent (floor(log2(max abs x)) for the leading bit). NITI takes ``ceil(log2(max abs x)) - 7`` for
    8 bits: the same, but where the maximum is a power of two, which it clips to 127 units and we halve. A minimum of just
    ``-2**(word_bits - 1 + e)`` would fit with e too: neither study uses that, so that signs are treated alike.

    Parameters
    ----------
    values : array of float32 or float64, C-contiguous
    layout, word_bits, minimum, maximum, share_outer
        As in :func:`intnet.kernels.requantization.exponents_of_integers`.

    Returns
    -------
    (outer, blocks, inner) int64, or (1, blocks, inner) where the outer axis is shared

    Raises
    ------
    InputError
        If a value is infinite or not a number.

    Examples
    --------
    >>> exponents_of(np.array([[127.9, -3], [-128, 0], [0, 0]]), (1, 3, 2, 1), 8, -128, 127).ravel()
    array([   0,    1, -128])
    """
    outer, blocks, length, inner = layout
    largest = np.zeros((outer, blocks, inner))
    if values.size:
        data = values.reshape(outer, blocks, length, inner)
        largest = np.maximum(data.max(2), -data.min(2))
    if share_outer:
        largest = largest.max(0, initial=0, keepdims=True)
    if not np.isfinite(largest).all():
        raise _not_finite(values)
    _, power = np.frexp(largest)  # largest = fraction * 2**power, 1/2 <= fraction < 1
    exponents = np.clip(power.astype(np.int64) - (word_bits - 1), minimum, maximum)
    return np.where(largest == 0, np.int64(minimum), exponents)


def dequantize(mantissas: Integers, exponents: ArrayLike, *, layout: Sequence[int] | None = None) -> NDArray[np.float64]:
    """Return the real numbers ``mantissas * 2**exponents``.

    Exact for magnitudes up to 2**53 (so for words of up to 54 bits), if the number is not below the normal range of float64.
    A greater mantissa is rounded to nearest, ties to even; and so is a subnormal result.

    Parameters
    ----------
    mantissas : array of integers, any shape
    exponents : int, or array that broadcasts to (1 or outer, blocks, inner)
    layout : (outer, blocks, length, inner), optional
        As in :func:`intnet.kernels.requantize`.

    Returns
    -------
    array of float64, shape of `mantissas`

    Raises
    ------
    InputError
        If a number is too large for float64.

    Examples
    --------
    >>> dequantize(np.array([2, -2, 127], np.int8), -2)
    array([ 0.5 , -0.5 , 31.75])
    """
    layout = (1, 1, mantissas.size, 1) if layout is None else layout
    powers = np.clip(shifts_of_layout(exponents, layout), -5000, 5000)[:, :, np.newaxis, :]  # beyond any float64
    if powers.size == 0 or mantissas.size == 0:
        return np.zeros(mantissas.shape)
    values = mantissas.reshape(layout).astype(np.float64)
    if powers.min() >= -1022 and powers.max() <= 1023 - 64:  # the powers are normal numbers, and no product is too large
        values *= np.ldexp(1.0, powers)
    else:
        with np.errstate(over="ignore", under="ignore"):
            values = np.ldexp(values, powers)
        if not np.isfinite(values).all():
            raise InputError(f"exponents up to {int(powers.max())} give numbers too large for float64")
    return values.reshape(mantissas.shape)


def quantize_nearest(values: NDArray[np.floating], fraction_bits: int) -> NDArray[np.int64]:
    """Return ``rint(values * 2**fraction_bits)``: the nearest integers, ties to even.

    Made for the few hundred levels of a data set: NumPy alone, so that the programs of the cliff study need not compile
    :func:`quantize`, which gives the same integers.

    Parameters
    ----------
    values : array of floats, any shape
        Real numbers, finite.
    fraction_bits : int
        Fraction bits of the result.

    Returns
    -------
    array of int64, shape of `values`

    Raises
    ------
    InputError
        If a value is not finite or its integer does not fit in int64.

    Examples
    --------
    >>> quantize_nearest(np.array([0.5, -0.375]), 2)
    array([ 2, -2])
    """
    scaled = np.rint(np.asarray(values, np.float64) * 2.0**fraction_bits)
    if not (np.abs(scaled) < 2.0**63).all():  # also false for NaN
        raise InputError(
            f"values to quantize must be finite and below 2**{63 - fraction_bits} in magnitude "
            f"for {fraction_bits} fraction bits, got {scaled.min() / 2.0**fraction_bits} to "
            f"{scaled.max() / 2.0**fraction_bits}"
        )
    return scaled.astype(np.int64)
