"""The fused step of gradient descent: both kernels equal its formula in Python integers, and its parts."""

import itertools

import naive
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intnet import kernels
from intnet.formats import Overflow, Rounding
from intnet.kernels import _parallel
from intnet.kernels.update import Factors, Target, Update, Updates, new_counters_of_roles

SLOW = numba.config.DISABLE_JIT
SEED = 2**35 + 3
STEP = 6
OVERFLOWS = [Overflow.SATURATE, Overflow.WRAP, Overflow.SATURATE_SYMMETRIC]
KINDS_OF_ROUNDING = [Rounding.TIES_EVEN, Rounding.STOCHASTIC, Rounding.PSEUDO_STOCHASTIC]


def target(shift, rounding=Rounding.TIES_EVEN, overflow=Overflow.SATURATE, word_bits=16, random_bits=32, stream=0):
    return Target(shift, rounding.code, overflow.code, word_bits, random_bits, stream)


def bring(exact, role):
    """Return the integers of a role and its counters."""
    rounding = next(mode for mode in Rounding if mode.code == role.rounding)
    overflow = next(mode for mode in Overflow if mode.code == role.overflow)
    fractions = None
    if rounding is Rounding.STOCHASTIC:
        fractions = [naive.random_fraction(SEED, role.stream, STEP, i, role.random_bits) for i in range(len(exact))]
    shifts = [role.shift] * len(exact)
    return naive.requantize(exact, shifts, rounding.value, overflow.value, role.word_bits, True, fractions, role.random_bits)


def reference(sums, weights, velocity, factors, gradient, weight, momentum):
    """Return new weights, new velocity and counters, in Python integers; nothing is seen of a momentum that is not there."""
    move, of_gradient = bring(sums, gradient)
    of_momentum = kernels.new_counters().tolist()
    by_weight = factors.weight
    if velocity is not None:
        exact = [
            factors.momentum * v + factors.gradient * g + factors.decay * w
            for v, g, w in zip(velocity, move, weights, strict=True)
        ]
        move, of_momentum = bring(exact, momentum)
        velocity = move
    else:
        by_weight -= factors.decay
    moved, of_weight = bring([by_weight * w - factors.rate * m for w, m in zip(weights, move, strict=True)], weight)
    decays = velocity is None and factors.decay != 0
    still = [(m != 0 or (decays and w != 0)) and new == w for m, w, new in zip(move, weights, moved, strict=True)]
    of_weight[kernels.COUNT_LOST] = sum(still)
    return moved, velocity, [of_gradient, of_momentum, of_weight]


def operands(seed, size, gradient_type, weight, momentum):
    random = np.random.default_rng(seed)
    limits = np.iinfo(gradient_type)
    sums = random.integers(limits.min, limits.max, size, gradient_type, endpoint=True)
    sums >>= random.integers(0, 31, size).astype(gradient_type)

    def words(role):
        half, kind = 2 ** (role.word_bits - 1), np.int16 if role.word_bits <= 16 else np.int32
        return np.where(random.random(size) < 0.1, -half, random.integers(-half, half, size)).astype(kind)

    return sums, words(weight), None if momentum is None else words(momentum)


def check(sums, weights, velocity, factors, gradient, weight, momentum, narrow=None):
    """Compare both kernels, as far as they may be used, with the reference."""
    ref = reference(
        sums.tolist(), weights.tolist(), None if velocity is None else velocity.tolist(), factors, gradient, weight, momentum
    )
    for plain in (False, True):
        new_weights, new_velocity = weights.copy(), None if velocity is None else velocity.copy()
        move = Update(new_weights, new_velocity, factors, gradient, weight, momentum, SEED)
        if narrow is not None and not SLOW:
            assert move.narrow == narrow
        move.narrow &= not plain
        counters = new_counters_of_roles()
        move(sums, STEP, counters)
        assert new_weights.tolist() == ref[0]
        assert (None if new_velocity is None else new_velocity.tolist()) == ref[1]
        assert counters.tolist() == ref[2]
        assert new_weights.dtype == weights.dtype


@pytest.mark.parametrize("rounding", Rounding, ids=lambda mode: mode.value)
@pytest.mark.parametrize("overflow", OVERFLOWS, ids=lambda mode: mode.value)
@pytest.mark.parametrize("with_momentum", [True, False], ids=["momentum", "alone"])
def test_equals_the_formula(rounding, overflow, with_momentum):
    for decay, gradient_type in itertools.product((0, 5), (np.int32, np.int64)):
        gradient = target(9, rounding, overflow, 16, 11, 3)
        momentum = target(14, rounding, overflow, 13, 32, 4) if with_momentum else None
        weight = target(7, rounding, overflow, 16, 5, 5)
        factors = Factors(14000, 2**13, decay, 2**7, 3)
        data = operands(1, 12 if SLOW else 2101, gradient_type, weight, momentum)
        check(*data, factors, gradient, weight, momentum, True)


