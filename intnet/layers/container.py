"""Layers made of layers: one after the other, and side by side with a sum."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError, InputTypeError
from intnet.formats import BlockFloat
from intnet.layers._base import Build, Layer, Shape, Step, filled_slices, magnitude_bits
from intnet.tensor import QTensor
from intnet.tensor.qtensor import EXPONENT_MAX

_SUSPICIOUS = BlockFloat.minimum_exponent // 2  # below it, also after a factor, a block is looked at: it may be zeros


class Sequential(Layer):
    """Layers that run one after the other. Each is named by its kind and number (``conv2``), or by the name it was given.

    Parameters
    ----------
    layers : sequence of Layer, or Layers
    name : str, optional

    Raises
    ------
    InputError
        If something is no layer, or two have one name.
    """

    kind: ClassVar[str] = "stage"

    def __init__(self, *layers: Layer | Iterable[Layer], name: str | None = None) -> None:
        super().__init__(name)
        flat: list[Layer] = []
        for one in layers:
            if not isinstance(one, Iterable) and not isinstance(one, Layer):
                raise InputTypeError(f"a network is made of layers, got {one!r}")
            flat.extend([one] if isinstance(one, Layer) else one)
        for one in flat:
            if not isinstance(one, Layer):
                raise InputTypeError(f"a network is made of layers, got {type(one).__name__}")
        self.layers: Sequence[Layer] = tuple(flat)
        if not self.layers:
            raise InputError("a network needs at least one layer, got none")

    def build(self, shape: Shape, build: Build) -> Shape:
        """Build the layers, each for the outputs of the one before."""
        self.begin(build)
        numbers: Counter[str] = Counter()
        taken = set()
        for layer in self.layers:
            numbers[layer.kind] += 1
            name = layer.given_name or f"{layer.kind}{numbers[layer.kind]}"
            if name in taken or "/" in name:
                raise InputError(f"two layers are called {name!r}, or its name holds a slash; give each a name of its own")
            taken.add(name)
            shape = layer.build(shape, build.inside(name))
        return shape

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Run the layers; in training, clamps along with the layer before where that joins them."""
        taken = False
        for layer, after in zip(self.layers, (*self.layers[1:], None), strict=True):
            if taken:
                taken = False
            elif step.training and after is not None and after.clamps and layer.joins_clamps:
                x, taken = layer.forward_clamped(x, step), True
                after.keep_outputs(x)
            else:
                x = layer.forward(x, step)
        return x

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Run the layers backwards, down to the first that is trained; clamps along with the layer after."""
        taken = False
        for layer, before in zip(self.layers[::-1], (*self.layers[-2::-1], None), strict=True):
            if taken:
                taken = False
            elif layer is not self._last_backward and before is not None and before.clamps and layer.joins_clamps:
                dy, taken = layer.backward_clamped(dy, step), True
            else:
                dy = layer.backward(dy, step)
            if layer is self._last_backward:
                break
        return dy

    _last_backward: Layer | None = None

    def stop_here(self) -> bool:
        """Find the first layer with parameters."""
        for layer in self.layers:
            if layer.stop_here():
                self._last_backward = layer
                return True
        return False

    def walk(self) -> Iterator[Layer]:
        """Yield this layer and those within it."""
        yield self
        for layer in self.layers:
            yield from layer.walk()


class Residual(Layer):
    """A body and a shortcut whose outputs are added: exponents aligned, the exact sum rounded once.

    Parameters
    ----------
    body : Layer or sequence of Layer
    shortcut : Layer or sequence of Layer, optional
        By default the input itself.
    name : str, optional

    Notes
    -----
    Where exponents are so far apart that aligning takes more than 62 bits, the smaller term is cut, with a sticky bit, before
    it is added; rounding to nearest is still that of the exact sum.
    """

    kind: ClassVar[str] = "residual"

    def __init__(
        self, body: Layer | Iterable[Layer], shortcut: Layer | Iterable[Layer] | None = None, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.body = body if isinstance(body, Sequential) else Sequential(body)
        self.shortcut: Sequential | None = None
        if shortcut is not None:
            self.shortcut = shortcut if isinstance(shortcut, Sequential) else Sequential(shortcut)

    def build(self, shape: Shape, build: Build) -> Shape:
        """Build both sides; their outputs must have one shape."""
        self.begin(build, "activation", "error")
        made = self.body.build(shape, build.inside("body"))
        other = shape if self.shortcut is None else self.shortcut.build(shape, build.inside("shortcut"))
        if made != other:
            raise InputError(
                f"layer {self.name!r} (Residual) adds outputs of one shape, got {made} from the body and {other} from the "
                "shortcut"
            )
        return made

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Add body(x) and shortcut(x)."""
        other = x if self.shortcut is None else self.shortcut.forward(x, step)
        return self.join(self.body.forward(x, step), other, step)

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Add what comes back through both."""
        other = dy if self.shortcut is None else self.shortcut.backward(dy, step)
        return self._sum(self.body.backward(dy, step), other, "error", step)

    def join(self, body: QTensor, shortcut: QTensor, step: Step) -> QTensor:
        """Return the outputs for those of the two sides."""
        return self._sum(body, shortcut, "activation", step)

    def _sum(self, a: QTensor, b: QTensor, role: str, step: Step) -> QTensor:
        """Add, and round once; 8-bit tensors with one exponent each without keeping the exact sum, with the same bits."""
        small = a.mantissa.dtype.itemsize == b.mantissa.dtype.itemsize == 1 and a.exponent.size == b.exponent.size == 1
        exponents = int(a.exponent.flat[0]), int(b.exponent.flat[0])
        base = min(exponents)
        if not small or max(exponents) - base > 20:
            return self.bring(add(a, b), role, step)
        shape = tuple(a.mantissa.shape)
        factors = np.zeros((3, shape[-1]), np.int64)
        factors[0], factors[1] = (1 << (exponent - base) for exponent in exponents)
        operands = a.mantissa.reshape(-1, shape[-1]), b.mantissa.reshape(-1, shape[-1])
        return self.bring_map(kernels.LinearMap(operands, factors, True, base), shape, role, step)

    def walk(self) -> Iterator[Layer]:
        """Yield this layer and those within it."""
        yield self
        yield from self.body.walk()
        if self.shortcut is not None:
            yield from self.shortcut.walk()

    def stop_here(self) -> bool:
        """Tell whether it has parameters; it gives its input's gradient in any case."""
        return any(layer.parameters_here for layer in self.walk())


