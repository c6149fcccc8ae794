"""Sparse solutions of three equations in five unknowns: plain, projected, L1, proximal and trimmed descent in fixed point.

The problem of a course on efficient networks (Duke ECE 661, fall 2021): minimize ``sum_i (x_i w - y_i)**2`` with at most two
weights that are not zero, from w = 0, at rate 0.02, in 200 steps. ``w = (0, -3, 0, 0, 1)`` solves it exactly.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from intnet import files
from intnet._version import __version__
from intnet.compression.sparse import METHODS, SparseDescent
from intnet.errors import InputError, StudyError
from intnet.studies import tables

X = ((1, -2, -1, -1, 1), (2, -1, 2, 0, -2), (-1, 0, 2, 2, 1))
Y = (7, 1, 1)
RATE, KEEP = "0.02", 2
PARAMETERS = {"l1": (0.2, 0.5, 1.0, 2.0), "proximal": (0.004, 0.01, 0.02, 0.04), "trimmed": (0.02, 0.04, 0.1, 0.2)}
"""Factors of the L1 norm, and thresholds a step: 0.02 times 0.2, 0.5, 1 and 2, and times 1, 2, 5 and 10."""

TABLE = "linear.csv"
FILES = (TABLE, "table.md", "linear.png", "linear-bits.png")
_VERSIONS = {"intnet": __version__, "numpy": np.__version__}


@dataclass(frozen=True)
class LinearSpec:
    """Which descents.

    Parameters
    ----------
    methods : sequence of str
        Of :data:`intnet.compression.sparse.METHODS`.
    fraction_bits : sequence of int, 1..52
    steps : int

    Raises
    ------
    InputError
        If something is unknown or out of range, or a threshold is less than half a unit.
    """

    methods: Sequence[str] = METHODS
    fraction_bits: Sequence[int] = (40, 16, 12, 8)
    steps: int = 200

    def __post_init__(self) -> None:
        names = (self.methods,) if isinstance(self.methods, str) else tuple(dict.fromkeys(self.methods))
        if unknown := [name for name in names if name not in METHODS]:
            raise InputError(f"methods are {', '.join(METHODS)}, got {unknown[0]!r}")
        if not names:
            raise InputError("methods must not be empty")
        object.__setattr__(self, "methods", names)
        object.__setattr__(self, "fraction_bits", tables.numbers("fraction_bits", self.fraction_bits, int, 1, most=52))
        tables.numbers("steps", self.steps, int, 1)
        for bits in self.fraction_bits:
            for method, parameter in self.runs():
                descent(method, parameter, bits)

    def runs(self) -> list[tuple[str, float]]:
        """Return methods and parameters: of "projected" how many weights are kept, of "gd" 0."""
        single = {"gd": (0.0,), "projected": (float(KEEP),)}
        return [(name, one) for name in self.methods for one in PARAMETERS.get(name, single.get(name, ()))]


class LinearRow(NamedTuple):
    """A row of ``linear.csv``: after how many updates, and weights then; row 0 is w = 0."""

    method: str
    parameter: float
    fraction_bits: int
    step: int
    loss: float
    w0: float
    w1: float
    w2: float
    w3: float
    w4: float

    @property
    def weights(self) -> tuple[float, ...]:
        """All of them."""
        return self[5:]


def descent(method: str, parameter: float, fraction_bits: int) -> SparseDescent:
    """Return one of the study's descents."""
    given = parameter if method in PARAMETERS else None
    return SparseDescent(X, Y, method, given, rate=RATE, keep=KEEP, fraction_bits=fraction_bits)


