"""Tensors: every conversion equals exact fractions rounded once, every product exact sums, every refusal a clear line."""

import contextlib
import itertools
from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import intnet
from intnet import BlockFloat, Channel, Counters, Fixed, InputError, InputTypeError, QTensor, Tile

BLOCKS = ["tensor", "row", "channel", Channel(-1), Tile(2), Tile(3, 0), Tile(1, 1)]
MODES = ["floor", "ceil", "to_zero", "ties_even", "ties_away"]


def exact(tensor):
    """Return the values of a tensor as fractions, elementwise."""
    return [
        int(m) * Fraction(2) ** int(e) for m, e in zip(tensor.mantissa.reshape(-1), tensor.exponents().reshape(-1), strict=True)
    ]


def nearest_even(value, exponent, form):
    low, high = form.minimum, form.maximum
    return min(max(round(value / Fraction(2) ** int(exponent)), low), high)


def spread(seed, shape, octaves=30):
    """Return floats of both signs over many octaves, with some zeros."""
    random = np.random.default_rng(seed)
    values = random.normal(size=shape) * 2.0 ** random.integers(-octaves, octaves, shape)
    return np.where(random.random(shape) < 0.2, 0.0, values)


# Quantizing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [Fixed(8, 4), Fixed(16, 12), Fixed(5, -2), Fixed(8, 3, signed=False), Fixed(40, 20)], ids=str)
def test_fixed_point_is_the_rounded_fraction(form):
    x = spread(0, (5, 6, 3), 8)
    tensor = intnet.quantize(x, form)
    assert tensor.mantissa.dtype == form.storage
    assert tensor.exponent.shape == (1, 1, 1)
    ref = [nearest_even(Fraction(v), -form.fraction_bits, form) for v in x.reshape(-1).tolist()]
    assert tensor.mantissa.reshape(-1).tolist() == ref


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("word_bits", [4, 8, 13])
def test_block_floating_point_is_the_rounded_fraction(block, word_bits):
    form, x = BlockFloat(word_bits, block), spread(1, (6, 4, 2))
    tensor = intnet.quantize(x, form)
    assert tensor.exponent.shape == form.exponent_shape(x.shape)
    exponents = tensor.exponents()
    ref = [nearest_even(Fraction(v), e, form) for v, e in zip(x.reshape(-1).tolist(), exponents.reshape(-1), strict=True)]
    assert tensor.mantissa.reshape(-1).tolist() == ref
    for e in np.unique(exponents):  # every block uses its whole word, or is zero
        largest = np.abs(x[exponents == e]).max()
        assert e == form.exponent(float(largest))


def test_a_block_of_zeros_is_zeros():
    tensor = intnet.quantize(np.array([[0.0, 0.0], [1.0, 2.0]]), BlockFloat(8, "row"))
    assert tensor.mantissa.tolist() == [[0, 0], [32, 64]]
    assert tensor.exponent.ravel().tolist() == [-128, -5]


@pytest.mark.parametrize("text", ["fxp-s16/12", "bfp-s8/row"])
def test_formats_by_name(text):
    tensor = intnet.quantize(np.ones((2, 3)), text)
    assert str(tensor.format) == text
    assert_array_equal(tensor.to_float(), np.ones((2, 3)))


def test_floats_come_back_where_they_fit():
    x = spread(2, (4, 5), 6)
    for form in (Fixed(60, 45), BlockFloat(60, "row"), BlockFloat(62, Tile(5))):
        tensor = intnet.quantize(x.astype(np.float32), form)
        assert_array_equal(tensor.to_float(), x.astype(np.float32).astype(np.float64))


def test_stochastic_rounding_depends_on_seed_stream_and_step_alone():
    x = np.linspace(-1, 1, 1001)
    draw = lambda **names: intnet.quantize(x, "fxp-s8/3", "stochastic", **names).mantissa  # noqa: E731
    assert_array_equal(draw(seed=1), draw(seed=1))
    others = [draw(seed=2), draw(seed=1, stream=1), draw(seed=1, step=1)]
    assert all((draw(seed=1) != other).any() for other in others)
    assert set(np.unique(draw(seed=1) - np.floor(x * 8))) == {0, 1}


