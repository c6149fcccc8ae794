"""Inputs: the integers of every code, the same in any batch; augmentation that can be drawn again."""

from dataclasses import dataclass, replace

import naive
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet.errors import InputError
from intnet.inputs import ArrayInputs, Augmentation, Encoder, Inputs
from intnet.recipe import RECIPES, Recipe
from intnet.tensor import QTensor


@dataclass
class Data:
    """What a data set offers."""

    codes: np.ndarray
    values: np.ndarray
    labels: np.ndarray
    classes: int
    shape: tuple


def made(count=9, shape=(5, 4, 3), levels=256, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, levels, (count, int(np.prod(shape)))).astype(np.uint8)
    return Data(codes, np.arange(levels) / (levels - 1), rng.integers(0, 3, count).astype(np.uint8), 3, shape)


def recipe_of(activation):
    return Recipe("t", weight="fxp-s8/6", activation=activation, error="fxp-s8/4", gradient="fxp-s8/4")


@pytest.mark.parametrize("activation", ["fxp-s8/6", "fxp-s16/10", "bfp-s8/tensor", "bfp-s8/sample"])
@pytest.mark.parametrize("shape", [(7,), (5, 4), (5, 4, 3)])
def test_every_code_stands_for_its_nearest_integer(activation, shape):
    data = made(shape=shape, levels=17)
    encoder = Encoder.of(data, recipe_of(activation))
    x = Inputs.of(data, encoder).batch(np.array([3, 0, 3]))
    assert x.shape == (3, *shape, *([1] if len(shape) == 2 else []))
    assert x.exponent.size == 1
    exact = np.array([naive.Fraction(int(code), 16) for code in data.codes[[3, 0, 3]].ravel()], object).reshape(3, -1)
    unit = naive.Fraction(2) ** int(x.exponent.flat[0])
    words = [
        naive.into_word(naive.round_fraction(v / unit, "ties_even"), x.format.word_bits, True, "saturate")[0]
        for v in exact.flat
    ]
    assert x.mantissa.ravel().tolist() == words
    if activation.startswith("bfp"):  # the exponent of all values a code may have, whichever are in the batch
        assert int(x.exponent.flat[0]) == naive.block_exponent([naive.Fraction(1)], 8)


def test_standardized_channels_have_mean_0_and_deviation_1():
    data = made(count=40)
    encoder = Encoder.of(data, RECIPES["wide"], standardize=True)
    x = Inputs.of(data, encoder).batch(np.arange(40)).to_float()
    assert encoder.table.shape == (3, 256)
    assert x.mean((0, 1, 2)) == pytest.approx(np.zeros(3), abs=1e-5)
    assert x.std((0, 1, 2)) == pytest.approx(np.ones(3), abs=1e-5)
    test = made(count=6, seed=5)  # other data, the same integers for the same codes
    other = Inputs.of(test, encoder).batch(np.arange(6))
    assert other.mantissa.reshape(6, -1)[2, 7] == encoder.table[1, test.codes[2, 7]]
    data.codes[:] = 9  # one code alone has no deviation
    assert not Inputs.of(data, Encoder.of(data, RECIPES["wide"], True)).batch(np.arange(3)).mantissa.any()


def crops(data, rows, padding):
    """Yield every crop of the padded images, and its mirror image."""
    images = data.codes.reshape(-1, *data.shape)[rows]
    wide = naive.pad(images, (padding,) * 4)
    height, width = data.shape[:2]
    for top, left in np.ndindex(2 * padding + 1, 2 * padding + 1):
        crop = wide[:, top : top + height, left : left + width]
        yield crop, crop[:, :, ::-1]


