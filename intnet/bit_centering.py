"""Variance-reduced gradient descent on many convex problems at once: SVRG on a grid of its own, and HALP on one that follows.

The problems are those of :mod:`intnet.regression`: inputs and targets are exact integers. Three ways to train them (De Sa et
al. 2018, arXiv:1803.03383, sec. 2 and 3), by a run:

- ``SVRG("fxp-s48/40", period)``: SVRG, in words so wide that their rounding is not seen.
- ``SVRG("fxp-s8/0", period)``: LP-SVRG, with weights on a fixed grid.
- ``HALP(BitCentering(bits, mu, period))``: offsets of few bits from a wide centre, on a grid that follows the gradient.

The rule of one iteration is written out in :mod:`intnet.kernels.plain.halp`, that of the grid in
:mod:`intnet.optimizers.halp`. Runs are independent and are trained in parallel threads; their bits do not depend on that.

1. Runs          SVRG, HALP, CentredSnapshot
2. Bounds        what is proven before a run begins
3. Training      train_svrg
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.arithmetic import quotient
from intnet.errors import InputError
from intnet.formats import Fixed, Rounding
from intnet.jobs import available_cores, in_threads
from intnet.optimizers import BitCentering, Factor, Scale
from intnet.optimizers.halp import CENTRE, check_rounding, descent, recentre
from intnet.optimizers.svrg import check_period
from intnet.random import seed_words
from intnet.regression import ITERATIONS_MAX, LeastSquares, Problem, SoftmaxRegression, in_range, mean_values

FRACTION_BITS_MAX, FRACTION_BITS_MIN = 48, 8
"""Bits of a move below the unit of the weights: as many as are proven to fit, at most and at least."""

_LIMIT = 2**62  # of every number of a step
_WORD_MAX = 62  # bits of weights and centres
_SUM_MAX = 2**31  # samples times the largest input
_ADDED_MAX = 32  # bits of a softmax gradient below the softmax's own
_CHUNK = 2**21  # weights moved between two looks at whether to stop


# 1. Runs ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SVRG:
    """A training by SVRG: weights and centre on one fixed grid.

    Parameters
    ----------
    format : Fixed or str
        Of the weights, signed, of up to 62 bits.
    period : int, 1..2**32 - 1
        Steps between two full gradients, T.
    rounding : {"stochastic", "ties_pos"}
    seed : int, 0..2**64 - 1
        Of the samples and of the rounding.

    Raises
    ------
    InputError
        If an argument is none of these.
    """

    format: Any
    period: int
    rounding: Any = Rounding.STOCHASTIC
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", _wide(self.format))
        object.__setattr__(self, "period", check_period(self.period))
        object.__setattr__(self, "rounding", check_rounding(self.rounding))
        object.__setattr__(self, "seed", in_range("seed", self.seed, 0, 2**64 - 1))


@dataclass(frozen=True)
class HALP:
    """A training by HALP: SVRG with bit centering.

    Parameters
    ----------
    centering : BitCentering
    centre : Fixed or str
        The format of the centre, signed, of up to 62 bits.
    seed : int, 0..2**64 - 1
        Of the samples and of the rounding.

    Raises
    ------
    InputError
        If an argument is none of these.
    """

    centering: BitCentering
    centre: Any = CENTRE
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.centering, BitCentering):
            raise InputError(f"HALP takes a BitCentering, got {self.centering!r}")
        object.__setattr__(self, "centre", _wide(self.centre))
        object.__setattr__(self, "seed", in_range("seed", self.seed, 0, 2**64 - 1))

    @property
    def period(self) -> int:
        """Steps between two centres."""
        return self.centering.period

    @property
    def rounding(self) -> Rounding:
        """How offsets are rounded."""
        return self.centering.rounding


CentredRun = SVRG | HALP


def _wide(form: Any) -> Fixed:
    form = Fixed.parse(form)
    if not form.signed or form.word_bits > _WORD_MAX:
        raise InputError(f"weights and centres must be signed and have up to {_WORD_MAX} bits, got {form}")
    return form


@dataclass(frozen=True, eq=False)
class CentredSnapshot:
    """A run after so many iterations.

    Attributes
    ----------
    run : SVRG or HALP
    iteration : int
        Iterations done.
    weights : (rows, features) int64
        Raw integers of the run's format; of HALP, what the centre would be if it were moved now.
    saturations : int
        How often a weight, an offset or a centre did not fit into its word until now.
    ended : bool
        The full gradient of HALP was zero, and the run ended there.
    """

    run: CentredRun
    iteration: int
    weights: NDArray[np.int64]
    saturations: int
    ended: bool

    def values(self) -> NDArray[np.float64]:
        """Return the weights as real numbers, each the nearest float64."""
        form = self.run.format if isinstance(self.run, SVRG) else self.run.centre
        return mean_values(self.weights, 1, form.fraction_bits)


# 2. Bounds --------------------------------------------------------------------------------------------------------------


class _Grid(NamedTuple):
    """What of a run decides whether a number can leave int64.

    Attributes
    ----------
    form : Fixed
        Of the centre.
    minimum, maximum : int
        Of the word that moves.
    distance : int
        The most that a weight is away from its centre, in the moving word's units.
    mu_box : Fraction or None
        ``norm(g) / s``, of a scale that follows; None of a fixed grid.
    """

    form: Fixed
    minimum: int
    maximum: int
    distance: int
    mu_box: Fraction | None

    @classmethod
    def of(cls, run: CentredRun) -> "_Grid":
        if isinstance(run, SVRG):
            form = run.format
            return cls(form, form.minimum, form.maximum, -2 * form.minimum, None)
        how = run.centering
        box = how.mu.exact * how.maximum * (1 + Fraction(1, 2**10))  # more than the scale can be off
        return cls(run.centre, how.minimum, how.maximum, -how.minimum, box)

    @property
    def word_bits(self) -> int:
        return (self.maximum + 1).bit_length()


class _Sums(NamedTuple):
    """A full gradient, ``integers * 2**exponent / samples``."""

    integers: NDArray[np.int64]
    exponent: int


def _two_to(power: int) -> Fraction:
    return Fraction(2) ** power


def _most_bits(most: int, least: int, fits: Callable[[int], bool], refusal: str) -> int:
    for bits in range(most, least - 1, -1):
        if fits(bits):
            return bits
    raise InputError(refusal)


class _LeastSquaresSteps:
    """Steps on least squares, proven to stay in int64.

    The proof takes the largest input, target and sum of a sample's magnitudes, the words, the rate and mu; it holds for any
    number of iterations.
    """

    def __init__(self, problem: LeastSquares, grid: _Grid, rate: Factor) -> None:
        (widest, largest_sum), form = problem.magnitudes, grid.form
        of_product, of_target = problem.input_exponent - form.fraction_bits, problem.target_exponent
        self.common = min(of_product, of_target)
        self.lefts = (of_product - self.common, of_target - self.common)
        target = max(1, abs(int(problem.targets.min())), abs(int(problem.targets.max())))
        residual = (largest_sum * -form.minimum << self.lefts[0]) + (target << self.lefts[1])
        _prove("a residual", residual, 2**63, form)
        _prove("samples times the largest input", widest * len(problem.inputs), _SUM_MAX, form)
        dot = largest_sum * grid.distance
        _prove("an inner product", dot, _LIMIT, form)
        self.rate = rate.exact * _two_to(2 * problem.input_exponent)  # of integers
        gradient = residual * widest * _two_to(self.common + problem.input_exponent + form.fraction_bits)
        ahead = rate.exact * (gradient if grid.mu_box is None else grid.mu_box)  # in units of the weights
        step = self.rate * dot * widest + ahead

        def fits(bits: int) -> bool:
            return step * _two_to(bits) + widest + 1 < _LIMIT

        self.fraction_bits = _most_bits(FRACTION_BITS_MAX, FRACTION_BITS_MIN, fits, _too_large("a move", grid, rate))
        self.right = rate.shift - 2 * problem.input_exponent - self.fraction_bits
        self.problem, self.grid, self.mantissa = problem, grid, rate.mantissa
        self._words = np.empty((2, *problem.shape), np.int64)

    def full_gradient(self, centre: NDArray[np.int64]) -> _Sums:
        """Return the sum of all samples' gradients: exact in two words, then to nearest with 61 bits or more."""
        (high, low), total = self._words, np.empty_like(centre)
        product_left, target_left = map(np.int64, self.lefts)
        kernels.least_squares_full_gradient(
            self.problem.inputs, self.problem.targets, product_left, target_left, centre, high, low
        )
        shift = int(kernels.join_gradient(high, low, total))
        return _Sums(total, self.common + self.problem.input_exponent + shift)

    def advance(
        self, run: CentredRun, unit: Scale, centre: NDArray, direction: NDArray, first: int, count: int, weights: NDArray
    ) -> int:  # fmt: skip
        """Do iterations, and return how many weights saturated. The move of a sample is the same in any unit."""
        del unit
        kernel: Callable = kernels.least_squares_svrg
        numbers = (self.mantissa, self.right, self.fraction_bits, self.grid.minimum, self.grid.maximum)
        data = (self.problem.inputs, centre, direction)
        return int(kernel(*data, *map(np.int64, numbers), *_sequence(run, first, count), weights))


