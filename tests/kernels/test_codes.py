"""Kernels of weights as codes and of sparse optimization: exact, against Fractions; as plain Python too."""

from fractions import Fraction
from itertools import product

import naive
import numpy as np
import pytest
from naive_compression import nearest_away, soft

from intnet import kernels
from intnet.kernels import codes

MODES = ("floor", "ceil", "to_zero", "to_away", "ties_even", "ties_pos", "ties_neg", "ties_away", "ties_zero")


def int64(*values):
    return [np.int64(value) for value in values]


# 1. Codes of weights ------------------------------------------------------------------------------------------------------


def test_encode_rounds_a_linear_map_to_nearest_ties_to_even():
    values = np.arange(-24, 25)
    for numerator, offset, divisor, zero in product((1, 3, 15), (-7, 0, 6), (1, 2, 5, 12, 16), (-3, 0, 8)):
        out = np.empty(values.size, np.int64)
        kernels.encode(values, *int64(numerator, offset, divisor, zero, -5, 11), out)
        exact = [round(Fraction(int(v) * numerator + offset, divisor)) + zero for v in values]
        assert out.tolist() == [min(max(v, -5), 11) for v in exact]


def test_encode_of_words_of_48_bits():
    """The products of 8 bits stay below 2**62: all are rounded exactly, next to ties and on them."""
    divisor = 2**47 - 2
    values = [s * (2**47 - d) for s in (-1, 1) for d in range(1, 5)] + [
        k * divisor // 510 + d for k in (1, 3, 255) for d in (-1, 0, 1)
    ]
    out = np.empty(len(values), np.int64)
    kernels.encode(np.array(values), *int64(255, 0, divisor, 128, 0, 255), out)
    assert out.tolist() == [min(max(round(Fraction(255 * v, divisor)) + 128, 0), 255) for v in values]
    assert {v - 128 for v in out.tolist()} >= {0, 1, 2, 127}  # half a step to both sides


# 2. Moves and thresholds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [9, 10**6])
def test_moves_are_rounded_to_nearest_ties_away(limit):
    start = list(range(-9, 10))
    for gradient, factor, shift in product((-7, -2, -1, 0, 1, 3, 8), (1, 3), (0, 1, 2, 5)):
        values = np.array(start)
        left = kernels.descend(values, np.full(len(start), gradient), *int64(factor, shift, limit))
        moved = [v - nearest_away(Fraction(gradient * factor, 2**shift)) for v in start]
        assert values.tolist() == [min(max(v, -limit), limit) for v in moved]
        assert left == sum(abs(v) > limit for v in moved)


def test_moves_at_the_edges_of_the_word():
    """Products of 122 bits; a move saturates at 2**62, weights at their limit."""
    limit = 2**61
    for value, gradient, factor, shift in product(
        (-limit, -1, 0, limit), (-(2**61), -(2**40) - 1, 2**61), (1, 2**40 + 1, 2**61 - 1), (0, 40, 61, 62, 63, 100)
    ):
        values = np.array([value])
        left = kernels.descend(values, np.array([gradient]), *int64(factor, shift, limit))
        moved = value - min(max(nearest_away(Fraction(gradient * factor, 2**shift)), -(2**62)), 2**62)
        assert values[0] == min(max(moved, -limit), limit)
        assert left == (abs(moved) > limit)


def test_shrink_leaves_what_is_not_chosen():
    values = np.array([*range(-6, 7), 2**62, -(2**62), 2**63 - 1])
    for threshold in (0, 1, 3, 6, 2**62):
        for first in (0, 1):
            chosen, out = np.arange(values.size) % 2 == first, np.empty(values.size, np.int64)
            kernels.shrink(values, np.int64(threshold), chosen, out)
            expected = [soft(int(v), threshold) if one else int(v) for v, one in zip(values, chosen, strict=True)]
            assert out.tolist() == expected


# 3. Sums of products ------------------------------------------------------------------------------------------------------

DIVISORS = (1, 2, 3, 5, 7, 15, 31, 63, 127, 255)


def exact_sums(sums, under, scale, offset):
    """Return ``scale * sums + offset * under`` in Python integers."""
    below = 0 if under is None else np.broadcast_to(under, sums.shape).astype(object) * offset
    return sums.astype(object) * scale + below


