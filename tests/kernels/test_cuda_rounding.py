"""The GPU's rounding, updates and linear maps: the bits, counts and extremes of the plain kernels, for any launch shape."""

import itertools

import numpy as np
import pytest
from cuda_twins import run

from intnet.arithmetic import JAM, PSEUDO_STOCHASTIC, STOCHASTIC, TIES_AWAY, TIES_EVEN, TO_ZERO
from intnet.kernels import plain
from intnet.kernels.cuda import _device, _driver, linear, requantize, update
from intnet.kernels.plain import linear as plain_linear
from intnet.kernels.plain import update as plain_update
from intnet.kernels.requantization import SATURATE, SATURATE_SYMMETRIC, WRAP, new_counters, storage_of, word_of
from intnet.kernels.update import new_counters_of_roles
from intnet.random import random_word, sequence_words

pytestmark = pytest.mark.skipif(
    not _driver.SIMULATED and _driver.problem() is not None, reason="needs a GPU, or NUMBA_ENABLE_CUDASIM=1"
)

LAUNCHES = [(1, 1), (2, 3), (3, 2)]
MODES = range(PSEUDO_STOCHASTIC + 1)
SEQUENCE = sequence_words(2**40 + 9, 4, 11)
INT64_EDGES = np.array([-(2**63), 1 - 2**63, -(2**31) - 1, -5, -1, 0, 1, 7, 2**31, 2**62 + 1, 2**63 - 2, 2**63 - 1])
INT32_EDGES = np.array([-(2**31), 1 - 2**31, -(2**30) - 1, -6, -2, -1, 0, 1, 3, 2**30, 2**31 - 2, 2**31 - 1], np.int32)


def some(size, kind, seed=3):
    """Return random integers of every magnitude."""
    bounds, draw = np.iinfo(kind), np.random.default_rng(seed)
    return (draw.integers(bounds.min, bounds.max, size, kind, endpoint=True) >> draw.integers(0, bounds.bits, size)).astype(
        kind
    )


def as_bytes(array):
    return array.reshape(-1).view(np.uint8), array.itemsize


def int64(*values):
    return [np.int64(value) for value in values]


# 1. The rules in 32 bits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_narrow_rule_rounds_like_the_definition(mode):
    values = np.concatenate([INT32_EDGES, some(8, np.int32)])
    words = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 0x9E3779B9) if mode == STOCHASTIC else (0,)
    for shift, random_bits, overflow, word_bits in itertools.product(
        (0, 1, 2, 7, 8, 15, 29, 30), (1, 8, 32) if mode == STOCHASTIC else (32,), (WRAP, SATURATE), (2, 8, 31)
    ):
        word = word_of(word_bits, True, overflow)
        assert _device.is_narrow(shift, mode, word[3], word[2], random_bits, 4)
        constants = _device.narrow_constants(*int64(mode, shift, random_bits))
        for value, drawn in itertools.product(values, words):
            fraction = np.int64(drawn >> (32 - random_bits))
            ref = plain.requantize_one(np.int64(value), *int64(shift, mode), fraction, np.int64(random_bits), *word)
            comp = _device.requantize_narrow(value, *int64(mode, shift), np.uint32(drawn), *constants, *word)
            assert tuple(comp) == tuple(int(number) for number in ref)


def test_what_rounding_in_32_bits_refuses():
    word = word_of(8, True, SATURATE)
    assert _device.is_narrow(0, STOCHASTIC, word[3], word[2], 32, 1)
    for shift, random_bits, width, bits in (
        (31, 8, 4, 8),
        (-1, 8, 4, 8),
        (3, 33, 4, 8),
        (3, 8, 8, 8),
        (3, 8, 4, 32),
        (3, 8, 4, 64),
    ):
        word = word_of(bits, True, SATURATE)
        assert not _device.is_narrow(shift, STOCHASTIC, word[3], word[2], random_bits, width)


