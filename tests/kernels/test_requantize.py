"""Requantizing tensors: exact against Fractions and apytypes, the same bits for any layout, threads and slices."""

import itertools

import naive
import numba
import numpy as np
import pytest
from apytypes import APyFixedArray, OverflowMode, QuantizationMode
from hypothesis import given, settings
from hypothesis import strategies as st

from intnet import kernels
from intnet.arithmetic import round_shift_pseudo_stochastic_near
from intnet.errors import InputError
from intnet.formats import BlockFloat, Overflow, Rounding, Tile
from intnet.kernels import _parallel, plain
from intnet.kernels.requantization import Requantizer

SLOW = numba.config.DISABLE_JIT
INT8 = np.arange(-128, 128, dtype=np.int8)
EDGES = sorted({s * 2**k + d for k in range(62) for d in (-2, -1, 0, 1, 2) for s in (-1, 1)})
EDGES = np.array([-(2**63), 1 - 2**63, *EDGES, 2**63 - 2, 2**63 - 1])
SEQUENCE = {"seed": 2**40 + 9, "stream": 4, "step": 11}
DTYPES = (np.int8, np.int16, np.int32, np.int64)


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = kernels.threads()
    kernels.set_threads(request.param)
    yield request.param
    kernels.set_threads(before)


def fractions_of(first, count, random_bits):
    return [naive.random_fraction(*SEQUENCE.values(), first + i, random_bits) for i in range(count)]


def check(values, shifts, rounding, overflow, word_bits, *, signed=True, layout=None, each=None, random_bits=32, first_index=0):
    """Compare results, types and counters with the naive twin; `each` holds the shift of every element."""
    counters = kernels.new_counters()
    arguments = (values, shifts, rounding.code, overflow.code, word_bits)
    extra = {"signed": signed, "layout": layout, "random_bits": random_bits, "first_index": first_index, **SEQUENCE}
    comp = kernels.requantize(*arguments, **extra, counters=counters)
    fractions = fractions_of(first_index, values.size, random_bits) if rounding is Rounding.STOCHASTIC else None
    each = [int(shifts)] * values.size if each is None else each.ravel().tolist()
    ref, counts = naive.requantize(
        values.ravel().tolist(), each, rounding.value, overflow.value, word_bits, signed, fractions, random_bits
    )
    dtype = next(kind for kind in DTYPES if np.iinfo(kind).bits >= word_bits + (not signed))
    np.testing.assert_array_equal(comp, np.array(ref, dtype).reshape(values.shape), strict=True)
    assert counters.tolist() == counts
    uncounted = kernels.requantize(*arguments, **extra)
    np.testing.assert_array_equal(uncounted, comp, strict=True)


@pytest.mark.parametrize("rounding", Rounding, ids=lambda mode: mode.value)
def test_every_int8_and_every_shift(rounding):
    shifts = range(-70, 140, 1) if not SLOW else (-64, -9, -1, 0, 1, 2, 3, 7, 8, 62, 63, 64, 130)
    for shift in shifts:
        check(INT8, shift, rounding, Overflow.SATURATE, 8)


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("overflow", Overflow, ids=lambda mode: mode.value)
@pytest.mark.parametrize("rounding", [Rounding.TIES_EVEN, Rounding.JAM, Rounding.STOCHASTIC], ids=lambda mode: mode.value)
def test_every_short_word(rounding, overflow, signed):
    for word_bits, shift in itertools.product(range(1, 9), (-2, 0, 1, 3)):
        check(INT8, shift, rounding, overflow, word_bits, signed=signed)


@pytest.mark.parametrize("overflow", [Overflow.WRAP, Overflow.SATURATE_SYMMETRIC], ids=lambda mode: mode.value)
@pytest.mark.parametrize("rounding", Rounding, ids=lambda mode: mode.value)
def test_wide_words_around_powers_of_two(rounding, overflow):
    for word_bits, shift in [(64, 0), (64, 1), (64, -1), (64, -63), (63, 3), (33, 31), (32, 32), (16, 62), (8, 63), (5, 300)]:
        check(EDGES[:: 9 if SLOW else 1], shift, rounding, overflow, word_bits)


