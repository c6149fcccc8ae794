"""A dense layer's products in one call each: what is prepared once, and whether it applies.

What comes back is that of :func:`intnet.kernels.multiply`, :func:`intnet.kernels.add_bias`,
:func:`intnet.kernels.exponents_of_integers`, :func:`intnet.kernels.requantize` and :func:`intnet.kernels.sum_axes`, one after
the other. Where it cannot be done in one call, None comes back instead and nothing is counted: the caller makes those calls.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from intnet.kernels.product import _ALONE, _LEFT_TYPES, Integers, _scratch, largest_of_type
from intnet.kernels.requantization import SATURATE, WRAP, Requantizer, word_of
from intnet.kernels.simd import dense as simd_dense
from intnet.kernels.simd import product as simd_product

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


def _is_small(a: Integers, b: Integers, m: int, n: int, terms: int) -> bool:
    """Tell whether operands are those of one call of `multiply_proven`."""
    kind, products = a.dtype.type, m * n * terms
    return (
        _COMPILED
        and kind is b.dtype.type
        and kind in _LEFT_TYPES
        and 0 < products <= _ALONE
        and terms * a.itemsize <= simd_product.DEPTH
    )


def _limit(a: Integers, terms: int, bits: int) -> int:
    """Return the `limit` of `multiply_proven`: what sums must be below, or 0 where the type of the operands proves it."""
    limit: int = 2 ** (bits - 1)
    return limit if largest_of_type(a) ** 2 * terms >= limit else 0


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
        self._applies = _COMPILED and to.narrow and accumulator_bits <= 32
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

        Returns
        -------
        Rounded or None
            None if it cannot be done in one call.
        """
        (m, terms), kind = a.shape, a.dtype.type
        n = b.shape[0] if b_transposed else b.shape[1]
        if not (self._applies and bias_shift >= 0 and (self._block_bits or 0 <= shifts[0] <= simd_dense.SHIFT_MAX)):
            return None
        if not _is_small(a, b, m, n, terms) or (bias is not None and bias.dtype.type is not kind):
            return None
        out, sums = np.empty((m, n), self.to.storage), np.empty(m * n, np.int32)
        left, shift = simd_dense.multiply_requantize(
            a.reshape(-1), b.reshape(-1), b_transposed, m, n, terms, _limit(a, terms, self.bits),
            _scratch.words_of(simd_product.words_size(n, terms, a.itemsize)), _scratch.left[kind],
            _NO_BIAS[kind] if bias is None else bias, bias_shift, self._accumulator, sums, sums.view(np.uint8), self._block_bits,
            *shifts, *self.to.constants(step), out.reshape(-1).view(np.uint8), out.itemsize,
            self.to.uncounted if counters is None else counters,
        )  # fmt: skip
        return None if left < 0 else Rounded(out, shift, left)


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
    (terms, m), n = a.shape, b.shape[1]
    if accumulator_bits > 32 or not _is_small(a, b, m, n, terms):
        return None
    sums, totals = np.empty((m, n), np.int32), np.empty(m, np.int64) if sum_columns else _NO_TOTALS
    done = simd_dense.multiply_transposed(
        a.reshape(-1), b.reshape(-1), m, n, terms, _limit(a, terms, accumulator_bits),
        _scratch.words_of(simd_product.words_size(n, terms, a.itemsize)), _scratch.left[a.dtype.type], sums.reshape(-1), totals,
    )  # fmt: skip
    return (sums, totals) if done else None
