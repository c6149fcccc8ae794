"""Variance-reduced gradient descent in low precision, on a grid that is fixed and on one that follows, on convex problems.

HALP (De Sa et al. 2018, arXiv:1803.03383, sec. 3 and 5): SVRG whose iterate is an offset of few bits from a wide centre, on a
grid that shrinks with the gradient. So it goes on to the optimum as SVRG does, where weights of as many bits on a fixed grid
(LP-SGD, LP-SVRG) stay in a cloud.

`convex`   Least squares on two synthetic data sets: the distance to the optimum against the iteration.
`digits`   Softmax regression on images of digits: the norm of the gradient against the iteration.

The problems are exact in integers. Distances and gradients are reckoned in float64 from the weights. The rate and mu are those
of the released code, whose loss is the squared error, twice that of :class:`intnet.regression.LeastSquares`.

1. What to run    ConvexSpec, DigitsSpec, Setting
2. Problems       synthetic, digits_problem
3. Running        run_convex, run_digits, set_aside
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intnet import bit_centering
from intnet._version import __version__
from intnet.bit_centering import CentredRun, train_svrg
from intnet.errors import InputError, StudyError
from intnet.formats import Fixed, Rounding
from intnet.optimizers import BitCentering, Factor
from intnet.optimizers.halp import CENTRE, EXACT, POWER_OF_TWO
from intnet.optimizers.svrg import check_period
from intnet.regression import ITERATIONS_MAX, LeastSquares, Problem, Run, in_range, train_sgd
from intnet.studies import tables
from intnet.studies.swalp_convex import logistic_problem, measure
from intnet.trainings import first_parts

SGD, SVRG, HALP, LP_SGD, LP_SVRG = "sgd", "svrg", "halp", "lp_sgd", "lp_svrg"
"""The methods: SGD and SVRG in wide words, HALP, and both with weights of few bits on a fixed grid."""

NO_SCALE = "none"  # of methods that have none

CONVEX_FILES = ("convex.csv", "convex.json", "convex.png")
DIGITS_FILES = ("digits.csv", "digits.json", "digits.png")

_LOOKS = 50
_TARGET_EXPONENT = -20
_A_SEED = 0xC0FFEE

Progress = Callable[[int], object]


class ConvexRow(NamedTuple):
    """A line of ``convex.csv``. Wide words have 0 bits; what a method has not is 0, or "none"."""

    problem: str
    method: str
    bits: int
    mu: float
    T: int
    scale: str
    seed: int
    iteration: int
    distance: float


class DigitsRow(NamedTuple):
    """A line of ``digits.csv``; see `ConvexRow`."""

    method: str
    bits: int
    mu: float
    T: int
    scale: str
    seed: int
    iteration: int
    gradient_norm: float


class Setting(NamedTuple):
    """A run as the tables name it."""

    method: str
    bits: int
    mu: float
    T: int
    scale: str
    seed: int


_VERSIONS = {"intnet": __version__, "numpy": np.__version__}


# 1. What to run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Spec:
    bits: Any = (8, 16)
    mu: Any = None
    recentre: Any = (200, 2000)
    scale: Any = (EXACT, POWER_OF_TWO)
    rounding: Any = Rounding.STOCHASTIC
    seeds: Any = tuple(range(10))
    iterations: int | None = None
    rate: Any = None
    centre: Any = CENTRE

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "bits", tuple(sorted({in_range("bits", b, 2, 16) for b in _several("bits", self.bits)})))
        if self.mu is not None:
            for mu in _several("mu", self.mu):
                BitCentering(mu=mu)
            set_(self, "mu", tuple(sorted({float(mu) for mu in _several("mu", self.mu)}, reverse=True)))
        set_(self, "recentre", tuple(sorted({check_period(T) for T in _several("recentre", self.recentre)})))
        set_(self, "scale", tuple(dict.fromkeys(_several("scale", self.scale))))
        for kind in self.scale:
            BitCentering(scale=kind)
        set_(self, "rounding", BitCentering(rounding=self.rounding).rounding)
        set_(self, "seeds", tuple(sorted({in_range("a seed", s, 0, 2**64 - 1) for s in _several("seeds", self.seeds)})))
        if self.iterations is not None:
            set_(self, "iterations", in_range("iterations", self.iterations, 1, ITERATIONS_MAX))
        if self.rate is not None:
            set_(self, "rate", Factor.of(self.rate))
            if not self.rate.mantissa:
                raise InputError("the rate must be greater than 0, got 0")
        set_(self, "centre", bit_centering.HALP(BitCentering(), self.centre).centre)

    def _settings(self, mus: Iterable[float]) -> list[Setting]:
        """Return every run on one problem, seed after seed of each."""
        some = [(SGD, 0, 0.0, 0, NO_SCALE), *((LP_SGD, b, 0.0, 0, NO_SCALE) for b in self.bits)]
        for T in self.recentre:
            some += [(SVRG, 0, 0.0, T, NO_SCALE), *((LP_SVRG, b, 0.0, T, NO_SCALE) for b in self.bits)]
            some += [(HALP, b, mu, T, kind) for b in self.bits for mu in mus for kind in self.scale]
        return [Setting(*one, seed) for one in some for seed in self.seeds]

    def _config(self, study: str) -> dict[str, Any]:
        settings: dict[str, Any] = {"study": study}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Rounding):
                value = value.value
            elif isinstance(value, Factor):
                value = str(value.exact)
            settings[one.name] = str(value) if isinstance(value, Fixed) else value
        return settings


def _several(name: str, values: Any) -> tuple:
    """Return one or more values as a tuple."""
    try:
        found = (values,) if isinstance(values, str) else tuple(values)
    except TypeError:
        found = (values,)
    if not found:
        raise InputError(f"{name} must be one or more, got none")
    return found


@dataclass(frozen=True)
class ConvexSpec(_Spec):
    """The study on least squares.

    Parameters
    ----------
    bits : iterable of int, 2..16
        Of offsets, and of weights on the fixed grids: words of b bits with ``b - 8`` fraction bits, -128..127.
    mu : iterable of numbers, optional
        By default those of the problem: 4 of `a`, 3 and 1 of `b`.
    recentre : iterable of int, T
        Steps between two centres.
    scale : iterable of {"exact", "power_of_two"}
    rounding : {"stochastic", "ties_pos"}
        Of HALP and of both kinds of SVRG; LP-SGD rounds stochastically.
    seeds : iterable of int, 0..2**64 - 1
        Of the samples' order and the rounding. The problems have seeds of their own.
    iterations : int, optional
        By default 5,000 of `a`, 100,000 of `b`.
    rate : what `Factor.of` takes, optional
        By default 1e-3 of `a`, 2.5e-4 of `b`.
    centre : Fixed or str
        Of the centres, and of the weights that are called wide.
    problems : iterable of {"a", "b"}
        See :func:`synthetic`.

    Raises
    ------
    InputError
        If an argument is none of these.

    Examples
    --------
    >>> spec = ConvexSpec(seeds=(0,))
    >>> len(spec.runs("a")), len(spec.runs("b")), spec.runs("b")[-1]
    (17, 25, Setting(method='halp', bits=16, mu=1.0, T=2000, scale='power_of_two', seed=0))
    """

    problems: Any = ("a", "b")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "problems", tuple(sorted(set(_several("problems", self.problems)))))
        if unknown := set(self.problems) - _DEFAULTS.keys():
            raise InputError(f"the problems are {', '.join(_DEFAULTS)}, got {sorted(map(str, unknown))[0]}")

    def runs(self, problem: str) -> list[Setting]:
        """Return every run on a problem."""
        return self._settings(_DEFAULTS[problem].mu if self.mu is None else self.mu)

    def snapshots(self, problem: str) -> list[int]:
        """Return the iterations in the table: 50, evenly spaced."""
        return _snapshots(_DEFAULTS[problem].iterations if self.iterations is None else self.iterations)

    def config(self) -> dict[str, Any]:
        """Return what decides the table, but for the problems."""
        return self._config("halp-convex")


@dataclass(frozen=True)
class DigitsSpec(_Spec):
    """The study on softmax regression.

    Parameters
    ----------
    bits, mu, recentre, scale, rounding, seeds, iterations, rate, centre
        As of :class:`ConvexSpec`. Words of b bits on a fixed grid have ``b - 4`` fraction bits: -8..8.
    decay : what `Factor.of` takes
        The objective has ``decay / 2`` times the sum of the squared weights.
    samples : int, optional
        Only so many of the first training samples, for a quick look.

    Raises
    ------
    InputError
        If an argument is none of these.

    Examples
    --------
    >>> len(DigitsSpec(seeds=(0, 1)).runs()), DigitsSpec().snapshots()[-2:]
    (12, [98000, 100000])
    """

    bits: Any = (8,)
    mu: Any = (0.1,)
    recentre: Any = (2000,)
    seeds: Any = tuple(range(5))
    iterations: int | None = 100_000
    rate: Any = "0.02"
    centre: Any = "fxp-s36/32"
    decay: Any = "0.01"
    samples: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "decay", Factor.of(self.decay))
        if self.samples is not None:
            object.__setattr__(self, "samples", in_range("samples", self.samples, 1, 2**31 - 1))

    def runs(self) -> list[Setting]:
        """Return every run."""
        return self._settings(self.mu)

    def snapshots(self) -> list[int]:
        """Return the iterations in the table: 50, evenly spaced."""
        return _snapshots(self.iterations or 0)

    def config(self) -> dict[str, Any]:
        """Return what decides the table, but for the data."""
        return self._config("halp-digits")


def _snapshots(iterations: int) -> list[int]:
    every = max(1, iterations // _LOOKS)
    return sorted({*range(every, iterations, every), iterations})


# 2. Problems ------------------------------------------------------------------------------------------------------------


class _Defaults(NamedTuple):
    """Of a synthetic problem: iterations, rate and mu of the released code, and wide words in which SGD is proven exact."""

    iterations: int
    rate: str
    mu: tuple[float, ...]
    sgd: Fixed


_DEFAULTS = {
    "a": _Defaults(5_000, "0.001", (4.0,), Fixed(26, 18)),
    "b": _Defaults(100_000, "0.00025", (3.0, 1.0), Fixed(28, 20)),
}


class Synthetic(NamedTuple):
    """A least-squares problem with its optimum.

    Attributes
    ----------
    problem : LeastSquares
    optimum : (features,) float64
    curvature : Fraction
        Times the rate, and by which mu is divided: two for the squared error, and the square of the inputs' step.
    """

    problem: LeastSquares
    optimum: NDArray[np.float64]
    curvature: Fraction


def synthetic(name: str) -> Synthetic:
    """Return a problem of scikit-learn's ``make_regression``, with its inputs as integers.

    `a`: 100 samples of 5 features, no noise, as torchhalp's example; inputs on a grid of 2**-9, with so little left over at the
    optimum that plain SGD goes on to it for all 5,000 iterations.
    `b`: 1000 samples of 100 features, 10 of them informative; inputs as int8 codes, of steps of a 127th of the largest. What
    the rounding of the inputs leaves over at the optimum, 1.7, is the noise in which SGD ends.
    Targets of `b` are divided by the step of the inputs. Both are rounded to a grid of 2**-20, and the optimum is that of the
    rounded data.
    """
    from sklearn.datasets import make_regression

    if name == "a":
        real, targets = make_regression(100, 5, random_state=_A_SEED)
        inputs, exponent, step = np.rint(np.ldexp(real, 9)).astype(np.int16), -9, 1.0
    else:
        real, targets = make_regression(1000, 100, random_state=0)
        step = float(np.abs(real).max()) / 127
        inputs, exponent = np.rint(real / step).astype(np.int8), 0
    raw = np.rint(np.ldexp(targets / step, -_TARGET_EXPONENT)).astype(np.int64)
    problem = LeastSquares(inputs, exponent, raw, _TARGET_EXPONENT)
    on_grid = np.ldexp(problem.inputs.astype(np.float64), exponent), np.ldexp(raw.astype(np.float64), _TARGET_EXPONENT)
    return Synthetic(problem, np.linalg.lstsq(*on_grid, rcond=None)[0], 2 * Fraction(step) ** 2)


def _checksum(problem: LeastSquares) -> str:
    return hashlib.sha256(problem.inputs.tobytes() + problem.targets.tobytes()).hexdigest()[:16]


# 3. Running -------------------------------------------------------------------------------------------------------------


class _Job(NamedTuple):
    """How the runs on one problem are trained: see :func:`_train`. Of b bits, a fixed grid has ``b - whole`` fraction bits."""

    problem: Problem
    settings: list[Setting]
    rate: Factor
    curvature: Fraction
    sgd: Fixed
    whole: int
    snapshots: list[int]


def _train(spec: _Spec, job: _Job, threads: int | None) -> Generator[tuple[Setting, list[Any]], None, None]:
    """Return a generator of the settings with their snapshots; what cannot be trained is refused before."""

    def run_of(one: Setting) -> Run | CentredRun:
        grid = Fixed(one.bits, one.bits - job.whole) if one.bits else None
        if one.method in (SGD, LP_SGD):
            return Run(grid or job.sgd, one.seed)
        if one.method == HALP:
            mu = Factor.of(Fraction(one.mu) / job.curvature)
            return bit_centering.HALP(BitCentering(one.bits, mu, one.T, one.scale, spec.rounding), spec.centre, one.seed)
        return bit_centering.SVRG(grid or spec.centre, one.T, spec.rounding, one.seed)

    names = {run_of(one): one for one in job.settings}
    plain = [run for run in names if isinstance(run, Run)]
    centred = [run for run in names if not isinstance(run, Run)]
    end = job.snapshots[-1]
    parts: tuple[Any, ...] = (
        train_sgd(job.problem, plain, job.rate, end, 0, job.snapshots, threads=threads),
        train_svrg(job.problem, centred, job.rate, end, job.snapshots, threads=threads),
    )

    def both() -> Generator[tuple[Setting, list[Any]], None, None]:
        for part in parts:
            with closing(part):
                for snapshots in part:
                    yield names[snapshots[0].run], snapshots

    return both()


def run_convex(
    spec: ConvexSpec, folder: Path | str, *, threads: int | None = None, progress: Progress = lambda runs: None  # noqa: ARG005
) -> list[ConvexRow]:  # fmt: skip
    """Train what is missing in the folder, keep every run that ends, and return all rows.

    Parameters
    ----------
    spec : ConvexSpec
    folder : path
    threads : int, optional
        See :func:`intnet.bit_centering.train_svrg`. The rows are the same.
    progress : function of an int, optional
        Told how many runs more are there: first, those that were there before.

    Raises
    ------
    InputError
        If a number could leave int64, or a scale leaves its range.
    StudyError
        If the folder cannot be used: see :func:`intnet.studies.tables.opened`.
    """
    problems = {name: synthetic(name) for name in spec.problems}

    def job(name: str, settings: list[Setting]) -> _Job:
        made, default = problems[name], _DEFAULTS[name]
        rate = Factor.of(spec.rate or default.rate).times(made.curvature)
        return _Job(made.problem, settings, rate, made.curvature, default.sgd, 8, spec.snapshots(name))

    for name in spec.problems:
        _train(spec, job(name, spec.runs(name)), threads).close()
    config = {**spec.config(), "checksums": {name: _checksum(made.problem) for name, made in problems.items()}}
    with tables.opened(folder, "convex.csv", ConvexRow, config, _VERSIONS) as table:
        names = {(name, *one) for name in spec.problems for one in spec.runs(name)}
        each = {name: len(spec.snapshots(name)) for name in spec.problems}
        stored = _stored(table, [tuple(row[:7]) for row in table.rows], names, lambda found: each[found[0]])
        if stored:
            progress(len(stored))
        for name in spec.problems:
            missing = [one for one in spec.runs(name) if (name, *one) not in stored]
            with closing(_train(spec, job(name, missing), threads)) as trained:
                for one, snapshots in trained:
                    best = problems[name].optimum
                    rows = [(seen.iteration, float(np.linalg.norm(seen.values()[0] - best))) for seen in snapshots]
                    table.add(ConvexRow(name, *one, *row) for row in rows)
                    progress(1)
    return table.rows


def run_digits(
    spec: DigitsSpec,
    folder: Path | str,
    data_dir: Path | str | None = None,
    *,
    threads: int | None = None,
    progress: Progress = lambda runs: None,  # noqa: ARG005
) -> list[DigitsRow]:
    """Train what is missing in the folder, keep every run that ends, and return all rows.

    Parameters
    ----------
    spec : DigitsSpec
    folder : path
    data_dir : path, optional
        Where the data set's files are, see :func:`intnet.datasets.load`.
    threads, progress
        As of :func:`run_convex`.

    Raises
    ------
    DataError
        If the data set is missing or damaged.
    InputError, StudyError
        As of :func:`run_convex`.
    """
    data, _ = first_parts("digits", data_dir, spec.samples)
    problem = logistic_problem(data, spec.decay)

    def job(settings: list[Setting]) -> _Job:
        return _Job(problem, settings, spec.rate, Fraction(1), Fixed(28, 24), 4, spec.snapshots())

    _train(spec, job(spec.runs()), threads).close()
    config = {**spec.config(), "checksum": data.checksum}
    with tables.opened(folder, "digits.csv", DigitsRow, config, _VERSIONS) as table:
        each = len(spec.snapshots())
        stored = _stored(table, [tuple(row[:6]) for row in table.rows], set(map(tuple, spec.runs())), lambda _: each)
        if stored:
            progress(len(stored))
        missing = [one for one in spec.runs() if tuple(one) not in stored]
        with closing(_train(spec, job(missing), threads)) as trained:
            for one, snapshots in trained:
                rows = [(seen.iteration, measure(problem, seen.values()).gradient_norm_squared ** 0.5) for seen in snapshots]
                table.add(DigitsRow(*one, *row) for row in rows)
                progress(1)
    return table.rows


def _stored(table: tables.Table, found: list[tuple], names: set[tuple], each: Callable[[tuple], int]) -> set[tuple]:
    """Return the names of the runs in a table, having checked that each is whole."""
    for name, count in Counter(found).items():
        if name not in names or count != each(name):
            raise StudyError(
                f"{table.path} is damaged: it has {count} rows of a run {', '.join(map(str, name))}, which are none or "
                "incomplete; choose another --out, or set the old one aside with --fresh"
            )
    return set(found)


def set_aside(folder: Path | str) -> Path | None:
    """Rename the folder of one of the two studies to a dated name: see :func:`intnet.files.set_aside`."""
    return tables.set_aside(folder, (*CONVEX_FILES, *DIGITS_FILES))