def test_counters_add_up():
    counters = Counters()
    for x in ([0.7, 100.0, -100.0, 0.01], [0.0]):
        intnet.quantize(x, "fxp-s8/4", counters=counters)
    assert counters == Counters(count=5, saturated=1 + 1 - 0, wrapped=0, lost=1, minimum=-128, maximum=127)
    wrapped = Counters()
    intnet.requantize(intnet.quantize([100.0, 1.0], "fxp-s16/4"), "fxp-s8/4", overflow="wrap", counters=wrapped)
    assert (wrapped.wrapped, wrapped.saturated, wrapped.minimum, wrapped.maximum) == (1, 0, 16, 64)


# Requantizing ------------------------------------------------------------------------------------------------------------


SOURCES = [Fixed(20, 9), BlockFloat(12, "tensor"), *(BlockFloat(12, block) for block in BLOCKS)]
TARGETS = [Fixed(10, 5), Fixed(6, -3), BlockFloat(7, "tensor"), *(BlockFloat(7, block) for block in BLOCKS)]


@pytest.mark.parametrize(("source", "target"), list(itertools.product(SOURCES, TARGETS)), ids=str)
def test_requantizing_rounds_the_exact_value_once(source, target):
    tensor = intnet.quantize(spread(3, (6, 4), 12), source)
    result = intnet.requantize(tensor, target)
    values, exponents = exact(tensor), result.exponents().reshape(-1)
    ref = [nearest_even(v, e, target) for v, e in zip(values, exponents, strict=True)]
    assert result.mantissa.reshape(-1).tolist() == ref
    if isinstance(target, BlockFloat):
        for e, layout in zip(result.exponent.reshape(-1), blocks_of(target, tensor.shape), strict=True):
            assert e == target.exponent(max(abs(values[i]) for i in layout))


def blocks_of(form, shape):
    """Return, for every exponent in C order, the flat places of the elements that share it."""
    place = np.arange(int(np.prod(shape))).reshape(shape)
    labels = np.arange(int(np.prod(form.exponent_shape(shape)))).reshape(form.exponent_shape(shape))
    labels = QTensor(place, labels, form).exponents()
    return [place[labels == label].tolist() for label in range(labels.max() + 1)]


def test_extremes_of_the_exponent_field():
    tiny = intnet.quantize(np.array([2.0**-140, 2.0**-128]), BlockFloat(8))
    assert tiny.exponent.item() == -128
    assert tiny.mantissa.tolist() == [0, 1]
    huge = intnet.quantize(np.array([2.0**200]), BlockFloat(8))
    assert (huge.exponent.item(), huge.mantissa.item()) == (127, 127)


# Integers ----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=9), st.integers(0, 62))
def test_round_shift_floor_and_even(values, shift):
    ints = np.array(values, np.int64)
    assert intnet.round_shift(ints, shift, "floor").tolist() == [v >> shift for v in values]
    assert intnet.round_shift(ints, shift).tolist() == [round(Fraction(v, 2**shift)) for v in values]


