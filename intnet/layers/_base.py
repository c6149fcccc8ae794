"""What every layer is made of: quantizers, parameters, and the two passes.

A layer gets and gives :class:`intnet.QTensor`. Along a batch, exponents may differ from sample to sample, and along a weight
from row to row; otherwise a tensor has one. What a layer computes is exact until :class:`Quantizer` rounds it, once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError
from intnet.formats import BlockFloat, Overflow, Rounding
from intnet.layers._quantizer import Quantizer, Seen, Shape, Step
from intnet.layers.initial import draw
from intnet.recipe import Recipe, Role
from intnet.tensor import QTensor, quantize
from intnet.tensor.qtensor import EXPONENT_MAX

__all__ = ["Build", "Layer", "Parameter", "Quantizer", "Seen", "Shape", "Step", "aligned", "magnitude_bits"]

FIRST_STREAM = 16
"""Streams of random bits below this belong to the training loop: see :mod:`intnet.training`."""


@dataclass
class Build:
    """What a layer is told when it is built.

    Attributes
    ----------
    recipe : Recipe
    seed : int
        Of the initial weights.
    names : tuple of str
        The path to the layer.
    streams : iterator
        Gives every quantizer and every draw a stream of random bits of its own.
    """

    recipe: Recipe
    seed: int
    names: tuple[str, ...] = ()
    streams: Iterator[int] = field(default_factory=lambda: iter(range(FIRST_STREAM, 2**32)))

    def inside(self, name: str) -> "Build":
        """Return what a layer within another one is told."""
        return Build(self.recipe, self.seed, (*self.names, name), self.streams)

    @property
    def name(self) -> str:
        """The layer's name, its path joined by slashes."""
        return "/".join(self.names)


