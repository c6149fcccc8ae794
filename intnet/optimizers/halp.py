"""Bit centering: the grid of low-precision offsets follows the gradient (HALP: De Sa et al. 2018, arXiv:1803.03383, sec. 3).

The model is a centre in wide integers plus an offset of b bits on a grid of its own. Where the full gradient at the centre is
g, strong convexity with constant mu puts the optimum within ``norm(g) / mu`` of it; so the grid's step, the scale, is::

    s = norm(g) / (mu * (2**(b - 1) - 1))

After a period of steps the offset is added to the centre, and is 0 again on a grid that fits the new gradient. A scale is an
exact `Scale`, a mantissa times a power of two, of one tensor of weights.

1. The grid        Scale, BitCentering, recentre, descent: of any weights
2. The optimizer   HALP: of networks
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.arithmetic import bit_length, quotient
from intnet.errors import InputError
from intnet.formats import Fixed, Overflow, Rounding
from intnet.layers import Parameter, Quantizer, Step
from intnet.layers.container import combine
from intnet.optimizers.factor import Factor
from intnet.optimizers.sgd import Passes, bits_of
from intnet.optimizers.svrg import SVRG, check_period, in_one_exponent, take
from intnet.random import sequence_words
from intnet.recipe import Recipe, Role
from intnet.tensor import QTensor

EXACT, POWER_OF_TWO = "exact", "power_of_two"
"""The kinds of scales: of a mantissa of 31 bits; and the least power of two that is not below that."""

SCALE_BITS = 31
SCALE_EXPONENT_MIN, SCALE_EXPONENT_MAX = -126, 127
BITS_MAX = 16
OFFSETS, WEIGHTS = "offsets", "weights"
"""What decay can act on."""

CENTRE = Fixed(48, 40)
"""The default format of centres: 8 bits before the binary point, and steps of 1e-12."""

OFFSET_STREAM = 2
"""Of random bits: the rounding of offsets."""

_QUOTIENT_BITS = 61
_MOVE_BITS = 32  # below the unit of an offset
_ROUNDINGS = (Rounding.STOCHASTIC, Rounding.TIES_POS)


# 1. The grid ------------------------------------------------------------------------------------------------------------


class Scale(NamedTuple):
    """The number ``mantissa * 2**exponent``, the step of a grid."""

    mantissa: int
    exponent: int

    @property
    def exact(self) -> Fraction:
        """The number, exactly."""
        return self.mantissa * Fraction(2) ** self.exponent


@dataclass(frozen=True)
class BitCentering:
    """How offsets are stored, rounded and centred anew.

    Parameters
    ----------
    bits : int, 2..16
        Of an offset, b: an integer in ``-2**(b - 1) .. 2**(b - 1) - 1``.
    mu : Factor or what `Factor.of` takes, greater than 0
        The constant of strong convexity in theory, else a parameter: a small one makes a wide box with a coarse grid, a large
        one a fine grid on which offsets saturate.
    period : int, 1..2**32 - 1
        Steps between two centres, T.
    scale : {"exact", "power_of_two"}
        "exact": a mantissa of 31 bits, within ``(sqrt(n) + 4) * 2**-31`` of the formula, for n weights, relatively.
        "power_of_two": that, rounded up, so that the box still holds what it should, and centring anew is a shift.
    rounding : {"stochastic", "ties_pos"}
        Of offsets, after every step.

    Raises
    ------
    InputError
        If an argument is none of these.
    """

    bits: int = 8
    mu: Any = 1
    period: int = 2000
    scale: str = EXACT
    rounding: Any = Rounding.STOCHASTIC

    def __post_init__(self) -> None:
        if not _is_integer(self.bits) or not 2 <= self.bits <= BITS_MAX:
            raise InputError(f"offsets must have 2..{BITS_MAX} bits, a sign and a magnitude, got {self.bits!r}")
        mu = _positive("mu", self.mu)
        if self.scale not in (EXACT, POWER_OF_TWO):
            raise InputError(f"a scale is {EXACT} or {POWER_OF_TWO}, got {self.scale!r}")
        object.__setattr__(self, "bits", int(self.bits))
        object.__setattr__(self, "mu", mu)
        object.__setattr__(self, "period", check_period(self.period))
        object.__setattr__(self, "rounding", check_rounding(self.rounding))

    @property
    def minimum(self) -> int:
        """The least offset."""
        return -(1 << (self.bits - 1))

    @property
    def maximum(self) -> int:
        """The greatest offset."""
        return (1 << (self.bits - 1)) - 1

    def scale_of(self, gradient: NDArray[np.int64], exponent: int, count: int = 1) -> Scale | None:
        """Return the scale of the full gradient ``gradient * 2**exponent / count``; None if that is zero.

        Parameters
        ----------
        gradient : int64, up to 2**62 in magnitude, any shape
        exponent : int
        count : int, 1..2**31 - 1
            Of samples, if the gradient is their sum.

        Raises
        ------
        InputError
            If the scale lies beyond 2**-126 .. 2**127.
        """
        root, shift = map(int, kernels.root_of_squares(gradient.ravel()))
        if not root:
            return None
        divisor = count * self.mu.mantissa * self.maximum  # below 2**61
        mantissa, power = map(int, quotient(np.int64(root), np.int64(divisor), np.int64(SCALE_BITS)))
        power += shift + exponent + self.mu.shift
        above = power + int(bit_length(np.int64(mantissa - 1)))  # the least power of two that is not below
        if not SCALE_EXPONENT_MIN <= above <= SCALE_EXPONENT_MAX:
            raise InputError(
                f"the scale of the offsets is about 2^{above}, and must be in 2^{SCALE_EXPONENT_MIN}..2^{SCALE_EXPONENT_MAX}; "
                f"take a {'greater' if above > 0 else 'smaller'} mu than {self.mu}"
            )
        return Scale(mantissa, power) if self.scale == EXACT else Scale(1, above)


def recentre(centre: NDArray[np.int64], offsets: NDArray[np.int64], scale: Scale, form: Fixed) -> int:
    """Add ``offsets * scale`` to a centre in place, rounded to its grid, to nearest; return how many saturate.

    Ties go away from zero. Nothing is lost while the scale is a multiple of the grid's step.

    Parameters
    ----------
    centre, offsets : int64 of one shape, C order
    scale : Scale
    form : Fixed
        Of the centre, signed, of up to 62 bits.
    """
    right = -(scale.exponent + form.fraction_bits)
    numbers = map(np.int64, (scale.mantissa, right, form.minimum, form.maximum))
    return int(kernels.recentre(centre.reshape(-1), offsets.reshape(-1), *numbers))


def descent(
    gradient: NDArray[np.int64], exponent: Any, count: int, rate: Factor, unit: Scale, fraction_bits: int
) -> NDArray[np.int64]:
    """Return ``-rate * gradient * 2**exponent / count`` in units of ``unit * 2**-fraction_bits``, to nearest, as int64.

    The factor that all numbers share has 61 bits. What leaves int64 saturates. An exponent may be one for all, or an array of
    one for each slice of the first axis.
    """
    exponents = np.asarray(exponent, np.int64).reshape(-1)
    factor, rights = 0, np.zeros_like(exponents)
    if rate.mantissa:
        factor, power = map(int, quotient(np.int64(rate.mantissa), np.int64(count * unit.mantissa), np.int64(_QUOTIENT_BITS)))
        rights = rate.shift + unit.exponent - exponents - fraction_bits - power
    out = np.empty((exponents.size, gradient.size // exponents.size), np.int64)
    kernels.scale_rows(gradient.reshape(out.shape), np.int64(-factor), rights, out)
    return out.reshape(gradient.shape)


def check_rounding(rounding: Any) -> Rounding:
    """Return a rounding mode that offsets can take, or raise `InputError`."""
    mode = Rounding.parse(rounding)
    if mode not in _ROUNDINGS:
        raise InputError(f"the rounding must be {' or '.join(one.value for one in _ROUNDINGS)}, got {rounding!r}")
    return mode


def _positive(name: str, value: Any) -> Factor:
    try:
        factor = Factor.of(value)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if not factor.mantissa:
        raise InputError(f"{name} must be greater than 0, got {value if isinstance(value, Factor) else repr(value)}")
    return factor


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


# 2. The optimizer -------------------------------------------------------------------------------------------------------


@dataclass
class Offsets:
    """A parameter as HALP has it.

    Attributes
    ----------
    centre : int64 array
        In the centre's format.
    offsets : int64 array
        Of few bits.
    scale : Scale or None
        None of a parameter whose full gradient is zero: it does not move.
    """

    centre: NDArray[np.int64]
    offsets: NDArray[np.int64]
    scale: Scale | None = None


class HALP(SVRG):
    """SVRG with bit centering: what is stored of a weight between two full gradients is an offset of few bits.

    The direction of a step is that of :class:`SVRG`; with z the offsets and s their scale, one for each parameter::

        z = Q((z s - (r / B) (d + lambda B (c + z s))) / s)      of offsets alone: lambda B z s

    Q rounds and saturates to b bits. What products take is ``c + z s``, rounded to the centre's grid, then as the recipe says.

    Parameters
    ----------
    rate : Schedule, Factor, or what `Factor.of` takes
        Of the mean gradient.
    centering : BitCentering
    decay : Factor, or what `Factor.of` takes
        It acts on weights, not on biases nor on batch normalization.
    decay_of : {"weights", "offsets"}
        "weights": centre and offset decay, and the scale is that of the decayed loss. "offsets": as in the released
        code, only the offsets do, which begin anew every period: hardly a regularization.
    centre : Fixed or str
        The format of centres, signed, of up to 62 bits.

    Raises
    ------
    InputError
        If an argument is out of range.

    Examples
    --------
    >>> HALP("0.1", BitCentering(8, 20, 391)).describe()["mu"]
    '20'
    """

    kind: ClassVar[str] = "halp"

    def __init__(
        self, rate: Any, centering: BitCentering, decay: Any = 0, *, decay_of: str = WEIGHTS, centre: Any = CENTRE
    ) -> None:
        if not isinstance(centering, BitCentering):
            raise InputError(f"HALP takes a BitCentering, got {centering!r}")
        super().__init__(rate, decay, period=centering.period)
        if decay_of not in (WEIGHTS, OFFSETS):
            raise InputError(f"decay is of {WEIGHTS} or of {OFFSETS}, got {decay_of!r}")
        form = Fixed.parse(centre)
        if not form.signed or form.word_bits > 62:
            raise InputError(f"centres must be signed and have up to 62 bits, got {form}")
        self.centering, self.decay_of, self.format = centering, decay_of, form
        self.offsets: dict[str, Offsets] = {}
        self.steps = self.saturated = self.centres_saturated = 0
        self._first = 0

    def check(self, recipe: Recipe, epochs: int = 1, batch: int = 1, steps_per_epoch: int = 1) -> None:
        """Refuse what SVRG refuses, and a decay that no word holds."""
        super().check(recipe, epochs, batch, steps_per_epoch)
        for epoch in self.schedule.changes(epochs):
            if self._by_offset(self.schedule.at(epoch, epochs)) > 1 << (61 - self.centering.bits):
                raise InputError(f"rate {self.schedule.rate} times decay {self.decay} is too large; use a smaller one")

    def describe(self) -> dict[str, Any]:
        """Return what a result is saved with."""
        how = self.centering
        return super().describe() | {
            "bits": how.bits,
            "mu": str(how.mu),
            "scale": how.scale,
            "rounding": how.rounding.value,
            "decay_of": self.decay_of,
            "centre": str(self.format),
        }

    @property
    def finished(self) -> str | None:  # type: ignore[override]
        """Why there is nothing left to train, if the full gradient is zero."""
        if not self.offsets or any(one.scale is not None for one in self.offsets.values()):
            return None
        return "the full gradient is zero: every offset would be zero from here on"

    def centre(self, training: Passes, step: Step) -> None:
        """Move the centre to the weights, take the full gradient there, and choose a grid for every parameter."""
        for parameter in training.parameters:
            kept = self.offsets.get(parameter.name)
            if kept is None:
                kept = self.offsets[parameter.name] = Offsets(self._centre_of(parameter), np.zeros(parameter.shape, np.int64))
            elif kept.scale is not None:  # then these are the numbers that the network has been shown already
                self.centres_saturated += recentre(kept.centre, kept.offsets, kept.scale, self.format)
                kept.offsets[:] = 0
        super().centre(training, step)
        for parameter in training.parameters:
            kept = self.offsets[parameter.name]
            sums = in_one_exponent(self._pulled(parameter, self.centres[parameter.name].gradient, training.samples))
            kept.scale = self.centering.scale_of(sums.mantissa, int(sums.exponent.flat[0]), training.samples)

    def step(self, training: Passes, rows: NDArray[np.int64], rate: Factor, step: Step) -> QTensor:
        """Take a full gradient if it is time; then train on the samples of these rows, and return the outputs before."""
        self._first = 0
        self.steps += 1
        return super().step(training, rows, rate, step)

    def descend(self, parameter: Parameter, direction: QTensor, rate: Factor, batch: int, step: Step) -> None:
        """Move the offsets of a parameter against a direction, the sum over a batch."""
        kept, how = self.offsets[parameter.name], self.centering
        first, self._first = self._first, self._first + kept.offsets.size
        if kept.scale is None:
            return
        direction = self._pulled(parameter, direction, batch)
        mantissa = np.ascontiguousarray(direction.mantissa, np.int64)
        moves = descent(mantissa, direction.exponent, batch, rate, kept.scale, _MOVE_BITS)
        by_offset = -self._by_offset(rate) if parameter.decays else 0
        numbers = (by_offset, _MOVE_BITS, how.minimum, how.maximum, how.rounding is Rounding.STOCHASTIC)
        arguments: list[Any] = [kept.offsets.reshape(-1), moves.reshape(-1), *map(np.int64, numbers)]
        arguments += [*sequence_words(step.seed, OFFSET_STREAM, step.number), np.int64(first)]
        self.saturated += int(kernels.move_offsets(*arguments))
        self._show(parameter, step)

    def _pulled(self, parameter: Parameter, gradient: QTensor, samples: int) -> QTensor:
        """Return the sum of a gradient over so many samples with the decay of the centre, if that decays."""
        if not (parameter.decays and self.decay.mantissa and self.decay_of == WEIGHTS):
            return gradient
        whole = self.decay.times(samples)
        pull = QTensor.trusted(self.offsets[parameter.name].centre, -self.format.fraction_bits - whole.shift)
        return combine([(1, gradient), (whole.mantissa, pull)], bits_of)

    def _by_offset(self, rate: Factor) -> int:
        """Return by how much of itself an offset decays in a step, in units of ``2**-32``."""
        return round(rate.exact * self.decay.exact * 2**_MOVE_BITS)

    def _centre_of(self, parameter: Parameter) -> NDArray[np.int64]:
        """Return what is stored of a parameter in the centre's format, to nearest."""
        role = Role(self.format, Rounding.TIES_EVEN, Overflow.SATURATE)
        quantizer = Quantizer(parameter.name, "centre", role, 0)
        made = quantizer(parameter.stored.moved("cpu"), Step(training=True))
        self.centres_saturated += quantizer.seen().saturated
        return made.mantissa.astype(np.int64)

    def _show(self, parameter: Parameter, step: Step) -> None:
        """Give the network what it works with: centre and offset, added, rounded as the recipe says."""
        kept = self.offsets[parameter.name]
        words = kept.centre
        if kept.scale is not None:
            words = words.copy()
            recentre(words, kept.offsets, kept.scale, self.format)
        parameter.follow(QTensor.trusted(words, -self.format.fraction_bits, self.format), step)

    # For checkpoints

    def state(self) -> dict[str, NDArray[Any]]:
        """Return centres, offsets, scales, full gradients, and what was counted."""
        arrays = super().state()
        if not self.offsets:
            return arrays
        arrays["counts"] = np.array([self.steps, self.saturated, self.centres_saturated], np.int64)
        for name, kept in self.offsets.items():
            arrays[f"centre/{name}/words"], arrays[f"centre/{name}/offsets"] = kept.centre.copy(), kept.offsets.copy()
            arrays[f"centre/{name}/scale"] = np.array(kept.scale or (0, 0), np.int64)
        return arrays

    def load_state(self, arrays: Mapping[str, NDArray[Any]], parameters: Sequence[Parameter]) -> None:
        """Take back what :meth:`state` gave, checked."""
        taken, how = dict(arrays), self.centering
        offsets, counts = {}, np.zeros(3, np.int64)
        if arrays:
            counts = take(taken, "counts", (3,), np.int64)
            if counts.min() < 0:
                raise InputError(f"counts must not be negative, got {counts.tolist()}")
            for one in parameters:
                key = f"centre/{one.name}"
                words = take(taken, f"{key}/words", one.shape, np.int64)
                few = take(taken, f"{key}/offsets", one.shape, np.int64)
                mantissa, exponent = map(int, take(taken, f"{key}/scale", (2,), np.int64))
                for what, array, low, high in (
                    ("words", words, self.format.minimum, self.format.maximum),
                    ("offsets", few, how.minimum, how.maximum),
                ):
                    if array.size and not low <= array.min() <= array.max() <= high:
                        raise InputError(f"{key}/{what} must lie in {low}..{high}, got {array.min()} to {array.max()}")
                if not 0 <= mantissa < 1 << SCALE_BITS or abs(exponent) > 2**10:
                    raise InputError(f"{key}/scale is none: {mantissa} * 2^{exponent}")
                offsets[one.name] = Offsets(words, few, Scale(mantissa, exponent) if mantissa else None)
        super().load_state(taken, parameters)
        self.offsets = offsets
        self.steps, self.saturated, self.centres_saturated = map(int, counts)
