"""Estimators in parts: losses two at a time, in 32 and in 64 bits, the first layers alone, best points, lengths; mistakes."""

from fractions import Fraction
from math import isqrt

import naive_levels
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from toy_networks import as_matrices, as_samples, cosine, problem

from intnet import kernels
from intnet.errors import InputError
from intnet.gradients import (
    CDG,
    DERIVATIVES,
    LEVELS,
    NES,
    STE,
    Around,
    Batch,
    Direction,
    FirstLayers,
    MaxPoint,
    Perceptron,
    step,
)
from intnet.gradients.direction import lengthened
from intnet.gradients.perceptron import draw_normal

ACTIVATIONS = tuple(LEVELS)
SIZES = [(4, 5, 3, 1), (3, 1), (2, 6, 1)]


def moves_of(network, count, seed=0, bits=18):
    return np.random.default_rng(seed).integers(-(2**bits), 2**bits, (count, network.weights.size))


def naive_losses(network, batch, sets):
    """Return the losses in units of `losses`, slowly."""
    matrices, samples = [as_matrices(network, one) for one in sets], as_samples(network, batch)
    return [naive_levels.loss(one, *samples, network.levels, network.weight_bits) / network.loss_unit for one in matrices]


# 1. Losses two at a time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", SIZES)
def test_pairs_have_the_losses_of_both_ways(activation, sizes):
    """Of no pair, one, and many; one of them moves nothing; more samples than a block of 256."""
    network, batch = problem(activation, sizes, samples=300)
    for count in (0, 1, 9):
        moves = moves_of(network, count)
        moves[1:2] = 0
        pairs = network.pair_losses(batch, moves)
        assert pairs.high.shape == pairs.low.shape == (2, count)
        ways = [network.losses(batch, network.weights + sign * moves) for sign in (1, -1)]
        assert pairs.exact() == [value for words in ways for value in words.exact()]
        if count == 9:
            assert pairs.exact()[1] == pairs.exact()[10] == network.losses(batch).exact()[0]
            assert pairs.exact()[0] != pairs.exact()[9]
    few = Batch(np.ascontiguousarray(batch.inputs[:, :7]), batch.targets[:7])
    both = network.weights + np.array([[1], [-1]]) * moves[0]
    assert network.pair_losses(few, moves[:1]).exact() == naive_losses(network, few, both)


@pytest.mark.parametrize("pairs", [2, 40])
def test_pieces_and_threads_change_no_pair(pairs):
    """They are apart by samples where there are few pairs, else by pairs."""
    network, batch = problem(samples=9000, sizes=(3, 4, 1))
    before, moves, found = kernels.threads(), moves_of(network, pairs), set()
    try:
        for threads in (1, 2, 3):
            kernels.set_threads(threads)
            found.add(str(network.pair_losses(batch, moves).exact()))
    finally:
        kernels.set_threads(before)
    assert found == {str([v for s in (1, -1) for v in network.losses(batch, network.weights + s * moves).exact()])}


# 2. 32 bits and 64 ------------------------------------------------------------------------------------------------------