class _SoftmaxSteps:
    """Steps on softmax regression with decay, proven to stay in int64; see `_LeastSquaresSteps`."""

    def __init__(self, problem: SoftmaxRegression, grid: _Grid, rate: Factor) -> None:
        (widest, largest_sum), form, fraction = problem.magnitudes, grid.form, kernels.SOFTMAX_FRACTION_BITS
        samples, decay = len(problem.inputs), problem.decay
        _prove("a logit", largest_sum * -form.minimum, kernels.LOGIT_LIMIT, form)
        dot = largest_sum * grid.distance
        _prove("an inner product", dot, _LIMIT, form)
        error_sum = widest * samples << fraction
        decay_sum = samples * decay.exact * -form.minimum * _two_to(fraction - problem.input_exponent - form.fraction_bits)

        def sum_fits(bits: int) -> bool:
            return (error_sum + decay_sum) * _two_to(bits) + 1 < _LIMIT

        self.left = _most_bits(_ADDED_MAX, 0, sum_fits, _too_large("a sum of gradients", grid, rate))
        self.sum_exponent = problem.input_exponent - fraction - self.left
        self.decay = (samples * decay.mantissa, decay.shift + form.fraction_bits + self.sum_exponent)
        # in units of the weights; an error is at most 1, and a difference of two at most 2
        by_offset = rate.exact * decay.exact
        error = 2 * rate.exact * widest * _two_to(problem.input_exponent + form.fraction_bits)
        ahead = error / 2 + by_offset * -form.minimum if grid.mu_box is None else rate.exact * grid.mu_box
        still = by_offset * grid.distance + ahead

        def fits(bits: int) -> bool:
            limit, rest = self._limit(widest, still, bits)
            largest = error * _two_to(bits) + widest if grid.mu_box is None else None
            # either no product reaches the limit, or all that do saturate the weight, whatever the rest
            return limit * widest > largest if largest is not None else limit - rest > 2 ** (bits + grid.word_bits + 1)

        self.fraction_bits = _most_bits(FRACTION_BITS_MAX, FRACTION_BITS_MIN, fits, _too_large("a move", grid, rate))
        self.limit = self._limit(widest, still, self.fraction_bits)[0]
        self.by_offset = round(by_offset * _two_to(self.fraction_bits))
        self.problem, self.grid, self.rate = problem, grid, rate
        self._logits = np.zeros((samples, problem.classes), np.int64)
        self._errors = np.zeros((samples, problem.classes), np.int32)

    @staticmethod
    def _limit(widest: int, still: Fraction, bits: int) -> tuple[int, int]:
        """Return the most that an input may be multiplied by, beside all that is not of the sample, and that."""
        rest = ceil(still * _two_to(bits)) * 2 + 2  # factors are rounded: twice is more than enough
        return floor(Fraction(_LIMIT - rest, widest)), rest

    def full_gradient(self, centre: NDArray[np.int64]) -> _Sums:
        """Return the sum of all samples' gradients, the decay's part rounded to nearest; keep logits and errors of each."""
        total = np.empty_like(centre)
        self.logit_exponent = self.problem.input_exponent - self.grid.form.fraction_bits
        kernel: Callable = kernels.softmax_full_gradient
        numbers = map(np.int64, (self.logit_exponent, self.left, *self.decay))
        kernel(self.problem.inputs, self.problem.labels, *numbers, centre, self._logits, self._errors, total)
        return _Sums(total, self.sum_exponent)

    def advance(
        self, run: CentredRun, unit: Scale, centre: NDArray, direction: NDArray, first: int, count: int, weights: NDArray
    ) -> int:  # fmt: skip
        """Do iterations from the centre whose gradient was taken last, and return how many weights saturated."""
        mantissa, power = map(int, quotient(np.int64(self.rate.mantissa), np.int64(unit.mantissa), np.int64(31)))
        of_error = self.problem.input_exponent - kernels.SOFTMAX_FRACTION_BITS
        right = self.rate.shift + unit.exponent - power - of_error - self.fraction_bits
        of_logits = (self.logit_exponent, unit.mantissa, -(unit.exponent + self.grid.form.fraction_bits))
        numbers = (mantissa, right, self.limit, -self.by_offset, self.fraction_bits, self.grid.minimum, self.grid.maximum)
        data = (self.problem.inputs, self.problem.labels, self._logits, self._errors, *map(np.int64, of_logits))
        kernel: Callable = kernels.softmax_svrg
        return int(kernel(*data, centre, direction, *map(np.int64, numbers), *_sequence(run, first, count), weights))


