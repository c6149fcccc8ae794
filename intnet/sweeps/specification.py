"""What a grid is: its data set, its axes, its length. A grid is data; running it is elsewhere."""

import itertools
import operator
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from intnet.errors import InputError
from intnet.online import Cell, check_cell

PROTOCOL = 1
"""Version of the rules by which a cell is computed. Results of different versions never share a folder."""

ACCURACY_WINDOW = 1001
"""Iterations that the smoothed accuracy looks at, and so the fewest a cell may have."""

FIRST_SEED = 0xDEADBEEC
"""The seed of the published study; seed s of a grid is ``RandomState(FIRST_SEED + s)``."""

SEED_MAX = 2**32 - 1 - FIRST_SEED


CELLS_MAX = 2**22
"""The most cells of one grid; each takes some hundred bytes of memory while it is planned."""


def _axis(name: str, values: Iterable[int]) -> tuple[int, ...]:
    try:
        axis = {operator.index(value) for value in itertools.islice(values, CELLS_MAX + 1)}
    except TypeError as error:
        raise InputError(f"{name} must be integers in a sequence, got {reprlib.repr(values)}") from error
    if not 1 <= len(axis) <= CELLS_MAX:
        raise InputError(f"{name} must hold 1..{CELLS_MAX} values, got {'more' if axis else 'none'}")
    return tuple(sorted(axis))


@dataclass(frozen=True)
class GridSpec:
    """A grid of trainings: every combination of learning-rate shift, fraction bits and seed.

    Parameters
    ----------
    dataset : str
        Name of the data set, "digits" or "mnist".
    lr_shifts : iterable of int
        Learning rates as shifts: the rate is ``2**-lr_shift``. Published: 5..19.
    fraction_bits : iterable of int
        Published: 8..23.
    seeds : iterable of int
        0 is the published study's draw.
    iterations : int
        Samples presented to each cell, at least `ACCURACY_WINDOW`.

    Raises
    ------
    InputError
        If an axis is empty, something is no integer, a value is outside 0 <= fraction_bits <= 31, 0 <= lr_shift,
        fraction_bits + lr_shift <= 62, 0 <= seed <= `SEED_MAX`, `ACCURACY_WINDOW` <= iterations < 2**31, or the grid has
        more than `CELLS_MAX` cells.

    Examples
    --------
    >>> spec = GridSpec("digits")
    >>> len(spec.cells()), spec.cells()[0]
    (240, Cell(seed=0, lr_shift=5, fraction_bits=8))
    """

    dataset: str
    lr_shifts: tuple[int, ...] = tuple(range(5, 20))
    fraction_bits: tuple[int, ...] = tuple(range(8, 24))
    seeds: tuple[int, ...] = (0,)
    iterations: int = 10_000

    def __post_init__(self) -> None:
        for name in ("lr_shifts", "fraction_bits", "seeds"):
            object.__setattr__(self, name, _axis(name, getattr(self, name)))
        for lr_shift in (self.lr_shifts[0], self.lr_shifts[-1]):
            for fraction_bits in (self.fraction_bits[0], self.fraction_bits[-1]):
                check_cell(Cell(0, lr_shift, fraction_bits))
        if self.seeds[0] < 0 or self.seeds[-1] > SEED_MAX:
            raise InputError(f"seeds must be in 0..{SEED_MAX}, got {self.seeds[0]}..{self.seeds[-1]}")
        cells = len(self.seeds) * len(self.lr_shifts) * len(self.fraction_bits)
        if cells > CELLS_MAX:
            raise InputError(f"a grid may have at most {CELLS_MAX} cells, got {cells}; run it in pieces, some seeds at a time")
        if not (hasattr(self.iterations, "__index__") and ACCURACY_WINDOW <= self.iterations < 2**31):
            raise InputError(
                f"iterations must be an integer of at least {ACCURACY_WINDOW}, the window of the accuracy filter, "
                f"and below 2**31, got {self.iterations!r}"
            )
        object.__setattr__(self, "iterations", operator.index(self.iterations))

    def cells(self) -> list[Cell]:
        """Return every cell, ordered by seed, learning-rate shift, fraction bits."""
        return [Cell(s, lr, f) for s in self.seeds for lr in self.lr_shifts for f in self.fraction_bits]

    def study(self) -> dict[str, Any]:
        """Return what makes results comparable: cells of equal studies may share a folder."""
        return {"study": "cliffs", "protocol": PROTOCOL, "dataset": self.dataset, "iterations": self.iterations}
