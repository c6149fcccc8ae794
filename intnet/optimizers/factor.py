"""Rates and other factors as fixed-point numbers, and how a rate changes with the epochs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Self

import numpy as np

from intnet.errors import InputError

_POWER = re.compile(r"2\s*(?:\^|\*\*)\s*([+-]?\d+)")
MANTISSA_BITS = 15


@dataclass(frozen=True)
class Factor:
    """A factor ``mantissa / 2**shift``; a power of two has the mantissa 1, and costs a shift instead of a multiplication.

    Parameters
    ----------
    mantissa : int, 0..2**15
    shift : int, -62..62

    Examples
    --------
    >>> Factor.of("2^-9"), Factor.of(0.9), float(Factor.of(0.9))
    (Factor(mantissa=1, shift=9), Factor(mantissa=29491, shift=15), 0.899993896484375)
    """

    mantissa: int
    shift: int

    def __post_init__(self) -> None:
        for name, value, low, high in (("mantissa", self.mantissa, 0, 1 << MANTISSA_BITS), ("shift", self.shift, -62, 62)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
                raise InputError(f"the {name} of a factor must be an integer in {low}..{high}, got {value!r}")
        mantissa, shift = int(self.mantissa), int(self.shift)
        while mantissa and mantissa % 2 == 0 and shift > -62:
            mantissa, shift = mantissa // 2, shift - 1
        object.__setattr__(self, "mantissa", mantissa)
        object.__setattr__(self, "shift", shift if mantissa else 0)

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return the nearest factor with a mantissa of 15 bits.

        Parameters
        ----------
        value : Factor, int, float, Fraction or str
            Not negative; as text, ``"2^-9"``, ``"0.9"`` or ``"3/128"``.

        Raises
        ------
        InputError
            If it is none of these, negative, or beyond ``2**62`` or, unless 0, below ``2**-48``.
        """
        if isinstance(value, cls):
            return value
        number = _as_fraction(value)
        if number == 0:
            return cls(0, 0)
        if not 0 < number < 2**62 or number < Fraction(1, 2**48):
            raise InputError(f"a factor must be 0, or at least 2^-48 and below 2^62, got {value!r}")
        power = number.numerator.bit_length() - number.denominator.bit_length()
        power -= number < Fraction(2) ** power  # floor(log2(number))
        shift = MANTISSA_BITS - 1 - power
        scaled = round(number * Fraction(2) ** shift)
        while scaled % 2 == 0:
            scaled, shift = scaled // 2, shift - 1
        return cls(scaled, shift)

    @property
    def is_power_of_two(self) -> bool:
        """Whether it is a shift alone."""
        return self.mantissa == 1

    def __float__(self) -> float:
        return float(self.exact)

    @property
    def exact(self) -> Fraction:
        """Its exact value."""
        return Fraction(self.mantissa) / Fraction(2) ** self.shift

    def times(self, other: Fraction | int) -> "Factor":
        """Return the factor nearest to the product."""
        return Factor.of(self.exact * other)

    def __str__(self) -> str:
        return f"2^{-self.shift}" if self.mantissa == 1 else f"{float(self):.6g}"


def _as_fraction(value: Any) -> Fraction:
    """Return a number exactly, or refuse it; one far beyond any factor as 2**100 or 2**-100 in magnitude."""
    refusal = InputError(f"a factor is a number such as 0.9, '2^-9' or '3/128', got {str(value)[:40]!r}")
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, Fraction, Decimal, str)):
        raise refusal
    try:
        if isinstance(value, str):
            text = value.strip()
            if match := _POWER.fullmatch(text):
                return Fraction(2) ** min(max(int(match[1][:9]), -100), 100)
            if "/" in text:
                return Fraction(text[:100])
            value = Decimal(text[:100])  # a number of any size, not yet written out
        if isinstance(value, Decimal) and value.is_finite() and value and abs(value.adjusted()) > 50:
            return Fraction(2) ** (100 if value.adjusted() > 0 else -100) * (-1 if value < 0 else 1)
        return Fraction(value)
    except (ValueError, ArithmeticError):
        raise refusal from None


