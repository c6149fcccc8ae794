"""One convolution of a network, all others fixed: its weights in one vector, and the cross-entropy of a batch under others.

The batch passes in training, as a step of training sees it: normalized by its own statistics, which no running ones follow.
What comes before the layer is computed once a batch. What comes after is computed for every change, but of the layer itself
only the one channel that a weight belongs to.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError
from intnet.formats import Fixed, Rounding
from intnet.gradients.direction import Direction
from intnet.gradients.perceptron import Words, as_integers
from intnet.layers import BinaryConv2D, Conv2D, Layer, Residual, Sequential, Step
from intnet.losses import CrossEntropy
from intnet.network import Network
from intnet.tensor import QTensor

_LOSS_UNIT = Fraction(1, 2**kernels.SOFTMAX_FRACTION_BITS)
_STEP = Step(training=True, statistics=False)


class Labelled(NamedTuple):
    """A batch.

    Attributes
    ----------
    inputs : (n, *shape) QTensor
    labels : (n,) int64
    """

    inputs: QTensor
    labels: NDArray[np.int64]

    @property
    def samples(self) -> int:
        """How many."""
        return len(self.labels)


class OneLayer:
    """A convolution without bias; a :class:`intnet.gradients.Landscape`, so for CDG, NES and the others.

    Of a :class:`intnet.layers.BinaryConv2D` the weights are those behind the signs: an epsilon changes a sign if it reaches
    across 0.

    Parameters
    ----------
    network : Network
        On the CPU, with cross-entropy, and weights of the layer in fixed point without a wider copy. Its weights are as
        before after every call; when they have been changed by others, it refuses to go on.
    name : str
        Of the layer.

    Raises
    ------
    InputError
        If there is no such layer, or it is none of these.
    """

    def __init__(self, network: Network, name: str) -> None:
        found = [layer for layer in network.layers.walk() if layer.name == name]
        if not found or not isinstance(found[0], Conv2D):
            names = [layer.name for layer in network.layers.walk() if isinstance(layer, Conv2D)]
            raise InputError(f"no convolution of this network is called {name!r}; there are {', '.join(names)}")
        layer, form = found[0], found[0].weight.value.format
        if layer.bias is not None or not isinstance(form, Fixed) or layer.weight.master is not None or layer.groups != 1:
            raise InputError(
                f"layer {name!r} must be a convolution of one group, without bias, of weights in fixed point without a copy"
            )
        if layer.coding is not None or "inputs" in layer.quantizers:
            raise InputError(
                f"layer {name!r} has coded weights or inputs; changes of single weights are of weights as they are"
            )
        if network.device != "cpu":
            raise InputError("this network lives on a GPU; move it back with network.to('cpu')")
        if type(network.loss) is not CrossEntropy:
            raise InputError(f"losses are cross-entropies here, and this network has {network.loss.name}")
        self.network, self.layer, self.format, self._value = network, layer, form, layer.weight.value
        self.weights = layer.weight.value.mantissa.reshape(-1).astype(np.int64)
        self.slices: Sequence[slice] = [slice(0, self.weights.size)]
        self.weight_unit = Fraction(2) ** -form.fraction_bits
        self.loss_unit, self.halves = _LOSS_UNIT, 1
        self._batch: Labelled | None = None
        self._others = 0

    # What comes before and after

    def _prepare(self, batch: Labelled) -> None:
        """Bring the batch to the layer, unless that is where it is."""
        self._check_batch(batch)
        others = self._checksum()
        if batch is self._batch and others == self._others:
            return
        self._batch = None
        found = self._located(self.network.layers, batch.inputs)
        assert found is not None
        self._inputs, self._rest = found
        self._batch, self._others = batch, others

    def _check_batch(self, batch: Labelled) -> None:
        labels, classes = batch.labels, self.network.output_shape[0]
        if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.ndim != 1:
            raise InputError(f"labels must be int64 of shape (n,), got {labels!r}")
        if not batch.samples:
            raise InputError("a batch needs samples, got none")
        if batch.inputs.shape[0] != batch.samples or labels.min() < 0 or labels.max() >= classes:
            raise InputError(
                f"a batch has a label in 0..{classes - 1} for each sample, got {batch.inputs.shape[0]} samples and "
                f"{batch.samples} labels in {labels.min()}..{labels.max()}"
            )
        if not np.array_equal(self.layer.weight.value.mantissa, self._value.mantissa):
            raise InputError(f"the weights of layer {self.layer.name!r} are others by now; make another OneLayer")

    def _checksum(self) -> int:
        """Return what tells whether the network's other parameters have changed."""
        found = 0
        for parameter in self.network.parameters:
            if parameter is not self.layer.weight:
                found = crc32(parameter.value.mantissa.tobytes(), found)
                found = crc32(parameter.value.exponent.tobytes(), found)
        return found

    def _located(self, stage: Sequential, x: QTensor) -> tuple[QTensor, Callable[[QTensor], QTensor]] | None:
        """Return what the layer gets, and what becomes of its outputs in this stage; None if it is not in it."""
        for place, child in enumerate(stage.layers):
            after = stage.layers[place + 1 :]
            if child is self.layer:
                return x, lambda y, after=after: _run(after, y)
            if isinstance(child, Sequential) and (found := self._located(child, x)):
                return found[0], lambda y, after=after, inner=found[1]: _run(after, inner(y))
            if isinstance(child, Residual) and (sides := self._beside(child, x)):
                return sides[0], lambda y, after=after, inner=sides[1]: _run(after, inner(y))
            x = child.forward(x, _STEP)
        return None

    def _beside(self, block: Residual, x: QTensor) -> tuple[QTensor, Callable[[QTensor], QTensor]] | None:
        """Do the same in a block: the side without the layer is run once."""
        in_body = any(one is self.layer for one in block.body.walk())
        if not in_body and (block.shortcut is None or all(one is not self.layer for one in block.shortcut.walk())):
            return None
        if in_body:
            other = x if block.shortcut is None else block.shortcut.forward(x, _STEP)
            found = self._located(block.body, x)
            assert found is not None
            return found[0], lambda y: block.join(found[1](y), other, _STEP)
        assert block.shortcut is not None
        body, found = block.body.forward(x, _STEP), self._located(block.shortcut, x)
        assert found is not None
        return found[0], lambda y: block.join(body, found[1](y), _STEP)

    def _loss_of(self, y: QTensor, batch: Labelled) -> int:
        outputs = self._rest(y)
        return kernels.softmax_loss(outputs.mantissa, outputs.exponent.reshape(-1), batch.labels)

    def _put(self, weights: NDArray[np.int64]) -> None:
        mantissa = weights.reshape(self.layer.weight.shape).astype(self.format.storage)
        self.layer.weight.value = QTensor.trusted(mantissa, self._value.exponent, self.format)

    def _restore(self) -> None:
        self.layer.weight.value = self._value

    def _check(self, least: int, greatest: int) -> None:
        if least < self.format.minimum or greatest > self.format.maximum:
            reached, most = float(max(-least, greatest) * self.weight_unit), float(self.format.maximum_value)
            raise InputError(f"weights may reach {reached:.3g}, and {self.format} ends at {most:g}; take a smaller step")

    def with_weights(self, weights: NDArray[np.int64]) -> "OneLayer":
        """Put other weights into the network, and return the layer anew."""
        weights = as_integers("weights", weights, self.weights.shape)
        self._check(int(weights.min()), int(weights.max()))
        self._put(weights)
        return OneLayer(self.network, self.layer.name)

    # What estimators ask

    def losses(self, batch: Labelled, weights: NDArray[np.int64] | None = None) -> Words:
        """Return the summed cross-entropies under (sets, weights): the whole layer is computed, and what comes after it."""
        self._prepare(batch)
        sets = self.weights[None] if weights is None else as_integers("weights", weights, (None, self.weights.size))
        if sets.size:
            self._check(int(sets.min()), int(sets.max()))
        found = []
        try:
            for one in sets:
                self._put(one)
                found.append(self._loss_of(self.layer.forward(self._inputs, _STEP), batch))
        finally:
            self._restore()
        return _words(found)

    def pair_losses(self, batch: Labelled, moves: NDArray[np.int64]) -> Words:
        """Return the losses with weights that are moved, there and back."""
        both = self.losses(batch, np.concatenate([self.weights + moves, self.weights - moves]))
        return Words(both.high.reshape(2, -1), both.low.reshape(2, -1))

    def changes(self, batch: Labelled, epsilon: int, wanted: NDArray[np.bool_] | None = None) -> Words:
        """Return what the loss becomes more if one weight is `epsilon` units more, and less: the bits of `losses`, sooner.

        Where sums may leave the accumulator, or are rounded at random or by blocks, the layer is computed whole.
        """
        self._prepare(batch)
        chosen = np.flatnonzero(np.ones(self.weights.size, np.bool_) if wanted is None else wanted)
        if chosen.size:
            self._check(int(self.weights[chosen].min()) - epsilon, int(self.weights[chosen].max()) + epsilon)
        found = np.zeros((2, self.weights.size), np.int64)
        binary = isinstance(self.layer, BinaryConv2D)
        before = int(self.losses(batch).exact()[0])
        by_channel = self._by_channel()
        if by_channel:
            made, _, _ = self.layer.accumulated(self._inputs)
            sums, exponent = made.mantissa.astype(np.int64), made.exponent.item()
            y = self.layer.bring(QTensor.trusted(sums, exponent), "activation", _STEP)
            padded = np.pad(self._inputs.mantissa.astype(np.int64), ((0, 0), *_sides(self.layer.padding), (0, 0)))
        for i in chosen:
            o, ky, kx, c = (int(place) for place in np.unravel_index(i, self.layer.weight.shape))
            for way, sign in enumerate((1, -1)):
                after = int(self.weights[i]) + sign * epsilon
                if binary:
                    move = (1 if after >= 0 else -1) - (1 if self.weights[i] >= 0 else -1)
                else:
                    move = after - int(self.weights[i])
                if not move:
                    continue
                if not by_channel:
                    one = self.weights.copy()
                    one[i] = after
                    found[way, i] = int(self.losses(batch, one[None]).exact()[0]) - before
                    continue
                (rows, columns), (down, right) = sums.shape[1:3], self.layer.stride
                seen = padded[:, ky : ky + down * rows : down, kx : kx + right * columns : right, c]
                column = QTensor.trusted(sums[..., o : o + 1] + move * seen[..., None], exponent)
                values = y.mantissa.copy()
                values[..., o : o + 1] = self.layer.bring(column, "activation", _STEP).mantissa
                found[way, i] = self._loss_of(QTensor.trusted(values, y.exponent, y.format), batch) - before
        return Words(found >> 32, found & (2**32 - 1))

    def _by_channel(self) -> bool:
        role = self.layer.recipe.activation
        random = role.rounding in (Rounding.STOCHASTIC, Rounding.PSEUDO_STOCHASTIC)
        return isinstance(role.format, Fixed) and not random and self._room()

    def _room(self) -> bool:
        """Tell whether no sum can leave the accumulator, and all samples share an exponent."""
        fan_in = self.weights.size // self.layer.outputs
        values = kernels.to_host(self._inputs.mantissa)
        most = fan_in * max(-int(values.min()), int(values.max())) * (self.format.maximum + 1)
        return self._inputs.exponent.size == 1 and most < 2 ** (self.layer.recipe.accumulator_bits - 1)

    def backpropagated(self, batch: Labelled, rule: Any) -> Direction:
        """Return the gradient that the network's own backward pass leaves with the layer; `rule` must be plain STE.

        Raises
        ------
        InputError
            For any other rule: the network's signs have a window of their own.
        """
        if (rule.derivative, rule.signs, rule.window) != ("vanilla", 0, False):
            raise InputError(
                "the backward pass of a network has the windows of its own Sign layers; take STE() without options, and build "
                "the network with another window"
            )
        self._check_batch(batch)
        self._batch = None  # what layers keep is now that of this pass
        outputs = self.network.forward(batch.inputs, _STEP)
        self.network.backward(self.network.loss.gradient(outputs, batch.labels, _STEP), _STEP)
        gradient = self.layer.weight.gradient
        assert gradient is not None
        integers = np.ascontiguousarray(gradient.mantissa, np.int64).reshape(-1)
        return Direction(integers, [Fraction(2) ** int(gradient.exponent.flat[0])])


def _run(layers: Sequence[Layer], x: QTensor) -> QTensor:
    for layer in layers:
        x = layer.forward(x, _STEP)
    return x


def _words(values: Sequence[int]) -> Words:
    return Words(np.array([v >> 32 for v in values], np.int64), np.array([v & (2**32 - 1) for v in values], np.int64))


def _sides(padding: tuple[int, int, int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    top, bottom, left, right = padding
    return (top, bottom), (left, right)
