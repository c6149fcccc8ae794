"""Requantizing whole tensors: what stands between a checked call and the kernel of :mod:`intnet.kernels.plain.requantize`."""

from collections.abc import Sequence
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from intnet.arithmetic import JAM, STOCHASTIC, word_constants
from intnet.kernels import _parallel, plain
from intnet.kernels.place import empty_beside, gpu, on_device
from intnet.kernels.reduce import extremes
from intnet.kernels.simd import requantize as simd_requantize
from intnet.random import sequence_words

WRAP, SATURATE, SATURATE_SYMMETRIC, ERROR = range(4)  # the codes of intnet.formats.Overflow
Integers = NDArray[np.signedinteger]
Word = tuple[bool, np.int64, np.int64, np.int64, np.int64]

COMPILED = not numba.config.DISABLE_JIT
_STORAGE = (np.int8, np.int16, np.int32, np.int64)
PIECE = 1 << 16  # elements worth a thread
NO_SEQUENCE = (np.uint64(0),) * 4


def new_counters() -> NDArray[np.int64]:
    """Return counters of nothing: no events, a least result of 2**63 - 1 and a greatest of -2**63."""
    counters = np.zeros(plain.COUNTERS, np.int64)
    counters[plain.SEEN_MINIMUM], counters[plain.SEEN_MAXIMUM] = 2**63 - 1, -(2**63)
    return counters


def add_counters(counters: NDArray[np.int64], others: Sequence[NDArray[np.int64]]) -> None:
    """Add to `counters` what others counted, and take their range into it."""
    for other in others:
        counters[: plain.SEEN_MINIMUM] += other[: plain.SEEN_MINIMUM]
        counters[plain.SEEN_MINIMUM] = np.minimum(counters[plain.SEEN_MINIMUM], other[plain.SEEN_MINIMUM])
        counters[plain.SEEN_MAXIMUM] = np.maximum(counters[plain.SEEN_MAXIMUM], other[plain.SEEN_MAXIMUM])


def word_of(word_bits: int, signed: bool, overflow: int) -> Word:
    """Return the five numbers by which the kernels know a word: see :mod:`intnet.kernels.plain.requantize`."""
    maximum = 2 ** (word_bits - signed) - 1
    minimum = -maximum - 1 if signed else 0
    if signed and overflow == SATURATE_SYMMETRIC:
        minimum = -maximum
    return overflow in (WRAP, ERROR), np.int64(minimum), np.int64(maximum), *word_constants(np.int64(word_bits), signed)


def storage_of(word_bits: int, signed: bool) -> type[np.signedinteger]:
    """Return the narrowest signed NumPy integer that holds the word."""
    return next(kind for kind in _STORAGE if np.iinfo(kind).bits >= word_bits + (not signed))


def shifts_of_layout(shifts: ArrayLike, layout: Sequence[int]) -> NDArray[np.int64]:
    """Return shifts or exponents as the kernels want them: (1 or outer, blocks, inner), or one for all as (1, 1, 1)."""
    array = np.asarray(shifts, np.int64)
    if array.size == 1:
        return array.reshape(1, 1, 1)
    outer, blocks, _, inner = layout
    first = array.shape[0] if array.ndim == 3 else 1
    return np.ascontiguousarray(np.broadcast_to(array, (outer if first > 1 else 1, blocks, inner)))


