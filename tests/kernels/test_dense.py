"""Dense products in one call: the bits and the counters of the calls they stand for; without compiled code, none is made."""

import copy
import itertools

import naive
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from intnet import Network, kernels, layers, quantize
from intnet.formats import Overflow, Rounding
from intnet.kernels.dense import RoundedProduct, multiply_transposed
from intnet.optimizers import SGD

compiled = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="it is compiled")
SEED, STREAM, STEP = 2**40 + 5, 7, 11


def requantizer(rounding=Rounding.TIES_EVEN, overflow=Overflow.SATURATE, word_bits=16, random_bits=32):
    return kernels.Requantizer(
        rounding.code, overflow.code, word_bits, random_bits=random_bits, seed=SEED, stream=STREAM
    )  # fmt: skip


def one_after_the_other(a, b, shifts, rounding, overflow, word_bits, random_bits, accumulator, transposed, bias, by, block):
    """Return values, shift, events and counters of the separate calls."""
    bits, saturates = accumulator
    sums, left = kernels.multiply(a, b, b_transposed=transposed, accumulator_bits=bits, saturates=saturates)
    if bias is not None:
        left += kernels.add_bias(sums, bias.astype(np.int64).reshape(1, -1) << by, len(sums), bits, saturates)
    shift = shifts[0]
    if block:
        shift = kernels.exponents_of_integers(sums, (1, 1, sums.size, 1), word_bits, *shifts).item()
    counters = kernels.new_counters()
    values = kernels.requantize(
        sums, shift, rounding.code, overflow.code, word_bits, random_bits=random_bits, seed=SEED, stream=STREAM, step=STEP,
        counters=counters,
    )  # fmt: skip
    return values, shift, left, counters.tolist()


def operands(seed, m, k, n, kind, size, transposed):
    random = np.random.default_rng(seed)
    a, b, bias = (random.integers(-size, size, shape, kind, endpoint=True) for shape in ((m, k), (k, n), (n,)))
    return a, np.ascontiguousarray(b.T) if transposed else b, bias


@compiled
@settings(deadline=None, derandomize=True, max_examples=150)
@given(data=st.data())
def test_rounded_products_equal_the_calls_they_stand_for(data):
    draw = data.draw
    kind, transposed, with_bias, block = (draw(st.sampled_from(pair)) for pair in ((np.int8, np.int16), *[(False, True)] * 3))
    m, k, n = (draw(st.integers(1, 70)) for _ in range(3))
    size = draw(st.integers(0, np.iinfo(kind).max))
    rounding, overflow = draw(st.sampled_from(Rounding)), draw(st.sampled_from(Overflow))
    word_bits, random_bits = draw(st.integers(1, 31)), draw(st.integers(1, 32))
    accumulator = draw(st.sampled_from([32, 24, 17])), draw(st.booleans())
    least = draw(st.integers(-9, 30))
    shifts = (least, least + draw(st.integers(0, 40))) if block else (least, least)
    a, b, bias = operands(draw(st.integers(0, 99)), m, k, n, kind, size, transposed)
    by, bias = draw(st.integers(0, 40)), bias if with_bias else None
    counters = kernels.new_counters()
    product = RoundedProduct(requantizer(rounding, overflow, word_bits, random_bits), *accumulator, word_bits if block else 0)
    comp = product(a, b, shifts, b_transposed=transposed, bias=bias, bias_shift=by, step=STEP, counters=counters)
    ref = one_after_the_other(
        a, b, shifts, rounding, overflow, word_bits, random_bits, accumulator, transposed, bias, by, block
    )  # fmt: skip
    largest = abs(a.astype(int)).max() * abs(b.astype(int)).max() * k
    if comp is None:  # not proven, or a shift that it does not do
        assert not 0 <= ref[1] <= 30 or largest >= 2 ** (accumulator[0] - 1)
        assert counters.tolist() == kernels.new_counters().tolist()
        return
    assert_array_equal(comp.values, ref[0], strict=True)
    assert (comp.shift, comp.left, counters.tolist()) == ref[1:]


@compiled
@pytest.mark.parametrize("kind", [np.int8, np.int16])
@pytest.mark.parametrize(("m", "k", "n"), [*itertools.product([1, 3, 16, 33], repeat=3), (64, 100, 50)])
def test_transposed_products_equal_python_integers(kind, m, k, n):
    a, b, _ = operands(m + k + n, k, m, n, kind, np.iinfo(kind).max, False)
    b = np.resize(b, (k, n)) >> 8 * (kind is np.int16)
    sums, totals = multiply_transposed(a, b, 32)
    assert_array_equal(sums, a.T.astype(np.int64) @ b.astype(np.int64))
    assert_array_equal(totals, a.sum(0, dtype=np.int64), strict=True)
    assert sums.dtype == np.int32
    sums_alone, nothing = multiply_transposed(a, b, 32, False)
    assert_array_equal(sums_alone, sums, strict=True)
    assert nothing.size == 0


