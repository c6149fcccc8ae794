"""Losses: the gradient of the sum over a batch, in integers; and what they are worth in real numbers, for reports.

The gradient is exact (or, for cross-entropy, within the kernel's stated bound) and then rounded once into the error's format.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError
from intnet.formats import Fixed
from intnet.layers._base import Build, Quantizer, Step
from intnet.layers.container import combine
from intnet.recipe import Role
from intnet.tensor import QTensor

Labels = NDArray[np.int64]


class Loss:
    """A loss over outputs (n, classes) and labels (n,)."""

    name: ClassVar[str]
    unit: ClassVar[str]

    def build(self, build: Build) -> None:
        """Take the error's format from the recipe."""
        recipe = build.recipe.at("loss")
        self.quantizer = Quantizer("loss", "error", self._role(recipe.error), next(build.streams))

    def _role(self, error: Role) -> Role:
        return error

    def gradient(self, outputs: QTensor, labels: Labels, step: Step) -> QTensor:
        """Return the gradient of the summed loss with respect to the outputs, in the error's format.

        Parameters
        ----------
        outputs : (n, classes) QTensor
        labels : (n,) int64
            In 0..classes - 1.
        step : Step

        Raises
        ------
        InputError
            If a label is no class, or there are not as many labels as samples.
        """
        raise NotImplementedError

    def value(self, outputs: NDArray[np.float64], labels: Labels) -> float:
        """Return the summed loss of real outputs, in float64: for reports alone."""
        raise NotImplementedError


class CrossEntropy(Loss):
    """Softmax and cross-entropy: the gradient is ``softmax(z) - onehot``, with an integer exponential of 30 fraction bits."""

    name: ClassVar[str] = "cross_entropy"
    unit: ClassVar[str] = "nats"

    def gradient(self, outputs: QTensor, labels: Labels, step: Step) -> QTensor:
        """Return softmax(outputs) - onehot; every row sums to 0 before it is rounded."""
        _check_labels(outputs, labels)
        exact = kernels.softmax_gradient(outputs.mantissa, outputs.exponent.reshape(-1), labels)
        return self.quantizer(QTensor.trusted(exact, -30), step)

    def value(self, outputs: NDArray[np.float64], labels: Labels) -> float:
        """Return the sum of -log softmax(outputs)[label], in nats."""
        top = outputs.max(axis=1, keepdims=True)
        sums = np.log(np.exp(outputs - top).sum(axis=1)) + top[:, 0]
        return float((sums - outputs[np.arange(len(labels)), labels]).sum())


class NitiCrossEntropy(CrossEntropy):
    """NITI's integer cross-entropy: powers of two in whole octaves, errors of 8 bits, shifted stochastically by 4.

    References
    ----------
    M. Wang, S. Rasoulinezhad, P. H. W. Leong and H. K. So, "NITI: Training integer neural networks using integer-only
    arithmetic", 2020, arXiv:2009.13108; the rule is that of the authors' code.
    """

    name: ClassVar[str] = "niti_cross_entropy"

    def _role(self, error: Role) -> Role:
        return Role.parse("fxp-s8/7 stochastic saturate_symmetric")

    def gradient(self, outputs: QTensor, labels: Labels, step: Step) -> QTensor:
        """Return NITI's error."""
        _check_labels(outputs, labels)
        exact = kernels.niti_gradient(outputs.mantissa, outputs.exponent.reshape(-1), labels)
        return self.quantizer(QTensor.trusted(exact, -11), step)


class SquaredError(Loss):
    """Half the squared distance to the one-hot target: the gradient is ``outputs - onehot``.

    `value` is the squared error itself, summed over the outputs, without the half.
    """

    name: ClassVar[str] = "squared_error"
    unit: ClassVar[str] = "squared error"

    def gradient(self, outputs: QTensor, labels: Labels, step: Step) -> QTensor:
        """Return outputs - onehot."""
        _check_labels(outputs, labels)
        if int(outputs.exponent.max(initial=0)) > 30:
            raise InputError(
                f"outputs count in units of 2**{outputs.exponent.max()}: training has diverged; use a smaller rate"
            )
        target = np.zeros(outputs.shape, np.int8)
        target[np.arange(len(labels)), labels] = 1
        return self.quantizer(combine([(1, outputs), (-1, QTensor.trusted(target, 0, Fixed(2, 0)))]), step)

    def value(self, outputs: NDArray[np.float64], labels: Labels) -> float:
        """Return the summed squared error."""
        target = np.zeros_like(outputs)
        target[np.arange(len(labels)), labels] = 1
        return float(((outputs - target) ** 2).sum())


def _check_labels(outputs: QTensor, labels: Labels) -> None:
    """Refuse labels that do not belong to the outputs: a kernel would write beyond its rows."""
    if len(outputs.shape) != 2 or labels.shape != outputs.shape[:1] or labels.dtype != np.int64:
        raise InputError(
            f"a loss takes outputs (n, classes) and int64 labels (n,), got {outputs.shape} and {labels.dtype} {labels.shape}"
        )
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < outputs.shape[1]:
        raise InputError(f"labels must be in 0..{outputs.shape[1] - 1}, got {labels.min()} to {labels.max()}")


_LOSSES = {loss.name: loss for loss in (CrossEntropy, NitiCrossEntropy, SquaredError)}


def make_loss(name: str) -> Loss:
    """Return the loss of that name: cross_entropy, niti_cross_entropy or squared_error.

    Raises
    ------
    InputError
        If there is none.
    """
    if not isinstance(name, str) or name not in _LOSSES:
        raise InputError(f"loss {name!r} is unknown; choose one of {', '.join(_LOSSES)}")
    return _LOSSES[name]()