def _sequence(run: CentredRun, first: int, count: int) -> tuple:
    stochastic = np.int64(run.rounding is Rounding.STOCHASTIC)
    return stochastic, *seed_words(run.seed), np.int64(first), np.int64(count)


def _prove(what: str, largest: int, limit: int, form: Fixed) -> None:
    if largest >= limit:
        raise InputError(
            f"{what} may reach {largest.bit_length()} bits with {form}, and must stay within {limit.bit_length() - 1}; "
            "take a narrower word or coarser inputs"
        )


def _too_large(what: str, grid: _Grid, rate: Factor) -> str:
    return (
        f"{what} may leave 62 bits with {grid.form}, offsets of {grid.word_bits} bits and a rate of {rate}; "
        "take a narrower word, coarser inputs, a lower rate or a smaller mu"
    )


def _steps(problem: Problem, run: CentredRun, rate: Factor) -> _LeastSquaresSteps | _SoftmaxSteps:
    kind = _LeastSquaresSteps if isinstance(problem, LeastSquares) else _SoftmaxSteps
    return kind(problem, _Grid.of(run), rate)  # type: ignore[arg-type]


# 3. Training ------------------------------------------------------------------------------------------------------------


def train_svrg(
    problem: Problem,
    runs: Iterable[CentredRun],
    rate: Any,
    iterations: int,
    snapshots: Sequence[int] | None = None,
    *,
    threads: int | None = None,
) -> Iterator[list[CentredSnapshot]]:
    """Train every run and yield its snapshots when it has ended, in no particular order of runs.

    Weights start at 0. Before iteration 0 and every `period` further ones, the full gradient at the last weights is taken, the
    centre; it is no iteration. Runs of one seed see the same samples in the same order as those of
    :func:`intnet.regression.train_sgd`, whatever they are.

    Parameters
    ----------
    problem : LeastSquares or SoftmaxRegression
    runs : iterable of SVRG or HALP
    rate : Factor or what `Factor.of` takes, greater than 0
    iterations : int, 1..2**32 - 1
    snapshots : sequence of int, optional
        After how many iterations to look, 1..iterations; by default at the end alone.
    threads : int, optional
        How many runs are trained at the same time; by default one a processor core. The results are the same.

    Yields
    ------
    list of CentredSnapshot
        Of one run, in the order of iterations.

    Raises
    ------
    InputError
        If an argument is outside what is allowed, a number could leave int64, or a scale leaves its range.
    """
    runs, rate = list(runs), Factor.of(rate)
    for run in runs:
        if not isinstance(run, CentredRun):
            raise InputError(f"a run must be SVRG(format, period) or HALP(BitCentering(bits, mu, period)), got {run!r}")
    if not rate.mantissa:
        raise InputError("the rate must be greater than 0, got 0")
    iterations = in_range("iterations", iterations, 1, ITERATIONS_MAX)
    looks = [iterations] if snapshots is None else sorted({in_range("a snapshot", at, 1, iterations) for at in snapshots})
    if not looks:
        raise InputError("there must be a snapshot, got none; leave them out for one at the end")
    threads = available_cores() if threads is None else in_range("threads", threads, 1, 2**16)
    for run in {(type(run), _Grid.of(run)): run for run in runs}.values():
        _steps(problem, run, rate)  # refuses what cannot be trained before anything is
    return in_threads(_train_run, ((problem, run, rate, looks) for run in runs), threads)