@compiled
@pytest.mark.parametrize("kind", [np.int8, np.int16])
@pytest.mark.parametrize("clamps", [False, True])
@pytest.mark.parametrize(("word_bits", "block"), [(8, False), (16, False), (30, False), (8, True)])
def test_backward_passes_and_clamps_equal_the_calls_they_stand_for(kind, clamps, word_bits, block):
    """Also when operands change in place, and when other arrays come."""
    product = RoundedProduct(requantizer(Rounding.STOCHASTIC, word_bits=word_bits), 32, True, word_bits if block else 0)
    shifts = (0, 40) if block else (5, 5)
    for m, n, k, seed in ((64, 10, 50, 1), (64, 10, 50, 2), (1, 3, 7, 3), (33, 17, 5, 4)):
        dy, weights, bias = operands(seed, m, n, k, kind, 100, False)
        x = operands(seed + 9, m, k, 1, kind, 100, False)[0]
        for again in range(2):
            weights[...] = weights[::-1] - again
            counted = [kernels.new_counters() for _ in range(4)]
            ref_dx = product(dy, weights, shifts, step=STEP, counters=counted[0])
            expected = np.where(x > 0, ref_dx.values, 0) if clamps else ref_dx.values
            ref_dw, ref_totals = multiply_transposed(dy, x, 32, not again)
            comp = product.backward(
                dy, x, weights, shifts, sum_columns=not again, step=STEP, counters=counted[1], selects=clamps
            )
            assert_array_equal(comp.inputs.values, expected.astype(ref_dx.values.dtype), strict=True)
            assert comp.inputs[1:] == ref_dx[1:]
            assert_array_equal(comp.weights, ref_dw, strict=True)
            assert_array_equal(comp.totals, ref_totals, strict=True)
            y = product(dy, weights, shifts, bias=bias, step=STEP, counters=counted[2])
            clamped = product(dy, weights, shifts, bias=bias, step=STEP, counters=counted[3], clamps=True)
            assert_array_equal(clamped.values, np.maximum(y.values, 0), strict=True)
            assert counted[0].tolist() == counted[1].tolist()
            assert counted[2].tolist() == counted[3].tolist()


@compiled
def test_backward_passes_that_are_not_done_in_one_call():
    product, counters = RoundedProduct(requantizer(), 32, True), kernels.new_counters()
    ones, huge = np.ones((3, 3), np.int16), np.full((3, 3), 2**15 - 1, np.int16)
    for dy, x, weights, shifts in (
        (ones, ones.astype(np.int8), ones, (0, 0)), (ones, ones, ones, (-1, -1)), (huge, huge, ones, (0, 0)),
        (ones[:0], ones[:0], ones, (0, 0)),
    ):  # fmt: skip
        assert product.backward(dy, x, weights, shifts, counters=counters) is None
    assert product.backward(ones, ones, ones, (0, 0), step=2**32, counters=counters) is None
    made = product.backward(huge, ones, huge, (0, 0), counters=counters)
    assert made.inputs is None
    assert made.totals.tolist() == [3 * (2**15 - 1)] * 3
    assert counters.tolist() == kernels.new_counters().tolist()


@compiled
def test_copies_of_networks_have_weights_of_their_own():
    """A copy must not go on with what was made ready for the arrays of the original."""
    network = Network([layers.Dense(5), layers.ReLU(), layers.Dense(3)], (4,), "fixed16", seed=4)
    x = quantize(np.random.default_rng(1).normal(size=(6, 4)), network.recipe.activation.format)

    def train(one, numbers):
        for number in numbers:
            step = layers.Step(number, 3, True)
            one.backward(one.loss.gradient(one.forward(x, step), np.arange(6) % 3, step), step)
            SGD("2^-3").update_all(one.parameters, SGD("2^-3").schedule.at(0, 1), 6, step)
        return one.digest()

    train(network, range(3))
    twin = copy.deepcopy(network)
    assert train(twin, range(3, 6)) == train(network, range(3, 6))