def wide_network(activation, wide):
    """Return a network whose second layer needs 64 bits, or not; with few fraction bits, as "full" has 16 of its own."""
    bits = 20 if LEVELS[activation] else 8
    network, batch = problem(activation, (2, 16, 3, 1), samples=12, weight_bits=bits)
    weights = network.weights.copy()
    if wide:
        largest = 2**28 if LEVELS[activation] else 2**13
        weights[network.slices[1]] = np.random.default_rng(1).integers(-largest, largest, 48)
    return network.with_weights(weights), batch


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("wide", [False, True])
def test_later_layers_in_32_and_in_64_bits_are_exact(activation, wide):
    network, batch = wide_network(activation, wide)
    inputs, targets = int(np.abs(batch.inputs).max()), int(np.abs(batch.targets).max())
    assert network._prove(network.weights, inputs, targets) is (np.int64 if wide else np.int32)
    sets = network.weights + np.concatenate([np.zeros((1, network.weights.size), int), moves_of(network, 2, bits=6)])
    expected = naive_losses(network, batch, sets)
    assert network.losses(batch, sets).exact() == expected
    assert network.pair_losses(batch, sets[1:] - sets[0]).exact()[:2] == expected[1:]
    if not wide:  # among weights that need them, the same weights pass through 64 bits
        other, _ = wide_network(activation, True)
        both = np.stack([network.weights, other.weights])
        assert network._prove(both, inputs, targets) is np.int64
        assert network.losses(batch, both).exact()[0] == expected[0]
        middle = (both[1] - both[0]) * np.array([[0], [1]])
        assert network.pair_losses(batch, middle).exact()[::2] == [expected[0]] * 2


@pytest.mark.parametrize("largest", [2**31 - 1, 2**31, -(2**31) + 1, -(2**31)])
def test_words_are_chosen_at_their_very_end(largest):
    """One unit a layer: the second layer's sum is its weight, or less that."""
    weights = np.array([1 << 20, largest, 1 << 20])
    network = Perceptron((1, 1, 1, 1), weights)
    batch = Batch(np.array([[5000, -5000, 4096, 4095]], np.int16), np.array([7, -7, 0, 1]))
    assert network._prove(weights, 5000, 7) is (np.int32 if abs(largest) < 2**31 else np.int64)
    assert network.losses(batch).exact() == naive_losses(network, batch, [weights])
    nothing = np.zeros((1, 3), np.int64)
    assert network.pair_losses(batch, nothing).exact() == network.losses(batch).exact() * 2


def test_wide_layers_change_nothing_in_the_estimators():
    """Differences one weight at a time and in pairs, where later layers have 64 bits."""
    network, batch = wide_network("binary", True)
    fast, plain = (CDG("3.5", plain=plain)(network, batch) for plain in (False, True))
    assert fast.integers.any()
    assert fast.integers.tolist() == plain.integers.tolist()


# 3. The first layers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["binary", "2bit", "full"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_first_layers_are_those_of_the_network(activation, count):
    network, batch = problem(activation, samples=60)
    part, size = FirstLayers(network, count), [20, 35, 38][count - 1]
    assert part.weights.tolist() == network.weights[:size].tolist()
    assert list(part.slices) == list(network.slices[:count])
    assert (part.weight_unit, part.loss_unit) == (network.weight_unit, network.loss_unit)
    rest = np.zeros((5, 38 - size), np.int64)
    moves = moves_of(network, 5)[:, :size]
    sets = np.concatenate([part.weights + moves, network.weights[size:] + rest], axis=1)
    assert part.losses(batch).exact() == network.losses(batch).exact()
    assert part.losses(batch, part.weights + moves).exact() == network.losses(batch, sets).exact()
    pairs = network.pair_losses(batch, np.concatenate([moves, rest], axis=1))
    assert part.pair_losses(batch, moves).exact() == pairs.exact()
    changes, every = part.changes(batch, 3000), network.changes(batch, 3000)
    assert changes.exact() == np.array(every.exact(), object).reshape(2, 38)[:, :size].reshape(-1).tolist()
    wanted = np.arange(size) % 3 == 0
    some = part.changes(batch, 3000, wanted)
    assert_array_equal(some.high, changes.high * wanted)
    assert_array_equal(some.low, changes.low * wanted)
    for rule in (STE(), STE("swish", window=True, seed=2)):
        mine, whole = rule(part, batch), rule(network, batch)
        assert mine.integers.tolist() == whole.integers[:size].tolist()
        assert mine.units == whole.units[:count]
    other = part.with_weights(part.weights + moves[0])
    assert other.network.weights.tolist() == sets[0].tolist()
    assert other.losses(batch).exact() == part.losses(batch, part.weights + moves[:1]).exact()
    assert (other.size, list(other.slices)) == (size, list(part.slices))