class _State:
    """A run as it stands: the centre, what the grid is now, and the weights, which are offsets from the centre in HALP."""

    def __init__(self, problem: Problem, run: CentredRun, rate: Factor) -> None:
        self.run, self.rate, self.samples = run, rate, len(problem.inputs)
        self.steps = _steps(problem, run, rate)
        self.centre, self.weights = np.zeros(problem.shape, np.int64), np.zeros(problem.shape, np.int64)
        self.zeros, self.direction = np.zeros(problem.shape, np.int64), np.zeros(problem.shape, np.int64)
        self.unit: Scale | None = None
        self.iteration = self.saturations = 0
        self.ended = False

    def move_centre(self) -> None:
        """Bring the centre to the last weights, and take its gradient, and a scale that fits it."""
        if isinstance(self.run, SVRG):
            self.centre[...] = self.weights
        elif self.unit is not None:
            self.saturations += recentre(self.centre, self.weights, self.unit, self.run.centre)
            self.weights[...] = 0
        gradient, exponent = self.steps.full_gradient(self.centre)
        if isinstance(self.run, SVRG):
            self.unit = Scale(1, -self.run.format.fraction_bits)
        else:
            self.unit = self.run.centering.scale_of(gradient, exponent, self.samples)
        if self.unit is None:
            self.ended = True
        else:
            bits = self.steps.fraction_bits
            self.direction = descent(gradient, exponent, self.samples, self.rate, self.unit, bits)

    def advance(self, count: int) -> None:
        """Do iterations, of one period."""
        assert self.unit is not None
        origin = self.centre if isinstance(self.run, SVRG) else self.zeros
        self.saturations += self.steps.advance(
            self.run, self.unit, origin, self.direction, self.iteration, count, self.weights
        )  # fmt: skip
        self.iteration += count

    def snapshot(self, iteration: int) -> CentredSnapshot:
        weights, saturations = self.weights.copy(), self.saturations
        if isinstance(self.run, HALP):
            weights = self.centre.copy()
            if self.unit is not None:
                saturations += recentre(weights, self.weights, self.unit, self.run.centre)
        return CentredSnapshot(self.run, iteration, weights, saturations, self.ended)


def _train_run(
    problem: Problem, run: CentredRun, rate: Factor, looks: list[int], stop: threading.Event
) -> list[CentredSnapshot]:  # fmt: skip
    state, seen = _State(problem, run, rate), []
    chunk = max(1, _CHUNK // state.weights.size)
    for look in looks:
        while state.iteration < look and not state.ended:
            if stop.is_set():
                return []
            in_period = state.iteration % run.period
            if not in_period:
                state.move_centre()
            if not state.ended:
                state.advance(min(chunk, look - state.iteration, run.period - in_period))
        seen.append(state.snapshot(look))
    return seen
