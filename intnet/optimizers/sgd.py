"""Stochastic gradient descent on integers.

Notation: G exact gradient of the sum over a batch (an accumulator), g in the gradient's format, v momentum, w stored weight
(the master copy, if there is one); mu, lambda, r fixed-point factors; B samples a batch; Q_role rounding into a role's format.

    g = Q_gradient(G)
    v = Q_momentum(mu v + g + lambda B w)        without momentum: v = g + lambda B w, not rounded
    w = Q_weight(w - (r / B) v)                  Q_master, if there is a master copy; then the weight is Q_weight of that

What is within a Q is exact; where exponents are so far apart that it takes more than 62 bits, the smaller terms are cut with a
sticky bit (:func:`intnet.layers.container.combine`). The rate is that of the mean gradient: its division by the batch happens
here, in the factor, and not in the error, which would fall below the grid of a fixed-point format.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError
from intnet.formats import Fixed, Overflow, Rounding
from intnet.layers import Parameter, Quantizer, Step
from intnet.layers._base import magnitude_bits
from intnet.layers.container import combine
from intnet.optimizers.factor import Factor, Schedule
from intnet.recipe import Recipe
from intnet.tensor import QTensor


class Passes(Protocol):
    """What an optimizer may ask of the training that it is a part of (:class:`intnet.training.Trainer`)."""

    batch: int

    @property
    def parameters(self) -> Sequence[Parameter]:
        """The network's."""

    @property
    def samples(self) -> int:
        """How many there are to train on."""

    def order(self, epoch: int, seed: int | None = None) -> NDArray[np.int64]:
        """Return all samples' rows in a random order."""

    def inputs(self, rows: NDArray[np.int64], step: Step) -> QTensor:
        """Return samples, augmented."""

    def gradients(self, x: QTensor, rows: NDArray[np.int64], step: Step) -> QTensor:
        """Go forwards and backwards: leave with every parameter its gradient, and return the outputs."""

    def tell(self, samples: int) -> None:
        """Say that so many samples have been looked at."""