@pytest.mark.parametrize("count", [1, 2])
def test_estimators_see_the_first_layers_alone(count):
    network, batch = problem(samples=60)
    part = FirstLayers(network, count)
    fast, plain = CDG("0.1")(part, batch), CDG("0.1", plain=True)(part, batch)
    assert fast.integers.tolist() == plain.integers.tolist() == CDG("0.1")(network, batch).integers[: part.size].tolist()
    assert fast.units == plain.units
    assert CDG("0.1", weights=4)(part, batch).integers.size == part.size
    for estimator in (NES("0.1", 5), NES("0.1", 5, antithetic=False), MaxPoint("0.1", 5), Around(STE(), "0.3", "0.1", 5)):
        found = estimator(part, batch)
        assert found.integers.size == part.size
        assert found.integers.any()
        moved = step(part, found, [Fraction(1, 10)])
        assert moved.shape == (1, part.size)
        assert part.losses(batch, moved).exact()[0] != part.losses(batch).exact()[0]


# 4. Random directions ---------------------------------------------------------------------------------------------------


def drawn(network, seed, stream, count):
    """Return the directions that an estimator draws, 64 at a time."""
    size = network.weights.size
    return np.concatenate(
        [draw_normal(seed, stream, k, min(64, count - 64 * k) * size) for k in range(-(-count // 64))]
    ).reshape(count, size)


def test_single_evaluations_are_the_mean_over_losses():
    """Nothing is subtracted: so the mean is that of the losses times the directions."""
    network, batch = problem(sizes=(3, 4, 1), samples=9)
    count, sigma = 70, Fraction(1, 8)
    noise = drawn(network, 7, 34, count)
    moves = np.array([[round(sigma * int(v) * 2**20 / 2**16) for v in e] for e in noise])
    losses = [float(v * network.loss_unit) for v in naive_losses(network, batch, network.weights + moves)]
    for some in (count, 64, 3):
        mean = losses[:some] @ noise[:some] / 2**16 / (some * float(sigma))
        found = NES(sigma, count, seed=7, antithetic=False).directions(network, batch, [some, count])[0]
        real = np.concatenate(found.layers(network)) * 2
        np.testing.assert_allclose(real, mean, rtol=1e-6, atol=1e-6 * np.abs(mean).max())
    assert cosine(real, np.concatenate(NES(sigma, count, seed=7)(network, batch).layers(network))) < 0.99


def test_a_parameter_of_many_digits_is_rounded_only():
    """1.2345678901234567e-05 has a numerator beyond 62 bits."""
    network, batch = problem(samples=30)
    for digits in ("1.2345678901234567e-05", "0.1" + "0" * 40 + "1", Fraction(10**30, 10**31 + 1)):
        near = Fraction(digits).limit_denominator(10**9)
        a, b = NES(digits, 3)(network, batch), NES(near, 3)(network, batch)
        assert a.integers.tolist() == b.integers.tolist()
        assert a.units[0] == pytest.approx(float(b.units[0]))


def in_each_layer(network, vectors, length):
    """Return vectors of one length in each layer, in units, in float64: within one unit after rounding."""
    out = np.zeros(vectors.shape)
    for one in network.slices:
        norms = np.sqrt((vectors[:, one].astype(float) ** 2).sum(axis=1, keepdims=True))
        out[:, one] = vectors[:, one] / np.where(norms, norms, 1) * float(length / network.weight_unit)
    return out


def check_best(network, batch, direction, candidates):
    """Hold that a step is one of the candidates, but for what is rounded off, and that its loss is the least of theirs."""
    distances = np.abs(candidates - direction.integers).max(axis=1)
    assert distances.min() <= 1
    (found,) = naive_losses(network, batch, [network.weights - direction.integers])
    losses = naive_losses(network, batch, network.weights - np.rint(candidates).astype(np.int64))
    assert abs(found - losses[int(distances.argmin())]) <= found / 10**4
    assert found <= min(losses) * (1 + Fraction(1, 10**4))
    return int(distances.argmin())


def test_the_best_point_is_the_best_of_all_both_ways():
    """By brute force over slow losses; so are those of fewer points; each way is the best for some seed."""
    network, batch = problem(sizes=(3, 4, 1), samples=8)
    length, ways = Fraction(1, 2), set()
    for seed in range(4):
        noise = in_each_layer(network, drawn(network, seed, 35, 67), length)
        found = MaxPoint(length, 67, seed).directions(network, batch, [67, 3, 64, 1])
        for count, direction in zip((67, 3, 64, 1), found, strict=True):
            best = check_best(network, batch, direction, np.concatenate([-noise[:count], noise[:count]]))
            ways.add(best >= count)
            assert direction.units == [network.weight_unit] * 2
            for one, real in zip(network.slices, direction.layers(network), strict=True):
                assert np.linalg.norm(real) == pytest.approx(float(length), abs=2**-20 * (one.stop - one.start))
        assert found[0].integers.tolist() == MaxPoint(length, 67, seed)(network, batch).integers.tolist()
        assert found[1].integers.tolist() == MaxPoint(length, 3, seed)(network, batch).integers.tolist()
    assert ways == {False, True}


@pytest.mark.parametrize("spread", ["0.3", "4"])
def test_the_best_step_around_another_is_the_best_of_all(spread):
    network, batch = problem(sizes=(3, 4, 1), samples=8)
    g, length = STE()(network, batch), Fraction(1, 2)
    middle, unit = in_each_layer(network, g.integers[None], 1), float(Fraction(spread))
    chosen = set()
    for seed in range(3):
        ways = middle + unit * in_each_layer(network, drawn(network, seed, 36, 70), 1)
        for count in (70, 64, 1):
            found = Around(STE(), spread, length, count, seed)(network, batch)
            chosen.add(check_best(network, batch, found, in_each_layer(network, ways[:count], length)))
    assert len(chosen) > 1


def test_around_a_direction_by_almost_nothing_is_that_direction():
    network, batch = problem(samples=50)
    for estimator in (STE(), CDG("0.1")):
        g = estimator(network, batch)
        found = Around(estimator, Fraction(1, 2**29), "0.1", 5)(network, batch)
        own = lengthened(g.integers[None], network.slices, [Fraction(1, 10) / network.weight_unit])
        assert np.abs(found.integers - own[0]).max() <= 1


def test_around_nothing_it_is_the_best_of_random_steps():
    """Where a layer of the other direction is zero."""
    network, batch = problem(sizes=(3, 4, 1), samples=8)

    def half(network, batch):
        g = STE()(network, batch)
        return Direction(g.integers * (np.arange(16) >= 12), g.units)

    noise = in_each_layer(network, drawn(network, 5, 36, 20), 1)
    middle = in_each_layer(network, half(network, batch).integers[None], 1)
    found = Around(half, "0.5", "0.25", 20, 5)(network, batch)
    check_best(network, batch, found, in_each_layer(network, middle + noise / 2, Fraction(1, 4)))


# 5. Lengths -------------------------------------------------------------------------------------------------------------


def exact_moves(vector, length):
    """Return a vector of integers at a length, in Fractions."""
    squares = sum(int(v) ** 2 for v in vector)
    norm = Fraction(isqrt(squares << 200), 2**100)
    return [length * int(v) / norm if norm else Fraction(0) for v in vector]


LENGTHS = [
    Fraction(0),
    Fraction(1, 10**30),
    Fraction(1, 3),
    Fraction(1, 2),
    Fraction(10),
    Fraction(10**30 + 7, 10**25 + 1),
    Fraction(2**30),
    Fraction(2**30 - 1, 2**29 - 1),
    Fraction(2**35 + 1, 3),
    Fraction(2**41),
]


@pytest.mark.parametrize("bits", [1, 7, 31, 32, 62])
def test_vectors_get_their_lengths(bits):
    """Each layer of each vector: every number is rounded once, but for the norm's own 2**-31; short, long, and nothing."""
    rng, slices = np.random.default_rng(bits), [slice(0, 9), slice(9, 10), slice(10, 13)]
    sets = np.array([rng.integers(-(2**bits), 2**bits, 13, endpoint=True) for _ in LENGTHS])
    sets[:, 11] = 0
    sets[3, :9] = 0
    sets[5, 9] = 2**bits
    found = lengthened(sets, slices, LENGTHS)
    for row, moved, length in zip(sets, found, LENGTHS, strict=True):
        for one in slices:
            error = (isqrt(one.stop - one.start) + 4) * length / 2**31 + Fraction(1, 2) + Fraction(1, 2**20)
            for got, expected in zip(moved[one].tolist(), exact_moves(row[one], length), strict=True):
                assert abs(got - expected) <= error
        assert moved.any() == (length >= Fraction(1, 2)) or length == Fraction(1, 2)
    assert not found[3, :9].any()
    assert bits > 31 or found[-1, 9] == np.sign(sets[-1, 9]) * 2**41  # then the norm is exact


def test_a_step_of_a_rate_is_that_length_in_units():
    network, batch = problem(samples=50)
    g, rate = STE()(network, batch), Fraction("0.37")
    (moved,) = step(network, g, [rate])
    (expected,) = lengthened(g.integers[None], network.slices, [rate * 2**20])
    assert (network.weights - moved).tolist() == expected.tolist()
    with pytest.raises(InputError, match=r"lengths of steps must be 0 to 2\*\*41 units of the weights, got -1\.0\d+e\+06"):
        step(network, g, [Fraction(1, 10), Fraction(-1)])
    with pytest.raises(InputError, match=r"got 1\.0\d+e\+13"):
        step(network, g, [Fraction(10**7)])


# 6. Errors on their way back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("derivative", ["vanilla", "polynomial"])
def test_large_weights_and_errors_take_bits_from_the_errors(derivative):
    """Backpropagation is then coarser, and still what it should be; with still larger weights it is refused.

    Large weights of units stand in pairs that cancel each other where activations agree, so that derivatives are not all 0.
    """
    network, batch = problem(sizes=(2, 4, 4, 3, 1), samples=40, seed=2)
    batch, rule = Batch(batch.inputs, np.random.default_rng(0).integers(-(2**28), 2**28, 40)), STE(derivative)
    middle, lefts = slice(network.slices[1].start, network.slices[2].stop), []
    signs = np.resize([1, -1, 1, -1, 1, 1, -1, -1, 1, -1, -1, 1], 28)
    for bits in (0, 22, 23, 24, 26):
        weights = network.weights.copy()
        weights[middle] += (1 << bits) * signs
        large = network.with_weights(weights)
        lefts.append(rule._left(large, batch))
        found = np.concatenate(rule(large, batch).layers(large))
        reference = as_matrices(large), *as_samples(large, batch), large.levels, large.weight_bits
        expected = naive_levels.gradient(*reference, DERIVATIVES[derivative])
        expected = np.concatenate([np.array(one, np.float64).reshape(-1) for one in expected])
        for one in network.slices:
            assert np.abs(expected[one]).max() > 10
            np.testing.assert_allclose(found[one], expected[one], atol=5e-3 * np.abs(expected[one]).max())
    assert lefts[0] == 3
    assert lefts[-1] < 0, lefts
    assert sorted(lefts, reverse=True) == lefts
    weights[middle] += (1 << 32) * signs
    with pytest.raises(InputError, match=r"errors on their way back may need \d\d bits and have 62, with weights of 20 fracti"):
        rule(network.with_weights(weights), batch)
