"""A network: layers built for a shape and a recipe, with their parameters."""

import hashlib
from collections.abc import Iterable, Iterator
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import DeviceError, InputError, InputTypeError
from intnet.layers import Build, Layer, Parameter, Quantizer, Seen, Sequential, Step
from intnet.layers.product import Product
from intnet.losses import Loss, make_loss
from intnet.recipe import Recipe
from intnet.tensor import QTensor


class Network:
    """Layers, built: every parameter made, every shape and format checked.

    Parameters
    ----------
    layers : Layer or sequence of Layer
        Used by this network alone.
    shape : tuple of int
        Of one sample: (features,), or (height, width, channels).
    recipe : Recipe or str
        Or the name of a ready-made one, or a JSON file.
    seed : int, 0..2**64 - 1
        Of the initial weights.
    loss : str, optional
        By default the recipe's.

    Raises
    ------
    InputError
        If a shape does not fit (it says which layer and what came), or the recipe cannot work.

    Examples
    --------
    >>> from intnet import layers
    >>> network = Network([layers.Dense(100), layers.ReLU(), layers.Dense(10)], (784,), "fixed16")
    >>> network.parameter_count, network.output_shape
    (79510, (10,))
    """

    def __init__(
        self, layers: Layer | Iterable[Layer], shape: Iterable[int], recipe: Recipe | str = "fixed16", seed: int = 0,
        loss: str | None = None,
    ) -> None:  # fmt: skip
        self.recipe = Recipe.load(recipe)
        lengths = tuple(shape) if isinstance(shape, Iterable) else ()
        if not lengths or not all(isinstance(one, (int, np.integer)) and one >= 1 for one in lengths):
            raise InputError(f"a sample needs a shape of positive lengths, got {shape!r}")
        self.shape = tuple(int(length) for length in lengths)
        self._device = "cpu"
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
            raise InputError(f"seed must be an integer in 0..2**64 - 1, got {seed!r}")
        self.seed = int(seed)
        self.layers = layers if isinstance(layers, Sequential) else Sequential(layers)
        every = list(self.layers.walk())
        if len({id(layer) for layer in every}) < len(every):
            raise InputError("a layer stands in this network twice; make two, as each keeps weights and arguments of its own")
        if any(layer.name for layer in every):
            raise InputError("these layers were built for another network, or for one that was refused; make new ones")
        self._awaited: tuple[int, ...] | None = None  # the shape of errors: that of the last outputs in training
        build = Build(self.recipe, self.seed)
        self.output_shape = self.layers.build(self.shape, build)
        self.layers.stop_here()
        self.loss: Loss = make_loss(loss or self.recipe.loss)
        self.loss.build(build)
        if self.layer_names.count("loss") > 1:
            raise InputError("no layer can be called 'loss': that is the loss's own name")
        names = [pattern for pattern, _ in self.recipe.overrides if self.recipe.at_none(pattern, self.layer_names)]
        if names:
            raise InputError(
                f"recipe {self.recipe.name!r} overrides {names[0]!r} and no layer is called so; the layers are "
                f"{', '.join(name for name in self.layer_names if name)}"
            )

    @property
    def layer_names(self) -> list[str]:
        """The names of all layers, and "loss"."""
        return [*(layer.name for layer in self.layers.walk()), "loss"]

    @property
    def parameters(self) -> list[Parameter]:
        """All parameters, in the order of the layers."""
        return self.layers.parameters

    @property
    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(one.size for one in self.parameters)

    def forward(self, x: QTensor, step: Step | None = None) -> QTensor:
        """Return the outputs for a batch: (n, *shape) to (n, *output_shape).

        Raises
        ------
        InputError
            If the samples have another shape, or numbers leave a word where the recipe says that this is an error.
        """
        if not isinstance(x, QTensor):
            raise InputTypeError(f"a network takes a QTensor (see intnet.quantize), got {type(x).__name__}")
        if x.mantissa.shape[1:] != self.shape:
            raise InputError(f"the network takes samples of shape {self.shape}, got {x.mantissa.shape[1:]}")
        if step is None:
            step = Step(seed=self.seed)
        if self._device != "cpu" or kernels.on_device(x.mantissa):
            x = x.moved(self._device)
        if not step.training:
            return self.layers.forward(x, step)
        self._awaited = None  # a pass that fails leaves layers that do not belong together
        y = self.layers.forward(x, step)
        self._awaited = y.mantissa.shape
        return y

    def backward(self, dy: QTensor, step: Step) -> None:
        """Leave with every parameter its gradient.

        Parameters
        ----------
        dy : (n, *output_shape) QTensor
            The gradient of the outputs of the last forward pass in training; evaluations in between do not matter.
        step : Step
            That of the forward pass.

        Raises
        ------
        InputError
            If there was no such pass, or `dy` has not the shape of its outputs.
        """
        if not isinstance(dy, QTensor):
            raise InputTypeError(f"a backward pass takes a QTensor, got {type(dy).__name__}")
        if dy.mantissa.shape != self._awaited:
            if self._awaited is None:
                raise InputError("a backward pass needs a forward pass in training (step.training) before it")
            raise InputError(
                f"the last forward pass in training had outputs of shape {self._awaited}, got errors of shape {dy.shape}"
            )
        if self._device != "cpu" or kernels.on_device(dy.mantissa):
            dy = dy.moved(self._device)
        self.layers.backward(dy, step)

    # Where it lives

    @property
    def device(self) -> str:
        """Where its parameters live, and so where it computes: "cpu" or "gpu"."""
        return self._device

    def to(self, device: str) -> Self:
        """Move the parameters to "cpu", "gpu" or "auto" (a GPU where there is one), and return the network.

        The same bits come out anywhere. State and telemetry come back to the host when they are asked for. What was kept for
        a backward pass, and gradients that were not used yet, are forgotten.

        Raises
        ------
        InputError
            If there is no such device, or none that can be used (DeviceError).
        """
        device, parameters = kernels.resolve_device(device), self.parameters
        if device == "gpu" and (kind := self.compressed()):
            raise InputError(f"{kind} computes on the CPU; use device cpu, or take it away (intnet.compression)")
        self._awaited = None  # what layers keep for a backward pass stays behind
        for layer in self.layers.walk():
            layer.forget()
        for parameter in parameters:
            parameter.collect()
        try:
            for parameter in parameters:
                parameter.to(device)
        except DeviceError:  # it has no room for all
            for parameter in parameters:
                parameter.to("cpu")
            self._device = "cpu"
            raise
        self._device = device
        for quantizer in self.quantizers():
            quantizer.collect()
        return self

    def compressed(self) -> str:
        """Say what has coded weights or a mask, the first that has, such as ``"the mask of dense1.weight"``; or nothing."""
        for layer in self.layers.walk():
            if isinstance(layer, Product) and (layer.coding is not None or "inputs" in layer.quantizers):
                return f"layer {layer.name!r} with coded weights or inputs"
        return next((f"the mask of {one.name}" for one in self.parameters if one.mask is not None), "")

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be copied or pickled from a GPU."""
        if self._device != "cpu":
            raise InputError("this network lives on a GPU; move it back with network.to('cpu') to copy or pickle it")
        return self.__dict__

    # Telemetry

    def quantizers(self) -> Iterator[Quantizer]:
        """Yield every place where numbers are rounded."""
        for layer in self.layers.walk():
            yield from layer.quantizers.values()
            for parameter in layer.parameters_here:
                yield from parameter.quantizers.values()
        yield self.loss.quantizer

    def seen(self) -> Iterator[Seen]:
        """Yield what became of every tensor since the last call, those that were written only; then count anew."""
        for parameter in self.parameters:
            parameter.collect()
        for quantizer in self.quantizers():
            if quantizer.count:
                yield quantizer.seen()
            quantizer.reset()
        for layer in self.layers.walk():
            if isinstance(layer, Product):
                yield layer.seen()

    # State

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything that training changes, as arrays by name."""
        arrays: dict[str, NDArray[Any]] = {}
        for layer in self.layers.walk():
            arrays.update(layer.state())
        for parameter in self.parameters:
            arrays.update(parameter.state())
        return arrays

    def load_state(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take back what :meth:`state` gave.

        Raises
        ------
        InputError
            If it belongs to another network; then this one is unchanged.
        """
        before = self.state()
        try:
            self._load(arrays)
        except InputError:
            self._load(before)
            raise
        expected = set(self.state())
        if foreign := sorted(set(arrays) - expected):
            self._load(before)
            raise InputError(f"{foreign[0]} belongs to no tensor of this network")

    def _load(self, arrays: dict[str, NDArray[Any]]) -> None:
        for layer in self.layers.walk():
            layer.load_state(arrays)
        for parameter in self.parameters:
            parameter.load_state(arrays)

    def describe(self) -> list[str]:
        """Return every layer's name and settings, in the order they run: ``"dense1 Dense(outputs=10, ...)"``."""
        return [f"{layer.name} {layer.describe()}" for layer in self.layers.walk() if layer.name]

    def digest(self) -> str:
        """Return a SHA-256 of everything that training changes: equal if and only if all bits are."""
        digest = hashlib.sha256()
        for name, array in sorted(self.state().items()):
            digest.update(f"{name} {array.shape} {array.dtype.str[1:]}\0".encode())
            digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        lines = [f"Network of {self.parameter_count} parameters, recipe {self.recipe.name!r}, samples of {self.shape}"]
        for layer in self.layers.walk():
            if layer.name and layer.parameters_here:
                shapes = ", ".join(f"{one.name.rpartition('.')[2]} {one.shape}" for one in layer.parameters_here)
                lines.append(f"  {layer.name}: {shapes} = {sum(prod(one.shape) for one in layer.parameters_here)}")
        return "\n".join(lines)
