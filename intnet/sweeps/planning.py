"""What a sweep will cost: how many cells, how long, how much memory; from a few that are timed, before anything starts."""

import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intnet import kernels
from intnet.errors import InputError
from intnet.sweeps.execution import loader, warm_up

SAMPLES = 5
"""How many cells are timed."""


@dataclass(frozen=True)
class Plan:
    """What is to be done, and what it will take.

    Attributes
    ----------
    cells, stored : int
        All cells, and those that need not be run again.
    seconds : float
        Of all cells that are left, in one thread; 0 if none is.
    timed : int
        How many cells that was reckoned from.
    workers : int
    bytes : int
        Peak memory of a process so far; each worker needs about as much.
    refused : str
        The first of the tried cells that cannot be trained, and why; nothing if all can.
    left_out : str
        What combinations are impossible, in a sentence; nothing if none is.
    """

    cells: int
    stored: int
    seconds: float
    timed: int
    workers: int
    bytes: int
    refused: str = ""
    left_out: str = ""

    @property
    def wall_seconds(self) -> float:
        """How long it takes all workers together."""
        return self.seconds / self.workers

    def describe(self) -> list[str]:
        """Say it in sentences."""
        left = self.cells - self.stored
        sentences = [
            f"{self.cells:,} cell{'s' * (self.cells != 1)}, of which {self.stored:,} are stored and {left:,} are to be trained."
        ]
        if self.left_out:
            sentences.append(self.left_out)
        if self.refused:
            sentences.append(f"Not all of the cells that were tried can be trained: {self.refused}.")
        if left:
            per = self.seconds / left
            sentences.append(
                f"Estimated time: {_duration(self.wall_seconds)} with {self.workers} worker{'s' * (self.workers > 1)} "
                f"({_duration(per)} a cell in one thread, from {self.timed} timed in part)."
            )
            sentences.append(
                f"Estimated memory: {self.bytes / 2**30:.2f} GiB a process, {self.bytes * self.workers / 2**30:.2f} GiB in all."
            )
        return sentences


def _duration(seconds: float) -> str:
    """Return a length of time in a unit that suits it."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{0 if seconds >= 100 * size else 1}f} {unit}"
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1000:.2g} ms"


def plan(
    spec: Any, missing: Sequence[Any], cells: int, workers: int = 1, data_dir: Path | str | None = None,
    say: Callable[[str], object] | None = None,
) -> Plan:  # fmt: skip
    """Time a few of the missing cells, each for a moment, and reckon what all will take.

    Parameters
    ----------
    spec : GridSpec or SweepSpec
    missing : sequence
        The cells that are to be trained.
    cells : int
        How many there are, stored ones included.
    workers : int
    data_dir : path, optional
    say : function of a str, optional
        Told when something has to be compiled first.

    Raises
    ------
    InputError
        If the data are missing, or no cell that is tried can be trained.
    """
    seconds, timed, refused = 0.0, 0, ""
    if missing:
        load = loader(data_dir)
        before = kernels.threads()
        kernels.set_threads(1)
        try:
            some = [missing[i * len(missing) // min(SAMPLES, len(missing))] for i in range(min(SAMPLES, len(missing)))]
            warm_up(spec, some, load, say)
            seconds, timed, refused = spec.estimate(some, missing, load)
            if not timed:
                raise InputError(f"none of the {len(some)} cells that were tried can be trained; {refused}")
        finally:
            kernels.set_threads(before)
    return Plan(cells, cells - len(missing), seconds, timed, max(1, workers), _peak_bytes(), refused, spec.left_out)


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
