"""Batch normalization: mean, variance and inverse root are integers, and results are rounded once, by the recipe."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.arithmetic import TIES_EVEN
from intnet.errors import InputError
from intnet.formats import Overflow
from intnet.kernels.normalization import BatchStatistics
from intnet.layers._base import Build, Layer, Parameter, Quantizer, Shape, Step, aligned, magnitude_bits
from intnet.recipe import Role
from intnet.tensor import QTensor
from intnet.tensor.qtensor import Integers

_RUNNING = Role.parse("fxp-s62/32 ties_even saturate")


class BatchNorm(Layer):
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``, channel by channel; channels are the last axis.

    In training with the mean and the variance of the batch, over all its rows and pixels; then the running ones move towards
    them by ``2**-momentum_shift`` of the way, the variance as that of a sample, divided by one row less. In evaluation with the
    running ones, every sample as if it were alone. In training, samples with exponents of their own are first brought to one,
    in words of the recipe's `alignment_bits`.

    The running statistics are fxp-s62/32: real numbers below ``2**29``, beyond which they saturate, and are counted.

    Parameters
    ----------
    epsilon_shift : int, 0..62
        Epsilon is ``2**-epsilon_shift``: by default 7.6e-6; PyTorch's is 1e-5.
    momentum_shift : int, 0..62
        1/8 by default; PyTorch's is 1/10.
    name : str, optional

    References
    ----------
    Ioffe and Szegedy 2015, arXiv:1502.03167.
    """

    kind: ClassVar[str] = "batch_norm"
    settings: ClassVar[tuple[str, ...]] = ("epsilon_shift", "momentum_shift")

    def __init__(self, epsilon_shift: int = 17, momentum_shift: int = 3, name: str | None = None) -> None:
        super().__init__(name)
        for what, shift in (("epsilon_shift", epsilon_shift), ("momentum_shift", momentum_shift)):
            if isinstance(shift, bool) or not isinstance(shift, (int, np.integer)) or not 0 <= shift <= 62:
                raise InputError(f"{what} of batch normalization must be an integer in 0..62, got {shift!r}")
        self.epsilon_shift, self.momentum_shift = int(epsilon_shift), int(momentum_shift)
        self.gamma: Parameter
        self.beta: Parameter
        self.gives_input_gradient = True
        self._statistics: BatchStatistics | None = None
        self._pooled: int | None = None  # rows of the batches whose statistics are being pooled

    def build(self, shape: Shape, build: Build) -> Shape:
        """Make a factor and an offset for each channel."""
        self.begin(build, "activation", "error")
        if not shape or shape[-1] < 1:
            raise self.refuse(shape, "a last axis of channels")
        channels = shape[-1:]
        self.gamma = self.parameter(build, "gamma", channels, "ones", decays=False)
        self.beta = self.parameter(build, "beta", channels, "zeros", decays=False)
        self.running_mean = np.zeros(channels, np.int64)
        self.running_variance = np.full(channels, 1 << kernels.RUNNING_BITS, np.int64)
        self.quantizers["running"] = Quantizer(f"{self.name}.running", "running", _RUNNING, 0)
        return shape

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Normalize; round once."""
        if not x.mantissa.size:
            raise InputError(f"layer {self.name!r}: a batch of nothing has no mean")
        gamma, beta = self.gamma.value, self.beta.value
        parameters = (gamma.mantissa, gamma.exponent, beta.mantissa, beta.exponent, self.epsilon_shift)
        if not step.training:
            return self.bring(self._evaluated(x, parameters), "activation", step)
        shape, x = x.mantissa.shape, self._aligned(x)
        linear, self._statistics = kernels.normalize_batch(x.mantissa, int(x.exponent.flat[0]), *parameters)
        if step.statistics:
            self._update_running(self._statistics)
        return self.bring_map(linear, shape, "activation", step)

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Leave the gradients with the parameters, and return that of the inputs (or `dy`, if it is not wanted)."""
        if self._statistics is None:
            raise InputError(f"layer {self.name!r}: backward needs a forward pass in training before it")
        errors, gamma = self._aligned(dy), self.gamma.value
        linear, dgamma, dgamma_exponent, dbeta, dbeta_exponent = kernels.normalize_backward(
            errors.mantissa, int(errors.exponent.flat[0]), self._statistics, gamma.mantissa, gamma.exponent
        )
        self.gamma.gradient = QTensor.trusted(kernels.move_beside(dgamma, gamma.mantissa), dgamma_exponent)
        self.beta.gradient = QTensor.trusted(kernels.move_beside(dbeta, gamma.mantissa), dbeta_exponent)
        if not self.gives_input_gradient:
            return dy
        return self.bring_map(linear, dy.mantissa.shape, "error", step)

    def pool(self, begin: bool) -> None:
        """Begin anew, or end, to take the running statistics as the mean of those of the batches that now come in training.

        Each batch is weighed by its rows; between the two calls `momentum_shift` has no say.
        """
        self._pooled = 0 if begin else None
        if begin:
            self.running_mean[:] = 0
            self.running_variance[:] = 0

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the running mean and variance."""
        mean, variance = self.running_mean.copy(), self.running_variance.copy()  # they are updated in place
        return {f"{self.name}/running_mean": mean, f"{self.name}/running_variance": variance}

    def load_state(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take back what :meth:`state` gave, checked."""
        taken = {}
        for key, mine in self.state().items():
            array = arrays.get(key)
            if array is None:
                raise InputError(f"there is no {key}; it is the state of another network or recipe")
            if array.shape != mine.shape or array.dtype != np.int64:
                raise InputError(f"{key} must be int64 of shape {mine.shape}, got {array.dtype} of shape {array.shape}")
            most = _RUNNING.format.maximum
            least = 0 if key.endswith("variance") else -most
            if array.min() < least or array.max() > most:
                raise InputError(f"{key} must lie in {least}..{most}, got {array.min()} to {array.max()}")
            taken[key.rpartition("/")[2]] = np.array(array, np.int64)
        self.running_mean, self.running_variance = taken["running_mean"], taken["running_variance"]

    def stop_here(self) -> bool:
        """Give no gradient of the inputs."""
        self.gives_input_gradient = False
        return True

    def _evaluated(self, x: QTensor, parameters: tuple[Any, ...]) -> QTensor:
        """Normalize by the running statistics, all samples of one exponent at a time."""
        running, mantissa, exponents = (self.running_mean, self.running_variance), x.mantissa, x.exponent.reshape(-1)
        drop = max(0, magnitude_bits(x) - 31)
        if drop:  # whatever the values are, as what is dropped must not depend on the other samples
            mantissa = kernels.requantize(mantissa, drop, TIES_EVEN, Overflow.SATURATE.code, 32)
        if exponents.size == 1:
            linear = kernels.normalize_running(mantissa, int(exponents[0]) + drop, *running, *parameters)
            return QTensor.trusted(kernels.evaluate(linear)[0].reshape(mantissa.shape), linear.exponent)
        mantissa = kernels.to_host(mantissa)
        out: Integers = np.empty(mantissa.shape, np.int32 if mantissa.itemsize == 1 else np.int64)
        scales = np.empty((len(mantissa),) + (1,) * (mantissa.ndim - 1), np.int64)
        for exponent in np.unique(exponents):
            chosen = np.flatnonzero(exponents == exponent)
            linear = kernels.normalize_running(mantissa[chosen], int(exponent) + drop, *running, *parameters)
            out[chosen] = kernels.evaluate(linear)[0].reshape(out[chosen].shape)
            scales[chosen] = linear.exponent
        return QTensor.trusted(kernels.move_beside(out, x.mantissa), scales)

    def _aligned(self, x: QTensor) -> QTensor:
        return aligned(x, max(self.recipe.alignment, magnitude_bits(x) + 1))

    def _update_running(self, statistics: BatchStatistics) -> None:
        """Move the running statistics, and count what saturates."""
        running = self.running_mean, self.running_variance
        if self._pooled is None:
            saturated = kernels.update_running(statistics, *running, self.momentum_shift)
        else:
            saturated = kernels.pool_running(statistics, *running, self._pooled)
            self._pooled += len(statistics.x)
        seen = self.quantizers["running"]
        seen.count += 2 * self.running_mean.size
        seen.exponent = -kernels.RUNNING_BITS
        seen.counters[kernels.COUNT_SATURATED] += saturated
        for array in (self.running_mean, self.running_variance):
            seen.counters[kernels.SEEN_MINIMUM] = min(seen.counters[kernels.SEEN_MINIMUM], array.min())
            seen.counters[kernels.SEEN_MAXIMUM] = max(seen.counters[kernels.SEEN_MAXIMUM], array.max())