def test_round_shift_keeps_shape_and_takes_views():
    ints = np.arange(24, dtype=np.int16).reshape(4, 6)
    result = intnet.round_shift(ints.T[::2], 1, "ceil")
    assert_array_equal(result, -(-ints.T[::2].astype(np.int64) // 2), strict=True)
    assert intnet.round_shift(np.uint8(200), 3, "floor") == 25


def test_the_quantized_multiplier_of_tflite():
    ints = np.array([[-(2**31), -5, -1, 0], [1, 5, 100, 2**31 - 1]])
    for multiplier, shift in itertools.product((-(2**31), 2**30, 1518500250, 2**31 - 1), (-31, -3, -1, 0, 1, 30)):
        result = intnet.multiply_by_quantized_multiplier(ints, multiplier, shift)
        ref = [[naive.quantized_multiplier(v, multiplier, shift) for v in row] for row in ints.tolist()]
        assert_array_equal(result, np.array(ref, np.int32), strict=True)
    for bad in (([2**31], 1, 0), ([1], 2**31, 0), ([1], 1, 31), ([1], 1, -32), ([1.5], 1, 0)):
        with pytest.raises(InputError, match="must"):
            intnet.multiply_by_quantized_multiplier(*bad)


# Products ----------------------------------------------------------------------------------------------------------------


def test_products_of_views_and_transposes():
    random = np.random.default_rng(0)
    a, b = random.integers(-100, 100, (9, 14)).astype(np.int8), random.integers(-100, 100, (14, 6)).astype(np.int16)
    for x, y in itertools.product((a, a.T.copy().T, a[:, ::-1], a[::2]), (b, b.T.copy().T, b[:, 1:5])):
        assert_array_equal(intnet.matmul(x, y), x.astype(np.int64) @ y.astype(np.int64))


def test_types_of_results():
    eight, sixteen = np.ones((2, 2), np.int8), np.ones((2, 2), np.int16)
    assert intnet.matmul(eight, eight).dtype == np.int32
    assert intnet.matmul(sixteen, sixteen).dtype == np.int64
    assert intnet.matmul(sixteen, sixteen, accumulator_bits=32).dtype == np.int32
    assert intnet.matmul(np.ones((2, 2), np.uint8), eight).dtype == np.int32


@pytest.mark.parametrize(("overflow", "result"), [("wrap", [[-56]]), ("saturate", [[127]])])
def test_accumulators(overflow, result):
    a, b = np.array([[10, 10]]), np.array([[10], [10]])
    assert intnet.matmul(a, b, 8, overflow).tolist() == result
    with pytest.raises(InputError, match="1 of 1 sums leave the accumulator of 8 bits"):
        intnet.matmul(a, b, 8)
    assert intnet.matmul(a, b, 9).tolist() == [[200]]


FORMATS = [Fixed(8, 4), *(BlockFloat(8, block) for block in ("tensor", "row", Channel(1), Tile(2), Tile(3, 0)))]


@pytest.mark.parametrize(("left", "right"), list(itertools.product(FORMATS, repeat=2)), ids=str)
def test_products_of_tensors_are_exact(left, right):
    a, b = intnet.quantize(spread(4, (3, 6), 3), left), intnet.quantize(spread(5, (6, 12), 3), right)
    product = intnet.matmul(a, b)
    assert product.format is None
    x, y = np.array(exact(a), object).reshape(3, 6), np.array(exact(b), object).reshape(6, 12)
    assert exact(product) == (x @ y).reshape(-1).tolist()


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_blocks_that_meet_far_apart(seed, octaves):
    a = intnet.quantize(spread(seed, (2, 4), octaves), BlockFloat(8, Tile(2)))
    b = intnet.quantize(spread(seed + 1, (4, 2), 1), BlockFloat(8))
    with contextlib.suppress(InputError):  # where aligning takes too many bits
        product = intnet.matmul(a, b)
        x, y = np.array(exact(a), object).reshape(2, 4), np.array(exact(b), object).reshape(4, 2)
        assert exact(product) == (x @ y).reshape(-1).tolist()


def test_blocks_of_zeros_do_not_move_the_others():
    a = intnet.quantize(np.array([[0.0, 0.0, 1.0, 1.5]]), BlockFloat(8, Tile(2)))
    assert a.exponent.tolist() == [[-128, -6]]
    product = intnet.matmul(a, intnet.quantize(np.ones((4, 1)), Fixed(8, 0)))
    assert product.exponent.item() == -6
    assert product.to_float().item() == 2.5
    zeros = intnet.quantize(np.zeros((2, 4)), BlockFloat(8, Tile(2)))
    assert intnet.matmul(zeros, intnet.quantize(np.ones((4, 1)), Fixed(8, 0))).to_float().tolist() == [[0.0], [0.0]]


# Refusals ----------------------------------------------------------------------------------------------------------------


GOOD = intnet.quantize(np.ones((2, 2)), "fxp-s8/4")
INTS = np.ones((2, 2), np.int32)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: intnet.quantize([1.0, np.nan], "fxp-s8/4"), InputError, "finite; 1 of 2 are not"),
        (lambda: intnet.quantize([np.inf], "bfp-s8/tensor"), InputError, "finite"),
        (lambda: intnet.quantize(["a"], "fxp-s8/4"), InputTypeError, "must hold float16"),
        (lambda: intnet.quantize([1j], "fxp-s8/4"), InputTypeError, "must hold float16"),
        (lambda: intnet.quantize([1.0], "Q3.12"), InputError, "two readings"),
        (lambda: intnet.quantize([1.0], "fxp-s64/4"), InputError, "63"),
        (lambda: intnet.quantize([1.0], "fxp-s8/4", "nearest"), InputError, "ties_even"),
        (lambda: intnet.quantize([1.0], "fxp-s8/4", overflow="clip"), InputError, "saturate"),
        (lambda: intnet.quantize([100.0], "fxp-s8/4", overflow="error"), InputError, "1 of 1 results do not fit"),
        (lambda: intnet.quantize([1.0], "fxp-s8/4", "stochastic", seed=-1), InputError, "seed"),
        (lambda: intnet.quantize([1.0], "fxp-s8/4", "stochastic", random_bits=63), InputError, r"1\.\.62, got 63"),
        (lambda: intnet.quantize(np.ones((3, 4)), BlockFloat(8, Tile(3))), InputError, "do not divide"),
        (lambda: intnet.requantize(np.ones(3), "fxp-s8/4"), InputTypeError, "takes a QTensor"),
        (lambda: intnet.round_shift([1.5], 1), InputTypeError, "must hold integers, got dtype float64"),
        (lambda: intnet.round_shift(np.ones(2, np.uint64), 1), InputTypeError, "got dtype uint64"),
        (lambda: intnet.round_shift([True], 1), InputTypeError, "got dtype bool"),
        (lambda: intnet.round_shift([1], -1), InputError, r"0\.\.62, got -1"),
        (lambda: intnet.round_shift([1], 63), InputError, r"0\.\.62, got 63"),
        (lambda: intnet.round_shift([1], 1.0), InputError, "got 1.0"),
        (lambda: intnet.matmul(INTS, INTS.astype(float)), InputTypeError, "b must hold integers, got dtype float64"),
        (lambda: intnet.matmul(INTS.astype(np.uint64), INTS), InputTypeError, "got dtype uint64"),
        (lambda: intnet.matmul(INTS, np.ones((3, 2), int)), InputError, r"got \(2, 2\) and \(3, 2\)"),
        (lambda: intnet.matmul(INTS, np.ones(2, int)), InputError, r"got \(2, 2\) and \(2,\)"),
        (lambda: intnet.matmul(INTS, INTS, 1), InputError, r"2\.\.64, got 1"),
        (lambda: intnet.matmul(INTS, INTS, 65), InputError, r"2\.\.64, got 65"),
        (lambda: intnet.matmul(INTS, INTS, overflow="saturate_symmetric"), InputError, "requantize afterwards"),
        (lambda: intnet.matmul(GOOD, INTS), InputTypeError, "both operands must be QTensors"),
        (lambda: intnet.matmul(INTS * 2**30, INTS * 2**30, 32), InputError, "4 of 4 sums leave the accumulator of 32 bits"),
    ],
)
def test_refusals(call, kind, message):
    with pytest.raises(kind, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: intnet.quantize([2**70], "fxp-s8/0"), InputTypeError, "integers of up to 64 bits"),
        (lambda: intnet.quantize(np.ones(1, np.longdouble), "fxp-s8/0"), InputTypeError, "float64"),
        (lambda: intnet.quantize(np.ones(1, np.uint64), "fxp-s8/0"), InputTypeError, "got dtype uint64"),
        (lambda: intnet.quantize([[1], [1, 2]], "fxp-s8/0"), InputError, "different lengths"),
        (lambda: intnet.quantize(GOOD, "fxp-s8/0"), InputTypeError, "use requantize"),
        (lambda: intnet.quantize([1.0], "fxp-s8/0", counters=5), InputTypeError, "must be a Counters"),
        (lambda: intnet.quantize([1.0], "fxp-s8/0", seed=-1), InputError, "seed must be"),
        (lambda: intnet.round_shift([1], 1, seed=2**64), InputError, "seed must be"),
        (lambda: intnet.round_shift([2**70], 1), InputTypeError, "64-bit"),
        (lambda: intnet.round_shift(GOOD, 1), InputTypeError, "got a QTensor"),
        (lambda: intnet.dequantize([1]), InputTypeError, "takes a QTensor"),
        (lambda: QTensor(np.ones(1), np.zeros(1, int), None), InputTypeError, "must hold integers"),
        (lambda: QTensor(np.ones(1, np.uint64), np.zeros(1, int), None), InputTypeError, "uint64"),
        (lambda: QTensor(np.ones(1, int), np.array([0.5]), None), InputTypeError, "exponent must hold integers"),
        (lambda: QTensor(np.ones(1, int), np.int64(0), None), InputError, r"needs shape .* got \(\)"),
        (lambda: QTensor(np.ones(3, int), np.zeros(2, int), None), InputError, "divide"),
        (lambda: QTensor(np.ones((2, 2), int), np.zeros((1, 2), int), BlockFloat(8, "row")), InputError, r"shape \(2, 1\)"),
        (lambda: QTensor(np.ones(1, int), np.array([2**30]), None), InputError, "within"),
    ],
)
def test_more_refusals(call, kind, message):
    with pytest.raises(kind, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [2**53 + 1, 2**62 - 1, -(2**63), 2**63 - 1])
