"""Batches of images: as indexing, padding and slicing give them, for any number of threads."""

import naive
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet.kernels import _parallel, images


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr(_parallel, "_threads", request.param)
    pieces_of = _parallel.pieces_of
    monkeypatch.setattr(_parallel, "pieces_of", lambda count, multiple=1, minimum=1: pieces_of(count, multiple, 1))  # noqa: ARG005


def data(channels, kind, features=12, seed=0):
    rng = np.random.default_rng(seed)
    limits = np.iinfo(kind)
    table = rng.integers(limits.min, limits.max, (channels, 256), kind, endpoint=True)
    return rng.integers(0, 256, (9, features), np.uint8), np.array([3, 0, 8, 3, 5]), table


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.usefixtures("threads")
def test_gather(kind, channels):
    codes, rows, table = data(channels, kind)
    expected = [[table[f % channels, code] for f, code in enumerate(codes[row])] for row in rows]
    assert_array_equal(images.gather(codes, rows, table), np.array(expected, kind), strict=True)
    assert images.gather(codes, rows[:0], table).shape == (0, 12)


@pytest.mark.parametrize("table_channels", [1, 3])
@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.usefixtures("threads")
def test_gather_augmented(table_channels, padding):
    codes, _, table = data(table_channels, np.int16, 4 * 5 * 3)
    choices = [(t, left, f) for t in range(2 * padding + 1) for left in range(2 * padding + 1) for f in (0, 1)]
    tops, lefts, flips = (np.array(column) for column in zip(*choices, strict=True))
    rows = np.arange(len(choices)) % 9
    table = np.broadcast_to(table, (3, 256))
    expected = []
    for row, top, left, flip in zip(rows, tops, lefts, flips, strict=True):
        image = naive.pad(codes[row].reshape(1, 4, 5, 3), (padding,) * 4, 7)[0, top : top + 4, left : left + 5]
        image = image[:, ::-1] if flip else image
        expected.append([table[c, image[y, x, c]] for y, x, c in np.ndindex(4, 5, 3)])
    shared = np.ascontiguousarray(table[:table_channels])
    result = images.gather_augmented(codes, rows, (4, 5, 3), shared, tops, lefts, flips.astype(bool), padding, 7)
    assert_array_equal(result, np.array(expected, np.int16), strict=True)


def test_the_middle_crop_is_the_image():
    codes, rows, table = data(3, np.int8, 4 * 5 * 3)
    middle = np.full(5, 2)
    result = images.gather_augmented(codes, rows, (4, 5, 3), table, middle, middle, np.zeros(5, np.uint8), 2, 0)
    assert_array_equal(result, images.gather(codes, rows, table), strict=True)


@pytest.mark.parametrize("padding", [0, 4, 2**29 - 1])
def test_augmentation_takes_the_bits_of_its_positions(padding):
    tops, lefts, flips = images.draw_augmentation(20, padding, 2**50 + 3, 6, 11)
    offsets = 2 * padding + 1
    for i in range(20):
        bits = naive.random_fraction(2**50 + 3, 6, 11, i, 62)
        assert tops[i] == (bits >> 31) * offsets // 2**31
        assert lefts[i] == (bits // 2 % 2**30) * offsets // 2**30
        assert flips[i] == bits % 2
    assert (tops.dtype, lefts.dtype, flips.dtype) == (np.int64, np.int64, np.uint8)
    shorter = images.draw_augmentation(7, padding, 2**50 + 3, 6, 11)
    assert all(np.array_equal(a, b[:7]) for a, b in zip(shorter, (tops, lefts, flips), strict=True))


def test_offsets_and_flips_are_spread_evenly():
    """Of 400 draws each of 3 offsets comes 133 +- 9.4 times, a flip 200 +- 10: five deviations, 1 in 10**6."""
    tops, lefts, flips = images.draw_augmentation(400, 1, 1, 2, 3)
    for drawn in (tops, lefts):
        assert np.all(np.abs(np.bincount(drawn, minlength=3) - 400 / 3) < 47)
    assert abs(int(flips.sum()) - 200) < 50
