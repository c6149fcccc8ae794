"""A dense layer's products in one call each: what is prepared once, and whether it applies.

What comes back is that of :func:`intnet.kernels.multiply`, :func:`intnet.kernels.add_bias`,
:func:`intnet.kernels.exponents_of_integers`, :func:`intnet.kernels.requantize` and :func:`intnet.kernels.sum_axes`, one after
the other. Where it cannot be done in one call, None comes back instead and nothing is counted: the caller makes those calls.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from intnet.kernels.place import on_device
from intnet.kernels.product import _ALONE, _LEFT_TYPES, Integers, _scratch
from intnet.kernels.requantization import SATURATE, WRAP, Requantizer, new_counters, word_of
from intnet.kernels.simd import dense as simd_dense
from intnet.kernels.simd import product as simd_product
from intnet.kernels.simd import requantize as simd_requantize

_COMPILED = not numba.config.DISABLE_JIT
_NO_BIAS = {kind: np.empty(0, kind) for kind in _LEFT_TYPES}
_NO_TOTALS = np.empty(0, np.int64)


class Rounded(NamedTuple):
    """A product in a role's word."""

    values: Integers
    shift: int
    """The power of two by which the exact sums were divided."""
    left: int
    """How many sums lay outside the accumulator."""


class Gradients(NamedTuple):
    """What a dense layer makes of errors."""

    weights: NDArray[np.int32]
    totals: NDArray[np.int64]
    """The columns' sums, or () if they are not wanted."""
    inputs: Rounded | None


class _Plan(NamedTuple):
    """How a product of matrices of one type is done in one call."""

    limit: int
    """What its sums must be proven to be below; 0 where the type alone proves it."""
    words: int
    """How many words the packed right operand takes."""


class _Ready(NamedTuple):
    """A call made ready: for operands of just this kind, and for these very arrays, which may have changed since."""

    key: tuple[Any, ...]
    b: Integers
    bias: Integers | None
    counters: NDArray[np.int64] | None
    kind: Any
    shape: tuple[int, int]
    words: int
    arguments: tuple[Any, ...]


@lru_cache(1024)
def _plan(kind: Any, m: int, n: int, terms: int, bits: int) -> _Plan | None:
    """Return how to multiply (m, terms) by (terms, n) of a type, in an accumulator of so many bits; None if not in one call."""
    size, limit = np.dtype(kind).itemsize, 2 ** (bits - 1)
    if not (_COMPILED and bits <= 32 and kind in _LEFT_TYPES):
        return None
    if not 0 < m * n * terms <= _ALONE or terms * size > simd_product.DEPTH:
        return None
    return _Plan(limit if 4 ** (8 * size - 1) * terms >= limit else 0, simd_product.words_size(n, terms, size))


