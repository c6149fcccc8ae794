"""Bit centering: the grid of low-precision offsets follows the gradient (HALP: De Sa et al. 2018, arXiv:1803.03383, sec. 3).

The model is a centre in wide integers plus an offset of b bits on a grid of its own. Where the full gradient at the centre is
g, strong convexity with constant mu puts the optimum within ``norm(g) / mu`` of it; so the grid's step, the scale, is::

    s = norm(g) / (mu * (2**(b - 1) - 1))

After a period of steps the offset is added to the centre, and is 0 again on a grid that fits the new gradient. A scale is an
exact `Scale`, a mantissa times a power of two, of one tensor of weights; nothing here knows what the weights belong to.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.arithmetic import bit_length, quotient
from intnet.errors import InputError
from intnet.formats import Fixed, Rounding
from intnet.optimizers.factor import Factor

EXACT, POWER_OF_TWO = "exact", "power_of_two"
"""The kinds of scales: of a mantissa of 31 bits; and the least power of two that is not below that."""

SCALE_BITS = 31
SCALE_EXPONENT_MIN, SCALE_EXPONENT_MAX = -126, 127
BITS_MAX = 16
PERIOD_MAX = 2**32 - 1
_QUOTIENT_BITS = 61
_ROUNDINGS = (Rounding.STOCHASTIC, Rounding.TIES_POS)


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
    gradient: NDArray[np.int64], exponent: int, count: int, rate: Factor, unit: Scale, fraction_bits: int
) -> NDArray[np.int64]:
    """Return ``-rate * gradient * 2**exponent / count`` in units of ``unit * 2**-fraction_bits``, to nearest, as int64.

    The factor that all numbers share has 61 bits. What leaves int64 saturates.
    """
    factor, right = 0, 0
    if rate.mantissa:
        factor, power = map(int, quotient(np.int64(rate.mantissa), np.int64(count * unit.mantissa), np.int64(_QUOTIENT_BITS)))
        right = rate.shift + unit.exponent - exponent - fraction_bits - power
    out = np.empty(gradient.size, np.int64)
    kernels.scale_all(gradient.ravel(), np.int64(-factor), np.int64(right), out)
    return out.reshape(gradient.shape)


def check_period(period: Any) -> int:
    """Return the number of steps between two centres, or raise `InputError`."""
    if not _is_integer(period) or not 1 <= period <= PERIOD_MAX:
        raise InputError(f"a centre must last for 1..{PERIOD_MAX} steps, a whole number, got {period!r}")
    return int(period)


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
        raise InputError(f"{name} must be greater than 0, got {value!r}")
    return factor


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))