def test_integers_are_quantized_exactly(value):
    tensor = intnet.quantize([value], "fxp-s63/0", "floor", "wrap")
    assert tensor.mantissa.item() == (value + 2**62) % 2**63 - 2**62
    assert intnet.quantize([value], "fxp-s40/-30").mantissa.item() == min(round(Fraction(value, 2**30)), 2**39 - 1)


def test_numbers_without_axes_keep_their_shape():
    assert intnet.quantize(0.5, "fxp-s8/4").shape == ()
    assert intnet.round_shift(5, 1).shape == ()
    assert intnet.round_shift([], 1).tolist() == []
    assert intnet.requantize(intnet.quantize(np.float16(0.5), "fxp-s8/4"), "bfp-s4/tensor").to_float() == 0.5


def test_lost_is_what_rounding_made_zero():
    counters = Counters()
    intnet.quantize([256.0, 0.25, 0.0], "fxp-s8/0", overflow="wrap", counters=counters)
    assert (counters.wrapped, counters.lost) == (1, 1)


def test_zero_blocks_that_cross_do_not_move_the_others():
    """A dead input and a padded sample at once."""
    one = intnet.quantize([[1.0, 0.0], [0.0, 0.0]], BlockFloat(8, Channel(1)))
    eye = intnet.quantize(np.eye(2), "fxp-s8/0")
    assert_array_equal(intnet.matmul(one, eye).to_float(), [[1.0, 0.0], [0.0, 0.0]])
    other = intnet.quantize([[1.0, 0.0], [0.0, 0.0]], BlockFloat(8, "row"))
    assert_array_equal(intnet.matmul(eye, other).to_float(), [[1.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize("kind", [np.int8, np.int64])
@pytest.mark.parametrize("bits", [None, 8, 40, 64])
def test_products_without_columns(kind, bits):
    for m, k, n in ((2, 3, 0), (0, 3, 0), (0, 3, 2), (2, 0, 2), (0, 0, 0)):
        assert intnet.matmul(np.ones((m, k), kind), np.ones((k, n), kind), bits).shape == (m, n)


def test_empty_tensors():
    empty = intnet.quantize(np.zeros((0, 3)), "fxp-s8/4")
    assert intnet.requantize(empty, "fxp-s4/1").shape == (0, 3)
    assert intnet.matmul(np.zeros((2, 0), np.int8), np.zeros((0, 3), np.int8)).tolist() == [[0] * 3] * 2
    assert intnet.matmul(empty, intnet.quantize(np.ones((3, 2)), "fxp-s8/4")).shape == (0, 2)
