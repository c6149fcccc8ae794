"""What a grid may be: the published one by default, clear refusals."""

import numpy as np
import pytest

from intnet.errors import InputError
from intnet.online import Cell
from intnet.sweeps import FIRST_SEED, GridSpec
from intnet.sweeps.specification import CELLS_MAX, SEED_MAX


def test_the_default_grid_is_the_published_one():
    cells = GridSpec("mnist").cells()
    assert len(cells) == len(set(cells)) == 15 * 16
    assert cells == sorted(cells)
    assert (cells[0], cells[-1]) == (Cell(0, 5, 8), Cell(0, 19, 23))
    assert GridSpec("mnist").study() == {"study": "cliffs", "protocol": 1, "dataset": "mnist", "iterations": 10_000}


def test_axes_are_sorted_sets_of_python_integers():
    spec = GridSpec("digits", np.array([10, 9, 10]), iter([13, 12]), {0}, np.int64(1001))
    assert spec == GridSpec("digits", (9, 10), (12, 13), (0,), 1001)
    assert all(type(value) is int for value in (*spec.lr_shifts, *spec.fraction_bits, *spec.seeds, spec.iterations))


def test_the_limits_themselves_are_allowed():
    spec = GridSpec("digits", (0, 31), (0, 31), (0, SEED_MAX), 1001)
    assert len(spec.cells()) == 8
    np.random.RandomState(FIRST_SEED + SEED_MAX)
    with pytest.raises(ValueError, match="Seed must be between"):
        np.random.RandomState(FIRST_SEED + SEED_MAX + 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr_shifts": ()}, "lr_shifts must hold .* got none"),
        ({"seeds": range(0)}, "seeds must hold .* got none"),
        ({"fraction_bits": [12.0]}, r"fraction_bits must be integers in a sequence, got \[12.0\]"),
        ({"fraction_bits": "12"}, "fraction_bits must be integers in a sequence, got '12'"),
        ({"lr_shifts": 9}, "lr_shifts must be integers in a sequence, got 9"),
        ({"fraction_bits": [32]}, r"fraction bits must be in 0\.\.31, got 32"),
        ({"fraction_bits": [-1, 12]}, r"fraction bits must be in 0\.\.31, got -1"),
        ({"lr_shifts": [-1, 9]}, "learning-rate shift must not be negative, got -1"),
        ({"lr_shifts": [9, 51], "fraction_bits": [8, 12]}, "must be at most 62, got 12 [+] 51 = 63"),
        ({"seeds": [-1]}, r"seeds must be in 0\.\.559038739, got -1\.\.-1"),
        ({"seeds": [SEED_MAX + 1]}, r"seeds must be in 0\.\.559038739"),
        ({"seeds": range(10**30)}, "seeds must hold .* got more"),
        ({"seeds": range(CELLS_MAX // 240 + 1)}, "at most 4194304 cells, got 4194480"),
        ({"iterations": 1000}, "iterations must be an integer of at least 1001, .* got 1000"),
        ({"iterations": 2**31}, "below 2[*][*]31, got 2147483648"),
        ({"iterations": 1001.5}, "iterations must be an integer .* got 1001.5"),
        ({"iterations": "1001"}, "iterations must be an integer .* got '1001'"),
    ],
)
def test_a_bad_grid_is_refused(changes, message):
    with pytest.raises(InputError, match=message) as error:
        GridSpec("digits", **changes)
    assert "\n" not in str(error.value)