@compiled
def test_a_rounded_product_by_hand():
    """One sum leaves an accumulator of 10 bits by its bias, one is rounded at a tie, one leaves the word."""
    a, b = np.array([[3, 4], [-5, 7]], np.int16), np.array([[10, 20], [50, -60]], np.int16)
    counters = kernels.new_counters()
    made = RoundedProduct(requantizer(word_bits=5), 10, True)(
        a, b, (3, 3), b_transposed=True, bias=np.array([-2, 30], np.int16), bias_shift=1, counters=counters
    )
    exact = [[110 - 4, -90 + 60], [90 - 4, -670 + 60]]
    assert made is None  # a sum of 670 is beyond 10 bits, so nothing is done
    made = RoundedProduct(requantizer(word_bits=5), 11, True)(
        a, b, (3, 3), b_transposed=True, bias=np.array([-2, 30], np.int16), bias_shift=1, counters=counters
    )
    words = [max(-16, min(15, naive.round_fraction(naive.Fraction(s, 8), "ties_even"))) for row in exact for s in row]
    assert made.values.ravel().tolist() == words == [13, -4, 11, -16]
    assert counters[kernels.COUNT_SATURATED] == 1
    assert made.left == 0
    made = RoundedProduct(requantizer(word_bits=5), 11, True)(a, b, (3, 3), bias=np.array([0, -300], np.int16), bias_shift=3)
    assert made.left == 2


@compiled
def test_what_is_not_done_in_one_call():
    a, huge = np.ones((2, 3), np.int16), np.full((3, 5), 2**15 - 1, np.int16)
    ones, bias = np.ones((3, 5), np.int16), np.ones(5, np.int16)
    product, counters = RoundedProduct(requantizer(), 32, True), kernels.new_counters()
    assert product(a, ones, (0, 0)) is not None
    for left, right, shifts, options in (
        (a.astype(np.int32), ones.astype(np.int32), (0, 0), {}),
        (a.astype(np.int8), ones, (0, 0), {}),
        (a, ones, (-1, -1), {}),
        (a, ones, (31, 31), {}),
        (a[:0], ones, (0, 0), {}),
        (a[:, :0].copy(), ones[:0], (0, 0), {}),
        (huge[:3, :3].copy(), huge, (0, 0), {}),
        (a, ones, (0, 0), {"bias": bias.astype(np.int64)}),
        (a, ones, (0, 0), {"bias": bias, "bias_shift": -1}),
        (a, ones, (0, 0), {"step": 2**32}),
    ):
        assert product(left, right, shifts, counters=counters, **options) is None
    assert counters.tolist() == kernels.new_counters().tolist()
    for to, bits in (
        (requantizer(word_bits=32), 32), (requantizer(Rounding.STOCHASTIC, random_bits=33), 32), (requantizer(), 33),
    ):  # fmt: skip
        assert RoundedProduct(to, bits, True)(a, ones, (0, 0)) is None
    assert multiply_transposed(a, a, 33) is None
    assert multiply_transposed(np.full((9, 2), 2**15 - 1, np.int16), np.full((9, 2), 2**15 - 1, np.int16), 32) is None
    assert multiply_transposed(a.astype(np.int64), a.astype(np.int64), 32) is None


@compiled
@pytest.mark.parametrize("name", ["fixed16", "niti8", "int8", "bfp8"])
def test_dense_layers_give_the_same_bits_either_way(name, monkeypatch):
    """Weights and telemetry after some steps, the last of which has one sample."""
    seen = []
    for patched in (False, True):
        if patched:
            monkeypatch.setattr(layers.Dense, "_at_once", lambda *_, **__: None)
            monkeypatch.setattr(layers.Dense, "_back_at_once", lambda *_: None)
            monkeypatch.setattr(layers.ReLU, "clamps", False)
            monkeypatch.setattr(kernels, "multiply_transposed", lambda *_: None)
        between = [layers.ReLU(), layers.Dropout(0.5), layers.Dense(6), layers.ReLU()]  # a clamp that one side joins, and one
        network = Network([layers.Dense(12), *between, layers.Dense(5), layers.Dense(4)], (9,), name, seed=4)  # that both do
        optimizer = SGD("2^3" if network.recipe.update == "normalized" else "2^-3")
        for number, samples in enumerate((16, 16, 3, 1)):
            random, step = np.random.default_rng(number), layers.Step(number, 3, True)
            x = quantize(random.normal(size=(samples, 9)), network.recipe.activation.for_axes(2).format)
            network.backward(network.loss.gradient(network.forward(x, step), random.integers(0, 4, samples), step), step)
            for parameter in network.parameters if patched else ():
                optimizer.update(parameter, optimizer.schedule.at(0, 1), 16, step)
            if not patched:
                optimizer.update_all(network.parameters, optimizer.schedule.at(0, 1), 16, step)
        seen.append((network.digest(), list(network.seen())))
    assert seen[0] == seen[1]


@pytest.mark.skipif(not numba.config.DISABLE_JIT, reason="it is compiled")
def test_nothing_is_done_in_one_call_of_plain_python():
    a = np.ones((2, 2), np.int16)
    assert RoundedProduct(requantizer(), 32, True)(a, a, (0, 0)) is None
    assert multiply_transposed(a, a, 32) is None