def check(sums, under, scale, offset, divisor, bound, apart):
    """Compare with the exact quotients: rounded down, odd unless exact, with as many bits as there is room for."""
    exact = exact_sums(sums, under, scale, offset)
    values, ups = kernels.combine_coded(sums, under, scale, offset, divisor, bound, apart)
    assert values.shape == sums.shape
    assert values.dtype == np.int64
    if apart:
        assert ups.tolist() == [62 - int(abs(row).max()).bit_length() for row in exact]
    else:  # as many as the bound leaves, or, where that is far away, as the largest does
        largest = int(abs(values).max())
        assert ups[0] == 62 - bound.bit_length() or (ups[0] > 62 - bound.bit_length() and largest >= 2**61 // divisor // 2)
        assert not exact.any() or largest >= 2**47 or bound.bit_length() == 62
    for n, *rest in np.ndindex(sums.shape):
        place = (n, *rest)
        quotient, left = divmod(int(exact[place]) << int(ups[n if apart else 0]), divisor)
        assert values[place] == quotient | (left != 0)
    return values, ups, exact


def drawn(shape, bits, kind, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(-(2**bits) + 1, 2**bits, shape)
    return (values >> rng.integers(0, bits, shape)).astype(kind)  # of all sizes


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("outputs", [None, 1, 3])
def test_combinations_are_rounded_down_with_a_sticky_bit(kind, apart, outputs):
    """Dense sums and those of images; nothing below, one sum for all outputs, and one for each."""
    for (seed, divisor), shape in product(enumerate(DIVISORS), [(2, 3), (2, 2, 1, 3)]):
        sums = drawn(shape, 20, kind, seed)
        under = None if outputs is None else drawn((*shape[:-1], outputs), 12, kind, seed + 50)
        scale, offset = (1, 5, 65535, 131071)[seed % 4], (-1, 0, 77, -65535 * 255)[seed // 4]
        bound = int(abs(sums).max()) * scale + (0 if under is None else int(abs(under).max()) * abs(offset))
        check(sums, under, scale, offset, divisor, bound, apart)


def test_combinations_of_62_bits_and_of_nothing():
    """A word without room, rows of zeros, and one output alone."""
    for divisor in DIVISORS:
        sums = np.array([[2**45 - 1, -(2**45) + 1, 0], [0, 0, 0], [1, -1, 2]])
        under = np.array([[2**30, 0, -(2**30)], [0, 0, 0], [0, 0, 1]])
        for apart in (False, True):
            check(sums, under, 2**16 - 1, 2**30, divisor, 2**62 - 1, apart)
            check(sums[:, :1].copy(), under[:, :1].copy(), 2**16 - 1, 2**30, divisor, 2**62 - 1, apart)
    values, ups = kernels.combine_coded(np.zeros((2, 3), np.int32), None, 9, 0, 7, 0, True)
    assert not values.any()
    assert ups.tolist() == [62, 62]


def test_what_is_rounded_further_is_the_exact_quotient_rounded():
    """By two bits or more, in every mode: small quotients of few bits, all of them."""
    sums = np.arange(-70, 71).reshape(1, -1)
    for divisor, up in product((3, 5, 15), (0, 1, 3)):
        bound = 2 ** (62 - up) - 1
        values, ups = kernels.combine_coded(sums, None, 1, 0, divisor, bound, False, np.array([up]))
        assert ups.tolist() == [up]
        for shift, mode in product((2, 3), MODES):
            for value, s in zip(values[0].tolist(), sums[0].tolist(), strict=True):
                exact = Fraction(s << up, divisor << shift)
                assert naive.round_fraction(Fraction(value, 2**shift), mode) == naive.round_fraction(exact, mode)


def test_pieces_and_threads_change_no_combination(monkeypatch):
    monkeypatch.setattr(codes, "_WORTH_A_THREAD", 4)
    sums, under, before = drawn((9, 2, 4), 20, np.int64, 1), drawn((9, 2, 1), 12, np.int64, 2), kernels.threads()
    found = set()
    try:
        for threads, apart in product((1, 2, 3), (False, True)):
            kernels.set_threads(threads)
            values, ups, _ = check(sums, under, 77, -1001, 15, 2**40, apart)
            found.add((apart, values.tobytes(), ups.tobytes()))
    finally:
        kernels.set_threads(before)
    assert len(found) == 2
