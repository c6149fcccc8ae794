"""Convex problems in integers, and stochastic gradient descent on many of them at once, with the exact average of the weights.

Two problems, least squares and softmax regression with weight decay, as SWALP studies them (Yang et al. 2019,
arXiv:1904.11943, sec. 5.1): inputs and products are exact, and the weights alone are rounded, stochastically, after every step
of one sample. The sums of the weights are kept beside them, so that the average of any run is a rational number that is known
exactly. Runs are independent and are trained in parallel threads; their bits do not depend on that.

The rule of one iteration is written out in :mod:`intnet.kernels.plain.regression`.
"""

import functools
import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError
from intnet.formats import Fixed
from intnet.jobs import available_cores, in_threads
from intnet.optimizers import Factor
from intnet.random import seed_words

ITERATIONS_MAX = 2**32 - 1
_EXPONENT_MAX = 62  # of inputs and targets, in magnitude
_INT64 = 2**63
_LOGIT_BITS = 62  # what the softmax takes
_MEND = "take a narrower word, coarser inputs or a rate of fewer bits, such as 2^-10"
_CHUNK = 2**21  # weights moved between two looks at whether to stop


# 1. Problems ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """Half the squared error of ``x w - y``, averaged over the samples.

    Parameters
    ----------
    inputs : (samples, features) int8 or int16
        x is ``inputs * 2**input_exponent``. Kept as int16, read-only.
    input_exponent : int, -62..62
    targets : (samples,) integers
        y is ``targets * 2**target_exponent``. Kept as int64, read-only.
    target_exponent : int, -62..62

    Raises
    ------
    InputError
        If a type, shape or exponent is not one of these, or there is no sample.
    """

    inputs: NDArray[np.int16]
    input_exponent: int
    targets: NDArray[np.int64]
    target_exponent: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", _inputs(self.inputs))
        object.__setattr__(self, "targets", _column("targets", self.targets, len(self.inputs)))
        for name in ("input_exponent", "target_exponent"):
            object.__setattr__(self, name, in_range(name, getattr(self, name), -_EXPONENT_MAX, _EXPONENT_MAX))

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weights: one row of features."""
        return 1, self.inputs.shape[1]

    @functools.cached_property
    def magnitudes(self) -> tuple[int, int]:
        """The largest integer of `inputs` and the largest sum of a sample's, both in magnitude and at least 1."""
        return _magnitudes(self.inputs)


@dataclass(frozen=True, eq=False)
class SoftmaxRegression:
    """The softmax cross-entropy of ``w x``, averaged over the samples, plus ``decay / 2`` times the sum of all w squared.

    Parameters
    ----------
    inputs : (samples, features) int8 or int16
        x is ``inputs * 2**input_exponent``; a bias is a column of ones. Kept as int16, read-only.
    input_exponent : int, -62..62
    labels : (samples,) integers, 0..classes - 1
        Kept as int64, read-only.
    classes : int, 2..2**20
    decay : Factor or what `Factor.of` takes

    Raises
    ------
    InputError
        If a type, shape, label or number is not one of these, or there is no sample.
    """

    inputs: NDArray[np.int16]
    input_exponent: int
    labels: NDArray[np.int64]
    classes: int
    decay: Factor

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", _inputs(self.inputs))
        object.__setattr__(self, "labels", _column("labels", self.labels, len(self.inputs)))
        object.__setattr__(self, "classes", in_range("classes", self.classes, 2, 2**20))
        if self.labels.min() < 0 or self.labels.max() >= self.classes:
            raise InputError(f"labels must be in 0..{self.classes - 1}, got {self.labels.min()}..{self.labels.max()}")
        exponent = in_range("input_exponent", self.input_exponent, -_EXPONENT_MAX, _EXPONENT_MAX)
        object.__setattr__(self, "input_exponent", exponent)
        object.__setattr__(self, "decay", Factor.of(self.decay))

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weights: a row of features a class."""
        return self.classes, self.inputs.shape[1]

    @functools.cached_property
    def magnitudes(self) -> tuple[int, int]:
        """The largest integer of `inputs` and the largest sum of a sample's, both in magnitude and at least 1."""
        return _magnitudes(self.inputs)


