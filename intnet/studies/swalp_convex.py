"""Stochastic gradient descent in low precision, and the average of its weights, on two convex problems.

SWALP (Yang et al. 2019, arXiv:1904.11943, sec. 3.1 and 5.1): weights are rounded to few bits after every step. They end in a
cloud around the optimum whose size the grid decides (SGD-LP); their average lies far nearer to it than the grid is fine.

`linear`     Least squares on synthetic data: the squared distance to the optimum against the iteration.
`logistic`   Softmax regression on images of digits: what is left of the gradient, loss and errors against the fraction bits.

The problems themselves are exact in integers: inputs and targets are drawn or stored on a binary grid, the gradient is not
rounded, and the weights are, once a step. Distances, losses and errors are reckoned in float64 from the finished weights.

1. What to run    LinearSpec, LogisticSpec
2. Problems       linear_problem, optimum, logistic_problem, measure
3. Running        run_linear, run_logistic, set_aside
"""

import operator
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intnet._version import __version__
from intnet.datasets import Dataset
from intnet.errors import InputError, StudyError
from intnet.formats import Fixed
from intnet.optimizers import Factor
from intnet.regression import ITERATIONS_MAX, LeastSquares, Run, Snapshot, SoftmaxRegression, train_sgd
from intnet.studies import tables
from intnet.trainings import first_parts

SGD_LP, SWALP = "sgd_lp", "swalp"
"""The methods: the last iterate, and the average."""

INPUT_EXPONENT, TARGET_EXPONENT = -5, -16
"""The grids of the synthetic problem's inputs, and of its targets and the weights it is made with."""

NOISE = 0.1
"""Standard deviation of the noise in the synthetic targets."""

LINEAR_FILES = ("linear.csv", "linear.json", "linear.png")
LOGISTIC_FILES = ("logistic.csv", "logistic.json", "logistic.png")

_IMAGES = {"digits": 4, "mnist": 8, "fashion-mnist": 8}  # a pixel is code / 2**that
_CHUNK = 4096  # samples measured at once

Progress = Callable[[int], object]


class LinearRow(NamedTuple):
    """A line of ``linear.csv``; of the format called wide, `word_bits` and `fraction_bits` are 0."""

    word_bits: int
    fraction_bits: int
    method: str
    seed: int
    iteration: int
    squared_distance: float


class LogisticRow(NamedTuple):
    """A line of ``logistic.csv``; of the format called wide, `fraction_bits` is 0. Errors are fractions of 1."""

    dataset: str
    fraction_bits: int
    method: str
    seed: int
    gradient_norm_squared: float
    loss: float
    train_error: float
    test_error: float