class SGD:
    """Stochastic gradient descent with momentum and weight decay.

    Parameters
    ----------
    rate : Schedule, Factor, or what `Factor.of` takes
        Of the mean gradient. For normalized recipes: by how many units of its last place the most changed weight moves, a power
        of two (NITI's gradient bits g are the rate ``2**g``); below 1, as in WAGE's last epochs, by a unit now and then.
    momentum, decay : Factor, or what `Factor.of` takes
        Decay acts on weights, not on biases nor on the scales of batch normalization.

    Raises
    ------
    InputError
        If a factor is out of range.
    """

    rounds_momentum_last: ClassVar[bool] = False
    """Whether weights move by the exact momentum, which is rounded, to be stored, afterwards."""

    has_other_weights: ClassVar[bool] = False
    """Whether it keeps weights of its own, and passes with these: then masks and codes, which it does not know, are refused."""

    def __init__(self, rate: Any, momentum: Any = 0, decay: Any = 0) -> None:
        self.schedule = rate if isinstance(rate, Schedule) else Schedule(Factor.of(rate))
        self.momentum, self.decay = Factor.of(momentum), Factor.of(decay)
        if not self.schedule.rate.mantissa:
            raise InputError("a rate must be above 0, got 0")
        if self.momentum.exact >= 1:
            raise InputError(f"momentum must be less than 1, got {float(self.momentum)}")

    def check(self, recipe: Recipe, epochs: int = 1, batch: int = 1, steps_per_epoch: int = 1) -> None:
        """Refuse what a recipe has no role for, and rates that cannot be written in some epoch, before training."""
        if recipe.update == "sgd":
            for epoch in self.schedule.changes(epochs):
                try:
                    self.schedule.at(epoch, epochs).times(Fraction(1, batch))
                    self.decay.times(batch)
                except InputError:
                    raise InputError(
                        f"rate {self.schedule.rate} ({self.schedule.kind}) divided by a batch of {batch} leaves 2^-48..2^62 in "
                        f"epoch {epoch + 1} of {epochs}, or decay {self.decay} times it does; use another rate or decay"
                    ) from None
        if self.momentum.mantissa and recipe.momentum is None:
            raise InputError(f"recipe {recipe.name!r} has no momentum role; train without momentum, or give it one")
        if recipe.update == "normalized":
            linear = self.schedule.kind == "linear"
            rates = [self.schedule.at(epoch, epochs) for epoch in ([0] if linear else self.schedule.changes(epochs))]
            if linear or any(not rate.is_power_of_two for rate in rates):
                raise InputError(
                    f"recipe {recipe.name!r} has normalized updates: its rate is a power of two, constant or in steps, got "
                    f"{', '.join(map(str, rates))} ({self.schedule.kind}); '2^5' means gradients of 5 bits"
                )
            random = recipe.gradient.rounding in (Rounding.STOCHASTIC, Rounding.PSEUDO_STOCHASTIC)
            if not random and any(rate.shift > 0 for rate in rates):
                raise InputError(
                    f"recipe {recipe.name!r} has normalized updates of less than a unit, which rounding to "
                    f"{recipe.gradient.rounding.value} loses, all of them; use a rate of at least 1, or stochastic rounding"
                )
            if self.decay.mantissa or self.momentum.mantissa:
                raise InputError(f"recipe {recipe.name!r} has normalized updates, which have no momentum and no weight decay")

    def describe(self) -> dict[str, Any]:
        """Return what a result is saved with."""
        return {
            "optimizer": "sgd",
            "rate": str(self.schedule.rate),
            "schedule": str(self.schedule),
            "momentum": str(self.momentum) if self.momentum.mantissa else "0",
            "decay": str(self.decay) if self.decay.mantissa else "0",
        }

    def update(self, parameter: Parameter, rate: Factor, batch: int, step: Step) -> None:
        """Move a parameter by its gradient.

        Parameters
        ----------
        parameter : Parameter
            Whose gradient the backward pass has set.
        rate : Factor
            Of this epoch: ``schedule.at(epoch, epochs)``.
        batch : int
            Samples of a full batch; the last, smaller batch of an epoch counts by its samples.
        step : Step
        """
        if parameter.gradient is None:
            raise InputError(f"{parameter.name} has no gradient; run the backward pass first")
        if parameter.recipe.update == "normalized":
            self._move_by_places(parameter, rate, step)
            return
        if self._move_at_once(parameter, rate, batch, step):
            return
        self.move(parameter, parameter.quantizers["gradient"](parameter.gradient, step), rate, batch, step)

    def move(self, parameter: Parameter, gradient: QTensor, rate: Factor, batch: int, step: Step) -> None:
        """Move a parameter by a gradient that was rounded already, or an accumulator: the arguments of `update`."""
        decay, factor = self._factors(parameter, rate, batch)
        stored = parameter.stored
        terms = [(1, gradient)]
        if decay.mantissa:
            terms.append(_scaled(stored, decay))
        if self.momentum.mantissa:
            if parameter.momentum is not None:
                terms.append(_scaled(parameter.momentum, self.momentum))
            exact = combine(terms)
            parameter.momentum = parameter.quantizers["momentum"](exact, step)
            terms = [(1, exact if self.rounds_momentum_last else parameter.momentum)]
        moves = [(-factor.mantissa * sign, _lower(tensor, factor.shift)) for sign, tensor in terms]
        quantizer = parameter.quantizers[parameter.stored_role]
        moved = quantizer(combine([(1, stored), *moves], bits_of), step, lost_apart=True)
        if step.training:
            _count_lost(quantizer, stored, moved, terms)
        if parameter.master is None:
            parameter.value = moved
        else:
            parameter.master = moved
            parameter.value = parameter.quantizers["weight"](moved, step)

    def update_all(self, parameters: Sequence[Parameter], rate: Factor, batch: int, step: Step) -> None:
        """Move parameters by their gradients, as `update` does one after the other: in one call those that can be."""
        ready, prepared, gradients = [], [], []
        for parameter in parameters:
            found, gradient = parameter.prepared, parameter.gradient
            if gradient is not None and found is not None and found.applies(self, parameter, rate, batch, step):
                ready.append(parameter)
                prepared.append(found)
                gradients.append(gradient.mantissa)
            else:
                self.update(parameter, rate, batch, step)
        if not ready:
            return
        updates, together = [one.update for one in prepared], prepared[0].together
        if together is None or together.updates != updates:
            together = prepared[0].together = kernels.Updates(updates)
        counters = [one.counters_of(sums) for one, sums in zip(ready, gradients, strict=True)]
        together(gradients, step.number, counters)
        for parameter, one in zip(ready, prepared, strict=True):
            one.follow(parameter, step)

    def step(self, training: Passes, rows: NDArray[np.int64], rate: Factor, step: Step) -> QTensor:
        """Train on the samples of these rows, and return what the network made of them before."""
        outputs = training.gradients(training.inputs(rows, step), rows, step)
        self.update_all(training.parameters, rate, training.batch, step)
        training.tell(len(rows))
        return outputs

    # What an optimizer does beside its updates, and keeps from step to step: nothing here

    finished: str | None = None
    """Why there is nothing left to train, if so."""

    def after_step(self, parameters: Sequence[Parameter], steps: int, steps_per_epoch: int) -> None:
        """Look at the parameters after a step of training; `steps` are done since the training began."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what must be saved, beside the parameters, to go on with the same bits."""
        return {}

    def load_state(self, arrays: Mapping[str, NDArray[Any]], parameters: Sequence[Parameter]) -> None:
        """Take back what :meth:`state` gave.

        Raises
        ------
        InputError
            If it belongs to another optimizer or network; then nothing is changed.
        """
        if arrays:
            raise InputError(f"{min(arrays)} belongs to no optimizer of this kind ({type(self).__name__})")

    def _factors(self, parameter: Parameter, rate: Factor, batch: int) -> tuple[Factor, Factor]:
        """Return the decay and the rate for the gradient of a sum over a batch."""
        decay = self.decay.times(batch) if parameter.decays else Factor(0, 0)
        return decay, rate.times(Fraction(1, batch))

    def _move_at_once(self, parameter: Parameter, rate: Factor, batch: int, step: Step) -> bool:
        """Do the update in one pass with the same bits, if everything is fixed point; tell whether it was done."""
        assert parameter.gradient is not None
        key = (rate, batch, self.momentum, self.decay, step.seed, parameter.gradient.exponent.item(0))
        prepared = parameter.prepared
        if self.rounds_momentum_last and self.momentum.mantissa:
            return False
        if prepared is None or prepared.key != key or not prepared.fits(parameter):
            prepared = parameter.prepared = Prepared.of(self, parameter, key, *self._factors(parameter, rate, batch), step)
        if prepared.update is None or not step.training:
            return False
        gradient = parameter.gradient.mantissa
        prepared.update(gradient, step.number, parameter.counters_of(gradient))
        prepared.follow(parameter, step)
        return True

    def _move_by_places(self, parameter: Parameter, rate: Factor, step: Step) -> None:
        """NITI's update: the gradient, shifted until it has so many bits, is taken off the stored weights' mantissas."""
        assert parameter.gradient is not None
        quantizer, sums = parameter.quantizers["gradient"], parameter.gradient.mantissa
        role = quantizer.role
        largest = kernels.max_magnitude(sums)
        bits = (largest - 1).bit_length() if largest else 0  # ceil(log2(largest))
        move = kernels.requantize(
            sums, max(0, bits + rate.shift), role.rounding.code, role.overflow.code, role.format.word_bits,
            random_bits=role.random_bits, seed=step.seed, stream=quantizer.stream, step=step.number,
            counters=quantizer.counters_of(sums) if step.training else None,
        )  # fmt: skip
        weights, value = parameter.quantizers[parameter.stored_role], parameter.stored
        zero = np.zeros(1, np.int64)
        difference = kernels.linear_combination([(value.mantissa, 1, zero), (move, -1, zero)], 1)
        lost = weights.counters[kernels.COUNT_LOST]
        moved = kernels.requantize(
            difference.reshape(value.shape), 0, Rounding.FLOOR.code, weights.role.overflow.code, weights.format.word_bits,
            counters=weights.counters_of(sums) if step.training else None,
        )  # fmt: skip
        if step.training:
            quantizer.count += sums.size
            weights.count += sums.size
            quantizer.exponent = weights.exponent = int(value.exponent.max())
            weights.collect()
            weights.counters[kernels.COUNT_LOST] = lost + kernels.count_unmoved([move], value.mantissa, moved)
        tensor = QTensor.trusted(moved, value.exponent, value.format)
        if parameter.master is None:
            parameter.value = tensor
        else:
            parameter.master = tensor
            parameter.value = parameter.quantizers["weight"](tensor, step)


