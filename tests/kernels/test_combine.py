"""Linear combinations and biases: exact against Python integers and Fractions, for any number of threads."""

from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from intnet.kernels import _parallel, combine, plain

TYPES = [np.int8, np.int16, np.int32, np.int64]


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr(_parallel, "_threads", request.param)
    pieces_of = _parallel.pieces_of
    monkeypatch.setattr(_parallel, "pieces_of", lambda count, multiple=1, minimum=1: pieces_of(count, multiple, 1))  # noqa: ARG005


def sticky(value, shift):
    """Return ``value * 2**shift`` with the lowest bit set if anything is cut off."""
    exact = value * Fraction(2) ** shift
    floor = exact.numerator // exact.denominator
    return floor if exact == floor else floor | 1


def combination(terms, rows):
    """Add up in Python integers; terms are (flat list of values, factor, list of one shift or of one for each row)."""
    length = len(terms[0][0]) // rows
    return [
        sum(sticky(int(values[i]) * factor, shifts[i // length if len(shifts) > 1 else 0]) for values, factor, shifts in terms)
        for i in range(len(terms[0][0]))
    ]


# Linear combinations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [(np.int8,), (np.int16, np.int64), (np.int64, np.int32, np.int8)])
@pytest.mark.parametrize("shifts", [[0], [3], [-2], [1, -1, 0, 5, -7], [-70, 2, -62, -63, -64]])
@pytest.mark.usefixtures("threads")
def test_linear_combination(kinds, shifts):
    rng = np.random.default_rng(0)
    terms = []
    for k, kind in enumerate(kinds):
        values = rng.integers(-128, 128, (5, 2, 3)).astype(kind)
        terms.append((values, (1, -3, 2**30)[k], np.roll(shifts, k)))
    result = combine.linear_combination(terms, 5)
    flat = [(values.reshape(-1), factor, each.tolist()) for values, factor, each in terms]
    assert_array_equal(result, np.reshape(np.array(combination(flat, 5), np.int64), (5, 2, 3)), strict=True)


def test_windows_of_rows_of_any_length():
    """Rows that end inside, at the end and beyond the end of what the kernel takes at a time."""
    for rows, length in ((3, 1024), (2, 1500), (700, 3), (1, 2049)):
        values = np.arange(rows * length, dtype=np.int32) - 1000
        shifts = np.arange(rows) % 7 - 3
        expected = [sticky(int(v), int(shifts[i // length])) for i, v in enumerate(values)]
        assert combine.linear_combination([(values, 1, shifts)], rows).tolist() == expected


def test_what_is_shifted_by_any_number_of_bits():
    values = np.array([0, 1, -1, 2**62, -(2**63)])
    for shift in (-1000, -(2**62)):
        assert combine.linear_combination([(values, 1, shift)], 5).tolist() == [0, 1, -1, 1, -1]
    assert combine.linear_combination([(values[:1], 1, 1000)], 1).tolist() == [0]


def test_combination_of_nothing_and_in_32_bits():
    assert combine.linear_combination([(np.zeros((0, 3), np.int8), 1, 0)], 0).shape == (0, 3)
    values = np.array([[100, -100]], np.int8)
    result = combine.linear_combination([(values, 2, 3), (values, -1, -1)], 1, np.int32)
    assert_array_equal(result, np.array([[1550, -1550]], np.int32), strict=True)


# Alignment --------------------------------------------------------------------------------------------------------------


@st.composite
def aligned_terms(draw):
    rows = draw(st.integers(1, 3))
    terms = []
    for _ in range(draw(st.integers(1, 3))):
        bits = draw(st.integers(-1, 40))
        per_row = draw(st.booleans())
        near = draw(st.booleans())
        exponents = draw(st.lists(st.integers(*((-20, 20) if near else (-2000, 2000))), min_size=1, max_size=1))
        if per_row:
            exponents = [exponents[0] + draw(st.integers(-30, 30)) for _ in range(rows)]
        limit = 0 if bits < 0 else 2**bits
        values = draw(st.lists(st.integers(-limit, limit) | st.sampled_from([-limit, limit]), min_size=rows, max_size=rows))
        terms.append((values, exponents, bits))
    return rows, terms


@given(aligned_terms())
def test_aligned_sums(case):
    """The exponent is the smallest where that fits 62 bits, and then the sum is exact; else the sum is as exact as may be."""
    rows, terms = case
    shifts, exponents = combine.alignment([np.array(e) for _, e, _ in terms], [bits for _, _, bits in terms])
    per_row = any(len(e) > 1 for _, e, _ in terms)
    assert exponents.dtype == np.int64
    assert len(exponents) == (rows if per_row else 1)
    data = [(np.array(values, np.int64), 1, shift) for (values, _, _), shift in zip(terms, shifts, strict=True)]
    result = combine.linear_combination(data, rows)
    counted = [(e, bits) for _, e, bits in terms if bits >= 0]
    room = 62 - (len(counted) - 1).bit_length()
    for row in range(rows):
        at = lambda e: e[row if len(e) > 1 else 0]  # noqa: B023, E731
        exponent = int(at(exponents))
        exact = sum(values[row] * Fraction(2) ** at(e) for values, e, _ in terms)
        assert abs(int(result[row])) <= 2**62
        if not counted:
            assert result[row] == 0
            continue
        assert exponent == max(min(at(e) for e, _ in counted), max(at(e) + bits for e, bits in counted) - room)
        cut = sum(at(e) < exponent for e, _ in counted)
        assert abs(result[row] * Fraction(2) ** exponent - exact) <= cut * Fraction(2) ** exponent
        if cut == 0:
            assert result[row] * Fraction(2) ** exponent == exact


def test_alignment_of_exponents_as_tensors_have_them():
    shifts, exponent = combine.alignment([np.full((1, 1, 1), -3), np.arange(4).reshape(4, 1, 1)], [7, 7])
    assert [shift.tolist() for shift in shifts] == [[0, 0, 0, 0], [3, 4, 5, 6]]
    assert exponent.tolist() == [-3, -3, -3, -3]
    shifts, exponent = combine.alignment([[5], [900]], [7, -1])
    assert [shift.tolist() for shift in shifts] == [[0], [0]]
    assert exponent.tolist() == [5]


# Biases -----------------------------------------------------------------------------------------------------------------


def biased(sums, bias, rows_per_group, bits, saturates):
    overflow = "saturate" if saturates else "wrap"
    results, left = [], 0
    for i, row in enumerate(sums.tolist()):
        for c, value in enumerate(row):
            word, outside = naive.into_word(value + int(bias[i // rows_per_group, c]), bits, True, overflow)
            results.append(word)
            left += outside
    return np.array(results, sums.dtype).reshape(sums.shape), left


@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize(("kind", "bits"), [(np.int32, 8), (np.int32, 32), (np.int64, 40), (np.int64, 63), (np.int64, 64)])
@pytest.mark.parametrize("size", [2, 62, 63])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.usefixtures("threads")
def test_add_bias(kind, bits, saturates, size, groups):
    rng = np.random.default_rng(bits)
    sums = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, (6, 5), kind, endpoint=True)
    sums[0], sums[1] = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    bias = rng.integers(-(2**size), 2**size - 1, (groups, 5), np.int64, endpoint=True)
    bias[0, :3] = 0, 2**size - 1, -(2**size)
    expected, outside = biased(sums, bias, 6 // groups, bits, saturates)
    left = combine.add_bias(sums, bias, 6 // groups, bits, saturates)
    assert left == outside
    assert_array_equal(sums, expected, strict=True)


def test_the_fast_bias_is_the_plain_one():
    """Rows that fill the runs of the fast kernel, and rows longer than those."""
    for rows, channels in ((60, 10), (3, 700), (1, 1)):
        sums = np.arange(rows * channels, dtype=np.int32).reshape(rows, channels) * 1000 - 10**5
        bias = np.arange(channels).reshape(1, channels) * 999
        ref = sums.copy()
        left = plain.add_bias_any(ref, bias, rows, -(2**17), 2**17 - 1, 18, False)
        assert combine.add_bias(sums, bias, rows, 18) == left
        assert_array_equal(sums, ref)


def test_a_bias_for_nothing():
    assert combine.add_bias(np.zeros((0, 3), np.int32), np.ones((1, 3), np.int64)) == 0
    assert combine.add_bias(np.zeros((3, 0), np.int32), np.ones((1, 0), np.int64)) == 0


# Quotients --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("divisor", [1, 2, 7, 97, 2**31 - 1, 2**62])
def test_rows_are_divided_with_all_the_bits_there_is_room_for(divisor):
    values = np.array([[0, 0, 0], [1, -1, 0], [5, -3, 2**20], [2**62, -(2**62), 12345], [-(2**61), 1, 2]])
    quotients, ups = combine.divide_rows(values, divisor)
    for row, made, up in zip(values.tolist(), quotients.tolist(), ups.tolist(), strict=True):
        largest = max(map(abs, row))
        assert up == (max(62 - largest.bit_length(), 0) if largest else 0)
        assert made == [sticky(Fraction(value, divisor), up) for value in row]
    assert combine.divide_rows(np.zeros((2, 0), np.int64), 3)[0].shape == (2, 0)