@pytest.mark.parametrize("group", [0, 5, 2**32 - 1, 2**32, 2**40 + 3])
def test_four_words_are_those_of_the_sequence(group):
    words = _device.four_words(np.int64(group), *SEQUENCE[:2], *SEQUENCE[2:])
    for j in range(4):
        word = random_word(*SEQUENCE[:2], SEQUENCE[2], SEQUENCE[3], np.int64(4 * group + j))
        assert _device.one_of_four(words, j) == words[j] == word


# 2. Requantizing ---------------------------------------------------------------------------------------------------------


def check_requantize(
    values, shifts, mode, word, kind, *, length=1, start=0, stop=None, first_index=0, random_bits=32, host=True
):
    """Compare one call with the plain kernel's: results, what is not written, and counters."""
    shifts, stop = np.asarray(shifts, np.int64), values.size if stop is None else stop
    outs, counts = np.full((2, values.size), 99, kind), [new_counters(), new_counters()]
    rest = int64(length, mode), word, SEQUENCE, *int64(first_index, random_bits)
    (length, mode), word, sequence, first, bits = rest
    how = length, mode, *word, sequence, first, bits
    if shifts.ndim == 0:
        shifts = shifts.reshape(1, 1, 1)
    plain.requantize(*as_bytes(values), *as_bytes(outs[0]), *int64(start, stop), shifts, *how, counts[0])
    if host:

        def twin(values, out, counters):
            requantize.requantize(values, values.dtype.itemsize, out, out.dtype.itemsize, start, stop, shifts, *how, counters)

        run(twin, values, outs[1], counts[1])
    else:
        run(requantize.requantize, *as_bytes(values), *as_bytes(outs[1]), start, stop, shifts, *how, counts[1])
    np.testing.assert_array_equal(*outs)
    assert counts[0].tolist() == counts[1].tolist()


@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32])
def test_one_shift_in_32_bits(kind, launch):
    values = some(29, kind)
    with _driver.launches(*launch):
        for mode, (start, stop, first) in itertools.product(
            (TIES_EVEN, JAM, STOCHASTIC, PSEUDO_STOCHASTIC), ((0, 29, 0), (3, 22, 5), (4, 5, 2))
        ):
            check_requantize(values, 3, mode, word_of(7, True, WRAP), np.int8, start=start, stop=stop, first_index=first)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_and_kind_of_shift(mode):
    for values, shift in ((INT32_EDGES, 5), (INT32_EDGES, 30), (INT32_EDGES, 31), (INT64_EDGES, 62), (INT64_EDGES, 70)):
        check_requantize(values, shift, mode, word_of(16, True, SATURATE), np.int16, random_bits=11)
    for shift in (-1, -40, -64, 0, 9):
        check_requantize(INT64_EDGES, shift, mode, word_of(64, True, WRAP), np.int64)


@pytest.mark.parametrize(
    ("signed", "overflow"), [(True, SATURATE), (True, SATURATE_SYMMETRIC), (False, WRAP), (False, SATURATE)]
)
def test_words(signed, overflow):
    for bits, shift in ((1 + signed, 1), (8, 4), (15, 0), (31, 2), (33, 0)):
        kind = storage_of(bits, signed)
        check_requantize(INT32_EDGES, shift, TO_ZERO, word_of(bits, signed, overflow), kind)


@pytest.mark.parametrize("random_bits", [1, 24, 32, 33, 62])
def test_random_bits(random_bits):
    for values, shift, first in ((some(13, np.int32), 9, 0), (some(13, np.int64), 37, 2**33 + 6), (some(9, np.int32), 2, 7)):
        check_requantize(
            values, shift, STOCHASTIC, word_of(16, True, SATURATE), np.int16, first_index=first, random_bits=random_bits
        )


@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("host", [True, False])
def test_shifts_of_blocks(host, launch):
    draw = np.random.default_rng(1)
    with _driver.launches(*launch):
        for outer, first, blocks, length, inner in ((1, 1, 3, 4, 1), (2, 2, 2, 3, 2), (3, 1, 2, 1, 3), (1, 1, 1, 5, 5)):
            values = some(outer * blocks * length * inner, np.int32)
            shifts = draw.integers(-3, 40, (first, blocks, inner))
            for mode, start, kind in ((TIES_AWAY, 0, np.int8), (STOCHASTIC, 2, np.int16)):
                check_requantize(
                    values, shifts, mode, word_of(8, True, SATURATE), kind,
                    length=length, start=start, stop=values.size - 1, first_index=3, host=host,
                )  # fmt: skip