# 1. What to run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinearSpec:
    """The study on least squares.

    Parameters
    ----------
    formats : iterable of Fixed or str
        Of the weights.
    wide : Fixed or str, optional
        A format so fine that it shows what is not due to rounding; None for none.
    seeds : iterable of int, 0..2**64 - 1
        Of the samples' order and the rounding. The problem has a seed of its own.
    iterations : int
    averaging_start : int, 0..iterations - 1, optional
        So many iterations are done before the first whose weights are averaged: by default a tenth of all.
    rate : what `Factor.of` takes
    features, samples : int
    data_seed : int, 0..2**32 - 1

    Raises
    ------
    InputError
        If an argument is none of these.

    Examples
    --------
    >>> spec = LinearSpec()
    >>> len(spec.runs()), str(spec.runs()[0].format), spec.snapshots()[:5], spec.snapshots()[-2:]
    (20, 'fxp-s10/8', [1, 2, 5, 10, 20], [199000, 200000])
    """

    formats: Any = ("fxp-s10/8", "fxp-s8/6", "fxp-s6/4")
    wide: Any = "fxp-s40/32"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    iterations: int = 200_000
    averaging_start: int | None = None
    rate: Any = "2^-10"
    features: int = 256
    samples: int = 4096
    data_seed: int = 0

    def __post_init__(self) -> None:
        try:
            formats = tuple(Run(one).format for one in ((self.formats,) if isinstance(self.formats, str) else self.formats))
        except TypeError:
            raise InputError(f"formats must be a sequence such as ('fxp-s8/6',), got {self.formats!r}") from None
        object.__setattr__(self, "formats", formats)
        object.__setattr__(self, "wide", None if self.wide is None else Run(self.wide).format)
        everything = [*formats, *([self.wide] if self.wide else [])]
        if not everything or len(set(everything)) < len(everything):
            raise InputError(f"formats must be at least one, each named once, got {', '.join(map(str, everything)) or 'none'}")
        for form in formats:
            if form.fraction_bits < 0:
                raise InputError(f"fraction bits must not be negative, got {form}")
        _check_training(self, 1)
        _set_integer(self, "features", 1, 2**16)
        _set_integer(self, "samples", 1, 2**24)
        _set_integer(self, "data_seed", 0, 2**32 - 1)
        if self.samples < self.features:
            raise InputError(f"samples must be at least as many as features, {self.features}, got {self.samples}")

    def runs(self) -> list[Run]:
        """Return every run, format after format."""
        return [Run(form, seed) for form in (*self.formats, *([self.wide] if self.wide else [])) for seed in self.seeds]

    def name_of(self, form: Fixed) -> tuple[int, int]:
        """Return word bits and fraction bits as the table has them."""
        return (0, 0) if form == self.wide else (form.word_bits, form.fraction_bits)

    def snapshots(self) -> list[int]:
        """Return the iterations in the table: 1, 2, 5, 10 and so on, and 200 evenly spaced ones."""
        every = max(1, self.iterations // 200)
        early = (digit * 10**power for power in range(10) for digit in (1, 2, 5) if digit * 10**power < every)
        return sorted({*early, *range(every, self.iterations, every), self.iterations})

    def config(self) -> dict[str, Any]:
        """Return what decides the table."""
        return {"study": "swalp-linear", **_settings(self)}


@dataclass(frozen=True)
class LogisticSpec:
    """The study on softmax regression.

    Parameters
    ----------
    dataset : {"digits", "mnist", "fashion-mnist"}
    fraction_bits : iterable of int, from 1
        Of the weights; 0 is what the table calls the wide format.
    integer_bits : int
        The word has so many bits more, its sign among them.
    wide : Fixed or str, optional
        A format so fine that it shows what is not due to rounding; None for none.
    seeds : iterable of int, 0..2**64 - 1
    iterations, averaging_start, rate
        As in :class:`LinearSpec`; by default 800,000 for digits and 200,000 for others, and three tenths of that.
    decay : what `Factor.of` takes
        The objective has ``decay / 2`` times the sum of the squared weights.
    samples : int, optional
        Only so many of the first training samples, and at most so many test samples, for a quick look.

    Raises
    ------
    InputError
        If an argument is none of these.

    Examples
    --------
    >>> spec = LogisticSpec()
    >>> len(spec.runs()), str(spec.runs()[0].format), str(spec.runs()[-1].format)
    (70, 'fxp-s6/2', 'fxp-s28/24')
    """

    dataset: str = "digits"
    fraction_bits: tuple[int, ...] = tuple(range(2, 15))
    integer_bits: int = 4
    wide: Any = "fxp-s28/24"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    iterations: int | None = None
    averaging_start: int | None = None
    rate: Any = "0.05"
    decay: Any = "1e-4"
    samples: int | None = None

    def __post_init__(self) -> None:
        if self.dataset not in _IMAGES:
            raise InputError(f"the data set must be one of {', '.join(_IMAGES)}, got {self.dataset!r}")
        object.__setattr__(self, "fraction_bits", _integers("fraction_bits", self.fraction_bits, 1, 62))
        _set_integer(self, "integer_bits", 1, 63)
        object.__setattr__(self, "wide", None if self.wide is None else Run(self.wide).format)
        if self.iterations is None:
            object.__setattr__(self, "iterations", 800_000 if self.dataset == "digits" else 200_000)
        _check_training(self, 3)
        object.__setattr__(self, "decay", Factor.of(self.decay))
        if self.samples is not None:
            _set_integer(self, "samples", 1, 2**31 - 1)
        formats = [run.format for run in self.runs()]
        if self.wide in formats[: -len(self.seeds)]:
            raise InputError(f"the wide format must be another than those of the fraction bits, got {self.wide}")

    def runs(self) -> list[Run]:
        """Return every run, number of fraction bits after number of fraction bits."""
        formats = [Fixed(bits + self.integer_bits, bits) for bits in self.fraction_bits]
        return [Run(form, seed) for form in (*formats, *([self.wide] if self.wide else [])) for seed in self.seeds]

    def name_of(self, form: Fixed) -> int:
        """Return the fraction bits as the table has them."""
        return 0 if form == self.wide else form.fraction_bits

    def config(self) -> dict[str, Any]:
        """Return what decides the table, but for the data."""
        return {"study": "swalp-logistic", **_settings(self)}


def _settings(spec: LinearSpec | LogisticSpec) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for one in fields(spec):
        value = getattr(spec, one.name)
        if isinstance(value, tuple):
            value = [str(item) if isinstance(item, Fixed) else item for item in value]
        elif isinstance(value, Factor):
            value = str(value.exact)
        settings[one.name] = str(value) if isinstance(value, Fixed) else value
    return settings


def _check_training(spec: Any, tenths: int) -> None:
    """Check what both studies have; by default averaging starts after so many tenths of the iterations."""
    object.__setattr__(spec, "seeds", _integers("seeds", spec.seeds, 0, 2**64 - 1))
    _set_integer(spec, "iterations", 1, ITERATIONS_MAX)
    if spec.averaging_start is None:
        object.__setattr__(spec, "averaging_start", spec.iterations * tenths // 10)
    _set_integer(spec, "averaging_start", 0, ITERATIONS_MAX)
    if spec.averaging_start >= spec.iterations:
        raise InputError(
            f"averaging would never start: it starts after {spec.averaging_start} iterations, and there are {spec.iterations}; "
            "start earlier or take more iterations"
        )
    rate = Factor.of(spec.rate)
    if not rate.mantissa:
        raise InputError("the rate must be greater than 0, got 0")
    object.__setattr__(spec, "rate", rate)


def _integers(name: str, values: Iterable[int], low: int, high: int) -> tuple[int, ...]:
    try:
        numbers = sorted({operator.index(value) for value in values})
    except TypeError:
        raise InputError(f"{name} must be integers in a sequence, got {values!r}") from None
    if not numbers or numbers[0] < low or numbers[-1] > high:
        raise InputError(f"{name} must be one or more integers in {low}..{high}, got {numbers or 'none'}")
    return tuple(numbers)


def _set_integer(spec: Any, name: str, low: int, high: int) -> None:
    value = getattr(spec, name)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise InputError(f"{name} must be an integer in {low}..{high}, got {value!r}")
    object.__setattr__(spec, name, int(value))


# 2. Problems ------------------------------------------------------------------------------------------------------------


def linear_problem(spec: LinearSpec) -> LeastSquares:
    """Draw the synthetic problem: y = x w + noise, with x normal, w uniform in -0.5..0.5, noise normal.

    The inputs are rounded to a grid of ``2**-5``, w is drawn on one of ``2**-16``, and the targets are rounded to that: what is
    trained on is exact in integers, and its optimum is that of the rounded data. Drawn by NumPy's legacy ``RandomState``, whose
    sequence does not change between versions.
    """
    random = np.random.RandomState(spec.data_seed)
    inputs = np.rint(random.standard_normal((spec.samples, spec.features)) * 2.0**-INPUT_EXPONENT).astype(np.int16)
    half = 1 << (-TARGET_EXPONENT - 1)
    weights = random.randint(-half, half, spec.features)
    signal = (inputs.astype(np.int64) @ weights) * 2.0 ** (INPUT_EXPONENT + TARGET_EXPONENT)  # exact
    noisy = signal + NOISE * random.standard_normal(spec.samples)
    return LeastSquares(inputs, INPUT_EXPONENT, np.rint(noisy * 2.0**-TARGET_EXPONENT).astype(np.int64), TARGET_EXPONENT)


def optimum(problem: LeastSquares) -> NDArray[np.float64]:
    """Return the least-squares solution in float64, (features,)."""
    inputs = np.ldexp(problem.inputs.astype(np.float64), problem.input_exponent)
    targets = np.ldexp(problem.targets.astype(np.float64), problem.target_exponent)
    return np.linalg.lstsq(inputs, targets, rcond=None)[0]


def quantized_distance(weights: NDArray[np.float64], form: Fixed) -> float:
    """Return the squared distance of real weights to the nearest of a format, ties to even: the best one can store."""
    raw = np.rint(np.ldexp(weights, form.fraction_bits)).clip(form.minimum, form.maximum)
    return _squared_distance(np.ldexp(raw, -form.fraction_bits), weights)


def _squared_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.sum((a - b) ** 2))


def logistic_problem(data: Dataset, decay: Any = 0) -> SoftmaxRegression:
    """Return softmax regression on images, with a bias: a last input that is 1.

    Pixels are code / 16 of DIGITS, and code / 256 of the others, which integers hold exactly: 255/256 of the usual value.
    """
    if data.name not in _IMAGES:
        raise InputError(f"the data set must be one of {', '.join(_IMAGES)}, got {data.name!r}")
    bits = _IMAGES[data.name]
    ones = np.full((len(data.codes), 1), 1 << bits, np.int16)
    return SoftmaxRegression(
        np.hstack([data.codes.astype(np.int16), ones]), -bits, data.labels.astype(np.int64), data.classes, decay
    )


class Measured(NamedTuple):
    """What :func:`measure` finds: the objective with its decay, its gradient, and the share of wrong samples."""

    gradient_norm_squared: float
    loss: float
    error: float


def measure(problem: SoftmaxRegression, weights: NDArray[np.float64]) -> Measured:
    """Measure weights, (classes, features), in float64.

    The loss is the mean cross-entropy in nats plus ``decay / 2`` times the sum of the squared weights, and the gradient is its.
    The class is the first of the largest logits.
    """
    decay, samples = float(problem.decay), len(problem.labels)
    loss, wrong, gradient = 0.0, 0, np.zeros(weights.shape)
    for first in range(0, samples, _CHUNK):
        inputs = np.ldexp(problem.inputs[first : first + _CHUNK].astype(np.float64), problem.input_exponent)
        labels = problem.labels[first : first + _CHUNK]
        rows = np.arange(len(labels))
        logits = inputs @ weights.T
        wrong += int(np.count_nonzero(logits.argmax(axis=1) != labels))
        logits -= logits.max(axis=1, keepdims=True)
        powers = np.exp(logits)
        totals = powers.sum(axis=1, keepdims=True)
        loss += float(np.sum(np.log(totals[:, 0]) - logits[rows, labels]))
        powers /= totals
        powers[rows, labels] -= 1
        gradient += powers.T @ inputs
    gradient = gradient / samples + decay * weights
    return Measured(float(np.sum(gradient**2)), loss / samples + decay / 2 * float(np.sum(weights**2)), wrong / samples)


# 3. Running -------------------------------------------------------------------------------------------------------------


def run_linear(
    spec: LinearSpec, folder: Path | str, *, threads: int | None = None, progress: Progress = lambda runs: None  # noqa: ARG005
) -> list[LinearRow]:  # fmt: skip
    """Train what is missing in the folder, keep every run that ends, and return all rows.

    Parameters
    ----------
    spec : LinearSpec
    folder : path
    threads : int, optional
        See :func:`intnet.regression.train_sgd`. The rows are the same.
    progress : function of an int, optional
        Told how many runs more are there: first, those that were there before.

    Raises
    ------
    InputError
        If a number could leave int64.
    StudyError
        If the folder cannot be used: see :func:`intnet.studies.tables.opened`.
    """
    problem = linear_problem(spec)
    best = optimum(problem)

    def train(runs: list[Run]) -> Any:
        return train_sgd(problem, runs, spec.rate, *_span(spec), spec.snapshots(), threads=threads)

    def rows_of(snapshots: list[Snapshot]) -> list[LinearRow]:
        rows = []
        for one in snapshots:
            name = spec.name_of(one.run.format)
            rows.append(LinearRow(*name, SGD_LP, one.run.seed, one.iteration, _squared_distance(one.values()[0], best)))
            if one.count:
                average = one.mean_values()[0]
                rows.append(LinearRow(*name, SWALP, one.run.seed, one.iteration, _squared_distance(average, best)))
        return rows

    train(spec.runs())  # refuses what cannot be trained, before the folder is touched
    looks = spec.snapshots()
    each = len(looks) + sum(look > _span(spec)[1] for look in looks)
    with tables.opened(folder, "linear.csv", LinearRow, spec.config(), _versions()) as table:
        names = {(*spec.name_of(run.format), run.seed): run for run in spec.runs()}
        stored = _stored(table, [(row.word_bits, row.fraction_bits, row.seed) for row in table.rows], names, each)
        _run(table, [run for name, run in names.items() if name not in stored], len(stored), train, rows_of, progress)
    return table.rows


def run_logistic(
    spec: LogisticSpec,
    folder: Path | str,
    data_dir: Path | str | None = None,
    *,
    threads: int | None = None,
    progress: Progress = lambda runs: None,  # noqa: ARG005
) -> list[LogisticRow]:
    """Train what is missing in the folder, keep every run that ends, and return all rows.

    Parameters
    ----------
    spec : LogisticSpec
    folder : path
    data_dir : path, optional
        Where the data set's files are, see :func:`intnet.datasets.load`.
    threads, progress
        As of :func:`run_linear`.

    Raises
    ------
    DataError
        If the data set is missing or damaged.
    InputError, StudyError
        As of :func:`run_linear`.
    """
    data, test = first_parts(spec.dataset, data_dir, spec.samples)
    problem, unseen = logistic_problem(data, spec.decay), logistic_problem(test)

    def train(runs: list[Run]) -> Any:
        return train_sgd(problem, runs, spec.rate, *_span(spec), threads=threads)

    def rows_of(snapshots: list[Snapshot]) -> list[LogisticRow]:
        rows = []
        for method, weights in ((SGD_LP, snapshots[-1].values()), (SWALP, snapshots[-1].mean_values())):
            run, seen = snapshots[-1].run, measure(problem, weights)
            name = (spec.dataset, spec.name_of(run.format), method, run.seed)
            rows.append(LogisticRow(*name, *seen, measure(unseen, weights).error))
        return rows

    train(spec.runs())
    config = {**spec.config(), "train_checksum": data.checksum, "test_checksum": test.checksum}
    with tables.opened(folder, "logistic.csv", LogisticRow, config, _versions()) as table:
        names = {(spec.name_of(run.format), run.seed): run for run in spec.runs()}
        stored = _stored(table, [(row.fraction_bits, row.seed) for row in table.rows], names, 2)
        _run(table, [run for name, run in names.items() if name not in stored], len(stored), train, rows_of, progress)
    return table.rows


def _span(spec: LinearSpec | LogisticSpec) -> tuple[int, int]:
    """Return the iterations, and after how many averaging starts: both are numbers by now."""
    return spec.iterations, spec.averaging_start  # type: ignore[return-value]


def _run(
    table: tables.Table, missing: list[Run], stored: int, train: Callable, rows_of: Callable, progress: Progress
) -> None:  # fmt: skip
    if stored:
        progress(stored)
    if missing:
        with closing(train(missing)) as trained:  # stops the threads at once, however this ends
            for snapshots in trained:
                table.add(rows_of(snapshots))
                progress(1)


def _stored(table: tables.Table, found: list[Any], names: Any, each: int) -> set[Any]:
    """Return the names of the runs in a table, having checked that each is whole."""
    for name, count in Counter(found).items():
        if name not in names or count != each:
            raise StudyError(
                f"{table.path} is damaged: it has {count} rows of a run {name}, which are none or {each}; "
                "choose another --out, or set the old one aside with --fresh"
            )
    return set(found)


def _versions() -> dict[str, str]:
    return {"intnet": __version__, "numpy": np.__version__}


def set_aside(folder: Path | str) -> Path | None:
    """Rename the folder of one of the two studies to a dated name: see :func:`intnet.files.set_aside`."""
    return tables.set_aside(folder, (*LINEAR_FILES, *LOGISTIC_FILES))
