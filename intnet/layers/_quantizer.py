"""Where numbers are rounded: a role's format, with random bits of its own, and counters of what that does."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError
from intnet.formats import BlockFloat, Overflow, Rounding
from intnet.recipe import Role
from intnet.tensor import QTensor
from intnet.tensor.qtensor import EXPONENT_MAX, Integers

Shape = tuple[int, ...]


@dataclass
class Step:
    """What a layer is told on the way through the network.

    Attributes
    ----------
    number : int, 0..2**32 - 1
        Of the training step: random bits differ from step to step.
    seed : int, 0..2**64 - 1
    training : bool
        Whether what the backward pass needs is kept, and dropout and batch statistics are in force. Only then is counted.
    statistics : bool
        Whether in training the running statistics of batch normalization follow: not where the weights are not those that
        train.
    """

    number: int = 0
    seed: int = 0
    training: bool = False
    statistics: bool = True


@dataclass(frozen=True)
class Seen:
    """What became of a tensor's numbers since it was last asked: a row of the telemetry."""

    tensor: str
    role: str
    word_bits: int
    fraction_bits: int | None
    minimum: int | None
    maximum: int | None
    saturated: int
    wrapped: int
    lost: int
    count: int


class Quantizer:
    """Brings tensors into a role's format, with random bits of its own, and counts what that does to them.

    Parameters
    ----------
    tensor, role_name : str
        What telemetry calls it.
    role : Role
    stream : int
        Of random bits; one quantizer's alone.
    of_samples : bool
        Whether the first axis is the batch's. In evaluation, every sample is then treated as if it were alone, so that no
        prediction depends on what else is in its batch: a block that is the whole tensor becomes one a sample, and stochastic
        rounding becomes that to nearest, ties to even.
    """

    def __init__(self, tensor: str, role_name: str, role: Role, stream: int, of_samples: bool = False) -> None:
        self.tensor, self.role_name, self.role, self.stream = tensor, role_name, role, stream
        self.format = role.format
        self._block = isinstance(self.format, BlockFloat)
        self.by_row = self._block and self.format.block == "row"  # type: ignore[union-attr]
        self._of_samples = of_samples
        self._of_rows = BlockFloat(self.format.word_bits, "row") if self._block else self.format
        self._modes = (role.rounding.code, role.overflow.code, self.format.word_bits)
        self.fails = role.overflow is Overflow.ERROR
        self._prepared: tuple[int, kernels.Requantizer] | None = None
        self.counters = kernels.new_counters()
        self.counters_there: Any = None  # on the GPU, if it has rounded there
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        self.counters_there = None
        self.counters[:] = kernels.new_counters()
        self.count = 0
        self.exponent: int | None = None  # the largest since the last reset

    def seen(self) -> Seen:
        """Return what was counted since the last reset."""
        self.collect()
        saturated, wrapped, lost, minimum, maximum = (int(value) for value in self.counters)
        least, most = (minimum, maximum) if self.count else (None, None)
        fraction = None if self.exponent is None else -self.exponent
        return Seen(
            self.tensor, self.role_name, self.format.word_bits, fraction, least, most, saturated, wrapped, lost, self.count
        )

    def counters_of(self, array: Any) -> Any:
        """Return the counters that live where an array does."""
        if not kernels.on_device(array):
            return self.counters
        if self.counters_there is None:
            self.counters_there = kernels.to_device(kernels.new_counters())
        return self.counters_there

    def collect(self) -> None:
        """Add what was counted on the GPU to the counters."""
        if self.counters_there is not None:
            kernels.add_counters(self.counters, [kernels.to_host(self.counters_there)])
            self.counters_there = None

    def prepared(self, seed: int) -> kernels.Requantizer:
        """Return how numbers are rounded in training, made once."""
        if self._prepared is None or self._prepared[0] != seed:
            options: dict[str, Any] = {"random_bits": self.role.random_bits, "seed": seed, "stream": self.stream}
            self._prepared = (seed, kernels.Requantizer(*self._modes, **options))
        return self._prepared[1]

    def note(self, size: int, exponent: int) -> None:
        """Count so many numbers, brought to an exponent."""
        self.count += size
        self.exponent = exponent if self.exponent is None else max(self.exponent, exponent)

    def saw(self, written: Integers, exponent: int, *, lost: int = 0, saturated: int = 0) -> None:
        """Count numbers that a layer has rounded in a way of its own."""
        if not written.size:
            return
        self.note(written.size, exponent)
        counters, (least, greatest) = self.counters, kernels.extremes(written)
        counters[kernels.COUNT_LOST] += lost
        counters[kernels.COUNT_SATURATED] += saturated
        counters[kernels.SEEN_MINIMUM] = min(counters[kernels.SEEN_MINIMUM], least)
        counters[kernels.SEEN_MAXIMUM] = max(counters[kernels.SEEN_MAXIMUM], greatest)

    def shifts(self, exponent: int) -> tuple[int, int]:
        """Return by how much numbers of one exponent are shifted into one exponent: the least, and the greatest."""
        if self._block:
            return BlockFloat.minimum_exponent - exponent, BlockFloat.maximum_exponent - exponent
        shift = -self.format.fraction_bits - exponent  # type: ignore[union-attr]
        return shift, shift

    def __call__(self, x: QTensor, step: Step, lost_apart: bool = False) -> QTensor:
        """Round a tensor, or an accumulator, into the format.

        Parameters
        ----------
        x : QTensor
            With exponents that differ along the first and the last axis at most.
        step : Step
        lost_apart : bool
            Whether the caller counts what is lost, as of weights, where the update is lost and not the weight.

        Raises
        ------
        InputError
            If a number leaves the word and the role says that this is an error.
        """
        mantissa, exponent = x.mantissa, x.exponent
        rounding, overflow, word_bits = self._modes
        by_row = self.by_row
        if self._of_samples and not step.training:
            by_row = self._block
            if self.role.rounding is Rounding.STOCHASTIC:
                rounding = Rounding.TIES_EVEN.code
        counters = self.counters_of(mantissa) if step.training else None
        apart = None  # counters of this call alone
        if kernels.on_device(mantissa) and (self.fails or lost_apart):
            counters = apart = kernels.to_device(kernels.new_counters())
        lost, wrapped = self.counters[kernels.COUNT_LOST], self.counters[kernels.COUNT_WRAPPED]
        if self.fails and counters is None:
            counters = kernels.new_counters()
            wrapped = 0
        if exponent.size == 1 and not by_row:
            have = exponent.item()
            least, greatest = self.shifts(have)
            shifts: Any = self._one_shift(mantissa, least, greatest) if self._block else least
            layout = None
            target = new = have + shifts
        else:
            layout, shifts, new = self._each_exponent(x, by_row)
            target = int(new.max(initial=-EXPONENT_MAX))
        if layout is None and step.training:
            out = self.prepared(step.seed)(mantissa, shifts, step.number, counters=counters)
        else:
            out = kernels.requantize(
                mantissa, shifts, rounding, overflow, word_bits, layout=layout, random_bits=self.role.random_bits,
                seed=step.seed, stream=self.stream, step=step.number, counters=counters,
            )  # fmt: skip
        if apart is not None:
            counted = kernels.to_host(apart)
            if step.training:
                kernels.add_counters(self.counters, [counted])
                counters = self.counters
            else:
                counters, wrapped = counted, 0
        if self.fails and counters is not None and (left := int(counters[kernels.COUNT_WRAPPED] - wrapped)):
            raise InputError(
                f"{self.tensor}: {left} of {mantissa.size} numbers do not fit into {self.format} (role {self.role_name}); "
                "give it more bits or fewer fraction bits, or overflow saturate or wrap"
            )
        if step.training:
            self.note(mantissa.size, target)
            if lost_apart:
                self.counters[kernels.COUNT_LOST] = lost
        return QTensor.trusted(out, new, self._of_rows if by_row else self.format)

    def _one_shift(self, mantissa: Integers, least: int, greatest: int) -> int:
        """Return the shift of a block that is the whole tensor."""
        layout = (1, 1, mantissa.size, 1)
        return int(kernels.exponents_of_integers(mantissa, layout, self.format.word_bits, least, greatest).item())

    def _each_exponent(self, x: QTensor, by_row: bool) -> tuple[Shape, NDArray[np.int64], NDArray[np.int64]]:
        """Return the layout, the shifts and the new exponents of a tensor with several."""
        mantissa, exponent = x.mantissa, x.exponent
        axes, first, last = mantissa.ndim, exponent.shape[0], exponent.shape[-1] if mantissa.ndim > 1 else 1
        if exponent.size != first * last:
            raise InputError(
                f"{self.tensor}: exponents may differ along the first and last axis, got their shape {exponent.shape}"
            )
        rows = mantissa.shape[0]
        inner = mantissa.shape[axes - 1] if last > 1 else 1
        layout = (rows, 1, prod(mantissa.shape[1:]) // max(1, inner), inner)
        have = exponent.reshape(first, 1, last)
        if not self._block:
            target = -self.format.fraction_bits  # type: ignore[union-attr]
            return layout, target - have, np.full((1,) * axes, target, np.int64)
        low, high = BlockFloat.minimum_exponent, BlockFloat.maximum_exponent
        found = kernels.exponents_of_integers(mantissa, layout, self.format.word_bits, -EXPONENT_MAX, EXPONENT_MAX)
        each = np.where(found == -EXPONENT_MAX, low, found + have)  # of zeros, the least
        new = each.max(axis=(1, 2) if by_row else None, initial=low, keepdims=True)
        new = np.clip(new, low, high)
        return layout, new - have, new.reshape((new.shape[0],) + (1,) * (axes - 1))