class Parameter:
    """A tensor that is trained.

    Attributes
    ----------
    name : str
    value : QTensor
        In the weight's format: what products use.
    master : QTensor or None
        The wider copy, if the recipe has one.
    momentum : QTensor or None
        Made by the optimizer when it needs one.
    gradient : QTensor or None
        Exact, as the accumulator left it; set by the backward pass.
    decays : bool
        Whether weight decay acts on it.
    mask : bool, its shape, or None
        False where it is held at zero, see :meth:`enforce`; None: nowhere.
    """

    def __init__(
        self, build: Build, name: str, initial: NDArray[np.float64], *, decays: bool = True, scale: float = 1.0
    ) -> None:
        recipe = build.recipe.at(build.name)
        self.name = f"{build.name}.{name}"
        self.decays = decays
        self.recipe = recipe
        self.quantizers: dict[str, Quantizer] = {}
        for role_name in ("weight", "master", "gradient", "momentum"):
            role = getattr(recipe, role_name)
            if role is not None:
                self.quantizers[role_name] = Quantizer(self.name, role_name, role.for_axes(initial.ndim), next(build.streams))
        # One place for what a fused update counts: gradient, momentum, what is stored.
        stored = self.stored_role
        self.counters = np.zeros((3, kernels.COUNTERS), np.int64)
        for row, role_name in zip(self.counters, ("gradient", "momentum", stored), strict=True):
            if role_name in self.quantizers:
                self.quantizers[role_name].counters = row
                self.quantizers[role_name].reset()
        self.counters_there: Any = None  # the same on the GPU
        self.prepared: Any = None  # the optimizer's own: what it makes once for many steps
        self.master: QTensor | None = None
        self.momentum: QTensor | None = None
        self.gradient: QTensor | None = None
        self.mask: NDArray[np.bool_] | None = None
        start = self._start(initial, self.quantizers[stored].role, scale)
        if recipe.master is None:
            self.value = start
        else:
            self.master = start
            self.value = self.quantizers["weight"](start, Step(seed=build.seed))

    def _start(self, initial: NDArray[np.float64], role: Role, scale: float) -> QTensor:
        """Quantize the initial values to nearest, saturating; refuse a format that ends below their deviation."""
        form = role.format
        if isinstance(form, BlockFloat) and not initial.any():  # no exponent can be read from zeros
            exponent = np.full(form.exponent_shape(initial.shape), form.exponent(scale), np.int64)
            return QTensor.trusted(np.zeros(initial.shape, form.storage), exponent, form)
        start = quantize(initial, form, "ties_even", "saturate")
        if not isinstance(form, BlockFloat):
            top, deviation = float(form.maximum_value), float(np.sqrt(np.mean(initial**2)))
            if deviation > top + form.resolution:
                raise InputError(
                    f"{self.name}: initial values deviate by {deviation:.3g} and {form} ends at {top:.3g}; use fewer "
                    "fraction bits or a longer word for its weights"
                )
            if initial.any() and not start.mantissa.any():
                raise InputError(
                    f"{self.name}: initial values deviate by {deviation:.3g}, all of them zero in {form}; use more fraction "
                    "bits for its weights"
                )
        return start

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what looks into arrays of this process."""
        return {**self.__dict__, "prepared": None, "counters_there": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for row, role_name in zip(self.counters, ("gradient", "momentum", self.stored_role), strict=True):
            if role_name in self.quantizers:
                self.quantizers[role_name].counters = row

    @property
    def device(self) -> str:
        """Where it lives: "cpu" or "gpu"."""
        return "gpu" if kernels.on_device(self.value.mantissa) else "cpu"

    def to(self, device: str) -> None:
        """Move it to "cpu" or "gpu"."""
        for part in ("value", "master", "momentum"):
            tensor = getattr(self, part)
            if tensor is not None:
                setattr(self, part, tensor.moved(device))
        self.gradient = self.prepared = None

    def counters_of(self, array: Any) -> Any:
        """Return the counters of gradient, momentum and what is stored that live where an array does."""
        if not kernels.on_device(array):
            return self.counters
        if self.counters_there is None:
            self.counters_there = kernels.to_device(kernels.new_counters_of_roles())
        return self.counters_there

    def collect(self) -> None:
        """Add what updates counted on the GPU to the counters of the quantizers."""
        if self.counters_there is not None:
            there, self.counters_there = kernels.to_host(self.counters_there), None
            kernels.add_counters(self.counters.T, [there.T])

    @property
    def stored_role(self) -> str:
        """The role that updates are added to: "master", or "weight"."""
        return "weight" if self.recipe.master is None else "master"

    @property
    def stored(self) -> QTensor:
        """What updates are added to: the master copy, or the value itself."""
        return self.value if self.master is None else self.master

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return self.value.shape

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return self.value.mantissa.size

    def assign(self, tensor: QTensor) -> None:
        """Take other numbers, rounded once into the format of what is stored, to nearest, ties to even; forget the momentum.

        With a master copy the weight is then rounded from it, as after every step.

        Parameters
        ----------
        tensor : QTensor
            Of this shape, or an accumulator, with exponents that differ along the first axis at most.
        """
        if tensor.shape != self.shape:
            raise InputError(f"{self.name} has shape {self.shape}, got a tensor of shape {tensor.shape}")
        device, role = self.device, replace(self.quantizers[self.stored_role].role, rounding=Rounding.TIES_EVEN)
        stored = Quantizer(self.name, self.stored_role, role, 0)(tensor.moved("cpu"), Step()).moved(device)
        if self.master is None:
            self.value = stored
        else:
            self.master = stored
            self.value = self.quantizers["weight"](stored, Step())
        self.momentum = self.gradient = self.prepared = None
        self.enforce()

    def follow(self, tensor: QTensor, step: Step) -> None:
        """Take numbers that are kept more exactly elsewhere, rounded as after an update: into what is stored, then the weight.

        Parameters
        ----------
        tensor : QTensor
            Of this shape, with exponents that differ along the first axis at most.
        step : Step
        """
        tensor = tensor.moved(self.device)
        if self.master is not None:
            tensor = self.master = self.quantizers["master"](tensor, step)
        self.value = self.quantizers["weight"](tensor, step)

    def enforce(self) -> None:
        """Set what the mask holds at zero to zero, where the parameter is stored and where it is used; not its momentum.

        The trainer does so after every step, `assign` and `load_state` at once. What was not masked keeps its integers and its
        exponent.
        """
        if self.mask is None:
            return
        for tensor in (self.value, self.master):
            if tensor is not None:
                np.multiply(tensor.mantissa, self.mask, out=tensor.mantissa)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what must be saved to go on with the same bits."""
        arrays: dict[str, NDArray[Any]] = {} if self.mask is None else {f"{self.name}/mask": self.mask.copy()}
        for part in ("value", "master", "momentum"):
            tensor = getattr(self, part)
            if tensor is not None:
                mantissa = tensor.mantissa  # updates write in place
                copied = kernels.to_host(mantissa) if kernels.on_device(mantissa) else mantissa.copy()
                arrays[f"{self.name}/{part}"] = copied
                arrays[f"{self.name}/{part}_exponent"] = tensor.exponent.copy()
        return arrays

    def load_state(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take back what :meth:`state` gave, checked."""
        device = self.device
        for part, role in (("value", "weight"), ("master", "master"), ("momentum", "momentum")):
            key = f"{self.name}/{part}"
            needed = part != "momentum" and getattr(self, part) is not None
            if key not in arrays:
                if needed:
                    raise InputError(f"there is no {key}; it is the state of another network or recipe")
                setattr(self, part, None)
                continue
            mantissa, exponent = arrays[key], arrays.get(f"{key}_exponent")
            quantizer = self.quantizers.get(role)
            if quantizer is None or exponent is None or mantissa.shape != self.shape:
                raise InputError(
                    f"{key} of shape {mantissa.shape} does not belong to this network, whose shape is {self.shape}"
                )
            if mantissa.dtype != quantizer.format.storage:
                raise InputError(f"{key} holds {mantissa.dtype}, and {quantizer.format} is kept in {quantizer.format.storage}")
            low, high = quantizer.format.minimum, quantizer.format.maximum
            if mantissa.size and (mantissa.min() < low or mantissa.max() > high):
                raise InputError(f"{key} leaves its format {quantizer.format}")
            tensor = QTensor(np.array(mantissa, order="C"), np.array(exponent), quantizer.format)
            setattr(self, part, tensor.moved(device))
        mask = arrays.get(f"{self.name}/mask")
        if mask is not None and (mask.dtype != np.bool_ or mask.shape != self.shape):
            raise InputError(f"{self.name}/mask holds {mask.dtype} of shape {mask.shape}, and the shape is {self.shape}")
        if mask is not None and device != "cpu":
            raise InputError(f"{self.name} has a mask, and masks compute on the CPU; move the network there first")
        self.mask = None if mask is None else np.array(mask)
        self.enforce()


class Layer:
    """One step of a network.

    Subclasses give `kind`, the word in their names, and the methods `build`, `forward` and `backward`.
    """

    kind: ClassVar[str] = "layer"
    settings: ClassVar[tuple[str, ...]] = ()  # the attributes that decide what it computes, for `describe`
    clamps: ClassVar[bool] = False
    """Whether it is ``max(x, 0)`` and counts nothing: then it has `keep_outputs`, and may be done by what `joins_clamps`."""
    joins_clamps: ClassVar[bool] = False
    """Whether it has `forward_clamped` and `backward_clamped`, with a clamp after it, and before it, joined to its passes."""
    name: str = ""
    recipe: Recipe

    def __init__(self, name: str | None = None) -> None:
        if name is not None and (not isinstance(name, str) or not name):
            raise InputError(f"a layer's name must be a text or None, got {name!r}")
        self.given_name = name
        self.quantizers: dict[str, Quantizer] = {}
        self.parameters_here: list[Parameter] = []

    # For subclasses

    def begin(self, build: Build, *roles: str) -> None:
        """Note the name and the recipe, and make a quantizer for each role the layer writes."""
        self.name = build.name
        self.recipe = build.recipe.at(self.name)
        self.parameters_here = []
        self.quantizers = {
            role: Quantizer(self.name, role, getattr(self.recipe, role), next(build.streams), True) for role in roles
        }

    def bring(self, x: QTensor, role: str, step: Step) -> QTensor:
        """Round into the format of a role."""
        return self.quantizers[role](x, step)

    def bring_map(self, linear: kernels.LinearMap, shape: Shape, role_name: str, step: Step) -> QTensor:
        """Round the results of a map into the format of a role: what `bring` gives, without keeping what is rounded."""
        quantizer = self.quantizers[role_name]
        role, form = quantizer.role, quantizer.format
        of_rows = isinstance(form, BlockFloat) and form.block != "tensor"
        if of_rows or not step.training or role.overflow is Overflow.ERROR:
            values, _ = kernels.evaluate(linear)
            return self.bring(QTensor.trusted(values.reshape(shape), linear.exponent), role_name, step)
        have = linear.exponent
        if isinstance(form, BlockFloat):
            low, high = BlockFloat.minimum_exponent, BlockFloat.maximum_exponent
            shift = kernels.shift_to_fit(linear, form.word_bits, low - have, high - have)
        else:
            shift = -form.fraction_bits - have
        out = kernels.evaluate_requantized(
            linear, shift, role.rounding.code, role.overflow.code, form.word_bits, random_bits=role.random_bits,
            seed=step.seed, stream=quantizer.stream, step=step.number, counters=quantizer.counters_of(linear.operands[0]),
        )  # fmt: skip
        target = have + shift
        quantizer.count += out.size
        quantizer.exponent = target if quantizer.exponent is None else max(quantizer.exponent, target)
        return QTensor.trusted(out.reshape(shape), np.full((1,) * len(shape), target, np.int64), form)

    def parameter(
        self, build: Build, name: str, shape: Shape, scheme: str, fan_in: int = 1, fan_out: int = 1, decays: bool = True
    ) -> Parameter:
        """Make a parameter: see :func:`intnet.layers.initial.draw` for schemes."""
        initial = draw(scheme, shape, fan_in, fan_out, build.seed, next(build.streams))
        made = Parameter(build, name, initial, decays=decays)
        self.parameters_here.append(made)
        return made

    def refuse(self, shape: Shape, needs: str) -> InputError:
        """Return the error for a shape that does not fit."""
        return InputError(f"layer {self.name!r} ({type(self).__name__}) needs {needs}, got {shape} a sample")

    # The interface

    def build(self, shape: Shape, build: Build) -> Shape:
        """Make parameters for inputs of a shape, without the batch's axis, and return the shape of the outputs.

        Raises
        ------
        InputError
            If the shape does not fit, or the recipe cannot work here.
        """
        raise NotImplementedError

    def forward(self, x: QTensor, step: Step) -> QTensor:
        """Return the outputs for a batch."""
        raise NotImplementedError

    def backward(self, dy: QTensor, step: Step) -> QTensor:
        """Return the gradient of the inputs from that of the outputs, and leave those of the parameters with them."""
        raise NotImplementedError

    def forward_clamped(self, x: QTensor, step: Step) -> QTensor:
        """Return ``max(y, 0)`` of what `forward` returns."""
        raise NotImplementedError

    def backward_clamped(self, dy: QTensor, step: Step) -> QTensor:
        """Return what `backward` returns where the inputs, which were clamped, are positive, else 0."""
        raise NotImplementedError

    def keep_outputs(self, y: QTensor) -> None:
        """Take note of its outputs in training, which the layer before has made for it."""
        raise NotImplementedError

    def forget(self) -> None:
        """Forget the tensors that were kept for a backward pass."""
        for name, value in vars(self).items():
            if _is_kept(value):
                setattr(self, name, None)

    def describe(self) -> str:
        """Return its kind and settings: layers that say the same compute the same, with the same weights."""
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.settings)})"

    def walk(self) -> Iterator["Layer"]:
        """Yield this layer and those within it, in the order they run."""
        yield self

    @property
    def parameters(self) -> list[Parameter]:
        """The parameters, those of layers within it included."""
        return [one for layer in self.walk() for one in layer.parameters_here]

    def state(self) -> dict[str, NDArray[Any]]:
        """Return arrays that are neither parameters nor made anew, such as running statistics."""
        return {}

    def load_state(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take back what :meth:`state` gave."""

    def stop_here(self) -> bool:
        """Tell the layer that nothing before it is trained, so that it need not give the gradient of its inputs.

        Returns whether it has parameters: else the next layer is asked.
        """
        return False


def _is_kept(value: Any) -> bool:
    """Tell whether a layer's attribute is a tensor of a batch: a QTensor, an array on the GPU, or a tuple with one."""
    if isinstance(value, tuple):
        return any(_is_kept(part) for part in value)
    return isinstance(value, QTensor) or hasattr(value, "copy_to_host")


def magnitude_bits(tensor: QTensor) -> int:
    """Return how many magnitude bits its mantissas may have: by its format, else by its storage."""
    form = tensor.format
    return (form.word_bits if form is not None else 8 * tensor.mantissa.dtype.itemsize) - 1


def filled_slices(mantissa: Any) -> NDArray[np.bool_]:
    """Tell which slices of the first axis hold anything but zeros."""
    rows = mantissa.shape[0]
    if not kernels.on_device(mantissa):
        return np.asarray(mantissa.reshape(rows, -1).any(axis=1))
    layout = (rows, 1, mantissa.size // rows, 1)
    return kernels.exponents_of_integers(mantissa, layout, 64, -EXPONENT_MAX, EXPONENT_MAX).reshape(-1) > -EXPONENT_MAX


def aligned(tensor: QTensor, bits: int, extra: NDArray[np.int64] | None = None) -> QTensor:
    """Bring a tensor whose exponents differ along the first axis to one exponent.

    Parameters
    ----------
    tensor : QTensor
        With one exponent, or one for each slice of the first axis.
    bits : int
        The longest word of the result. Where it holds them all, the result is exact; else what is too small for it is rounded
        to nearest, ties to even.
    extra : int64, (slices,) or (1,), optional
        Added to the exponents first: those of another tensor that is multiplied slice by slice.

    Returns
    -------
    QTensor
        With the mantissas in the narrowest type; one exponent.
    """
    mantissa, exponents = tensor.mantissa, tensor.exponent.reshape(-1)
    if extra is not None:
        exponents = exponents + extra
    if exponents.size == 1:
        return tensor if extra is None else QTensor.trusted(mantissa, int(exponents[0]), tensor.format)
    rows = mantissa.shape[0]
    filled = filled_slices(mantissa)
    if not filled.any():
        return QTensor.trusted(mantissa, 0, None)
    present = exponents[filled]
    most, least = int(present.max()), int(present.min())
    word = (tensor.format.word_bits if tensor.format is not None else 8 * mantissa.dtype.itemsize) + most - least
    if word > bits:
        least, word = least + word - bits, bits
    exponents = np.where(filled, exponents, least)
    size = mantissa.size // rows
    out = kernels.requantize(
        mantissa, (least - exponents).reshape(rows, 1, 1), Rounding.TIES_EVEN.code, Overflow.SATURATE.code, word,
        layout=(rows, 1, size, 1),
    )  # fmt: skip
    return QTensor.trusted(out, least, None)