@given(st.data())
@settings(max_examples=20 if SLOW else 150)
def test_anything_equals_the_formula(data):
    draw = data.draw

    def role(stream):
        return target(
            draw(st.integers(0, 31) | st.integers(-3, 63)),
            draw(st.sampled_from(Rounding)),
            draw(st.sampled_from([Overflow.SATURATE, Overflow.WRAP, Overflow.ERROR, Overflow.SATURATE_SYMMETRIC])),
            draw(st.integers(1, 16) | st.integers(2, 32)),
            draw(st.integers(1, 40)),
            stream,
        )

    gradient, weight, momentum = role(1), role(2), draw(st.none() | st.just(role(3)))
    numbers = st.integers(-(2**14), 2**14) | st.integers(-(2**22), 2**22)
    factors = Factors(*(draw(numbers) for _ in range(5)))
    kind = draw(st.sampled_from([np.int16, np.int32, np.int64]))
    check(
        *operands(draw(st.integers(0, 99)), draw(st.integers(1, 9)), kind, weight, momentum),
        factors,
        gradient,
        weight,
        momentum,
    )


@pytest.mark.parametrize("above", [0, 1], ids=["the largest", "one more"])
def test_at_the_edge_of_32_bits(above):
    """The magnitudes of the exact numbers reach 2**31 - 1 in the fast kernel, and are handed to the plain one beyond."""
    low = np.full(4, -(2**15), np.int16)
    sums = np.array([-(2**31), 2**31 - 1, -1, 0], np.int32)
    for shift, rounding in itertools.product((0, 1, 30), (Rounding.FLOOR, Rounding.TO_AWAY, Rounding.STOCHASTIC)):
        gradient, momentum, weight = target(shift, rounding), target(shift, rounding), target(shift, rounding)
        for factors in (Factors(2**16 - 1, 0, above, 1, 1), Factors(1, 2, 3, 2**15, -(2**15) + 1 - above)):
            check(sums, low, low, factors, gradient, weight, momentum, above == 0)
        for factors in (Factors(0, 0, 0, 2**15, 2**15 - 1 + above), Factors(0, 0, -(2**15), above, 2**15 - 1)):
            check(sums, low, None, factors, gradient, weight, None, above == 0)


@pytest.mark.skipif(SLOW, reason="too many elements for plain Python")
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("rounding", KINDS_OF_ROUNDING, ids=lambda mode: mode.value)
def test_equals_its_parts_for_any_threads(rounding, threads):
    """Large enough for several pieces and windows: equal to requantizing exact sums in NumPy."""
    gradient, momentum, weight = (target(shift, rounding, stream=stream) for stream, shift in enumerate((16, 15, 12)))
    sums, weights, velocity = operands(2, 100_003, np.int32, weight, momentum)
    factors = Factors(29491, 2**14, 1, 2**12, 7)

    def part(exact, role, counters):
        arguments = (exact, role.shift, role.rounding, role.overflow, role.word_bits)
        return kernels.requantize(*arguments, seed=SEED, step=STEP, stream=role.stream, counters=counters).astype(np.int64)

    ref = new_counters_of_roles()
    g, w = part(sums, gradient, ref[0]), weights.astype(np.int64)
    v = part(factors.momentum * velocity.astype(np.int64) + factors.gradient * g + factors.decay * w, momentum, ref[1])
    new = part(factors.weight * w - factors.rate * v, weight, ref[2])
    ref[2, kernels.COUNT_LOST] = np.count_nonzero((v != 0) & (new == w))
    before = kernels.threads()
    try:
        kernels.set_threads(threads)
        move = Update(weights, velocity, factors, gradient, weight, momentum, SEED)
        counters = new_counters_of_roles()
        move(sums, STEP, counters)
    finally:
        kernels.set_threads(before)
    np.testing.assert_array_equal(weights, new)
    np.testing.assert_array_equal(velocity, v)
    assert counters.tolist() == ref.tolist()
    assert counters[2, kernels.COUNT_LOST] > 0