def requantize(
    values: Integers,
    shifts: ArrayLike,
    rounding: int,
    overflow: int,
    word_bits: int,
    *,
    signed: bool = True,
    layout: Sequence[int] | None = None,
    out: Integers | None = None,
    random_bits: int = 32,
    seed: int = 0,
    stream: int = 0,
    step: int = 0,
    first_index: int = 0,
    counters: NDArray[np.int64] | None = None,
) -> Integers:
    """Return ``values / 2**shifts``, rounded and fitted into a word. The caller has checked the arguments.

    Parameters
    ----------
    values : array of signed integers, any shape
        Raw values; taken in C order, so that what is not contiguous is copied.
    shifts : int, or array that broadcasts to (1 or outer, blocks, inner)
        Bits to drop, or where negative to add: the value is multiplied, and may leave any word. Any int64 but -2**63.
    rounding : int
        The code of an :class:`intnet.formats.Rounding`, FLOOR .. PSEUDO_STOCHASTIC of :mod:`intnet.arithmetic`.
    overflow : int
        The code of an :class:`intnet.formats.Overflow`. ERROR gives the bits of WRAP, and is counted as that: the caller
        raises.
    word_bits : int
        Length of the word: 1..64, or 1..63 where not `signed`.
    signed : bool
        Two's complement, or from zero.
    layout : (outer, blocks, length, inner), optional
        The axes of `values` that `shifts` refer to, as by :meth:`intnet.formats.BlockFloat.layout`: element [o, b, l, i] is
        shifted by ``shifts[o, b, i]``. Needed where there is more than one shift.
    out : array of signed integers, C-contiguous, shape of `values`, optional
        Where to write; its type must hold the word. By default a new array of the narrowest type that does.
    random_bits, seed, stream, step, first_index : int
        For stochastic rounding: element i in C order takes the `random_bits` (1..62) bits of element ``first_index + i`` of
        the sequence (seed, stream, step); see :mod:`intnet.random`.
    counters : (COUNTERS,) int64, optional
        Added to; see :func:`new_counters` and the COUNT names. Without it nothing is counted.

    Returns
    -------
    array of signed integers, shape of `values`
        `out`, if it was given.

    Examples
    --------
    >>> from intnet.arithmetic import TIES_EVEN
    >>> counters = new_counters()
    >>> requantize(np.array([[5, 6, -1], [7, 600, 0]]), 2, TIES_EVEN, SATURATE, 8, counters=counters)
    array([[  1,   2,   0],
           [  2, 127,   0]], dtype=int8)
    >>> counters.tolist()  # saturated, wrapped, lost, the least and the greatest result
    [1, 0, 1, 0, 127]
    """
    if on_device(values):
        layout = (1, 1, values.size, 1) if layout is None else layout
        sequence = sequence_words(seed, stream, step) if rounding == STOCHASTIC else NO_SEQUENCE
        word, target = word_of(word_bits, signed, overflow), out
        if target is None:
            target = empty_beside(values, values.shape, storage_of(word_bits, signed))
        how = rounding, word, target, max(1, layout[2]), sequence, first_index, random_bits, counters
        return gpu().requantize(values, shifts_of_layout(shifts, layout), *how)
    if isinstance(shifts, int) or np.size(shifts) == 1:
        shift = shifts if isinstance(shifts, int) else int(np.asarray(shifts).reshape(-1)[0])
        if 0 <= shift <= simd_requantize.SHIFT_MAX and values.itemsize <= 4:
            prepared = _prepared(rounding, overflow, word_bits, signed, random_bits, seed, stream)
            if prepared.narrow and first_index % 4 == 0:
                return prepared(values, shift, step, out, counters, first_index)
    if out is None:
        out = np.empty(values.shape, storage_of(word_bits, signed))
    layout = (1, 1, values.size, 1) if layout is None else layout
    shifts = shifts_of_layout(shifts, layout)
    mode, word = np.int64(rounding), word_of(word_bits, signed, overflow)
    flat, flat_out = np.ascontiguousarray(values).reshape(-1), out.reshape(-1)
    counting = counters is not None
    if shifts.size == 1 and 0 <= shifts[0, 0, 0] <= 62 and mode <= JAM:
        shift = shifts[0, 0, 0]

        def piece(start: int, stop: int) -> NDArray[np.int64] | None:
            counted = new_counters() if counting else None
            plain.round_all(flat, flat_out, np.int64(start), np.int64(stop), shift, mode, *word, counted)
            return counted

    else:
        tensors = (flat.view(np.uint8), np.int64(flat.itemsize), flat_out.view(np.uint8), np.int64(flat_out.itemsize))
        sequence = sequence_words(seed, stream, step) if rounding == STOCHASTIC else NO_SEQUENCE
        arguments = (shifts, np.int64(max(1, layout[2])), mode, *word, sequence, np.int64(first_index), np.int64(random_bits))

        def piece(start: int, stop: int) -> NDArray[np.int64] | None:
            counted = new_counters()
            plain.requantize(*tensors, np.int64(start), np.int64(stop), *arguments, counted)
            return counted

    counts = _parallel.run(piece, _parallel.pieces_of(values.size, multiple=4, minimum=PIECE))
    if counters is not None:
        add_counters(counters, [counted for counted in counts if counted is not None])
    return out