def add(a: QTensor, b: QTensor) -> QTensor:
    """Return the sum of two tensors of one shape, as an accumulator; exact but for what `Residual` states.

    Examples
    --------
    >>> one = QTensor(np.array([[3, 5]], np.int8), np.array([[-1]]), None)
    >>> two = QTensor(np.array([[1, -1]], np.int8), np.array([[1]]), None)
    >>> add(one, two).mantissa.tolist()
    [[7, 1]]
    """
    return combine([(1, a), (1, b)])


def combine(terms: Sequence[tuple[int, QTensor]], bits_of: Callable[[QTensor], int] = magnitude_bits) -> QTensor:
    """Return the sum of tensors of one shape, each times an integer factor, as an accumulator.

    Parameters
    ----------
    terms : up to three pairs (factor, QTensor)
        Exponents may differ along the first axis. Where a factor and a tensor's words have together more than 62 bits, the
        words are cut to what is left, with a sticky bit.
    bits_of : callable
        Gives how many magnitude bits a tensor's mantissas have at most: by default by their format or type alone.
    """
    shape = terms[0][1].shape
    terms = _zeros_aside(terms)
    bits = [bits_of(tensor) + abs(factor).bit_length() for factor, tensor in terms]
    if max(bits) > 62:
        terms = [
            (factor, _cut(tensor, wide - abs(factor).bit_length(), 62 - abs(factor).bit_length()) if wide > 62 else tensor)
            for (factor, tensor), wide in zip(terms, bits, strict=True)
        ]
        bits = [min(wide, 62) for wide in bits]
    if all(tensor.exponent.size == 1 for _, tensor in terms):
        each, common = kernels.alignment_of_one([tensor.exponent.item() for _, tensor in terms], bits)
        most = sum(1 << max(0, width + max(0, shift)) for width, shift in zip(bits, each, strict=True))
        ready = [(tensor.mantissa, factor, shift) for (factor, tensor), shift in zip(terms, each, strict=True)]
        return QTensor.trusted(kernels.linear_combination(ready, 1, np.int32 if most < 2**31 else np.int64), common)
    exponents = [tensor.exponent.reshape(-1) for _, tensor in terms]
    shifts, exponent = kernels.alignment(exponents, bits)
    rows = shape[0] if max(len(one) for one in exponents) > 1 else 1
    prepared: list[tuple[NDArray[Any], int, NDArray[np.int64]]] = [
        (tensor.mantissa, factor, shift) for (factor, tensor), shift in zip(terms, shifts, strict=True)
    ]
    most = sum(1 << max(0, width + int(shift.max(initial=0))) for width, shift in zip(bits, shifts, strict=True))
    sums = kernels.linear_combination(prepared, rows, np.int32 if most < 2**31 else np.int64)
    return QTensor.trusted(sums.reshape(shape), exponent.reshape((-1,) + (1,) * (len(shape) - 1)))