def test_one_shift_on_the_device_and_bytes():
    check_requantize(some(9, np.int32), 3, STOCHASTIC, word_of(8, True, SATURATE), np.int8, host=False)


def test_round_all():
    values = some(17, np.int32)
    for shift, mode, counting in ((4, TIES_EVEN, True), (62, JAM, True), (0, TIES_AWAY, False)):
        outs, word = np.full((2, 17), 99, np.int8), word_of(8, True, SATURATE)
        counts = [new_counters() if counting else None for _ in range(2)]
        plain.round_all(values, outs[0], *int64(2, 16, shift, mode), *word, counts[0])
        run(requantize.round_all, values, outs[1], 2, 16, shift, mode, *word, counts[1])
        np.testing.assert_array_equal(*outs)
        assert not counting or counts[0].tolist() == counts[1].tolist()


@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("shape", [(3, 5, 1), (2, 1, 1), (2, 70, 1), (3, 4, 3), (1, 1, 2)])
def test_extents(shape, launch):
    for kind in (np.int8, np.int64):
        values = some(shape, kind)
        refs, comps = np.full((2, 2, shape[0], shape[2]), 9, np.int64)
        plain.extents(values, *int64(1 if shape[0] > 1 else 0, shape[0]), *refs)
        with _driver.launches(*launch):
            run(requantize.extents, values, 1 if shape[0] > 1 else 0, shape[0], *comps)
        np.testing.assert_array_equal(refs, comps)


def test_shifts_to_fit_is_the_plain_one():
    shifts = np.empty(2, np.int64)
    requantize.shifts_to_fit(np.array([-9, 0]), np.array([3, 0]), np.int64(4), np.int64(0), np.int64(9), shifts)
    assert shifts.tolist() == [1, 0]


# 3. Updates --------------------------------------------------------------------------------------------------------------

FACTORS = np.array([3, 5, 2, 16, 4], np.int64)


def role(shift, mode, overflow, bits, random_bits, stream):
    return (shift, mode, *word_of(bits, True, overflow), random_bits, stream)


def check_update(kinds, roles, factors, *, momentum, start=0, narrow=False, size=15):
    sums, weights, velocity = (some(size, kind, seed) for seed, kind in enumerate(kinds))
    if sums.dtype == np.int64:
        sums >>= 8
    roles, step = np.array(roles, np.int64), np.uint64(5)
    states = [(weights.copy(), velocity.copy(), new_counters_of_roles()) for _ in range(2)]
    for (w, v, counters), twin in zip(states, (False, True), strict=True):
        moved = as_bytes(v) if momentum else (np.zeros(0 if not twin else 1, np.uint8), 0)
        arguments = (
            *as_bytes(sums),
            *as_bytes(w),
            *moved,
            *int64(start, size - 1),
            roles,
            factors,
            *SEQUENCE[:2],
            step,
            counters,
        )
        if twin:
            run(update.update, *arguments, narrow)
        else:
            plain_update.update(*arguments)
    for ref, comp in zip(*states, strict=True):
        np.testing.assert_array_equal(ref, comp)
    assert not np.array_equal(states[0][0], weights)


@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("narrow", [True, False])
def test_update(narrow, momentum, launch):
    with _driver.launches(*launch):
        for modes, start, decay in (((STOCHASTIC, STOCHASTIC, STOCHASTIC), 0, 1), ((TIES_EVEN, JAM, PSEUDO_STOCHASTIC), 3, 0)):
            roles = [
                role(22, modes[0], SATURATE, 8, 32, 1),
                role(3, modes[1], WRAP, 10, 6, 2),
                role(4, modes[2], SATURATE, 8, 20, 3),
            ]
            factors = FACTORS * np.array([1, 1, decay, 1, 1])
            check_update((np.int32, np.int8, np.int16), roles, factors, momentum=momentum, start=start, narrow=narrow)