Problem = LeastSquares | SoftmaxRegression


def _inputs(given: Any) -> NDArray[np.int16]:
    array = np.asarray(given)
    if array.ndim != 2 or not array.size or array.dtype not in (np.int8, np.int16) or len(array) >= 2**31:
        raise InputError(
            "inputs must be a non-empty array (samples, features) of int8 or int16 with fewer than 2**31 samples, "
            f"got shape {array.shape} of {array.dtype}"
        )
    return _frozen(array, np.int16)


def _column(name: str, given: Any, samples: int) -> NDArray[np.int64]:
    array = np.asarray(given)
    if array.shape != (samples,) or array.dtype.kind not in "iu" or array.dtype == np.uint64:
        raise InputError(f"{name} must be {samples} integers of up to 64 bits, signed, got {array.dtype} of {array.shape}")
    return _frozen(array, np.int64)


def _frozen(array: NDArray, kind: Any) -> NDArray:
    """Return a copy that nobody can change: what was proven of it stays true."""
    kept = np.array(array, kind, order="C")
    kept.setflags(write=False)
    return kept


def _magnitudes(inputs: NDArray[np.int16]) -> tuple[int, int]:
    magnitudes = np.abs(inputs.astype(np.int32))
    return max(1, int(magnitudes.max())), max(1, int(magnitudes.sum(axis=1, dtype=np.int64).max()))


