"""Programs, run by a slow interpreter in Python integers, which knows nothing of the layers: the same bits as the network."""

import dataclasses
import itertools

import numpy as np
import pytest
from naive import round_fraction, wrap
from networks import FIXED, KINDS, inputs_of, scatter

import intnet
from intnet import compression, layers, models
from intnet.errors import InputError
from intnet.export import operations, program_of
from intnet.network import Network

# The interpreter --------------------------------------------------------------------------------------------------------


def fit(value, bits, overflow):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if overflow == "wrap":
        return wrap(value, bits)
    if overflow == "error":
        assert low <= value <= high
    return min(max(value, -high if overflow == "saturate_symmetric" else low), high)


def divided(value, shift, mode):
    """Return ``value / 2**shift``, rounded."""
    if shift <= 0:
        return (value << -shift) | (mode == "jam")
    quotient, rest, half = value >> shift, value & (2**shift - 1), 2 ** (shift - 1)
    if mode == "pseudo_stochastic":
        magnitude, sign = abs(value), -1 if value < 0 else 1
        kept, rest = magnitude >> shift, magnitude & (2**shift - 1)
        low = shift // 2
        return sign * (kept + ((rest >> low) > ((rest & (2**low - 1)) << shift % 2)))
    up = {
        "floor": False, "ceil": rest > 0, "to_zero": rest > 0 and value < 0, "to_away": rest > 0 and value >= 0,
        "ties_even": rest > half or (rest == half and quotient % 2), "ties_pos": rest >= half, "ties_neg": rest > half,
        "ties_away": rest > half or (rest == half and value >= 0), "ties_zero": rest > half or (rest == half and value < 0),
        "jam": False,
    }[mode]  # fmt: skip
    return (quotient + bool(up)) | (mode == "jam")


def requantize(value, to):
    return fit(divided(value, to.shift, to.rounding.value), to.word_bits, to.overflow.value)


