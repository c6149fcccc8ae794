"""One step of stochastic gradient descent: what is prepared once a tensor, so that a step is one call of the kernel."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from intnet.arithmetic import STOCHASTIC
from intnet.kernels import _parallel
from intnet.kernels.place import gpu, on_device, to_device
from intnet.kernels.plain import update as plain_update
from intnet.kernels.requantization import Integers, add_counters, new_counters, word_of
from intnet.kernels.simd import requantize as simd_requantize
from intnet.kernels.simd import update as simd_update
from intnet.random import seed_words

_COMPILED = not numba.config.DISABLE_JIT
_NOTHING_COUNTED = np.stack([new_counters()] * 3)
PIECE = 1 << 14  # elements worth a thread
_PIECE_DRAWN = 1 << 17  # where their random bits are there already
_DRAWN_AHEAD = 1 << 20  # weights whose random bits are kept in memory between steps, at most
_NOTHING_DRAWN = np.empty((2, 0), np.uint16)


class Target(NamedTuple):
    """Where a role's exact numbers go: divided by ``2**shift``, rounded, fitted into a word.

    `shift` is any int64 but -2**63, negative to the left; `rounding` and `overflow` are the codes of
    :func:`intnet.kernels.requantize`; the word is signed. `random_bits` and `stream` are those of stochastic rounding.
    """

    shift: int
    rounding: int
    overflow: int
    word_bits: int
    random_bits: int = 32
    stream: int = 0


class Factors(NamedTuple):
    """The integer factors M, A, D, B and R of :mod:`intnet.kernels.plain.update`, alignments included."""

    momentum: int
    gradient: int
    decay: int
    weight: int
    rate: int


class Update:
    """One step of stochastic gradient descent on one tensor: see :mod:`intnet.kernels.plain.update`, which defines it.

    The caller has checked the arguments, and proven that what stands within a rounding fits in int64.

    Parameters
    ----------
    weights : C-contiguous integers that hold the word of `weight`
        Moved in place.
    velocity : C-contiguous integers that hold the word of `momentum`, or None
        Of the size of `weights`; moved in place. None without momentum.
    factors : Factors
    gradient, weight : Target
    momentum : Target, optional
        None without momentum.
    seed : int, 0..2**64 - 1
        Of the random bits.

    Examples
    --------
    A rate of 1/8 and momentum of 1/2, everything with 4 fraction bits, rounded to nearest:

    >>> from intnet.arithmetic import TIES_EVEN
    >>> from intnet.kernels.requantization import SATURATE
    >>> weights, velocity = np.array([10, -20], np.int16), np.array([4, 0], np.int16)
    >>> targets = [Target(shift, TIES_EVEN, SATURATE, 16) for shift in (0, 3, 1)]
    >>> move = Update(weights, velocity, Factors(1, 2, 0, 8, 1), targets[0], targets[1], targets[2])
    >>> move(np.array([40, -16], np.int32), 0)
    >>> weights.tolist(), velocity.tolist()
    ([5, -18], [42, -16])
    """

    def __init__(
        self,
        weights: Integers,
        velocity: Integers | None,
        factors: Factors,
        gradient: Target,
        weight: Target,
        momentum: Target | None = None,
        seed: int = 0,
    ) -> None:
        self.size, self._on_device = weights.size, on_device(weights)
        self._moved = weights.reshape(-1), None if velocity is None else velocity.reshape(-1)
        self._weights = self._as_bytes(weights)
        self._velocity = (np.empty(0, np.uint8), 0) if velocity is None else self._as_bytes(velocity)
        self._roles = np.array([_line(role) for role in (gradient, momentum or gradient, weight)], np.int64)
        self._factors = np.array(factors, np.int64)
        self._keys = seed_words(seed)
        self._there = (to_device(self._roles), to_device(self._factors)) if self._on_device else ()
        narrow = (gradient, weight) if momentum is None else (gradient, momentum, weight)
        self.narrow = _COMPILED and all(map(_is_narrow, narrow)) and _fits_int32(factors, gradient, weight, momentum)
        self.draws = self.narrow and momentum is None and all(_draws_few(role) for role in (gradient, weight))
        self._pieces = _parallel.pieces_of(self.size, multiple=4, minimum=PIECE)

    @staticmethod
    def _as_bytes(array: Integers) -> tuple[NDArray[np.uint8], int]:
        return array.reshape(-1).view(np.uint8), array.dtype.itemsize

    def __call__(self, sums: Integers, step: int, counters: NDArray[np.int64] | None = None) -> None:
        """Move the weights.

        Parameters
        ----------
        sums : C-contiguous integers, of the size of the weights
            G, the exact gradient.
        step : int, 0..2**32 - 1
            Of the random bits.
        counters : (3, COUNTERS) int64, optional
            Of gradient, momentum and weight; added to.
        """
        narrow = self.narrow and sums.dtype.itemsize <= 4
        if self._on_device:
            gpu().update(sums, *self._moved, *self._there, self._keys, step, counters, narrow)
            return
        kernel: Any = simd_update.update if narrow else plain_update.update
        arguments = (*self._as_bytes(sums), *self._weights, *self._velocity)
        constants = (self._roles, self._factors, *self._keys, np.uint64(step), *((_NOTHING_DRAWN,) if narrow else ()))
        counted = new_counters_of_roles() if counters is None else counters
        if len(self._pieces) == 1:
            kernel(*arguments, 0, self.size, *constants, counted)
            return

        def piece(start: int, stop: int) -> NDArray[np.int64]:
            of_piece = counted if start == 0 else new_counters_of_roles()
            kernel(*arguments, start, stop, *constants, of_piece)
            return of_piece

        for other in _parallel.run(piece, self._pieces)[1:]:
            add_counters(counted.T, [other.T])


class Updates:
    """Steps of several tensors in one call: what one :class:`Update` after the other does.

    Parameters
    ----------
    updates : sequence of Update
        Of different tensors.

    Examples
    --------
    >>> from intnet.arithmetic import TIES_EVEN
    >>> from intnet.kernels.requantization import SATURATE
    >>> word, (one, two) = Target(0, TIES_EVEN, SATURATE, 16), np.array([[10, 20], [30, 40]], np.int16)
    >>> together = Updates([Update(weights, None, Factors(0, 0, 0, 1, 1), word, word) for weights in (one, two)])
    >>> together([np.array([1, 2]), np.array([3, 4])], 0, [new_counters_of_roles() for _ in range(2)])
    >>> one.tolist(), two.tolist()
    ([9, 18], [27, 36])
    """

    TOGETHER = 8
    """So many at most in one call of the kernel, which is compiled for tuples of this length."""

    def __init__(self, updates: Sequence[Update]) -> None:
        self.updates = list(updates)
        parts = [self.updates[first : first + self.TOGETHER] for first in range(0, len(self.updates), self.TOGETHER)]
        together = _COMPILED and not any(one._on_device for one in updates)
        self._parts = [_Together(part, self.TOGETHER) for part in parts] if together else []

    def __call__(self, sums: Sequence[Integers], step: int, counters: Sequence[NDArray[np.int64]]) -> None:
        """Move the weights; the arguments are those of :class:`Update`, one of each a tensor."""
        if not self._parts:
            for update, of_update, counted in zip(self.updates, sums, counters, strict=True):
                update(of_update, step, counted)
        first = 0
        for part in self._parts:
            last = first + part.count
            part(sums[first:last], step, counters[first:last])
            first = last


class _Together:
    """Up to `room` updates, and how they are shared among threads: pieces of all their elements."""

    def __init__(self, updates: Sequence[Update], room: int) -> None:
        self.count = len(updates)
        self._filling = room - self.count
        filled = [*updates, *([updates[0]] * self._filling)]
        self._weights = tuple(one._weights[0] for one in filled)
        self._velocities = tuple(one._velocity[0] for one in filled)
        self._widths = np.array([(0, one._weights[1], one._velocity[1], one.narrow) for one in filled], np.int64)
        self._roles, self._factors = np.stack([one._roles for one in filled]), np.stack([one._factors for one in filled])
        self._keys = np.array([one._keys for one in filled], np.uint64)
        # Random bits do not depend on the gradients: a thread with nothing to do draws those of the step that will follow.
        size = sum(one.size for one in updates)
        drawn = [size <= _DRAWN_AHEAD and tensor < self.count and one.draws for tensor, one in enumerate(filled)]
        places = [(one.size + 3) // 4 * 4 if draws else 0 for one, draws in zip(filled, drawn, strict=True)]
        self._drawn = tuple(np.empty((2, words), np.uint16) for words in places)
        self._undrawn = (_NOTHING_DRAWN,) * room
        self._any_drawn, self._ahead_of = any(drawn), -1
        self._ahead: _parallel.Ahead | None = None
        lines: list[tuple[int, ...]] = []
        self._pieces: list[tuple[int, int, int]] = []  # lines, and the tensor that an earlier piece has begun, or -1
        piece = _PIECE_DRAWN if self._any_drawn else PIECE
        for start, stop in _parallel.pieces_of(size, multiple=4, minimum=piece):
            before, begin = len(lines), 0
            for tensor, one in enumerate(updates):
                inside = [min(max((bound - begin + 3) // 4 * 4, 0), one.size) for bound in (start, stop)]
                lines += [(tensor, *inside)] if inside[0] < inside[1] else []
                begin += one.size
            self._pieces.append((before, len(lines), lines[before][0] if lines[before][1] else -1))
        self._lines = np.array(lines, np.int64).reshape(-1, 3)

    def _draw(self) -> None:
        simd_update.draw(self._roles, self._keys, np.uint64(self._ahead_of), self._drawn)

    def _words_of(self, step: int) -> tuple[NDArray[np.uint16], ...]:
        """Return the random bits of a step, if they were drawn."""
        ahead, self._ahead = self._ahead, None
        done = ahead is not None and ahead.done()
        return self._drawn if done and step == self._ahead_of else self._undrawn

    def __call__(self, sums: Sequence[Integers], step: int, counters: Sequence[NDArray[np.int64]]) -> None:
        data = [one.reshape(-1).view(np.uint8) for one in sums]
        for tensor, one in enumerate(sums):
            self._widths[tensor, 0] = one.itemsize
        arguments = (*data, *([data[0]] * self._filling)), self._weights, self._velocities, self._widths, self._lines
        constants = self._roles, self._factors, self._keys, np.uint64(step), self._words_of(step)
        counted = (*counters, *([counters[0]] * self._filling))

        def piece(first: int, last: int, divided: int) -> NDArray[np.int64] | None:
            if divided < 0:
                simd_update.update_together(*arguments, first, last, *constants, counted)
                return None
            apart = new_counters_of_roles()
            of_piece = (*counted[:divided], apart, *counted[divided + 1 :])
            simd_update.update_together(*arguments, first, last, *constants, of_piece)
            return apart

        for (_, _, divided), apart in zip(self._pieces, _parallel.run(piece, self._pieces), strict=True):
            if apart is not None:
                add_counters(counters[divided].T, [apart.T])
        if self._any_drawn and step + 1 < 2**32:
            self._ahead_of = step + 1
            self._ahead = _parallel.Ahead(self._draw)


def _line(role: Target) -> tuple[Any, ...]:
    word = word_of(role.word_bits, True, role.overflow)
    return (role.shift, role.rounding, *word, role.random_bits, role.stream)


def _is_narrow(role: Target) -> bool:
    """Tell whether the fast kernel rounds like this."""
    few_bits = role.rounding != STOCHASTIC or role.random_bits <= simd_requantize.RANDOM_BITS_MAX
    few_bits = few_bits and role.word_bits <= simd_requantize.WORD_BITS_MAX
    return few_bits and 0 <= role.shift <= simd_requantize.SHIFT_MAX


def _draws_few(role: Target) -> bool:
    """Tell whether its random bits fit in 16."""
    return role.rounding == STOCHASTIC and 0 <= role.shift <= 16


def _fits_int32(factors: Factors, gradient: Target, weight: Target, momentum: Target | None) -> bool:
    """Tell whether all that is computed from words fits in int32, the factors themselves included."""
    of_gradient, of_weight = 1 << (gradient.word_bits - 1), 1 << (weight.word_bits - 1)
    m, a, d, b, r = map(abs, factors)
    exact = [m, a, d, b, r, b + d]
    if momentum is None:
        exact.append((b + d) * of_weight + r * of_gradient)
    else:
        of_momentum = 1 << (momentum.word_bits - 1)
        exact += [m * of_momentum + a * of_gradient + d * of_weight, b * of_weight + r * of_momentum]
    return max(exact) < 2**31


def new_counters_of_roles() -> NDArray[np.int64]:
    """Return counters of nothing for the gradient, the momentum and the weight, (3, COUNTERS)."""
    return _NOTHING_COUNTED.copy()