@pytest.mark.skipif(SLOW, reason="the fast kernel is compiled")
@pytest.mark.parametrize("rounding", Rounding, ids=lambda mode: mode.value)
@pytest.mark.parametrize("overflow", Overflow, ids=lambda mode: mode.value)
def test_32_bit_lanes_equal_64_bit_ones(rounding, overflow):
    """Around every power of two, for every shift of the fast kernel; int64 takes the plain one, which the other tests check."""
    values = EDGES[(EDGES >= -(2**31)) & (EDGES < 2**31)]
    for shift, word_bits, signed in itertools.product((*range(0, 31, 3), 1, 16, 30), (1, 8, 16, 31), (True, False)):
        for random_bits in (1, 9, 31, 32) if rounding is Rounding.STOCHASTIC else (32,):
            options = {"signed": signed, "random_bits": random_bits, "seed": SEQUENCE["seed"], "stream": SEQUENCE["stream"]}
            fast = Requantizer(rounding.code, overflow.code, word_bits, **options)
            assert fast.narrow
            of_fast, of_plain = kernels.new_counters(), kernels.new_counters()
            comp = fast(values.astype(np.int32), shift, 11, counters=of_fast, first_index=8)
            ref = kernels.requantize(
                values, shift, rounding.code, overflow.code, word_bits, **options, step=11, counters=of_plain, first_index=8
            )
            np.testing.assert_array_equal(comp, ref, strict=True)
            assert of_fast.tolist() == of_plain.tolist()


@pytest.mark.parametrize("rounding", [Rounding.FLOOR, Rounding.STOCHASTIC], ids=lambda mode: mode.value)
def test_prepared_requantizers_equal_the_function(rounding):
    values = many(50)
    for dtype, shift, word_bits, first_index in [
        (np.int32, 5, 16, 0), (np.int32, 5, 16, 3), (np.int32, -2, 16, 0), (np.int32, 40, 16, 0), (np.int64, 5, 16, 0),
        (np.int16, 1, 33, 8),
    ]:  # fmt: skip
        arguments, options = (rounding.code, Overflow.SATURATE.code, word_bits), {"seed": 3, "stream": 9}
        prepared, out = Requantizer(*arguments, **options), np.empty(50, np.int64)
        data = values.astype(dtype).reshape(5, 10)
        ref = kernels.requantize(data, shift, *arguments, **options, step=7, first_index=first_index)
        comp = prepared(data, shift, 7, first_index=first_index)
        np.testing.assert_array_equal(comp, ref, strict=True)
        assert prepared(data, shift, 7, out.reshape(5, 10), first_index=first_index).base is not None
        np.testing.assert_array_equal(out.reshape(5, 10), ref)
    for step in (-1, 2**32):
        with pytest.raises(InputError, match="step must be in"):
            Requantizer(Rounding.STOCHASTIC.code, 1, 8)(values, 1, step)


@pytest.mark.parametrize("shift", range(63))
def test_pseudo_stochastic_rounding_without_branches(shift):
    """Every 9-bit integer, and around every power of two."""
    for value in [*range(-256, 257), *EDGES.tolist()][:: 5 if SLOW else 1]:
        assert round_shift_pseudo_stochastic_near(value, shift) == naive.pseudo_stochastic(value, shift)


def test_the_largest_shifts():
    values = np.array([-(2**63), -1, 0, 1, 2**63 - 1])
    for rounding in Rounding:
        if rounding is not Rounding.STOCHASTIC:
            far = kernels.requantize(values, 2**63 - 1, rounding.code, Overflow.SATURATE.code, 16)
            near = kernels.requantize(values, 300, rounding.code, Overflow.SATURATE.code, 16)
            np.testing.assert_array_equal(far, near)
        far = kernels.requantize(values, 1 - 2**63, rounding.code, Overflow.SATURATE.code, 16)
        low, high = (-32768, -32768), (32767, 32767)
        assert far.tolist() == [*low, int(rounding is Rounding.JAM), *high]