@dataclass
class Prepared:
    """An update in one pass, made once for many steps; None where it must be done piece by piece."""

    key: tuple[Any, ...]
    update: Any
    arrays: tuple[Any, ...]
    quantizers: list[tuple[Quantizer, int]]
    together: kernels.Updates | None = None  # with those of the parameters after this one

    def fits(self, parameter: Parameter) -> bool:
        """Tell whether the parameter still has the arrays that this was made for."""
        mantissa = None if parameter.momentum is None else parameter.momentum.mantissa
        return self.update is None or (self.arrays[0] is parameter.stored.mantissa and self.arrays[1] is mantissa)

    def applies(self, optimizer: SGD, parameter: Parameter, rate: Factor, batch: int, step: Step) -> bool:
        """Tell whether this is certainly the update of a step: equal factors that are other objects are looked at elsewhere."""
        key, gradient = self.key, parameter.gradient
        assert gradient is not None
        return (
            self.update is not None
            and step.training
            and not optimizer.rounds_momentum_last
            and rate is key[0]
            and batch == key[1]
            and optimizer.momentum is key[2]
            and optimizer.decay is key[3]
            and step.seed == key[4]
            and gradient.exponent.item(0) == key[5]
            and self.fits(parameter)
        )

    def follow(self, parameter: Parameter, step: Step) -> None:
        """Do what is left to do after the update: count, and bring the master copy into the weight's format."""
        for quantizer, place in self.quantizers:
            quantizer.note(self.update.size, place)
        if parameter.master is not None:
            parameter.value = parameter.quantizers["weight"](parameter.master, step)

    @classmethod
    def of(
        cls, optimizer: SGD, parameter: Parameter, key: tuple[Any, ...], decay: Factor, rate: Factor, step: Step
    ) -> "Prepared":
        """Prepare the update, if it can be done in one pass."""
        assert parameter.gradient is not None
        exponent = int(parameter.gradient.exponent.flat[0])
        none = cls(key, None, (), [])
        failing = any(one.role.overflow is Overflow.ERROR for one in rounding_in(optimizer, parameter))
        if failing or parameter.gradient.exponent.size > 1:
            return none
        found = in_one_pass(optimizer, parameter, exponent, decay, rate)
        if found is None:
            return none
        quantizers, stored, velocity = rounding_in(optimizer, parameter), parameter.stored, None
        if optimizer.momentum.mantissa:
            form = quantizers[1].format
            if parameter.momentum is None:
                zeros = kernels.zeros_beside(stored.mantissa, parameter.shape, form.storage)
                parameter.momentum = QTensor.trusted(zeros, -form.fraction_bits, form)  # type: ignore[union-attr]
            velocity = parameter.momentum.mantissa
        factors, targets = found
        update = kernels.Update(
            stored.mantissa, velocity, factors, targets[0], targets[-1], targets[1] if velocity is not None else None, step.seed
        )
        at = [-one.format.fraction_bits for one in quantizers]  # type: ignore[union-attr]
        return cls(key, update, (stored.mantissa, velocity), list(zip(quantizers, at, strict=True)))