@dataclass(frozen=True)
class Schedule:
    """The rate of every epoch.

    Parameters
    ----------
    rate : Factor or what `Factor.of` takes
        Of the first epoch.
    kind : {"constant", "step", "linear"}
        "step": from each epoch named in `steps` on, the rate is that given there. "linear": it falls evenly, so that the last
        epoch has ``rate / epochs``.
    steps : mapping of epoch to rate
        Epochs count from 0.

    Examples
    --------
    >>> [str(Schedule("2^-3", "step", {2: "2^-4"}).at(epoch, 4)) for epoch in range(4)]
    ['2^-3', '2^-3', '2^-4', '2^-4']
    >>> [float(Schedule(1, "linear").at(epoch, 4)) for epoch in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """

    rate: Factor
    kind: str = "constant"
    steps: tuple[tuple[int, Factor], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", Factor.of(self.rate))
        if self.kind not in ("constant", "step", "linear"):
            raise InputError(f"a schedule is constant, step or linear, got {self.kind!r}")
        steps = self.steps.items() if isinstance(self.steps, Mapping) else self.steps
        try:
            pairs = [(epoch, Factor.of(rate)) for epoch, rate in steps]
        except TypeError:
            raise InputError(f"the steps of a schedule map epochs to rates, got {self.steps!r}") from None
        for epoch, _ in pairs:
            if isinstance(epoch, bool) or not isinstance(epoch, (int, np.integer)) or epoch < 0:
                raise InputError(f"the epochs of a step schedule are integers from 0 on, got {epoch!r}")
        parsed = sorted(((int(epoch), rate) for epoch, rate in pairs), key=lambda pair: pair[0])
        if len({epoch for epoch, _ in parsed}) < len(parsed):
            raise InputError(f"a step schedule names each epoch once, got {', '.join(str(epoch) for epoch, _ in parsed)}")
        if parsed and self.kind != "step":
            raise InputError(f"steps belong to a step schedule, got {self.kind!r}")
        object.__setattr__(self, "steps", tuple(parsed))

    @classmethod
    def parse(cls, text: str, rate: Any) -> "Schedule":
        """Return the schedule that `text` names: ``constant``, ``linear``, or ``step:100=2^-4,150=2^-5``.

        Raises
        ------
        InputError
            If it is none of these.
        """
        kind, colon, rest = text.strip().partition(":")
        if kind != "step" or not colon:
            return cls(rate, kind)
        steps = []
        for entry in rest.split(","):
            epoch, equals, value = entry.partition("=")
            if not equals or not epoch.strip().isdecimal() or len(epoch) > 9:
                raise InputError(f"a step schedule is written as 'step:100=2^-4,150=2^-5', got {text!r}")
            steps.append((int(epoch), Factor.of(value)))
        return cls(rate, "step", tuple(steps))

    def at(self, epoch: int, epochs: int) -> Factor:
        """Return the rate of an epoch, 0..epochs - 1, of so many."""
        if self.kind == "linear":
            return self.rate.times(Fraction(max(epochs - epoch, 0), max(epochs, 1)))
        rate = self.rate
        for first, later in self.steps:
            if epoch >= first:
                rate = later
        return rate

    def changes(self, epochs: int) -> Sequence[int]:
        """Return every epoch, of so many, whose rate may be another than that before it; the first is 0."""
        return range(epochs) if self.kind == "linear" else (0, *(epoch for epoch, _ in self.steps))

    def over(self, epochs: int) -> str:
        """Return it as text, with the number of epochs if its rates depend on that."""
        return f"linear over {epochs} epochs" if self.kind == "linear" else str(self)

    def __str__(self) -> str:
        steps = ",".join(f"{epoch}={rate}" for epoch, rate in self.steps)
        return self.kind + (f":{steps}" if steps else "")