@pytest.mark.parametrize(("source", "word_bits"), list(itertools.product(DTYPES, (7, 16, 30, 50))))
def test_every_pair_of_types(source, word_bits):
    values = np.random.default_rng(1).integers(np.iinfo(source).min, np.iinfo(source).max, 37, dtype=source)
    for rounding, shift in [(Rounding.TIES_EVEN, 3), (Rounding.STOCHASTIC, 5), (Rounding.PSEUDO_STOCHASTIC, 4)]:
        check(values, shift, rounding, Overflow.WRAP, word_bits, signed=word_bits != 30)


@given(st.data())
@settings(max_examples=60 if SLOW else 200)
def test_anything(data):
    draw = data.draw
    values = np.array(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9)), np.int64)
    signed, word_bits = draw(st.booleans()), draw(st.integers(1, 63))
    random_bits, first_index = draw(st.integers(1, 62)), draw(st.integers(0, 2**40))
    rounding, overflow = draw(st.sampled_from(Rounding)), draw(st.sampled_from(Overflow))
    shift = draw(st.integers(-80, 140))
    check(values, shift, rounding, overflow, word_bits, signed=signed, random_bits=random_bits, first_index=first_index)


# Other roads to the same bits ------------------------------------------------------------------------------------------

ROADS = {  # ours: (QuantizationMode, the name that apytypes 0.5 has for it)
    "floor": "TO_NEG", "to_zero": "TO_ZERO", "ceil": "TO_POS", "to_away": "TO_AWAY", "ties_even": "TIES_EVEN",
    "ties_pos": "TIES_POS", "ties_neg": "TIES_NEG", "ties_away": "TIES_AWAY", "ties_zero": "TIES_ZERO", "jam": "JAM",
}  # fmt: skip


@pytest.mark.parametrize("rounding", list(Rounding)[:10], ids=lambda mode: mode.value)
@pytest.mark.parametrize("overflow", [Overflow.WRAP, Overflow.SATURATE], ids=lambda mode: mode.value)
def test_equals_apytypes(rounding, overflow):
    mode = getattr(QuantizationMode, ROADS[rounding.value])
    leaving = OverflowMode.WRAP if overflow is Overflow.WRAP else OverflowMode.SAT
    wide = np.concatenate([EDGES[(EDGES > -(2**40)) & (EDGES < 2**40)], [-(2**40), 2**40]])
    cases = [(INT8.astype(np.int64), 8), (wide, 42)]
    for (values, bits), shift, word_bits in itertools.product(cases, (-3, 0, 1, 2, 5, 8, 20), (3, 8, 16, 24)):
        theirs = APyFixedArray([int(v) for v in values], bits=bits, frac_bits=shift)
        theirs = theirs.cast(bits=word_bits, frac_bits=0, quantization=mode, overflow=leaving).to_numpy()
        ours = kernels.requantize(values, shift, rounding.code, overflow.code, word_bits)
        np.testing.assert_array_equal(ours, theirs.astype(np.int64))


@pytest.mark.parametrize("rounding", [Rounding.TIES_AWAY, Rounding.STOCHASTIC, Rounding.PSEUDO_STOCHASTIC], ids=str)
@pytest.mark.parametrize(
    ("shape", "form"),
    [
        ((6, 5), BlockFloat(8, "row")),
        ((3, 700), BlockFloat(8, "row")),
        ((3, 4, 5), BlockFloat(8, "channel")),
        ((2, 3, 290), BlockFloat(8, "channel")),
        ((4, 12), BlockFloat(8, Tile(3))),
        ((12, 7), BlockFloat(8, Tile(4, axis=0))),
        ((2, 6, 5), BlockFloat(8, Tile(2, axis=1))),
        ((5, 9), BlockFloat(8, Tile(1))),
        ((7,), BlockFloat(8)),
        ((5, 1, 1), BlockFloat(8, "row")),
    ],
    ids=str,
)
def test_blocks(rounding, shape, form):
    random = np.random.default_rng(3)
    values = random.integers(-(2**31), 2**31, shape)
    layout, of_shifts = form.layout(shape), form.exponent_layout(shape)
    for low, high in [(0, 30), (-3, 70)]:
        shifts = random.integers(low, high, of_shifts)
        each = np.broadcast_to(shifts[:, :, np.newaxis, :], layout)
        check(values, shifts, rounding, Overflow.SATURATE, 16, layout=layout, each=each)


