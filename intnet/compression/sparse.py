"""Sparse optimization in fixed point: what makes weights zero, and least squares on which to see it.

All numbers are integers that stand for multiples of ``2**-f``. The least-squares loss and its gradient are exact; a step rounds
once, the move, to nearest, ties away from zero.

References
----------
Parikh and Boyd 2014, Proximal Algorithms, Foundations and Trends in Optimization 1 (soft thresholding: sec. 6.5.2). Yun et al.
2019, Trimming the l1 Regularizer, ICML (penalty on the smallest entries alone).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intnet import kernels
from intnet.errors import InputError

METHODS = ("gd", "projected", "l1", "proximal", "trimmed")
"""Plain descent; with all but the largest set to zero; with a subgradient of the L1 norm; with a soft threshold; with one of
the smallest alone."""

Integers = NDArray[np.int64]
_MOST = 2**61


def smallest(values: ArrayLike, count: int) -> NDArray[np.bool_]:
    """Tell which `count` of the values have the smallest magnitudes; of equal ones the later.

    >>> smallest([3, -1, 2, 1], 2).tolist()
    [False, True, False, True]
    """
    given = _integers(values)
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 0 <= count <= given.size:
        raise InputError(f"of {given.size} values 0..{given.size} are chosen, got {count!r}")
    order = np.argsort(-np.abs(given.reshape(-1)), kind="stable")
    chosen = np.zeros(given.size, np.bool_)
    chosen[order[given.size - int(count) :]] = True
    return chosen.reshape(given.shape)


def project(values: ArrayLike, keep: int) -> Integers:
    """Return the values with all but `keep` of the largest magnitudes set to zero; of equal ones the earlier are kept.

    >>> project([3, -1, 2, 1], 2).tolist()
    [3, 0, 2, 0]
    """
    given = _integers(values)
    if isinstance(keep, bool) or not isinstance(keep, (int, np.integer)) or not 0 <= keep <= given.size:
        raise InputError(f"of {given.size} values 0..{given.size} can be kept, got {keep!r}")
    return np.where(smallest(given, given.size - int(keep)), np.int64(0), given)


def soft_threshold(values: ArrayLike, threshold: int) -> Integers:
    """Return the values, each nearer to zero by a threshold, in the same units, or zero.

    >>> soft_threshold([3, -1, 2, -5], 2).tolist()
    [1, 0, 0, -3]
    """
    given = _integers(values)
    return _shrunk(given, threshold, np.ones(given.shape, np.bool_))


def trimmed_threshold(values: ArrayLike, threshold: int, keep: int) -> Integers:
    """Return the values soft-thresholded, but for `keep` of the largest magnitudes, which stay as they are.

    >>> trimmed_threshold([3, -1, 2, -5], 2, 2).tolist()
    [3, 0, 0, -5]
    """
    given = _integers(values)
    if isinstance(keep, bool) or not isinstance(keep, (int, np.integer)) or not 0 <= keep <= given.size:
        raise InputError(f"of {given.size} values 0..{given.size} can be kept, got {keep!r}")
    return _shrunk(given, threshold, smallest(given, given.size - int(keep)))


def _shrunk(given: Integers, threshold: Any, chosen: NDArray[np.bool_]) -> Integers:
    if isinstance(threshold, bool) or not isinstance(threshold, (int, np.integer)) or not 0 <= threshold <= 2**62:
        raise InputError(f"a threshold is an integer in 0..2**62, in units of the values, got {threshold!r}")
    out = np.empty(given.size, np.int64)
    kernels.shrink(np.ascontiguousarray(given.reshape(-1)), np.int64(threshold), chosen.reshape(-1), out)
    return out.reshape(given.shape)


def _integers(values: ArrayLike) -> Integers:
    given = np.asarray(values)
    if given.dtype.kind != "i":
        raise InputError(f"values are signed integers (mantissas), got {given.dtype}")
    if given.size and max(-int(given.min()), int(given.max())) > _MOST:
        raise InputError(f"values are of magnitudes up to 2**61, got {given.min()} to {given.max()}")
    return given.astype(np.int64)


@dataclass(frozen=True)
class Path:
    """What a descent went through.

    Attributes
    ----------
    weights : (steps + 1, features) int64
        In units of ``2**-fraction_bits``; row 0 is the start.
    losses : tuple of Fraction
        Exact.
    fraction_bits : int
    saturated : int
        Weights that left the word.
    """

    weights: Integers
    losses: tuple[Fraction, ...]
    fraction_bits: int
    saturated: int

    def real(self) -> NDArray[np.float64]:
        """Return the weights as floats."""
        return np.ldexp(self.weights.astype(np.float64), -self.fraction_bits)


@dataclass(frozen=True)
class SparseDescent:
    """Descent on ``sum_i (x_i w - y_i)**2`` from w = 0, by one of `METHODS`, with few or many fraction bits.

    Parameters
    ----------
    x : (samples, features) integers
    y : (samples,) integers
    method : str
    parameter : number or text, optional
        "l1": the factor lambda of the norm; "proximal" and "trimmed": the threshold a step.
    rate : number or text
    keep : int
        "projected": so many weights stay; "trimmed": so many are not thresholded.
    fraction_bits : int
        Of the weights, the rate and the parameter, which are rounded to nearest, ties to even.
    word_bits : int, optional
        Of the weights, which saturate; by default 8 more.

    Raises
    ------
    InputError
        If something is not as above, the rate or the parameter is rounded to zero, or a gradient could leave 62 bits.

    Examples
    --------
    >>> path = SparseDescent(((1, 0), (0, 1)), (4, 1), "trimmed", "0.5", rate="0.25", keep=1, fraction_bits=8).run(100)
    >>> path.real()[-1].round(2).tolist(), float(path.losses[0])
    ([4.0, 0.0], 17.0)
    """

    x: Any
    y: Any
    method: str = "gd"
    parameter: Any = None
    rate: Any = "0.02"
    keep: int = 2
    fraction_bits: int = 40
    word_bits: int | None = None

    def __post_init__(self) -> None:
        try:
            x, y = np.asarray(self.x), np.asarray(self.y)
        except ValueError:
            raise InputError("least squares take integers, (samples, features), got rows of different lengths") from None
        if x.dtype.kind != "i" or y.dtype.kind != "i" or x.ndim != 2 or y.shape != x.shape[:1] or not x.size:
            raise InputError(f"least squares take integers, (samples, features) and (samples,), got {x.shape} and {y.shape}")
        if self.method not in METHODS:
            raise InputError(f"method is one of {', '.join(METHODS)}, got {self.method!r}")
        bits = self.fraction_bits
        if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not 1 <= bits <= 52:
            raise InputError(f"fraction bits are 1..52, got {bits!r}")
        word = bits + 8 if self.word_bits is None else self.word_bits
        if isinstance(word, bool) or not isinstance(word, (int, np.integer)) or not 2 <= word <= 62:
            raise InputError(f"a word has 2..62 bits here, got {word!r}")
        keeps = self.method in ("projected", "trimmed")
        wrong = isinstance(self.keep, bool) or not isinstance(self.keep, (int, np.integer))
        if wrong or (keeps and not 0 <= self.keep <= x.shape[1]):
            raise InputError(f"of {x.shape[1]} weights 0..{x.shape[1]} can be kept, got {self.keep!r}")
        if (self.parameter is None) != (self.method in ("gd", "projected")):
            raise InputError(f"l1, proximal and trimmed have a parameter, the others none, got {self.parameter!r}")
        object.__setattr__(self, "word_bits", int(word))
        object.__setattr__(self, "fraction_bits", int(bits))
        self._units("rate", self.rate)
        penalty = 0 if self.parameter is None else self._units("parameter", self.parameter)
        limit = (1 << (int(word) - 1)) - 1
        sizes = [[abs(int(value)) for value in row] for row in x]
        residuals = [sum(row) * limit + (abs(int(t)) << int(bits)) for row, t in zip(sizes, y, strict=True)]
        most = max(
            sum(2 * row[j] * residual for row, residual in zip(sizes, residuals, strict=True)) for j in range(x.shape[1])
        )
        most = max(most, *(abs(int(t)) << int(bits) for t in y))
        if most + penalty >= _MOST:
            raise InputError(
                f"gradients of weights of {word} bits may take {(most + penalty).bit_length()} bits and may take 61; use "
                "fewer fraction bits or a shorter word"
            )

    def _units(self, name: str, value: Any) -> int:
        try:
            if isinstance(value, bool):
                raise ValueError
            exact = Fraction(str(value))
        except (TypeError, ValueError, ZeroDivisionError):
            raise InputError(f"{name} is a number, got {value!r}") from None
        units = round(exact * 2**self.fraction_bits)
        if units < 1 or units >= 2**61:
            raise InputError(
                f"{name} {value} is {units} units with {self.fraction_bits} fraction bits; use another, or more bits"
            )
        return units

    def run(self, steps: int) -> Path:
        """Do so many steps.

        Raises
        ------
        InputError
            If that is no integer of at least 0.
        """
        if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 0:
            raise InputError(f"steps are an integer of at least 0, got {steps!r}")
        x, y = np.asarray(self.x).astype(np.int64), np.asarray(self.y).astype(np.int64)
        assert self.word_bits is not None
        rate, limit = np.int64(self._units("rate", self.rate)), np.int64((1 << (self.word_bits - 1)) - 1)
        penalty = 0 if self.parameter is None else self._units("parameter", self.parameter)
        target, shift = y << np.int64(self.fraction_bits), np.int64(self.fraction_bits)
        w, saturated = np.zeros(x.shape[1], np.int64), 0
        weights, losses = [w.copy()], [self._loss(x @ w - target)]
        for _ in range(int(steps)):
            gradient = 2 * (x.T @ (x @ w - target))
            if self.method == "l1":
                gradient += penalty * np.sign(w)
            saturated += int(kernels.descend(w, gradient, rate, shift, limit))
            if self.method == "projected":
                w = project(w, self.keep)
            elif self.method == "proximal":
                w = soft_threshold(w, penalty)
            elif self.method == "trimmed":
                w = trimmed_threshold(w, penalty, self.keep)
            weights.append(w.copy())
            losses.append(self._loss(x @ w - target))
        return Path(np.array(weights), tuple(losses), self.fraction_bits, saturated)

    def _loss(self, residuals: Sequence[Any] | Integers) -> Fraction:
        return Fraction(sum(int(one) ** 2 for one in residuals), 4**self.fraction_bits)