def run(spec: LinearSpec, folder: Path | str, *, progress: tables.Progress = tables.ignore) -> list[LinearRow]:
    """Do the descents that the folder's table lacks, and return all that were asked for.

    Raises
    ------
    StudyError
        If the folder holds another study.
    """
    config = {"study": "sparse-linear", "x": X, "y": Y, "rate": RATE, "keep": KEEP, "steps": spec.steps}
    asked = [(method, parameter, bits) for bits in spec.fraction_bits for method, parameter in spec.runs()]
    with tables.opened(folder, TABLE, LinearRow, config, _VERSIONS) as table:
        stored = {row[:3] for row in table.rows}
        for key in asked:
            if key not in stored:
                path = descent(*key).run(spec.steps)
                weights = path.real().tolist()
                table.add(LinearRow(*key, k, float(loss), *weights[k]) for k, loss in enumerate(path.losses))
            progress(1)
    rows = {key: [] for key in asked}  # type: dict[tuple[str, float, int], list[LinearRow]]
    for row in table.rows:
        if row[:3] in rows:
            rows[row[:3]].append(row)
    for key, some in rows.items():
        if [row.step for row in sorted(some, key=lambda row: row.step)] != list(range(spec.steps + 1)):
            name = f"{key[0]} {key[1]:g} with {key[2]} fraction bits"
            raise StudyError(f"{Path(folder) / TABLE} is damaged: it lacks steps of {name}; set it aside with --fresh")
    return [row for some in rows.values() for row in some]


def by_run(rows: Iterable[LinearRow]) -> dict[tuple[str, float, int], list[LinearRow]]:
    """Return the rows of each descent, step after step."""
    groups: dict[tuple[str, float, int], list[LinearRow]] = {}
    for row in rows:
        groups.setdefault(row[:3], []).append(row)
    return {key: sorted(some, key=lambda row: row.step) for key, some in groups.items()}


def table(rows: Sequence[LinearRow]) -> str:
    """Return a Markdown table: losses at some steps, the last weights, and how much they still move."""
    groups = by_run(rows)
    last = max(row.step for row in rows)
    shown = [step for step in (1, 20, 100, 200) if step <= last] or [last]
    lines = [
        f"| method | parameter | fraction bits | loss at step {' / '.join(map(str, shown))} | weights at step {last} "
        "| largest move in the last 10 steps |",
        "|---|---:|---:|---|---|---:|",
    ]
    for (method, parameter, bits), some in groups.items():
        moves = np.abs(np.diff([row.weights for row in some[-11:]], axis=0)).max(initial=0)
        losses = " / ".join(f"{some[step].loss:.3g}" for step in shown)
        weights = ", ".join(f"{value:.4f}" if value else "0" for value in some[-1].weights)
        lines.append(f"| {method} | {parameter:g} | {bits} | {losses} | {weights} | {moves:.2g} |")
    return "\n".join(lines) + "\n"


def describe(rows: Sequence[LinearRow]) -> list[str]:
    """Say from which width the answers change: against the most fraction bits, in what is zero and how far weights are off."""
    groups = by_run(rows)
    widths = sorted({key[2] for key in groups}, reverse=True)
    sentences = []
    for bits in widths[1:]:
        worst, unlike = (0.0, ""), []
        for (method, parameter, width), some in groups.items():
            if width != bits or (reference := groups.get((method, parameter, widths[0]))) is None:
                continue
            name = f"{method} {parameter:g}" if method in PARAMETERS else method
            off = max(abs(a - b) for a, b in zip(some[-1].weights, reference[-1].weights, strict=True))
            worst = max(worst, (off, name))
            if [value == 0 for value in some[-1].weights] != [value == 0 for value in reference[-1].weights]:
                unlike.append(name)
        zeros = f"other weights are zero in {', '.join(unlike)}" if unlike else "the same weights are zero everywhere"
        sentences.append(
            f"{bits} fraction bits against {widths[0]}: the last weights are off by up to {worst[0]:.2g} ({worst[1]}), and "
            f"{zeros}."
        )
    return sentences


def export(rows: Sequence[LinearRow], folder: Path | str, *, plots: bool = True) -> list[str]:
    """Write the table for people and the pictures, and return what came out, in sentences."""
    folder, text = Path(folder), table(rows)
    files.write_changed(folder / "table.md", text.encode())
    if plots:
        from intnet import plotting

        pictures: dict[str, Any] = {
            "linear.png": plotting.plot_sparse_descent(rows, max(row.fraction_bits for row in rows)),
            "linear-bits.png": plotting.plot_sparse_bits(rows),
        }
        for name, figure in pictures.items():
            files.write_atomically(folder / name, partial(figure.savefig, dpi=150))
    return describe(rows)
