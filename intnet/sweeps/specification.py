"""The grid of the cliff study: its data set, its axes, its length, and how its cells are trained."""

import itertools
import operator
import reprlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from intnet.errors import InputError
from intnet.online import Cell, check_cell
from intnet.sweeps.execution import Loader
from intnet.sweeps.grid import SCHEMA, Row
from intnet.sweeps.protocol import ACCURACY_WINDOW, FIRST_SEED, trained_rows

PROTOCOL = 1
"""Version of the rules by which a cell is computed. Results of different versions never share a folder."""

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

    schema: ClassVar = SCHEMA
    left_out: ClassVar = ""

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

    # What a sweep does (intnet.sweeps.execution.Sweep)

    def _load(self, load: Loader) -> Any:
        return load(self.dataset, **({"order": "mldata"} if self.dataset == "mnist" else {}))

    def facts(self, load: Loader) -> dict[str, Any]:
        """Return what is to be known of the data: checksum, classes, samples."""
        data = self._load(load)
        return {"checksum": data.checksum, "classes": data.classes, "samples": len(data.labels)}

    def train(
        self, cells: Sequence[Cell], load: Loader, *, threads: int | None = None, device: str = "cpu"
    ) -> Iterator[list[Row]]:
        """Train cells and yield their rows as they come, those of a seed together."""
        return trained_rows(self._load(load), cells, self.iterations, threads=threads, device=device)

    def kinds(self, cells: Sequence[Cell]) -> list[tuple[str, Cell]]:
        """Return a cell for each kind of compiled code that these need: one."""
        return [("cliffs", cells[0])] if cells else []

    def warm(self, cell: Cell, load: Loader) -> None:
        """Compile what a cell needs."""
        self._count(trained_rows(self._load(load), [cell], ACCURACY_WINDOW, threads=1))

    def estimate(self, some: Sequence[Cell], cells: Sequence[Cell], load: Loader) -> tuple[float, int, str]:  # noqa: ARG002
        """Return about how many seconds `cells` take in one thread, how many of the first were timed for it, and nothing."""
        first = list(cells)[: len(self.lr_shifts) * len(self.fraction_bits)]  # fused as they will be
        self.warm(first[0], load)
        start = time.perf_counter()
        self._count(self.train(first, load, threads=1))
        return (time.perf_counter() - start) * len(cells) / len(first), len(first), ""

    @staticmethod
    def _count(results: Iterator[list[Row]]) -> int:
        return sum(map(len, results))

    def shard(self, number: int, of: int) -> list[Cell]:
        """Return the cells of a shard: whole seeds if there are enough, as cells of a seed share their samples."""
        if len(self.seeds) >= of:
            kept = set(self.seeds[number - 1 :: of])
            return [cell for cell in self.cells() if cell.seed in kept]
        return self.cells()[number - 1 :: of]
