"""SWALP: stochastic gradient descent in low precision, and the average of its weights.

Stochastic rounding keeps low-precision weights right in the mean but noisy; an average over the end of the training removes
the noise. Every number has the format of its role in the recipe: weights, gradients, momentum, activations, errors.

Notation as in :mod:`intnet.optimizers.sgd`. A step, as in the released code:

    g = Q_gradient(G)
    v = mu v + g + lambda B w           exact
    w = Q_weight(w - (r / B) v)         the momentum that moves the weights is not rounded ...
    v = Q_momentum(v)                   ... but the one that is stored

References
----------
Yang et al. 2019, SWALP: Stochastic Weight Averaging in Low-Precision Training, arXiv:1904.11943.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from intnet.errors import InputError
from intnet.layers import Parameter
from intnet.optimizers.average import SUM_BITS, Average
from intnet.optimizers.factor import Factor, Schedule
from intnet.optimizers.sgd import SGD
from intnet.recipe import Recipe

_FALLEN = Fraction(1, 100)
UNITS = ("epoch", "step")


@dataclass(frozen=True)
class SWALPSchedule(Schedule):
    """The rate of SWALP: high, falling, low; then, while weights are averaged, constant.

    With S epochs before averaging, epoch e (from 0) has ``rate`` up to S / 2, then falls evenly to a hundredth of it at
    0.9 S, stays there up to S, and has `averaging_rate` from epoch S on.

    Parameters
    ----------
    rate : Factor or what `Factor.of` takes
    start : int, at least 1
        S: averaging begins with the weights at the end of epoch S.
    averaging_rate : Factor or what `Factor.of` takes

    Examples
    --------
    >>> schedule = SWALPSchedule("0.05", start=10, averaging_rate="0.01")
    >>> [round(float(schedule.at(epoch, 12)), 4) for epoch in range(12)]
    [0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.0376, 0.0252, 0.0129, 0.0005, 0.01, 0.01]
    """

    kind: str = "swalp"
    start: int = 1
    averaging_rate: Factor = field(kw_only=True)

    def __post_init__(self) -> None:
        for name in ("rate", "averaging_rate"):
            object.__setattr__(self, name, Factor.of(getattr(self, name)))
            if not getattr(self, name).mantissa:
                raise InputError(f"{name} must be above 0, got 0")
        if isinstance(self.start, bool) or not isinstance(self.start, (int, np.integer)) or self.start < 1:
            raise InputError(f"averaging starts after an epoch of 1 or more, got {self.start!r}")
        if self.kind != "swalp" or self.steps:
            raise InputError("a SWALP schedule has one kind and no steps of its own")
        object.__setattr__(self, "start", int(self.start))

    @classmethod
    def parse(cls, text: str, rate: Any) -> "SWALPSchedule":
        """Return the schedule that `text` names: ``swalp:200=0.01``, start and averaging rate.

        Raises
        ------
        InputError
            If it names none.
        """
        kind, _, rest = text.strip().partition(":")
        start, equals, averaging = rest.partition("=")
        if kind != "swalp" or not equals or not start.strip().isdecimal() or len(start) > 9:
            raise InputError(f"a SWALP schedule is written as 'swalp:200=0.01', got {text!r}")
        return cls(rate, start=int(start), averaging_rate=Factor.of(averaging))

    def changes(self, epochs: int) -> Sequence[int]:
        """Return every epoch, of so many, whose rate may be another than that before it."""
        return range(epochs)

    def at(self, epoch: int, epochs: int) -> Factor:
        """Return the rate of an epoch."""
        if epoch >= self.start:
            return self.averaging_rate
        if 2 * epoch <= self.start:
            return self.rate
        if 10 * epoch >= 9 * self.start:
            return self.rate.times(_FALLEN)
        return self.rate.times(1 - (1 - _FALLEN) * (Fraction(epoch, self.start) - Fraction(1, 2)) / Fraction(2, 5))

    def over(self, epochs: int) -> str:
        """Return it as text."""
        return str(self)

    def __str__(self) -> str:
        return f"swalp:{self.start}={self.averaging_rate}"


class SWALP(SGD):
    """Low-precision SGD with momentum, and the average of the weights from an epoch on.

    The weights that train are never changed by the average; one trajectory gives both.

    Parameters
    ----------
    schedule : SWALPSchedule
    momentum, decay : Factor, or what `Factor.of` takes
    every : int
        The cycle: how many epochs, or steps, lie between two moments that are averaged.
    unit : {"epoch", "step"}
    average_bits : int, 8..16, optional
        By default the average is exact: see :class:`intnet.optimizers.Average`.
    seed : int
        Of the rounding of an average of few bits.

    Raises
    ------
    InputError
        If an argument cannot be used.

    Examples
    --------
    >>> SWALP(SWALPSchedule("0.05", start=200, averaging_rate="0.01"), decay="0.0005").describe()["average"]
    'exact, every 1 epoch from the end of epoch 200'
    """

    rounds_momentum_last: ClassVar[bool] = True

    def __init__(
        self, schedule: SWALPSchedule, momentum: Any = "0.9", decay: Any = 0, *, every: int = 1, unit: str = "epoch",
        average_bits: int | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        if not isinstance(schedule, SWALPSchedule):
            raise InputError(f"SWALP takes a SWALPSchedule, got {schedule!r}")
        super().__init__(schedule, momentum, decay)
        if isinstance(every, bool) or not isinstance(every, (int, np.integer)) or every < 1:
            raise InputError(f"weights are averaged every 1 or more {unit}s, got {every!r}")
        if unit not in UNITS:
            raise InputError(f"the unit of averaging is one of {', '.join(UNITS)}, got {unit!r}")
        self.every, self.unit = int(every), unit
        self.start = schedule.start
        self.average = Average(average_bits, seed)

    def check(self, recipe: Recipe, epochs: int = 1, batch: int = 1, steps_per_epoch: int = 1) -> None:
        """Refuse what SGD refuses, an averaging that never starts, and sums that are sure to leave their word."""
        if recipe.update != "sgd":
            raise InputError(f"recipe {recipe.name!r} has normalized updates; SWALP takes plain ones (update 'sgd')")
        super().check(recipe, epochs, batch, steps_per_epoch)
        if self.average.count:
            raise InputError(
                f"this SWALP has averaged {self.average.count} moments of another training, and must not mix them with others; "
                "make another SWALP"
            )
        if self.start > epochs:
            raise InputError(
                f"averaging starts at the end of epoch {self.start} and the training ends after {epochs}: there would be no "
                "average; start earlier, or train for longer"
            )
        moments = ((epochs - self.start) * self._units(steps_per_epoch)) // self.every + 1
        word = recipe.weight.format.word_bits
        if self.average.bits is None and word - 1 + moments.bit_length() > SUM_BITS:
            raise InputError(
                f"{moments} weights of {word} bits add up to {word - 1 + moments.bit_length()} magnitude bits, and sums have "
                f"{SUM_BITS}; use shorter words, average less often, or keep the average in 8 to 16 bits"
            )

    def _units(self, steps_per_epoch: int) -> int:
        return 1 if self.unit == "epoch" else steps_per_epoch

    def after_step(self, parameters: Sequence[Parameter], steps: int, steps_per_epoch: int) -> None:
        """Take the weights into the average, if it is their turn."""
        since = steps - self.start * steps_per_epoch
        cycle = self.every * (steps_per_epoch if self.unit == "epoch" else 1)
        if since >= 0 and since % cycle == 0:
            self.average.add(parameters)

    def describe(self) -> dict[str, Any]:
        """Return what a result is saved with."""
        kept = "exact" if self.average.bits is None else f"in {self.average.bits} bits, rounding seed {self.average.seed}"
        cycle = f"{self.every} {self.unit}{'s' * (self.every > 1)}"
        return super().describe() | {
            "optimizer": "swalp",
            "average": f"{kept}, every {cycle} from the end of epoch {self.start}",
        }

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the average."""
        return self.average.state()

    def load_state(self, arrays: Mapping[str, NDArray[Any]], parameters: Sequence[Parameter]) -> None:
        """Take back the average."""
        self.average.load_state(arrays, parameters)