def test_update_of_wide_words():
    roles = [
        role(-2, TIES_EVEN, SATURATE, 40, 32, 1), role(3, STOCHASTIC, WRAP, 32, 50, 2), role(4, STOCHASTIC, SATURATE, 32, 40, 3)
    ]  # fmt: skip
    check_update((np.int64, np.int32, np.int32), roles, FACTORS, momentum=True)
    check_update((np.int64, np.int32, np.int32), roles, FACTORS, momentum=False)


# 4. Linear maps ----------------------------------------------------------------------------------------------------------


def map_of(kind, both, narrow, size=24, lanes=6, channels=3):
    a, b = some(size, kind, 5), some(size, kind, 6) if both else None
    limit = 2**20 if narrow else 2**30
    factors = np.random.default_rng(2).integers(-limit, limit, (3 if both else 2, channels))
    spread = np.empty((len(factors), lanes), np.int32 if narrow else np.int64)
    plain_linear.spread(factors, spread)
    return a, b, spread


MAPS = [(np.int8, True, True), (np.int8, False, True), (np.int16, True, False), (np.int32, False, False)]


@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize(("kind", "both", "narrow"), MAPS)
def test_multiply_add(kind, both, narrow, launch):
    for size, lanes in ((24, 6), (21, 6), (3, 3), (9, 12)):
        a, b, factors = map_of(kind, both, narrow, size, lanes)
        outs = np.zeros((2, size), factors.dtype)
        with _driver.launches(*launch):
            comp = run(linear.multiply_add, a, b, factors, outs[1])
            assert size != 3 or run(linear.extremes_of_map, a, b, factors, None) == comp
        assert tuple(plain_linear.multiply_add(a, b, factors, outs[0])) == comp
        np.testing.assert_array_equal(*outs)


def test_multiply_add_wraps_within_32_bits():
    a, factors = np.array([-128, 127, 5], np.int8), np.array([[-(2**31)] * 3, [7] * 3], np.int32)
    outs = np.zeros((2, 3), np.int32)
    assert tuple(plain_linear.multiply_add(a, None, factors, outs[0])) == run(linear.multiply_add, a, None, factors, outs[1])
    np.testing.assert_array_equal(*outs)


def check_map(kind, both, narrow, start, stop, shift, mode, word, out_kind, random_bits=32):
    a, b, factors = map_of(kind, both, narrow)
    outs, counts = np.full((2, a.size), 99, out_kind), [new_counters(), new_counters()]
    how = *int64(start, stop, shift, mode), *word, SEQUENCE, np.int64(random_bits)
    products = np.empty(2 * factors.shape[1], factors.dtype)
    plain_linear.multiply_add_requantize(
        a, b, factors, *how, products, products.view(np.uint8), outs[0], outs[0].view(np.uint8), counts[0]
    )
    run(linear.multiply_add_requantize, a, b, factors, *how, None, None, outs[1], None, counts[1])
    np.testing.assert_array_equal(*outs)
    assert counts[0].tolist() == counts[1].tolist()


@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize(("kind", "both", "narrow"), MAPS)
def test_multiply_add_requantize(kind, both, narrow, launch):
    with _driver.launches(*launch):
        for mode, (start, stop) in itertools.product((TIES_EVEN, STOCHASTIC), ((0, 24), (9, 21))):
            check_map(kind, both, narrow, start, stop, 19, mode, word_of(8, True, SATURATE), np.int8)


def test_multiply_add_requantize_of_other_rules():
    for mode, shift, bits, kind in (
        (PSEUDO_STOCHASTIC, 18, 8, np.int8),
        (JAM, 31, 16, np.int16),
        (STOCHASTIC, -1, 40, np.int64),
    ):
        check_map(np.int8, True, True, 3, 24, shift, mode, word_of(bits, True, WRAP), kind)
        check_map(np.int16, True, False, 3, 24, shift, mode, word_of(bits, True, SATURATE), kind, 45)