def test_counters_need_not_be_given_and_nothing_may_be_moved():
    weights = np.array([100, -7, 3], np.int16)
    move = Update(weights, None, Factors(0, 0, 0, 4, 1), target(0), target(2))
    move(np.array([4, 1, -9]), 0)
    assert weights.tolist() == [99, -7, 5]
    Update(np.zeros(0, np.int16), None, Factors(0, 0, 0, 1, 1), target(0), target(0))(np.zeros(0, np.int32), 0)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("with_momentum", [True, False], ids=["momentum", "alone"])
def test_updates_together_equal_one_after_the_other(threads, with_momentum):
    """More tensors than go into one call, of several types, and large enough to be divided among threads."""
    before = kernels.threads()
    kernels.set_threads(threads)
    try:
        random = np.random.default_rng(5)
        sizes = [3, 6] if SLOW else [5, 40001, 10, 2, 70003, 1, 4, 9, 33000, 7]
        made = []
        for tensor, size in enumerate(sizes):
            roles = [target(9, Rounding.STOCHASTIC, random_bits=16, stream=3 * tensor + role) for role in range(3)]
            roles[2] = roles[2]._replace(shift=4, word_bits=8 if tensor % 4 == 3 else 16)
            kind = np.int64 if tensor % 2 else np.int32
            weights = random.integers(-99, 99, size).astype(np.int8 if tensor % 4 == 3 else np.int16)
            velocity = random.integers(-999, 999, size).astype(np.int16) if with_momentum else None
            factors = Factors(3, 512, 0, 16, 1)
            made.append((random.integers(-(2**20), 2**20, size).astype(kind), weights, velocity, factors, roles))
        results = []
        for together in (False, True):
            arrays = [(one[1].copy(), None if one[2] is None else one[2].copy()) for one in made]
            counters = [new_counters_of_roles() for _ in made]
            updates = [
                Update(*own, factors, roles[0], roles[2], roles[1] if with_momentum else None, SEED)
                for own, (_, _, _, factors, roles) in zip(arrays, made, strict=True)
            ]
            if together:
                Updates(updates)([one[0] for one in made], STEP, counters)
            else:
                for update, one, counted in zip(updates, made, counters, strict=True):
                    update(one[0], STEP, counted)
            results.append(
                ([[None if own is None else own.tolist() for own in pair] for pair in arrays], np.array(counters).tolist())
            )
        assert results[0] == results[1]
    finally:
        kernels.set_threads(before)


@pytest.mark.skipif(SLOW, reason="random bits are drawn ahead in compiled code alone")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("random_bits", [3, 32])
def test_random_bits_drawn_ahead_are_those_of_their_step(threads, random_bits):
    """Steps that follow one another, one that is left out, one that is done again, and arrays that take no words."""
    before = kernels.threads()
    kernels.set_threads(threads)
    try:
        random = np.random.default_rng(random_bits)
        roles = [target(shift, Rounding.STOCHASTIC, random_bits=random_bits, stream=shift) for shift in (16, 4)]
        first = [
            random.integers(-999, 999, size).astype(kind) for size, kind in ((3001, np.int16), (7, np.int32), (0, np.int16))
        ]
        results = []
        for together in (False, True):
            weights = [one.copy() for one in first]
            updates = [Update(one, None, Factors(0, 0, 0, 16, 1), *roles, seed=SEED) for one in weights]
            counters = [new_counters_of_roles() for _ in updates]
            moves, steps = Updates(updates), [3, 4, 5, 9, 10, 10, 2**32 - 1]
            for number, step in enumerate(steps):
                draw = np.random.default_rng(number)
                sums = [draw.integers(-(2**22), 2**22, one.size).astype(np.int32) for one in weights]
                if together:
                    moves(sums, step, counters)
                else:
                    for update, one, counted in zip(updates, sums, counters, strict=True):
                        if one.size:
                            update(one, step, counted)
            results.append(([one.tolist() for one in weights], np.array(counters).tolist()))
        assert results[0] == results[1]
    finally:
        kernels.set_threads(before)


def test_work_ahead_is_done_once_or_not_at_all():
    before = kernels.threads()
    try:
        for threads in (1, 2):
            kernels.set_threads(threads)
            done = []
            ahead = _parallel.Ahead(lambda done=done: done.append(1))
            assert len(done) <= 1
            assert ahead.done() is (len(done) == 1)
        kernels.set_threads(2)

        def fails():
            raise ValueError

        assert _parallel.Ahead(fails).done() is False
        ahead = _parallel.Ahead(lambda: None)
        _parallel._forget_pool()  # as in a forked process, where threads are not copied
        assert ahead.done() is False
        assert _parallel.run(lambda a, b: b - a, [(0, 1), (1, 3)]) == [1, 2]
    finally:
        kernels.set_threads(before)
