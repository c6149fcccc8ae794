"""SVRG of networks: every period a full gradient, which takes the noise out of the steps that follow.

Notation as in :mod:`intnet.optimizers.sgd`. Every T steps the weights w are kept as the centre c, and one pass over all N
samples, in batches of their own order and augmentation, gives the sum G of their gradients there. A step on a batch of n
samples goes forwards and backwards twice, at c and at w, with the same samples and the same random bits::

    d = Q_gradient(G_n(w)) - Q_gradient(G_n(c)) + (n / N) G         the sum over n samples, in words of up to 62 bits
    w = Q_weight(w - (r / B) (d + lambda B w))

The centre is kept here: what is written into the parameters from outside, between two steps, HALP undoes and SVRG moves from.

Gradients of batch normalization depend on the batch as well; G is then that of the batches it was taken of. Running statistics
follow the weights that train, and neither centre nor full gradient.

References
----------
Johnson and Zhang 2013, Accelerating Stochastic Gradient Descent using Predictive Variance Reduction (NIPS 26).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.arithmetic import quotient
from intnet.errors import InputError
from intnet.layers import Parameter, Step
from intnet.layers.container import combine
from intnet.optimizers.factor import Factor
from intnet.optimizers.sgd import SGD, Passes, bits_of
from intnet.random import random_words
from intnet.recipe import Recipe
from intnet.tensor import QTensor

FULL_GRADIENT_STREAM = 3
"""Of random bits: seeds of the passes over all samples."""

PERIOD_MAX = 2**32 - 1
_SHARE_BITS = 61  # of n / N


@dataclass
class Centre:
    """Where a parameter was when the full gradient was taken.

    Attributes
    ----------
    value : QTensor
        The weight that products take there.
    gradient : QTensor
        The sum of all samples' gradients, up to ``2**62`` in magnitude, with one exponent; on the host.
    """

    value: QTensor
    gradient: QTensor
    _shares: dict[tuple[int, int], QTensor] = field(default_factory=dict, repr=False)

    def share(self, some: int, samples: int) -> QTensor:
        """Return `some` of so many samples' share of the gradient, to nearest."""
        if (some, samples) not in self._shares:
            mantissa, power = map(int, quotient(np.int64(some), np.int64(samples), np.int64(_SHARE_BITS)))
            sums = self.gradient.mantissa
            out = np.empty((1, sums.size), np.int64)
            up = 62 - kernels.max_magnitude(sums).bit_length() if sums.size else 0  # as many bits as there is room for
            kernels.scale_rows(sums.reshape(1, -1), np.int64(mantissa), np.array([-power - up]), out)
            self._shares[some, samples] = QTensor.trusted(out.reshape(sums.shape), self.gradient.exponent - up)
        return self._shares[some, samples]