class RoundedProduct:
    """A product of matrices, plus a bias, in an accumulator and then in a role's word.

    Parameters
    ----------
    to : Requantizer
        Of the role.
    accumulator_bits : int, 2..64
    saturates : bool
        Whether sums outside the accumulator saturate; else they wrap.
    block_bits : int
        The word length of a block format whose block is the whole product; 0 for a fixed-point format.

    Examples
    --------
    >>> from intnet.arithmetic import TIES_EVEN
    >>> product = RoundedProduct(Requantizer(TIES_EVEN, SATURATE, 8), 32, True)
    >>> x, weights, bias = np.array([[3, 4]], np.int8), np.array([[10, 20], [50, -60]], np.int8), np.array([1, -2], np.int8)
    >>> product(x, weights, (3, 3), b_transposed=True, bias=bias, bias_shift=2)  # [[110 + 4, -90 - 8]] / 8
    Rounded(values=array([[ 14, -12]], dtype=int8), shift=3, left=0)
    """

    def __init__(self, to: Requantizer, accumulator_bits: int, saturates: bool, block_bits: int = 0) -> None:
        self.to, self.bits, self._block_bits = to, accumulator_bits, block_bits
        self._ready: _Ready | None = None
        self._ready_backward: _Ready | None = None
        self._constants, self._uncounted = (to._role, *to._keys), new_counters()
        self._accumulator = np.array(word_of(min(accumulator_bits, 32), True, SATURATE if saturates else WRAP), np.int64)

    def __call__(
        self,
        a: Integers,
        b: Integers,
        shifts: tuple[int, int],
        *,
        b_transposed: bool = False,
        bias: Integers | None = None,
        bias_shift: int = 0,
        step: int = 0,
        counters: NDArray[np.int64] | None = None,
        clamps: bool = False,
    ) -> Rounded | None:
        """Multiply, add, round.

        Parameters
        ----------
        a : (m, k) C-contiguous integers
        b : (k, n) C-contiguous integers, (n, k) if `b_transposed`
        shifts : (int, int)
            The sums are divided by ``2**shift``: the least shift and the greatest, one and the same for a fixed-point format.
        bias : (n,) C-contiguous integers, optional
            Added to every row, times ``2**bias_shift``.
        bias_shift : int
            So small that the shifted bias is below ``2**62``.
        step : int, 0..2**32 - 1
            Of the random bits.
        counters : (COUNTERS,) int64, optional
            Added to.
        clamps : bool
            Whether what is negative is set to 0 in the end, when it has been counted.

        Returns
        -------
        Rounded or None
            None if it cannot be done in one call.
        """
        if on_device(a):
            return None
        key = (a.shape, a.dtype, shifts, b_transposed, bias_shift, clamps)
        ready = self._ready
        if ready is None or ready.key != key or not (ready.b is b and ready.bias is bias and ready.counters is counters):
            ready = self._prepare(key, a, b, shifts, b_transposed, bias, bias_shift, counters, clamps)
        if ready is None or step >> 32:
            return None
        out = np.empty(ready.shape, self.to.storage)
        left, shift = simd_dense.multiply_requantize(
            a.reshape(-1), np.uint64(step), _scratch.words_of(ready.words), _scratch.left[ready.kind],
            out.reshape(-1).view(np.uint8), *ready.arguments,
        )  # fmt: skip
        return None if left < 0 else Rounded(out, shift, left)

    def _prepare(
        self, key: tuple[Any, ...], a: Integers, b: Integers, shifts: tuple[int, int], b_transposed: bool,
        bias: Integers | None, bias_shift: int, counters: NDArray[np.int64] | None, clamps: bool,
    ) -> _Ready | None:  # fmt: skip
        """Return what stays the same from step to step; None if it cannot be done in one call."""
        kind: Any = a.dtype.type
        m, terms = a.shape
        n = b.shape[0] if b_transposed else b.shape[1]
        added = _NO_BIAS.get(kind) if bias is None else bias
        one_type = added is not None and added.dtype.type is kind and b.dtype.type is kind
        can_shift = bias_shift >= 0 and (self._block_bits > 0 or 0 <= shifts[0] <= simd_requantize.SHIFT_MAX)
        plan = _plan(kind, m, n, terms, self.bits) if self.to.narrow and one_type and can_shift else None
        if plan is None:
            return None
        sums, counted = np.empty(m * n, np.int32), self._uncounted if counters is None else counters
        arguments = (
            b.reshape(-1), b_transposed, m, n, terms, plan.limit, added, bias_shift, self._accumulator, sums,
            sums.view(np.uint8), self._block_bits, *shifts, *self._constants, np.dtype(self.to.storage).itemsize, counted,
            clamps,
        )  # fmt: skip
        self._ready = _Ready(key, b, bias, counters, kind, (m, n), plan.words, arguments)
        return self._ready

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what looks into arrays of this process."""
        return {**self.__dict__, "_ready": None, "_ready_backward": None}

    def backward(
        self,
        dy: Integers,
        x: Integers,
        weights: Integers,
        shifts: tuple[int, int],
        *,
        sum_columns: bool = True,
        step: int = 0,
        counters: NDArray[np.int64] | None = None,
        selects: bool = False,
    ) -> Gradients | None:
        """Multiply errors by inputs, as :func:`multiply_transposed` does, and by weights, and round the latter.

        Parameters
        ----------
        dy : (m, n) C-contiguous integers
        x : (m, k) C-contiguous integers
        weights : (n, k) C-contiguous integers
        sum_columns : bool
            Whether the sums of the columns of `dy` are wanted.
        selects : bool
            Whether the result is set to 0 where `x` is not positive, when it has been counted.
        shifts, step, counters : as above

        Returns
        -------
        Gradients or None
            None if nothing can be done in one call. Where only the second product cannot, it is None and nothing is counted.
        """
        if on_device(dy):
            return None
        key = (dy.shape, x.shape, dy.dtype, x.dtype, shifts, sum_columns, selects)
        ready = self._ready_backward
        if ready is None or ready.key != key or not (ready.b is weights and ready.counters is counters):
            ready = self._prepare_backward(key, dy, x, weights, shifts, counters, selects)
        if ready is None or step >> 32:
            return None
        (m, k), n = x.shape, dy.shape[1]
        gradient, totals = np.empty((n, k), np.int32), np.empty(n, np.int64) if sum_columns else _NO_TOTALS
        dx = np.empty((m, k), self.to.storage)
        done, left, shift = simd_dense.backward(
            dy.reshape(-1), x.reshape(-1), np.uint64(step), _scratch.words_of(ready.words), _scratch.left[ready.kind],
            gradient.reshape(-1), totals, dx.reshape(-1).view(np.uint8), *ready.arguments,
        )  # fmt: skip
        return Gradients(gradient, totals, None if left < 0 else Rounded(dx, shift, left)) if done else None

    def _prepare_backward(
        self, key: tuple[Any, ...], dy: Integers, x: Integers, weights: Integers, shifts: tuple[int, int],
        counters: NDArray[np.int64] | None, selects: bool,
    ) -> _Ready | None:  # fmt: skip
        kind: Any = dy.dtype.type
        (m, n), k = dy.shape, x.shape[1]
        one_type = x.dtype.type is kind and weights.dtype.type is kind
        can_shift = self._block_bits > 0 or 0 <= shifts[0] <= simd_requantize.SHIFT_MAX
        plan, of_inputs = _plan(kind, n, k, m, self.bits), _plan(kind, m, k, n, self.bits)
        if plan is None or of_inputs is None or not (self.to.narrow and one_type and can_shift):
            return None
        sums, counted = np.empty(m * k, np.int32), self._uncounted if counters is None else counters
        arguments = (
            weights.reshape(-1), m, n, k, plan.limit, of_inputs.limit, _NO_BIAS[kind], self._accumulator, sums,
            sums.view(np.uint8), self._block_bits, *shifts, *self._constants, np.dtype(self.to.storage).itemsize, counted,
            selects,
        )  # fmt: skip
        words = max(plan.words, of_inputs.words)
        self._ready_backward = _Ready(key, weights, None, counters, kind, (m, k), words, arguments)
        return self._ready_backward


def multiply_transposed(
    a: Integers, b: Integers, accumulator_bits: int, sum_columns: bool = True
) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
    """Return the product of the transpose of `a` with `b`, and the sums of the columns of `a`.

    Parameters
    ----------
    a : (k, m) C-contiguous integers
    b : (k, n) C-contiguous integers
    accumulator_bits : int, 2..64
    sum_columns : bool
        Whether the second result is wanted.

    Returns
    -------
    sums : (m, n) int32
    totals : (m,) int64, or () if they are not wanted
        Or None instead of both, if it cannot be done in one call: else no sum leaves the accumulator.

    Examples
    --------
    >>> errors, x = np.array([[1, 2], [3, 4]], np.int8), np.array([[5], [6]], np.int8)
    >>> multiply_transposed(errors, x, 32)
    (array([[23],
           [34]], dtype=int32), array([4, 6]))
    """
    if on_device(a):
        return None
    kind: Any = a.dtype.type
    (terms, m), n = a.shape, b.shape[1]
    plan = _plan(kind, m, n, terms, accumulator_bits)
    if plan is None or b.dtype.type is not kind:
        return None
    sums, totals = np.empty((m, n), np.int32), np.empty(m, np.int64) if sum_columns else _NO_TOTALS
    done = simd_dense.multiply_transposed(
        a.reshape(-1), b.reshape(-1), m, n, terms, plan.limit, _scratch.words_of(plan.words),
        _scratch.left[kind], sums.reshape(-1), totals,
    )  # fmt: skip
    return (sums, totals) if done else None