def many(count, dtype=np.int32):
    return np.random.default_rng(4).integers(-(2**31), 2**31, count).astype(dtype)


@pytest.mark.skipif(SLOW, reason="too many elements for plain Python")
@pytest.mark.parametrize("rounding", Rounding, ids=lambda mode: mode.value)
@pytest.mark.parametrize("first", [123_457, 123_456])
def test_the_same_bits_for_any_threads(rounding, threads, first):  # noqa: ARG001
    """Large enough for several pieces and windows: equal to the same work in small calls."""
    size, part = 400_007, 65_536 - 13
    values = many(size)
    counters, counted = kernels.new_counters(), kernels.new_counters()
    arguments = (20, rounding.code, Overflow.SATURATE.code, 8)
    whole = kernels.requantize(values, *arguments, first_index=first, counters=counters, **SEQUENCE)
    for start in range(0, size, part):
        piece = values[start : start + part]
        done = kernels.requantize(piece, *arguments, first_index=first + start, counters=counted, **SEQUENCE)
        np.testing.assert_array_equal(done, whole[start : start + part])
    assert counters.tolist() == counted.tolist()
    assert counters[kernels.COUNT_SATURATED] > 0
    assert counters[kernels.COUNT_LOST] > 0 or rounding in (Rounding.TO_AWAY, Rounding.JAM)


@pytest.mark.skipif(SLOW, reason="too many elements for plain Python")
@pytest.mark.parametrize("layout", [(1, 400, 1000, 1), (100, 2, 16, 125), (1, 1, 400, 1000), (2, 20_000, 10, 1)], ids=str)
def test_blocks_do_not_change_the_bits(layout, threads):  # noqa: ARG001
    values, (outer, blocks, _, inner) = many(400_000), layout
    for rounding in (Rounding.TIES_EVEN, Rounding.STOCHASTIC):
        arguments = (rounding.code, Overflow.WRAP.code, 16)
        whole = kernels.requantize(values, 9, *arguments, **SEQUENCE)
        blockwise = kernels.requantize(values, np.full((outer, blocks, inner), 9), *arguments, layout=layout, **SEQUENCE)
        np.testing.assert_array_equal(blockwise, whole, strict=True)


@pytest.mark.skipif(SLOW, reason="too many elements for plain Python")
@pytest.mark.parametrize(("random_bits", "value", "shift"), [(32, 12345, 16), (8, -77, 7), (62, 2**40 + 12345, 44)])
def test_stochastic_rounding_has_no_bias(random_bits, value, shift):
    """The mean of n results lies within t of the value: by Hoeffding, wrong alarm below 2 exp(-2 n t**2) = 2e-9."""
    n = 1_000_000
    results = kernels.requantize(
        np.full(n, value), shift, Rounding.STOCHASTIC.code, Overflow.ERROR.code, 16, random_bits=random_bits, **SEQUENCE
    )
    assert abs(results.mean() - value / 2**shift) <= (np.log(1e9) / (2 * n)) ** 0.5


@pytest.mark.parametrize("rounding", Rounding, ids=lambda mode: mode.value)
def test_views_and_nothing(rounding):
    values = many(60).reshape(3, 4, 5)
    for view in (values[:, ::2], values.T, values[::-1, :, 1:3], values[:0], values[1, 2, 3]):
        check(np.asarray(view), 9, rounding, Overflow.SATURATE, 16)