def rounding_in(optimizer: SGD, parameter: Parameter) -> list[Quantizer]:
    """Return what rounds in an update: of the gradient, of the momentum if there is one, of what is stored."""
    roles = ["gradient", *(["momentum"] if optimizer.momentum.mantissa else []), parameter.stored_role]
    return [parameter.quantizers[role] for role in roles]


def in_one_pass(
    optimizer: SGD, parameter: Parameter, exponent: int, decay: Factor, rate: Factor
) -> tuple[kernels.Factors, list[kernels.Target]] | None:
    """Align the factors of an update in fixed point: all within a rounding gets the exponent of its smallest unit.

    Parameters
    ----------
    optimizer : SGD
    parameter : Parameter
    exponent : int
        Of the exact gradient.
    decay, rate : Factor
        For the gradient of a sum over a batch.

    Returns
    -------
    (Factors, list of Target), or None
        See :mod:`intnet.kernels.plain.update`; targets are those of `rounding_in`. None if a format is not fixed point, or 62
        bits may not hold what is within a rounding.
    """
    quantizers = rounding_in(optimizer, parameter)
    if not all(isinstance(one.format, Fixed) for one in quantizers):
        return None
    mu = optimizer.momentum
    at = [-one.format.fraction_bits for one in quantizers]  # type: ignore[union-attr]
    word = [1 << (one.format.word_bits - 1) for one in quantizers]
    of_weight = at[-1]
    powers: tuple[int, ...]
    shifts: tuple[int, ...]
    if mu.mantissa:
        base = min(at[1] - mu.shift, at[0], of_weight - decay.shift if decay.mantissa else at[0])
        second = min(of_weight, at[1] - rate.shift)
        powers = (at[1] - mu.shift - base, at[0] - base, of_weight - decay.shift - base, of_weight - second)
        powers = (*powers, at[1] - rate.shift - second)
        factors = (mu.mantissa, 1, decay.mantissa, 1, rate.mantissa)
        shifts = (at[0] - exponent, at[1] - base, of_weight - second)
    else:
        both = rate.shift + decay.shift
        second = min(of_weight, at[0] - rate.shift, of_weight - both if decay.mantissa else of_weight)
        powers = (0, 0, of_weight - both - second, of_weight - second, at[0] - rate.shift - second)
        factors = (0, 0, rate.mantissa * decay.mantissa, 1, rate.mantissa)
        shifts = (at[0] - exponent, of_weight - second)
    if any(power > 60 for power, factor in zip(powers, factors, strict=True) if factor):
        return None
    whole = [factor << power if factor else 0 for factor, power in zip(factors, powers, strict=True)]
    inside = max(whole[0] * word[-2] + whole[1] * word[0], whole[3] * word[-1] + whole[4] * word[-2])
    if inside + whole[2] * word[-1] >= 2**62:
        return None
    targets = [
        kernels.Target(
            shift, one.role.rounding.code, one.role.overflow.code, one.format.word_bits, one.role.random_bits, one.stream
        )
        for shift, one in zip(shifts, quantizers, strict=True)
    ]
    return kernels.Factors(*whole), targets