@pytest.mark.parametrize("flip", [True, False])
def test_augmented_images_are_crops_and_can_be_drawn_again(flip):
    data, rows = made(count=30), np.arange(30)
    inputs = Inputs.of(data, Encoder.of(data, RECIPES["fixed16"]))
    augmentation = Augmentation(padding=2, flip=flip)
    x = inputs.batch(rows, augmentation, seed=4, step=6)
    assert_array_equal(inputs.batch(rows, augmentation, seed=4, step=6).mantissa, x.mantissa)
    for seed, step in ((5, 6), (4, 7)):
        assert (inputs.batch(rows, augmentation, seed=seed, step=step).mantissa != x.mantissa).any()
    # the place in the batch decides, not the sample
    assert_array_equal(inputs.batch(rows[:10], augmentation, seed=4, step=6).mantissa, x.mantissa[:10])
    found, flipped = np.zeros(30, int), np.zeros(30, int)
    table = inputs.encoder.table[0]
    for crop, mirrored in crops(data, rows, 2):
        found += (x.mantissa == table[crop]).all((1, 2, 3))
        flipped += (x.mantissa == table[mirrored]).all((1, 2, 3))
    assert ((found + flipped) == 1).all()
    assert (flipped.sum() == 0) == (not flip)
    assert found.sum() > 0


def test_no_augmentation_is_the_image_itself():
    data = made()
    inputs = Inputs.of(data, Encoder.of(data, RECIPES["fixed16"]))
    plain, none = inputs.batch(np.arange(9)), inputs.batch(np.arange(9), Augmentation(0, flip=False), 1, 1)
    assert_array_equal(plain.mantissa, none.mantissa)


def test_what_is_refused():
    data = made()
    encoder = Encoder.of(data, RECIPES["fixed16"])
    vectors = made(shape=(6,))
    x = QTensor(np.zeros((3, 2), np.int16), np.array([[-10]]), None)
    rows = QTensor(np.zeros((3, 2), np.int16), np.array([[-10], [0], [0]]), None)
    for make, message in (
        (lambda: Inputs.of(vectors, encoder), r"^the encoder was made for samples of shape \(5, 4, 3\), got \(6,\)$"),
        (
            lambda: Inputs(data.codes / 255, np.zeros(9, int), encoder, 3),
            r"^codes must be uint8 of shape \(n, 60\) .*, got float64 of shape \(9, 60\); real numbers are quantized",
        ),
        (
            lambda: Inputs(data.codes[:, :50], np.zeros(9, int), encoder, 3),
            r"^codes must be uint8 .*, got uint8 of shape \(9, 50\)",
        ),
        (lambda: Inputs(data.codes, np.zeros(9), encoder, 3), r"^labels must be integers, got float64$"),
        (
            lambda: replace(encoder, table=encoder.table[:, :9]),
            r"^samples of shape \(5, 4, 3\) need a table of shape \(1, 256\) or",
        ),
        (lambda: Augmentation(flip=1), r"^flip must be True or False, got 1$"),
        (lambda: Inputs(data.codes, np.full(9, 3), encoder, 3), r"^labels must be in 0\.\.2, got 3 to 3$"),
        (lambda: Inputs(data.codes, np.full(8, 1), encoder, 3), r"^9 samples need as many labels, got labels of shape \(8,\)$"),
        (lambda: Augmentation(-1), r"^padding must be an integer in 0\.\.1024, got -1$"),
        (lambda: Augmentation(True), r"^padding must be an integer in 0\.\.1024, got True$"),
        (
            lambda: Inputs.of(vectors, Encoder.of(vectors, RECIPES["fixed16"])).batch(np.arange(2), Augmentation()),
            r"^augmentation needs images, got samples of shape \(6,\)$",
        ),
        (lambda: ArrayInputs(x, np.array([0, 1, 3]), 3), r"^labels must be in 0\.\.2, got 0 to 3$"),
        (lambda: ArrayInputs(x, np.array([0, 1]), 3), r"^inputs are samples \(n, features\) and integer labels \(n,\), got"),
        (lambda: ArrayInputs(rows, np.array([0, 1, 2]), 3), r"^inputs have one exponent for all, got exponents of shape"),
        (lambda: ArrayInputs(x, np.array([0, 1, 2]), 3).batch(np.arange(2), Augmentation()), r"^augmentation needs images in"),
    ):
        with pytest.raises(InputError, match=message):
            make()