def in_range(name: str, value: object, low: int, high: int) -> int:
    """Return an integer of a range, or raise `InputError` naming what it was given for."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"{name} must be an integer in {low}..{high}, got {value!r}") from None
    if isinstance(value, (bool, np.bool_)) or not low <= number <= high:
        raise InputError(f"{name} must be an integer in {low}..{high}, got {value!r}")
    return number


# 2. Runs ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One training.

    Parameters
    ----------
    format : Fixed or str
        Of the weights, signed.
    seed : int, 0..2**64 - 1
        Of the samples and of the rounding.

    Raises
    ------
    InputError
        If an argument is none of these.
    """

    format: Any
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", Fixed.parse(self.format))
        if not self.format.signed:
            raise InputError(f"weights need a sign, got {self.format}; take a signed format")
        object.__setattr__(self, "seed", in_range("seed", self.seed, 0, 2**64 - 1))


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A run after so many iterations.

    Attributes
    ----------
    run : Run
    iteration : int
        Iterations done.
    weights : (rows, features) int64
        Raw integers.
    sums : (rows, features) int64
        Of the raw integers after each of the last `count` iterations.
    count : int
    saturations : int
        How often a weight did not fit into its word until now.
    """

    run: Run
    iteration: int
    weights: NDArray[np.int64]
    sums: NDArray[np.int64]
    count: int
    saturations: int

    def values(self) -> NDArray[np.float64]:
        """Return the weights as real numbers, each the nearest float64."""
        return mean_values(self.weights, 1, self.run.format.fraction_bits)

    def mean(self) -> NDArray[np.object_]:
        """Return the average of the weights, exactly, as an array of `Fraction`.

        Raises
        ------
        InputError
            If averaging has not begun.
        """
        self._check()
        unit = self.count * Fraction(2) ** self.run.format.fraction_bits
        return np.array([value / unit for value in self.sums.ravel().tolist()], object).reshape(self.sums.shape)

    def mean_values(self) -> NDArray[np.float64]:
        """Return the average of the weights, each the float64 nearest to the exact one.

        Raises
        ------
        InputError
            If averaging has not begun.
        """
        self._check()
        return mean_values(self.sums, self.count, self.run.format.fraction_bits)

    def _check(self) -> None:
        if not self.count:
            raise InputError(f"there is no average after {self.iteration} iterations; it begins later")


def mean_values(sums: NDArray[np.int64], count: int, fraction_bits: int) -> NDArray[np.float64]:
    """Return ``sums / (count * 2**fraction_bits)`` as float64, each the nearest to the exact quotient.

    >>> mean_values(np.array([1, -2**62 - 1]), 3, 0).tolist()
    [0.3333333333333333, -1.5372286728091292e+18]
    """
    shift, below = max(-fraction_bits, 0), count << max(fraction_bits, 0)
    # Python's quotient of two integers is rounded once, whatever their size.
    quotients = [(value << shift) / below for value in sums.ravel().tolist()]
    return np.array(quotients, np.float64).reshape(sums.shape)


# 3. Bounds --------------------------------------------------------------------------------------------------------------


class _Plan(NamedTuple):
    """A kernel, and what it takes before the limits of the word."""

    kernel: Callable
    data: tuple
    constants: tuple[int, ...]

    def advance(
        self, run: Run, first: int, count: int, averaging_start: int, weights: NDArray[np.int64], sums: NDArray[np.int64]
    ) -> int:
        """Do iterations of a run, and return how often a weight saturated."""
        numbers = (*self.constants, run.format.minimum, run.format.maximum)
        span = (first, count, averaging_start)
        fixed = (*map(np.int64, numbers), *seed_words(run.seed), *map(np.int64, span))
        return int(self.kernel(*self.data, *fixed, weights, sums))


def plan(problem: Problem, form: Fixed, rate: Factor) -> _Plan:
    """Return how a problem is trained in a format, having proven that nothing leaves int64.

    The proof takes the largest input, target and sum of a sample's magnitudes, the word and the rate; it holds for any number
    of iterations.

    Raises
    ------
    InputError
        If something could leave int64.
    """
    return _plan_least_squares(problem, form, rate) if isinstance(problem, LeastSquares) else _plan_softmax(problem, form, rate)


def _plan_least_squares(problem: LeastSquares, form: Fixed, rate: Factor) -> _Plan:
    (widest, largest_sum), weight = problem.magnitudes, -form.minimum
    target = max(1, abs(int(problem.targets.min())), abs(int(problem.targets.max())))
    of_product, of_target = problem.input_exponent - form.fraction_bits, problem.target_exponent
    common = min(of_product, of_target)
    product_left, target_left = of_product - common, of_target - common
    residual = (largest_sum * weight << product_left) + (target << target_left)
    _prove("a residual", residual, form, rate)
    # the move has the exponent common + input_exponent - rate.shift; in units of the weights it is to be shifted right by
    right = rate.shift - form.fraction_bits - common - problem.input_exponent
    by_input = rate.mantissa << max(-right, 0)
    _prove("a move", by_input * residual * widest, form, rate)
    _prove_sum(by_input * residual * widest >> max(right, 0), weight, form, rate)
    constants = (product_left, target_left, -by_input, max(right, 0))
    return _Plan(kernels.least_squares_sgd, (problem.inputs, problem.targets), constants)


def _plan_softmax(problem: SoftmaxRegression, form: Fixed, rate: Factor) -> _Plan:
    (widest, largest_sum), weight = problem.magnitudes, -form.minimum
    if largest_sum * weight >= 1 << _LOGIT_BITS:
        raise InputError(_refusal("a logit", largest_sum * weight, _LOGIT_BITS, form, rate))
    shrink = shrinking(problem, rate)
    of_error = problem.input_exponent - kernels.SOFTMAX_FRACTION_BITS - rate.shift
    of_decay = -form.fraction_bits - shrink.shift
    common = min(of_error, of_decay) if shrink.mantissa else of_error
    right = -form.fraction_bits - common
    by_input = rate.mantissa << (of_error - common + max(-right, 0))
    by_weight = shrink.mantissa << (of_decay - common + max(-right, 0)) if shrink.mantissa else 0
    error = (1 << kernels.SOFTMAX_FRACTION_BITS) + problem.classes  # shares are rounded, and the label's makes up for all
    move = by_input * error * widest + by_weight * weight
    _prove("a move", move, form, rate)
    _prove_sum(move >> max(right, 0), weight, form, rate)
    exponent = problem.input_exponent - form.fraction_bits
    return _Plan(kernels.softmax_sgd, (problem.inputs, problem.labels), (exponent, -by_input, -by_weight, max(right, 0)))


def shrinking(problem: SoftmaxRegression, rate: Factor) -> Factor:
    """Return the factor that every weight loses in a step: rate times decay, the nearest with a mantissa of 15 bits."""
    return rate.times(problem.decay.exact)


def _prove(what: str, largest: int, form: Fixed, rate: Factor) -> None:
    if largest >= _INT64:
        raise InputError(_refusal(what, largest, 63, form, rate))


def _prove_sum(rounded: int, weight: int, form: Fixed, rate: Factor) -> None:
    _prove("a weight before it saturates", rounded + 1 + weight, form, rate)


def _refusal(what: str, largest: int, allowed: int, form: Fixed, rate: Factor) -> str:
    return (
        f"{what} may reach {largest.bit_length()} bits with {form} and a rate of {rate}, "
        f"and must stay within {allowed}; {_MEND}"
    )


def check_sums(form: Fixed, count: int) -> None:
    """Raise `InputError` unless the sum of so many weights of a format is an int64 in any case."""
    if -form.minimum * count >= _INT64:
        raise InputError(
            f"the sum of {count} weights of {form} may reach {(-form.minimum * count).bit_length()} bits, and must stay within "
            "63; take a narrower word or average over fewer iterations"
        )


# 4. Training ------------------------------------------------------------------------------------------------------------


def train_sgd(
    problem: Problem,
    runs: Iterable[Run],
    rate: Any,
    iterations: int,
    averaging_start: int,
    snapshots: Sequence[int] | None = None,
    *,
    threads: int | None = None,
) -> Iterator[list[Snapshot]]:
    """Train every run and yield its snapshots when it has ended, in no particular order of runs.

    Weights start at 0. Iteration t, counted from 0, takes one sample, drawn with replacement by the seed of the run, and moves
    the weights by ``rate`` times its gradient. Runs of one seed see the same samples in the same order, in every format.

    Parameters
    ----------
    problem : LeastSquares or SoftmaxRegression
    runs : iterable of Run
    rate : Factor or what `Factor.of` takes
    iterations : int, 1..2**32 - 1
    averaging_start : int, 0..iterations - 1
        So many iterations are done before the first whose weights are averaged.
    snapshots : sequence of int, optional
        After how many iterations to look, 1..iterations; by default at the end alone.
    threads : int, optional
        How many runs are trained at the same time; by default one a processor core. The results are the same.

    Yields
    ------
    list of Snapshot
        Of one run, in the order of iterations.

    Raises
    ------
    InputError
        If an argument is outside what is allowed, or a number could leave int64.
    """
    runs, rate = list(runs), Factor.of(rate)
    for run in runs:
        if not isinstance(run, Run):
            raise InputError(f"a run must be Run(format, seed), got {run!r}")
    iterations = in_range("iterations", iterations, 1, ITERATIONS_MAX)
    averaging_start = in_range("averaging_start", averaging_start, 0, iterations - 1)
    looks = [iterations] if snapshots is None else [in_range("a snapshot", at, 1, iterations) for at in snapshots]
    looks = sorted(set(looks))
    if not looks:
        raise InputError("there must be a snapshot, got none; leave them out for one at the end")
    threads = available_cores() if threads is None else in_range("threads", threads, 1, 2**16)
    plans = {}
    for run in runs:
        if run.format not in plans:
            plans[run.format] = plan(problem, run.format, rate)
            check_sums(run.format, looks[-1] - averaging_start)
    jobs = ((run, plans[run.format], problem.shape, averaging_start, looks) for run in runs)
    return in_threads(_train_run, jobs, threads)


def _train_run(
    run: Run, how: _Plan, shape: tuple[int, int], averaging_start: int, looks: list[int], stop: threading.Event
) -> list[Snapshot]:
    weights, sums = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    chunk = max(1, _CHUNK // weights.size)
    done, saturations, seen = 0, 0, []
    for look in looks:
        while done < look:
            if stop.is_set():
                return []
            count = min(chunk, look - done)
            saturations += how.advance(run, done, count, averaging_start, weights, sums)
            done += count
        averaged = max(0, done - averaging_start)
        seen.append(Snapshot(run, done, weights.copy(), sums.copy(), averaged, saturations))
    return seen
