"""Fixed-point formats: ranges, storage, names, refusals."""

import numpy as np
import pytest

from intnet.errors import InputError
from intnet.formats import Fixed, Overflow, Rounding


@pytest.mark.parametrize("word_bits", range(1, 65))
def test_range_and_storage(word_bits):
    form = Fixed(word_bits, 3)
    assert form.minimum == -(2 ** (word_bits - 1))
    assert form.maximum == 2 ** (word_bits - 1) - 1
    assert np.iinfo(form.storage).min <= form.minimum
    assert np.iinfo(form.storage).max >= form.maximum
    assert form.storage.itemsize == 1 or 8 * form.storage.itemsize // 2 < word_bits


@pytest.mark.parametrize(("fraction_bits", "resolution"), [(0, 1.0), (12, 2.0**-12), (-3, 8.0)])
def test_resolution(fraction_bits, resolution):
    assert Fixed(16, fraction_bits).resolution == resolution


def test_names():
    assert str(Fixed(16, 12)) == "fxp-s16/12"
    assert str(Fixed(8, -2)) == "fxp-s8/-2"
    assert Rounding("floor") is Rounding.FLOOR
    assert Overflow("wrap") is Overflow.WRAP


def test_formats_are_values():
    assert Fixed(np.int64(16), np.int8(12)) == Fixed(16, 12)
    assert len({Fixed(16, 12), Fixed(16, 12), Fixed(16, 11)}) == 2


@pytest.mark.parametrize(
    ("word_bits", "fraction_bits", "message"),
    [(0, 0, r"in 1\.\.64, got 0"), (65, 0, "got 65"), (8.0, 0, "integer, got 8.0"), (8, True, "integer, got True")],
)
def test_refusals(word_bits, fraction_bits, message):
    with pytest.raises(InputError, match=message):
        Fixed(word_bits, fraction_bits)