def windows(one, x, pads):
    """Yield the place of every window of an image, and the pixels of it that lie inside."""
    (kh, kw), (top, bottom, left, right) = one.window, pads
    height, width, _ = x.shape
    for a in range((height + top + bottom - kh) // one.stride[0] + 1):
        for b in range((width + left + right - kw) // one.stride[1] + 1):
            rows, columns = (range(a * one.stride[0] - top, a * one.stride[0] - top + kh),
                             range(b * one.stride[1] - left, b * one.stride[1] - left + kw))  # fmt: skip
            yield a, b, [(r, c) for r, c in itertools.product(rows, columns) if 0 <= r < height and 0 <= c < width]


def accumulated(one, products, o):
    bits, overflow = one.accumulator.bits, one.accumulator.overflow.value
    total = fit(sum(products), bits, overflow)
    if one.bias is not None:
        total = fit(total + int(one.bias[o]), bits, overflow)
    return requantize(total, one.to)


def convolved(one, x, y):
    outputs, kh, kw, channels = one.weights.shape
    top, _, left, _ = one.padding
    for a, b, o in np.ndindex(y.shape):
        first = o // (outputs // one.groups) * channels
        terms = []
        for i, j in itertools.product(range(kh), range(kw)):
            r, c = a * one.stride[0] + i - top, b * one.stride[1] + j - left
            if 0 <= r < x.shape[0] and 0 <= c < x.shape[1]:
                terms += [int(one.weights[o, i, j, k]) * x[r, c, first + k] for k in range(channels)]
        y[a, b, o] = accumulated(one, terms, o)


def interpret(made, x):
    """Run a program on one sample of Python integers."""
    values = {0: x}
    for one in made.operations:
        kind, x, target = type(one).__name__, values[one.inputs[0]], made.tensors[one.output]
        y = np.zeros(target.shape, object)
        if kind == "Dense":
            for o, row in enumerate(one.weights.tolist()):
                y[o] = accumulated(one, [w * v for w, v in zip(row, x, strict=True)], o)
        elif kind == "Conv2D":
            convolved(one, x, y)
        elif kind == "AveragePool":
            for a, b, places in windows(one, x, one.padding):
                for c in range(x.shape[2]):
                    total = one.factor * sum(x[place][c] for place in places)
                    y[(c,) if y.ndim == 1 else (a, b, c)] = requantize(total, one.to)
        elif kind == "MaxPool":
            for a, b, places in windows(one, x, one.padding):
                for c in range(x.shape[2]):
                    y[a, b, c] = max(x[place][c] for place in places)
        elif kind == "Add":
            other = values[one.inputs[1]]
            for at in np.ndindex(y.shape):
                y[at] = requantize((x[at] << one.shifts[0]) + (other[at] << one.shifts[1]), one.to)
        elif kind == "Flatten":
            y[:] = x.reshape(-1)
        else:
            for at in np.ndindex(y.shape):
                v = x[at]
                if kind in ("Scale", "Table") and one.before is not None:
                    v = requantize(v, one.before)
                y[at] = {
                    "ReLU": lambda v: max(v, 0),
                    "LeakyReLU": lambda v: v if v >= 0 else divided(v, one.shift, "ties_even"),  # noqa: B023
                    "Clamp": lambda v: min(max(v, one.low), one.high),  # noqa: B023
                    "Sign": lambda v: -1 if v < 0 else 1,
                    "Table": lambda v: int(one.table[min(max(v - one.first, 0), len(one.table) - 1)]),  # noqa: B023
                    "Scale": lambda v: requantize(int(one.factors[at[-1]]) * v + int(one.offsets[at[-1]]), one.to),  # noqa: B023
                }[kind](v)
        low, high = min(y.ravel().tolist()), max(y.ravel().tolist())
        assert target.low <= low <= high <= target.high, (one.name, target, low, high)
        assert -(2 ** (target.word_bits - 1)) <= low <= high < 2 ** (target.word_bits - 1)
        values[one.output] = y
    return values[made.output]


# Networks ---------------------------------------------------------------------------------------------------------------


def check(network, count=3, seed=0):
    """Compare a program with its network."""
    made, x = program_of(network), inputs_of(network, count, seed)
    y = network.forward(x)
    assert made.tensors[made.output].exponent == int(y.exponent.flat[0])
    for i in range(len(x.mantissa)):
        found = interpret(made, x.mantissa[i].astype(object))
        assert found.tolist() == y.mantissa[i].tolist()
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("extreme", [False, True])
def test_every_layer(kind, extreme):
    make, shape = KINDS[kind]
    check(scatter(Network(make(), shape, FIXED, seed=3), extreme=extreme))


@pytest.mark.parametrize("bits", [5, 8, 12, 20, 30])
@pytest.mark.parametrize("kind", ["dense", "convolution", "batch normalization", "residual", "activations", "global pool"])
def test_words_of_any_length(kind, bits):
    role = f"fxp-s{bits}/{bits // 2}"
    recipe = dataclasses.replace(FIXED, weight=role, activation=role, error=role, accumulator_bits=min(64, 2 * bits + 3))
    make, shape = KINDS[kind]
    check(scatter(Network(make(), shape, recipe, seed=4), extreme=bits == 12))


MODES = [mode.value for mode in intnet.Rounding]


@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize("overflow", ["saturate", "wrap", "saturate_symmetric"])
def test_every_rounding_and_overflow(rounding, overflow):
    recipe = dataclasses.replace(
        FIXED, weight="fxp-s6/3", activation=f"fxp-s7/2 {rounding} {overflow}", error="fxp-s6/3", accumulator_bits=16
    )
    check(scatter(Network(KINDS["dense"][0](), (7,), recipe), extreme=True), count=20)
    finer = recipe.override("dense*", activation=f"fxp-s14/8 {rounding} {overflow}", accumulator_bits=19)
    check(scatter(Network(KINDS["dense"][0](), (7,), finer), extreme=True), count=20)


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_accumulators_that_overflow(overflow):
    recipe = dataclasses.replace(
        FIXED, weight="fxp-s6/3", activation="fxp-s6/2", error="fxp-s6/3", accumulator_bits=11, accumulator_overflow=overflow
    )
    network = scatter(Network(KINDS["dense"][0](), (7,), recipe), extreme=True)
    made = check(network, count=30)
    assert made.operations[0].sums[1] >= 2**10
    wide = dataclasses.replace(recipe, weight="fxp-s30/12", activation="fxp-s33/3", error="fxp-s30/12", accumulator_bits=64)
    check(scatter(Network(KINDS["dense"][0](), (7,), wide), extreme=True), count=10)  # beyond int64


@pytest.mark.parametrize("fraction", [30, -2])
@pytest.mark.parametrize("kind", ["batch normalization", "residual", "activations"])
def test_words_of_40_bits_and_units_above_1(kind, fraction):
    role = f"fxp-s40/{fraction} ties_even"
    recipe = dataclasses.replace(FIXED, activation=role, weight="fxp-s16/12", accumulator_bits=64)
    make, shape = KINDS[kind]
    check(scatter(Network(make(), shape, recipe)))


def test_weights_in_one_block_and_a_master_copy():
    recipe = dataclasses.replace(FIXED, weight="bfp-s8/tensor", master="fxp-s24/20")
    check(scatter(Network(KINDS["dense"][0](), (7,), recipe)))


@pytest.mark.parametrize("model", [lambda: models.mlp(hidden=(9, 6)), lambda: models.lenet5(width=0.1)])
def test_models(model):
    network = Network(model(), (28, 28, 1), "fixed16", seed=1)
    made = check(network, count=0)
    assert made.digest == network.digest()


def test_masked_weights_are_zeros():
    network = Network(KINDS["dense"][0](), (7,), FIXED)
    compression.prune_globally(network, 50)
    made = check(network)
    assert not made.operations[0].weights[~network.parameters[0].mask].any()


def test_a_promise_of_the_inputs_makes_sums_narrower():
    network = Network([layers.Dense(4)], (50,), FIXED)
    wide, narrow = (program_of(network, inputs).operations[0].sums for inputs in (None, (0, 512)))
    assert narrow[1] < wide[1] >> 5
    with pytest.raises(InputError, match=r"-32768\.\.32767, got the range 0\.\.32768"):
        program_of(network, (0, 32768))


def test_the_reference_of_the_interpreter_rounds_as_the_other_one():
    from fractions import Fraction

    for mode in set(MODES) - {"stochastic", "pseudo_stochastic", "jam"}:
        for value in range(-40, 41):
            assert divided(value, 3, mode) == round_fraction(Fraction(value, 8), mode), (mode, value)


# What is refused --------------------------------------------------------------------------------------------------------


def test_what_is_refused_is_named_with_what_to_use_instead():
    shape = (8, 8, 1)
    for recipe in ("int8", "niti8", "wide"):
        with pytest.raises(InputError, match=r"'dense1' has activations in bfp-s.*fixed-point recipe such as fixed16"):
            program_of(Network(models.mlp(hidden=(4,)), shape, recipe))
    part = FIXED.override("dense2", activation="bfp-s8/tensor")
    with pytest.raises(InputError, match=r"layer 'dense2' has activations in bfp-s8"):
        program_of(Network(models.mlp(hidden=(4,)), shape, part))
    rows = dataclasses.replace(FIXED, weight="bfp-s8/row")
    with pytest.raises(InputError, match=r"'dense1' has weights with an exponent for each output; use one for the tensor"):
        program_of(Network(models.mlp(hidden=(4,)), shape, rows))
    coded = Network(models.mlp(hidden=(4,)), shape, FIXED)
    compression.quantize_weights(coded, 4, layers=["dense1"])
    with pytest.raises(InputError, match=r"'dense1' multiplies by coded weights.*take the coding away"):
        program_of(coded)

    class Doubling(layers.ReLU):
        pass

    with pytest.raises(InputError, match=r"layer 'relu1' \(Doubling\) has no integer operation; use one of AvgPool2D"):
        program_of(Network([layers.Dense(3), Doubling()], (4,), FIXED))
    far = FIXED.override("*/d", activation="fxp-s16/-50")
    with pytest.raises(InputError, match=r"'residual1' adds units of .* too far apart"):
        program_of(Network([layers.Residual([layers.Dense(4, name="d")])], (4,), far))


def test_programs_are_frozen():
    made = program_of(Network([layers.Dense(3)], (2,), FIXED))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.output = 3
    assert isinstance(made.operations[0], operations.Operation)
    assert made.multiply_adds == 6