def _zeros_aside(terms: Sequence[tuple[int, QTensor]]) -> Sequence[tuple[int, QTensor]]:
    """Give blocks of zeros, which come with the least exponent there is, that of another term: else all would move for them."""
    if len(terms) < 2 or not any((tensor.exponent < _SUSPICIOUS).any() for _, tensor in terms):
        return terms
    filled = []
    for _, tensor in terms:
        low = tensor.exponent.reshape(-1) < _SUSPICIOUS
        if not low.any():
            filled.append(~low)
        elif low.size == 1:
            filled.append(np.array([kernels.count_filled(tensor.mantissa) > 0]))
        else:
            filled.append(~low | filled_slices(tensor.mantissa))
    present = [
        np.where(holds, tensor.exponent.reshape(-1), -EXPONENT_MAX) for holds, (_, tensor) in zip(filled, terms, strict=True)
    ]
    greatest = np.max(np.stack(np.broadcast_arrays(*present)), axis=0)
    greatest = np.where(greatest == -EXPONENT_MAX, BlockFloat.minimum_exponent, greatest)  # zeros in every term
    moved = []
    for holds, (factor, tensor) in zip(filled, terms, strict=True):
        if holds.all():
            moved.append((factor, tensor))
            continue
        exponent = np.where(holds, tensor.exponent.reshape(-1), greatest)
        exponent = exponent.reshape((-1,) + (1,) * (tensor.mantissa.ndim - 1))
        moved.append((factor, QTensor.trusted(tensor.mantissa, exponent, tensor.format)))
    return moved


def _cut(tensor: QTensor, bits: int, room: int) -> QTensor:
    """Return a tensor of so many magnitude bits without the lowest, so that `room` bits hold it; of an accumulator row by row.

    The lowest bit that stays is set if anything but zeros was cut off.
    """
    rows = tensor.exponent.size
    if rows == 1 or tensor.format is not None:
        cut = np.full(1, bits - room)
    else:
        layout = (rows, 1, tensor.mantissa.size // rows, 1)
        found = kernels.exponents_of_integers(tensor.mantissa, layout, 2, -EXPONENT_MAX, EXPONENT_MAX).reshape(-1)
        cut = np.maximum(found + 1 - room, 0)  # a word of 2 bits with exponent e has e + 1 magnitude bits
    words = kernels.linear_combination([(tensor.mantissa, 1, -cut)], cut.size)
    exponent = tensor.exponent + (cut.reshape((-1,) + (1,) * (tensor.exponent.ndim - 1)) if cut.size > 1 else int(cut[0]))
    return QTensor.trusted(words, exponent)
