"""Descent on the Rosenbrock function by coordinate differences: a check that they are right where a loss is smooth.

References
----------
Rosenbrock 1960, An automatic method for finding the greatest or least value of a function.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet._version import __version__
from intnet.random import random_words
from intnet.studies import tables

UNIT_BITS = kernels.ROSENBROCK_BITS
FILES = ("rosenbrock.csv", "rosenbrock.json", "rosenbrock.png")
_START_STREAM = 40
_VERSIONS = {"intnet": __version__, "numpy": np.__version__}


@dataclass(frozen=True)
class RosenbrockSpec:
    """Descent along normalized coordinate differences on the Rosenbrock function of 50 pairs, from integers in -10..10.

    Parameters
    ----------
    steps : int
        The decaying schedule has rate 0.1 and epsilon 0.01 for 3/10 of them; then both fall by 10 every tenth. The constant one
        has 0.01 for both.
    every : int
        Steps between two rows.
    seed : int
    """

    steps: int = 100_000
    every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        tables.numbers("steps", self.steps, int, 10)
        tables.numbers("every", self.every, int, 1)


class RosenbrockRow(NamedTuple):
    """A row of ``rosenbrock.csv``: the exact function, as the nearest float."""

    schedule: str
    step: int
    rate: float
    epsilon: float
    loss: float


def rosenbrock_loss(x: NDArray[np.int64]) -> float:
    """Return the function at integers in units of ``2**-40``: exact, rounded once."""
    real = [Fraction(int(v), 1 << UNIT_BITS) for v in x]
    return float(sum(100 * (p * p - q) ** 2 + (p - 1) ** 2 for p, q in zip(real[::2], real[1::2], strict=True)))


def _schedule(spec: RosenbrockSpec, name: str) -> Iterator[tuple[int, Fraction, Fraction]]:
    """Yield steps, rate and epsilon of each part."""
    if name == "constant":
        yield spec.steps, Fraction(1, 100), Fraction(1, 100)
        return
    tenth = spec.steps // 10
    yield spec.steps - 7 * tenth, Fraction(1, 10), Fraction(1, 100)
    for fall in range(1, 8):
        yield tenth, Fraction(1, 10 ** (fall + 1)), Fraction(1, 10 ** (fall + 2))


def run(spec: RosenbrockSpec, folder: Path | str, *, progress: tables.Progress = tables.ignore) -> list[RosenbrockRow]:
    """Descend with both schedules; rows of a schedule that are stored are kept."""
    config = {"study": "rosenbrock", "steps": spec.steps, "every": spec.every, "seed": spec.seed}
    with tables.opened(folder, "rosenbrock.csv", RosenbrockRow, config, _VERSIONS) as table:
        for name in ("constant", "decaying"):
            if any(row.schedule == name for row in table.rows):
                progress(spec.steps)
                continue
            words = random_words(spec.seed, _START_STREAM, 0, count=100).astype(np.int64)
            x = ((words * 21 >> 32) - 10) << UNIT_BITS
            rows, done = [RosenbrockRow(name, 0, 0.0, 0.0, rosenbrock_loss(x))], 0
            for steps, rate, epsilon in _schedule(spec, name):
                units = [np.int64(max(1, round(one * 2**UNIT_BITS))) for one in (epsilon, rate)]
                for first in range(0, steps, spec.every):
                    some = min(spec.every, steps - first)
                    kernels.rosenbrock_descent(x, units[0], units[1], np.int64(some))
                    done += some
                    rows.append(RosenbrockRow(name, done, float(rate), float(epsilon), rosenbrock_loss(x)))
                    progress(some)
            table.add(rows)
    return table.rows