def test_the_place_to_write_may_be_given():
    values, out = many(10, np.int64), np.zeros(10, np.int64)
    result = kernels.requantize(values, 3, Rounding.FLOOR.code, Overflow.WRAP.code, 64, out=out)
    assert result is out
    assert out.tolist() == [v >> 3 for v in values.tolist()]


# Exponents of integers -------------------------------------------------------------------------------------------------


def naive_exponent(block, word_bits, minimum, maximum):
    largest = max((abs(int(v)) for v in block), default=0)
    return min(max(largest.bit_length() - word_bits + 1, minimum), maximum) if largest else minimum


@pytest.mark.parametrize("layout", [(1, 1, 24, 1), (2, 3, 4, 1), (2, 2, 2, 3), (1, 4, 1, 6), (24, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("share_outer", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_exponents_of_integers(layout, share_outer, dtype):
    random = np.random.default_rng(5)
    values = random.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, 24, dtype=dtype)
    values >>= random.integers(0, np.iinfo(dtype).bits, 24).astype(dtype)
    blocks = values.reshape(layout)
    for word_bits, minimum, maximum in [(8, 0, 62), (8, -128, 127), (2, -1, 3), (30, -8, 40)]:
        comp = kernels.exponents_of_integers(values, layout, word_bits, minimum, maximum, share_outer=share_outer)
        assert comp.shape == (1 if share_outer else layout[0], layout[1], layout[3])
        for o, b, i in np.ndindex(comp.shape):
            block = blocks[:, b, :, i] if share_outer else blocks[o, b, :, i]
            assert comp[o, b, i] == naive_exponent(block.ravel(), word_bits, minimum, maximum)


@pytest.mark.parametrize("value", [*EDGES[::7].tolist(), -(2**63), 2**63 - 1, 0])
def test_exponents_agree_with_the_format(value):
    exponent = kernels.exponents_of_integers(np.array([value, 0]), (1, 1, 2, 1), 8, -128, 127).item()
    assert exponent == BlockFloat(8).exponent(abs(value))


def test_exponents_of_nothing():
    for layout, share in [((0, 3, 2, 1), False), ((2, 3, 0, 2), False), ((0, 3, 2, 1), True)]:
        comp = kernels.exponents_of_integers(np.zeros(0, np.int8), layout, 8, -128, 127, share_outer=share)
        assert (comp == -128).all()
        assert comp.shape == (1 if share else layout[0], layout[1], layout[3])


# Threads ---------------------------------------------------------------------------------------------------------------


def test_pieces_cover_the_work(threads):
    for count, multiple, minimum in itertools.product((0, 1, 5, 1000, 1001), (1, 4, 64), (1, 10, 5000)):
        pieces = _parallel.pieces_of(count, multiple, minimum)
        assert len(pieces) <= threads
        assert [i for start, stop in pieces for i in range(start, stop)] == list(range(count))
        assert all(start % multiple == 0 and start < stop for start, stop in pieces)


def test_threads_may_start_threads_and_errors_come_through():
    assert _parallel.run(lambda a: _parallel.run(lambda b: a * b, [(2,), (3,)]), [(i,) for i in range(9)]) == [
        [2 * i, 3 * i] for i in range(9)
    ]
    done = []

    def fail(i):
        done.append(i)
        if i:
            raise ValueError(f"piece {i}")

    with pytest.raises(ValueError, match="piece 1"):
        _parallel.run(fail, [(0,), (1,), (2,)])
    assert sorted(done) == [0, 1, 2]


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2"])
def test_a_number_of_threads_is_checked(count):
    with pytest.raises(ValueError, match="the number of threads must be an integer of at least 1"):
        kernels.set_threads(count)


def test_counters_have_a_place_each():
    names = (plain.COUNT_SATURATED, plain.COUNT_WRAPPED, plain.COUNT_LOST, plain.SEEN_MINIMUM, plain.SEEN_MAXIMUM)
    assert sorted(names) == list(range(plain.COUNTERS))