class SVRG(SGD):
    """Variance-reduced gradient descent: weights on the grid of their recipe, which decides what is wide and what is low.

    Parameters
    ----------
    rate : Schedule, Factor, or what `Factor.of` takes
        Of the mean gradient.
    decay : Factor, or what `Factor.of` takes
        As of SGD: it acts on weights, not on biases nor on batch normalization.
    period : int, 1..2**32 - 1
        Steps between two full gradients, T: the first is taken at the first step.

    Raises
    ------
    InputError
        If an argument is out of range.

    Examples
    --------
    >>> SVRG("0.1", period=391).describe()["period"]
    391
    """

    kind: ClassVar[str] = "svrg"
    has_other_weights: ClassVar[bool] = True

    def __init__(self, rate: Any, decay: Any = 0, *, period: int) -> None:
        super().__init__(rate, 0, decay)
        self.period = check_period(period)
        self.centres: dict[str, Centre] = {}
        self._of: Parameter | None = None  # the first of the parameters that the centres belong to

    def check(self, recipe: Recipe, epochs: int = 1, batch: int = 1, steps_per_epoch: int = 1) -> None:
        """Refuse what SGD refuses, and an optimizer that has trained already."""
        if recipe.update != "sgd":
            raise InputError(
                f"recipe {recipe.name!r} has normalized updates; {type(self).__name__} takes plain ones (update 'sgd')"
            )
        super().check(recipe, epochs, batch, steps_per_epoch)
        if self.centres:
            raise InputError(f"this {type(self).__name__} has a centre of another training; make another one")

    def describe(self) -> dict[str, Any]:
        """Return what a result is saved with."""
        return super().describe() | {"optimizer": self.kind, "period": self.period}

    def full_gradients(self, steps: int) -> int:
        """Return how many full gradients so many steps take."""
        return -(-steps // self.period)

    @property
    def finished(self) -> str | None:  # type: ignore[override]
        """Why there is nothing left to train, if the full gradient is zero; with decay there always is."""
        if not self.centres or self.decay.mantissa or any(one.gradient.mantissa.any() for one in self.centres.values()):
            return None
        return "the full gradient is zero: no step would move a weight"

    def step(self, training: Passes, rows: NDArray[np.int64], rate: Factor, step: Step) -> QTensor:
        """Take a full gradient if it is time; then train on the samples of these rows, and return the outputs before.

        Raises
        ------
        InputError
            If the centres are those of another network.
        """
        parameters = training.parameters
        if self.centres and self._of is not parameters[0]:
            raise InputError(f"this {type(self).__name__} has the centres of another network; make another one")
        if step.number % self.period == 0 or not self.centres:
            self.centre(training, step)
        x = training.inputs(rows, step)
        at_centre = self._gradients_at_centre(training, x, rows, step)
        outputs = training.gradients(x, rows, step)
        for parameter, there in zip(parameters, at_centre, strict=True):
            share = self.centres[parameter.name].share(len(rows), training.samples)
            here = _rounded_gradient(parameter, step)
            direction = combine([(1, here), (-1, there), (1, share)], bits_of)
            self.descend(parameter, direction, rate, training.batch, step)
        training.tell(len(rows))
        return outputs

    def descend(self, parameter: Parameter, direction: QTensor, rate: Factor, batch: int, step: Step) -> None:
        """Move a parameter against a direction, the sum over a batch, which is on the host."""
        self.move(parameter, direction.moved(parameter.device), rate, batch, step)

    def centre(self, training: Passes, step: Step) -> None:
        """Make the weights the centre, and take the full gradient there."""
        values = [parameter.value for parameter in training.parameters]
        sums = full_gradient(training, self.period, step)
        self.centres = {
            parameter.name: Centre(value, total)
            for parameter, value, total in zip(training.parameters, values, sums, strict=True)
        }
        self._of = training.parameters[0]

    def _gradients_at_centre(self, training: Passes, x: QTensor, rows: NDArray[np.int64], step: Step) -> list[QTensor]:
        """Return the gradients there, in their format, on the host; all else is as before."""
        kept = [(parameter.value, parameter.master) for parameter in training.parameters]
        for parameter in training.parameters:
            centre = self.centres[parameter.name]
            parameter.value = centre.value = centre.value.moved(parameter.device)
        try:
            training.gradients(x, rows, replace(step, statistics=False))
            return [_rounded_gradient(parameter, step) for parameter in training.parameters]
        finally:
            for parameter, (value, master) in zip(training.parameters, kept, strict=True):
                parameter.value, parameter.master = value, master

    # For checkpoints

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the centres and their full gradients."""
        arrays: dict[str, NDArray[Any]] = {}
        for name, centre in self.centres.items():
            for part, tensor in (("value", centre.value.moved("cpu")), ("gradient", centre.gradient)):
                arrays[f"centre/{name}/{part}"] = tensor.mantissa
                arrays[f"centre/{name}/{part}_exponent"] = tensor.exponent
        return arrays

    def load_state(self, arrays: Mapping[str, NDArray[Any]], parameters: Sequence[Parameter]) -> None:
        """Take back what :meth:`state` gave, checked.

        Raises
        ------
        InputError
            If it belongs to another optimizer or network; then nothing is changed.
        """
        taken = dict(arrays)
        centres = {one.name: self._loaded(one, taken) for one in parameters} if arrays else {}
        if taken:
            raise InputError(f"{min(taken)} belongs to no {type(self).__name__} of this network")
        self.centres, self._of = centres, parameters[0] if centres else None

    def _loaded(self, parameter: Parameter, arrays: dict[str, NDArray[Any]]) -> Centre:
        key = f"centre/{parameter.name}"
        value, form = parameter.value, parameter.value.format
        mantissa = take(arrays, f"{key}/value", parameter.shape, value.mantissa.dtype)
        exponent = take(arrays, f"{key}/value_exponent", value.exponent.shape, np.int64)
        sums = take(arrays, f"{key}/gradient", parameter.shape, np.int64)
        of_sums = take(arrays, f"{key}/gradient_exponent", (1,) * sums.ndim, np.int64)
        if kernels.max_magnitude(sums) > 2**62:
            raise InputError(f"{key}/gradient must lie within +-2**62")
        return Centre(QTensor(mantissa, exponent, form), QTensor.trusted(sums, of_sums))


def full_gradient(training: Passes, period: int, step: Step) -> list[QTensor]:
    """Return the sum of all samples' gradients of every parameter, on the host, each with one exponent.

    They are added batch by batch as exact as the accumulators are; where a sum takes more than 62 bits, what lies below is cut
    with a sticky bit. Order, augmentation and rounding are those of a seed made of the training's and of the step.

    Parameters
    ----------
    training : Passes
    period : int
        Steps between two full gradients, which numbers them.
    step : Step
        That is about to be done.
    """
    number = step.number // period
    low, high = random_words(step.seed, FULL_GRADIENT_STREAM, number, count=2)
    seed = int(high) << 32 | int(low)
    order = training.order(0, seed)
    totals: list[QTensor] = []
    for count, first in enumerate(range(0, len(order), training.batch)):
        rows, now = order[first : first + training.batch], Step(count, seed, True, False)
        training.gradients(training.inputs(rows, now), rows, now)
        gradients = [_gradient_of(parameter) for parameter in training.parameters]
        totals = [
            combine([(1, total), (1, gradient)], bits_of)
            for total, gradient in zip(totals or [_nothing(one) for one in gradients], gradients, strict=True)
        ]
        training.tell(len(rows))
    return [in_one_exponent(total.moved("cpu")) for total in totals]


def in_one_exponent(tensor: QTensor) -> QTensor:
    """Return an accumulator as int64 with one exponent: what takes more than 62 bits is cut, with a sticky bit."""
    rows = tensor.exponent.size
    exponents = tensor.exponent.reshape(-1)
    if rows > 1:
        layout = (rows, 1, tensor.mantissa.size // rows, 1)
        found = kernels.exponents_of_integers(tensor.mantissa, layout, 2, -(2**40), 2**40).reshape(-1)
        filled = found > -(2**40)
        if not filled.any():
            return QTensor.trusted(np.zeros(tensor.shape, np.int64), int(exponents[0]))
        common = max(int(exponents[filled].min()), int((exponents + found + 1)[filled].max()) - 62)
        shifts = np.where(filled, exponents - common, 0)
    else:
        common, shifts = int(exponents[0]), np.zeros(1, np.int64)
    words = kernels.linear_combination([(np.ascontiguousarray(tensor.mantissa), 1, shifts)], rows)
    return QTensor.trusted(words.reshape(tensor.shape), common)


def check_period(period: Any) -> int:
    """Return the number of steps between two centres, or raise `InputError`."""
    whole = isinstance(period, (int, np.integer)) and not isinstance(period, (bool, np.bool_))
    if not whole or not 1 <= period <= PERIOD_MAX:
        raise InputError(f"a centre must last for 1..{PERIOD_MAX} steps, a whole number, got {period!r}")
    return int(period)


def take(arrays: dict[str, NDArray[Any]], key: str, shape: tuple[int, ...], kind: Any) -> NDArray[Any]:
    """Take an array of that shape and type out of what a checkpoint held, or raise `InputError`."""
    array = arrays.pop(key, None)
    if array is None or array.shape != shape or array.dtype != kind:
        found = "there is none" if array is None else f"got {array.dtype} of shape {array.shape}"
        raise InputError(
            f"{key} must be {np.dtype(kind)} of shape {shape}: {found}; it is the state of another optimizer or network"
        )
    return array.copy()


def _gradient_of(parameter: Parameter) -> QTensor:
    if parameter.gradient is None:
        raise InputError(f"{parameter.name} has no gradient; the backward pass must give every parameter one")
    return parameter.gradient


def _rounded_gradient(parameter: Parameter, step: Step) -> QTensor:
    return parameter.quantizers["gradient"](_gradient_of(parameter), step).moved("cpu")


def _nothing(like: QTensor) -> QTensor:
    return QTensor.trusted(kernels.zeros_beside(like.mantissa, like.shape, np.int64), like.exponent)
