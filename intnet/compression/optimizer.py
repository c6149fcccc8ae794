"""Training that makes weights zero: a soft threshold, or a projection, after every step.

With a threshold theta a step is ``w = S(w - rate * v, theta)``, ``S(w, theta) = sign(w) max(|w| - theta, 0)``: the proximal
step of ``theta / rate`` times the L1 norm. With `keep`, the largest magnitudes of each layer are left as they are: without a
threshold all others become zero (projection), with one they are thresholded (trimmed L1), so that large weights are not biased.

References
----------
Yun et al. 2019, Trimming the l1 Regularizer, ICML. Blumensath and Davies 2009, Iterative Hard Thresholding, ACHA 27.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from intnet.compression.sparse import project, soft_threshold, trimmed_threshold
from intnet.errors import InputError
from intnet.formats import Fixed
from intnet.layers import Parameter, Step
from intnet.optimizers import SGD
from intnet.recipe import Recipe


class SparseSGD(SGD):
    """Stochastic gradient descent, and after every step a threshold or a projection of the weights of layers.

    Parameters
    ----------
    rate, momentum, decay : as of `SGD`
    threshold : number or text, optional
        A step's; rounded to the grid of the stored weights, to nearest, ties to even.
    keep : number or text, 0..1, optional
        The share of each layer's weights, rounded to nearest, that stays as it is. Only what decay acts on is touched: no
        biases, and nothing of batch normalization.

    Raises
    ------
    InputError
        If neither is given, or one is out of range.

    Examples
    --------
    >>> from intnet import Encoder, Inputs, Network, Trainer, datasets, layers
    >>> data = datasets.load_digits()
    >>> network = Network([layers.Flatten(), layers.Dense(10)], (8, 8, 1), "fixed16")
    >>> inputs = Inputs.of(data, Encoder.of(data, network.recipe))
    >>> trainer = Trainer(network, SparseSGD("2^-1", keep="0.3"), inputs, epochs=5)
    >>> trainer.run()[-1].train_accuracy > 0.8, int((network.parameters[0].value.mantissa == 0).sum())
    (True, 448)
    """

    def __init__(
        self, rate: Any, momentum: Any = 0, decay: Any = 0, *, threshold: Any = None, keep: Any = None
    ) -> None:  # fmt: skip
        super().__init__(rate, momentum, decay)
        if threshold is None and keep is None:
            raise InputError("give a threshold, a share of the weights to keep, or both")
        self.threshold = None if threshold is None else _exact("threshold", threshold)
        self.keep = None if keep is None else _exact("keep", keep)
        if self.keep is not None and self.keep > 1:
            raise InputError(f"keep is a share in 0..1, got {keep!r}")

    def check(self, recipe: Recipe, epochs: int = 1, batch: int = 1, steps_per_epoch: int = 1) -> None:
        """Refuse stored weights in blocks, whose unit changes, and a threshold of no units, too."""
        super().check(recipe, epochs, batch, steps_per_epoch)
        form = (recipe.weight if recipe.master is None else recipe.master).format
        if not isinstance(form, Fixed):
            raise InputError(
                f"recipe {recipe.name!r} stores weights in {form}; thresholds need fixed point, as int8's copy or fixed16"
            )
        if self.threshold is not None and not self._units(form):
            raise InputError(
                f"a threshold of {float(self.threshold):.3g} is no unit of {form}, 2^-{form.fraction_bits}; use at least half "
                "of one, or more fraction bits"
            )

    def _units(self, form: Fixed) -> int:
        assert self.threshold is not None
        return round(self.threshold * 2**form.fraction_bits)

    def describe(self) -> dict[str, Any]:
        """Return what a result is saved with."""
        own = {"threshold": self.threshold, "keep": self.keep}
        return {**super().describe(), "optimizer": "sparse_sgd"} | {
            name: None if value is None else str(value) for name, value in own.items()
        }

    def after_step(self, parameters: Sequence[Parameter], steps: int, steps_per_epoch: int) -> None:  # noqa: ARG002
        """Threshold or project the weights."""
        for parameter in parameters:
            if parameter.decays and len(parameter.shape) > 1:
                self._make_sparse(parameter, steps)

    def _make_sparse(self, parameter: Parameter, steps: int) -> None:
        if parameter.device != "cpu":
            raise InputError("thresholds are computed on the CPU; train there (device cpu)")
        stored = parameter.stored
        form, values = stored.format, stored.mantissa
        assert isinstance(form, Fixed)
        kept = 0 if self.keep is None else round(self.keep * values.size)
        if self.threshold is None:
            made = project(values, kept)
        elif self.keep is None:
            made = soft_threshold(values, self._units(form))
        else:
            made = trimmed_threshold(values, self._units(form), kept)
        np.copyto(values, made, casting="unsafe")  # nearer to zero: they fit
        if parameter.master is not None:
            parameter.value = parameter.quantizers["weight"](parameter.master, Step(steps))


def _exact(name: str, value: Any) -> Fraction:
    try:
        if isinstance(value, bool):
            raise ValueError
        text = str(value)
        exact = Fraction(2) ** int(text[2:]) if text.startswith("2^") else Fraction(text)
    except (TypeError, ValueError, ZeroDivisionError):
        raise InputError(f"{name} is a number, got {value!r}") from None
    if exact < 0 or exact >= 2**20:
        raise InputError(f"{name} is at least 0 and less than 2^20, got {value!r}")
    return exact
