"""Block floating point: one name for each block, the exponent's definition, and layouts against the definition."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from intnet.errors import InputError
from intnet.formats import BlockFloat, Channel, Fixed, Layout, Tile, parse_format


def test_numpy_integers_become_python_ints():
    form = BlockFloat(np.uint8(8), Tile(np.int16(4), np.int16(0)))
    assert form == BlockFloat(8, Tile(4, 0))
    assert [type(value) for value in (form.word_bits, form.block.n, form.block.axis)] == [int, int, int]


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ("tensor", "tensor"),
        ("row", "row"),
        ("sample", "row"),
        (Channel(0), "row"),
        ("channel0", "row"),
        ("channel", "channel1"),
        (Channel(), "channel1"),
        ("channel-1", "channel-1"),
        ("tile16", "tile16@-1"),
        (Tile(16), "tile16@-1"),
        ("tile16@0", "tile16@0"),
    ],
)
def test_each_block_has_one_name(block, text):
    form = BlockFloat(8, block)
    assert str(form) == f"bfp-s8/{text}"
    assert BlockFloat.parse(str(form)) == BlockFloat.parse(form) == form == BlockFloat(8, text)


@pytest.mark.parametrize("word_bits", range(2, 64))
def test_mantissas_are_signed_words(word_bits):
    form, fixed = BlockFloat(word_bits), Fixed(word_bits, 0)
    assert (form.minimum, form.maximum, form.storage) == (fixed.minimum, fixed.maximum, fixed.storage)
    assert form.limits("saturate_symmetric") == (-form.maximum, form.maximum)
    assert form.allowed([form.minimum, form.minimum - (word_bits < 63), form.maximum]).tolist() == [True, word_bits == 63, True]


def test_the_exponent_is_a_word_of_eight_bits():
    form = BlockFloat(8)
    assert form.exponent_bits == 8
    assert (form.minimum_exponent, form.maximum_exponent) == (Fixed(8, 0).minimum, Fixed(8, 0).maximum)


@given(st.integers(2, 63), st.one_of(st.integers(1, 2**80), st.fractions(min_value=Fraction(1, 2**60), max_value=2**60)))
def test_exponent_is_the_smallest_that_holds_the_magnitude(word_bits, largest):
    form = BlockFloat(word_bits)
    e = form.exponent(largest)
    assert -128 < e < 127
    assert int(Fraction(largest) / Fraction(2) ** e) <= form.maximum
    assert int(Fraction(largest) / Fraction(2) ** (e - 1)) > form.maximum


@pytest.mark.parametrize(
    ("largest", "exponent"),
    [
        (0, -128),
        (0.0, -128),
        (5e-324, -128),  # clamped: the mantissa is zero
        (2.0**-122, -128),
        (2.0**-121, -127),
        (2.0**133, 127),
        (2.0**134, 127),  # clamped: the mantissa is 128
        (2**500, 127),
        (np.float32(0.75), -7),
        (np.int64(128), 1),
    ],
)
def test_exponent_at_the_ends_of_its_field(largest, exponent):
    assert BlockFloat(8).exponent(largest) == exponent


@pytest.mark.parametrize("largest", [-1, float("nan"), float("inf"), np.float64("nan"), "1", None])
def test_exponent_refuses(largest):
    with pytest.raises(InputError, match="must be a finite number, not negative"):
        BlockFloat(8).exponent(largest)


def exponents_by_index(form, shape):
    """Return for each element of a tensor the index of its exponent in an array of `exponent_shape`: the definition."""
    kept = np.zeros(shape, np.int64)
    exponent_shape = form.exponent_shape(shape)
    for index in np.ndindex(*shape):
        own = tuple(i * e // n for i, e, n in zip(index, exponent_shape, shape, strict=True))
        kept[index] = np.ravel_multi_index(own, exponent_shape)
    return kept


@pytest.mark.parametrize(
    ("block", "shape", "exponents", "layout"),
    [
        ("tensor", (), (), (1, 1, 1, 1)),
        ("tensor", (3, 4, 5), (1, 1, 1), (1, 1, 60, 1)),
        ("tensor", (0, 5), (1, 1), (1, 1, 0, 1)),
        ("row", (3, 4, 5), (3, 1, 1), (1, 3, 20, 1)),
        ("row", (7,), (7,), (1, 7, 1, 1)),
        ("row", (3, 0), (3, 1), (1, 3, 0, 1)),
        ("channel", (3, 4, 5), (1, 4, 1), (3, 4, 5, 1)),
        (Channel(-1), (3, 4, 5), (1, 1, 5), (12, 5, 1, 1)),
        (Tile(5), (3, 4, 10), (3, 4, 2), (12, 2, 5, 1)),
        (Tile(1), (3, 4), (3, 4), (3, 4, 1, 1)),
        (Tile(2, 1), (3, 4, 5), (3, 2, 5), (3, 2, 2, 5)),
        (Tile(3, 0), (6, 5, 2), (2, 5, 2), (1, 2, 3, 10)),
        (Tile(16), (3, 0), (3, 0), (3, 0, 16, 1)),
    ],
)
def test_layout(block, shape, exponents, layout):
    form = BlockFloat(8, block)
    assert form.exponent_shape(shape) == exponents
    assert form.layout(list(shape)) == Layout(*layout)
    numbers = np.arange(np.prod(exponents, dtype=int)).reshape(form.exponent_layout(shape))
    outer, blocks, _, inner = layout
    comp = np.broadcast_to(np.broadcast_to(numbers, (outer, blocks, inner))[:, :, None, :], layout).reshape(shape)
    assert_array_equal(comp, exponents_by_index(form, shape), strict=True)


@pytest.mark.parametrize(
    ("block", "shape", "message"),
    [
        ("row", (), r"bfp-s8/row needs axis 0, got shape \(\)"),
        ("channel", (4,), r"needs axis 1, got shape \(4,\)"),
        (Tile(4, -3), (4, 4), "needs axis -3"),
        (Tile(16), (3, 20), r"tiles of 16 do not divide axis 1 of shape \(3, 20\); use a divisor of 20"),
        ("tensor", (3, -1), "a length in the shape must be in"),
        ("tensor", (3, 2.0), "a length in the shape must be an integer"),
        ("tensor", 3, "shape must be a tuple of lengths, got 3"),
        ("tensor", "33", "shape must be a tuple"),
    ],
)
def test_layout_refuses(block, shape, message):
    form = BlockFloat(8, block)
    for ask in (form.layout, form.exponent_shape, form.exponent_layout):
        with pytest.raises(InputError, match=message):
            ask(shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BlockFloat(1), r"word_bits of a block format must be in 2\.\.63, got 1"),
        (lambda: BlockFloat(64), "got 64"),
        (lambda: BlockFloat(True), "must be an integer"),
        (lambda: BlockFloat(8, "column"), "block must be 'tensor', .*; got 'column'"),
        (lambda: BlockFloat(8, 16), "block must be .*; got 16"),
        (lambda: BlockFloat(8, "channel64"), r"axis must be in -64\.\.63, got 64"),
        (lambda: Tile(0), "the tile's n must be in 1.*, got 0"),
        (lambda: Tile(4, 0.5), "the tile's axis must be an integer"),
        (lambda: Channel("1"), "the channel's axis must be an integer"),
        (lambda: BlockFloat.parse("bfp-u8/tensor"), "a block format is written as .*, got 'bfp-u8/tensor'"),
        (lambda: BlockFloat.parse("fxp-s8/0"), "a block format is written as"),
        (lambda: BlockFloat.parse(8), "got 8"),
        (lambda: parse_format("bfp-s8/"), "a block format is written as"),
        (lambda: parse_format(None), "a format must be a text"),
    ],
)
def test_block_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()