class Requantizer:
    """A role's :func:`requantize`, prepared once, so that a call with one shift costs little more than its kernel.

    Parameters
    ----------
    rounding, overflow, word_bits, signed, random_bits, seed, stream : as in :func:`requantize`

    Examples
    --------
    >>> from intnet.arithmetic import TIES_EVEN
    >>> Requantizer(TIES_EVEN, SATURATE, 8)(np.array([[5, 6, -1], [7, 600, 0]], np.int32), 2)
    array([[  1,   2,   0],
           [  2, 127,   0]], dtype=int8)
    """

    def __init__(
        self,
        rounding: int,
        overflow: int,
        word_bits: int,
        *,
        signed: bool = True,
        random_bits: int = 32,
        seed: int = 0,
        stream: int = 0,
    ) -> None:
        self.storage = storage_of(word_bits, signed)
        word = word_of(word_bits, signed, overflow)
        self._stochastic = rounding == STOCHASTIC
        sequence = sequence_words(seed, stream, 0) if self._stochastic else NO_SEQUENCE
        self._keys = sequence[:2]
        self._role = np.array([0, rounding, *word, random_bits, int(sequence[2])], np.int64)
        self._uncounted = new_counters()
        self._options = (rounding, overflow, word_bits)
        self._signed, self._random_bits, self._seed, self._stream = signed, random_bits, seed, stream
        self.narrow = (
            COMPILED
            and word_bits <= simd_requantize.WORD_BITS_MAX
            and not (self._stochastic and random_bits > simd_requantize.RANDOM_BITS_MAX)
        )

    def __call__(
        self,
        values: Integers,
        shift: int,
        step: int = 0,
        out: Integers | None = None,
        counters: NDArray[np.int64] | None = None,
        first_index: int = 0,
    ) -> Integers:
        """Return ``values / 2**shift``, rounded and fitted into the word; the arguments are those of :func:`requantize`."""
        if (
            on_device(values)
            or not (self.narrow and 0 <= shift <= simd_requantize.SHIFT_MAX and values.itemsize <= 4)
            or (self._stochastic and first_index & 3)
        ):
            return requantize(
                values, shift, *self._options, signed=self._signed, out=out, random_bits=self._random_bits, seed=self._seed,
                stream=self._stream, step=step, first_index=first_index, counters=counters,
            )  # fmt: skip
        if step >> 32:
            sequence_words(0, 0, step)  # tells that it is out of its range
        if out is None:
            out = np.empty(values.shape, self.storage)
        size = values.size
        tensors = values.reshape(-1).view(np.uint8), values.itemsize, out.reshape(-1).view(np.uint8), out.itemsize
        constants = (shift, self._role, *self._keys, np.uint64(step), first_index)
        counted = self._uncounted if counters is None else counters
        if 0 < size < 2 * PIECE:
            simd_requantize.requantize(*tensors, 0, size, *constants, counted)
            return out

        def piece(start: int, stop: int) -> NDArray[np.int64]:
            of_piece = counted if start == 0 else new_counters()
            simd_requantize.requantize(*tensors, start, stop, *constants, of_piece)
            return of_piece

        add_counters(counted, _parallel.run(piece, _parallel.pieces_of(size, multiple=4, minimum=PIECE))[1:])
        return out


@lru_cache(1024)
def _prepared(
    rounding: int, overflow: int, word_bits: int, signed: bool, random_bits: int, seed: int, stream: int
) -> Requantizer:
    options = {"random_bits": random_bits, "seed": seed, "stream": stream}
    return Requantizer(rounding, overflow, word_bits, signed=signed, **options)


def exponents_of_integers(
    values: Integers, layout: Sequence[int], word_bits: int, minimum: int, maximum: int, *, share_outer: bool = False
) -> NDArray[np.int64]:
    """Return for each block the smallest shift after which its integers fit into a word, before rounding.

    That is the smallest e with ``abs(x) < 2**(word_bits - 1 + e)`` for all x of the block, in ``minimum..maximum``; the
    minimum for a block of zeros or of nothing. It is the rule of :func:`intnet.kernels.edge.exponents_of`, without floats.
    NITI's range is ``bw = ceil(log2(max abs x))`` with a shift of ``bw - 7``: the same for 8 bits and a minimum of 0, but
    where the maximum is a power of two, which NITI clips.

    Parameters
    ----------
    values : array of signed integers, C-contiguous
    layout : (outer, blocks, length, inner)
        The blocks, as in :func:`requantize`.
    word_bits : int, 1..64
    minimum, maximum : int
        Bounds of the result.
    share_outer : bool
        Whether a block reaches over the outer axis too.

    Returns
    -------
    (outer, blocks, inner) int64, or (1, blocks, inner) where the outer axis is shared

    Examples
    --------
    >>> exponents_of_integers(np.array([[127, -3], [128, 0], [0, 0]]), (1, 3, 2, 1), 8, 0, 62).ravel()
    array([0, 1, 0])
    """
    outer, blocks, length, inner = layout
    rows = outer * blocks
    if values.size and rows * inner == 1:  # one block, shared among threads
        return np.array([[[plain.shift_to_fit(*extremes(values), word_bits, minimum, maximum)]]], np.int64)
    least, greatest = np.zeros((2, rows, inner), np.int64)
    if values.size and on_device(values):
        least, greatest = gpu().extents(values, rows, length, inner)
    elif values.size:
        data = values.reshape(rows, length, inner)
        pieces = _parallel.pieces_of(rows, minimum=max(1, PIECE // (length * inner)))
        _parallel.run(lambda first, last: plain.extents(data, first, last, least, greatest), pieces)
    least, greatest = (part.reshape(outer, blocks, inner) for part in (least, greatest))
    if share_outer:
        least, greatest = least.min(0, initial=0, keepdims=True), greatest.max(0, initial=0, keepdims=True)
    exponents = np.empty(least.shape, np.int64)
    plain.shifts_to_fit(least.reshape(-1), greatest.reshape(-1), word_bits, minimum, maximum, exponents.reshape(-1))
    return exponents