def bits_of(tensor: QTensor) -> int:
    """Return how many magnitude bits a tensor has: an accumulator those of its largest number, which may be far fewer."""
    return magnitude_bits(tensor) if tensor.format is not None else kernels.max_magnitude(tensor.mantissa).bit_length()


def _lower(tensor: QTensor, shift: int) -> QTensor:
    """Return a tensor divided by ``2**shift``."""
    return QTensor.trusted(tensor.mantissa, tensor.exponent - shift, tensor.format)


def _scaled(tensor: QTensor, factor: Factor) -> tuple[int, QTensor]:
    """Return a tensor times a factor, as a term of `combine`."""
    return factor.mantissa, _lower(tensor, factor.shift)


def _count_lost(quantizer: Any, before: QTensor, after: QTensor, moves: list[tuple[int, QTensor]]) -> None:
    """Count the updates that were not zero and changed nothing."""
    moving = [tensor.mantissa for factor, tensor in moves if factor]
    if not moving:
        return
    pair = before.mantissa, after.mantissa
    if not np.array_equal(before.exponent, after.exponent):
        difference = combine([(1, after), (-1, before)]).mantissa
        pair = difference, kernels.zeros_beside(difference, difference.shape, difference.dtype)
    quantizer.counters[kernels.COUNT_LOST] += kernels.count_unmoved(moving, *pair)
