"""Recording: a step of a training, or an inference, is watched while it runs; every other step runs as ever.

For a step that is recorded, the layers and the optimizer take their ways that keep exact sums, which give the same bits as
those that join several things into one call. What is put into their places is taken away after the step.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from intnet import kernels
from intnet.errors import InputError
from intnet.export.traces import Builder, Trace
from intnet.formats import Rounding
from intnet.inputs import Batches
from intnet.layers import Layer, Parameter, Quantizer, Sequential, Step
from intnet.layers.product import Dense, Product
from intnet.network import Network
from intnet.optimizers import Factor
from intnet.tensor import QTensor
from intnet.training import Trainer


def record_trace(
    trainer: Trainer, steps: int | Collection[int], *, test: Batches | None = None,
    progress: Callable[[int], object] | None = None,
) -> Trace:  # fmt: skip
    """Train on, and record every tensor of the chosen steps. The training's bits are those of one that is not recorded.

    Parameters
    ----------
    trainer : Trainer
        On the CPU, with weights that are neither coded nor masked, and SGD or SWALP. It is trained to the end of the epoch of
        the last chosen step.
    steps : int or collection of int
        From 0, counted since the training began; not those that are over.
    test, progress : as of :meth:`intnet.training.Trainer.run`

    Returns
    -------
    Trace

    Raises
    ------
    InputError
        If a step is over or does not come, or the training cannot be recorded.
    """
    wanted = _steps(steps)
    first, last = trainer.epoch * trainer.steps_per_epoch, trainer.epochs * trainer.steps_per_epoch - 1
    if wanted[0] < first or wanted[-1] > last:
        raise InputError(
            f"steps {wanted[0]}..{wanted[-1]} are asked for, and this training has {first}..{last} before it "
            f"({trainer.steps_per_epoch} an epoch); choose some of these, or more epochs"
        )
    _check(trainer.network)
    if trainer.optimizer.has_other_weights:
        raise InputError(f"{type(trainer.optimizer).__name__} passes with weights of its own; a trace is of SGD or SWALP")
    builder = Builder({**_about(trainer.network), "kind": "training", "batch": trainer.batch, "seed": trainer.seed,
                       "optimizer": trainer.optimizer.describe()})  # fmt: skip
    with _replaced(trainer, "step", _Steps(trainer, set(wanted), builder).step):
        while trainer.died is None and trainer.epoch * trainer.steps_per_epoch <= wanted[-1]:
            trainer.run_epoch(test, progress=progress)
    trace = builder.trace()
    if missing := sorted(set(wanted) - set(trace.steps)):
        raise InputError(f"the training ended before step {missing[0]}: {trainer.died}; choose earlier steps, or another rate")
    return trace


def trace_inference(network: Network, x: QTensor) -> Trace:
    """Return the trace of an inference: what every layer makes of these samples, as in evaluation.

    Parameters
    ----------
    network : Network
        On the CPU, with weights that are neither coded nor masked.
    x : (n, *shape) QTensor

    Raises
    ------
    InputError
        If the samples do not fit, or the network cannot be recorded.
    """
    _check(network)
    builder = Builder({**_about(network), "kind": "inference", "seed": network.seed})
    builder.begin(None)
    for parameter in network.parameters:
        builder.add(parameter.name, "before", parameter.value, role="weight")
    builder.add("", "input", x)
    with _Watch(network, builder).on():
        network.forward(x, Step(seed=network.seed))
    return builder.trace()


def _steps(steps: Any) -> list[int]:
    every = [steps] if isinstance(steps, (int, np.integer)) and not isinstance(steps, bool) else steps
    if not isinstance(every, Collection) or not len(every):
        raise InputError(f"steps are an integer or a collection of them, got {steps!r}")
    for one in every:
        if isinstance(one, bool) or not isinstance(one, (int, np.integer)) or one < 0:
            raise InputError(f"steps are integers of at least 0, got {one!r}")
    return sorted({int(one) for one in every})


def _check(network: Network) -> None:
    if network.device != "cpu":
        raise InputError("a trace is recorded on the CPU; move the network there with network.to('cpu'): the bits are the same")
    if kind := network.compressed():
        raise InputError(f"a trace is of plain weights, and this network has {kind}")


def _about(network: Network) -> dict[str, Any]:
    return {
        "sample_shape": list(network.shape),
        "layers": network.describe(),
        "kinds": {layer.name: layer.kind for layer in network.layers.walk() if layer.name},
        "parameters": {one.name: list(one.shape) for one in network.parameters},
        "recipe": network.recipe.to_dict(),
        "loss": network.loss.name,
    }


@contextmanager
def _replaced(target: Any, name: str, value: Any) -> Iterator[None]:
    """Put something into an attribute of an object alone, and take it away again."""
    own = vars(target)
    had, before = name in own, own.get(name)
    setattr(target, name, value)
    try:
        yield
    finally:
        if had:
            setattr(target, name, before)
        else:
            delattr(target, name)


class _Steps:
    """A trainer's step, recorded where it is chosen."""

    def __init__(self, trainer: Trainer, wanted: set[int], builder: Builder) -> None:
        self.trainer, self.wanted, self.builder = trainer, wanted, builder
        self.plain = trainer.step

    def step(self, rows: Any, rate: Any, step: Step) -> QTensor:
        """Train on the samples of these rows."""
        if step.number not in self.wanted:
            return self.plain(rows, rate, step)
        trainer, builder = self.trainer, self.builder
        builder.begin(step.number)
        before = {one.name: one.stored for one in trainer.parameters}
        for one in trainer.parameters:
            for part, name, role in (("value", "before", "weight"), ("master", "before_master", "master"),
                                     ("momentum", "before_momentum", "momentum")):  # fmt: skip
                if (tensor := getattr(one, part)) is not None:
                    builder.add(one.name, name, tensor, role=role)
            one.prepared = None  # no update in one call, and a new one is made after it
        x = trainer.inputs(rows, step)
        builder.add("", "input", x)
        builder.add("", "labels", QTensor.trusted(trainer.train.labels[rows], 0))
        watch = _Watch(trainer.network, builder, trainer, rate, step)
        with watch.on(), _replaced(trainer, "inputs", lambda *_: x):
            outputs = self.plain(rows, rate, step)
        for one in trainer.parameters:
            if one.recipe.update == "normalized":
                watch.add_normalized(one, before[one.name])
            one.prepared = None
        return outputs


class _Watched:
    """A quantizer that is looked at."""

    def __init__(self, quantizer: Quantizer, note: Callable[..., None]) -> None:
        object.__setattr__(self, "_quantizer", quantizer)
        object.__setattr__(self, "_note", note)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._quantizer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._quantizer, name, value)

    def __call__(self, x: QTensor, step: Step, lost_apart: bool = False) -> QTensor:
        made = self._quantizer(x, step, lost_apart)
        self._note(self._quantizer, x, made, step)
        return made


class _Watch:
    """What is put into the places of a network's methods while a step is recorded."""

    def __init__(
        self, network: Network, builder: Builder, trainer: Trainer | None = None, rate: Any = None, step: Step | None = None
    ) -> None:
        self.network, self.builder, self.trainer, self.rate, self.step = network, builder, trainer, rate, step
        self.frames: list[list[tuple[Quantizer, QTensor, QTensor, Step]]] = []  # a pass of a layer each: what it rounded
        self.operands: dict[str, dict[str, Any]] = {}  # of products, by layer

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watch."""
        with ExitStack() as stack:
            for layer in self.network.layers.walk():
                if isinstance(layer, Sequential):
                    continue
                changes: dict[str, Any] = {"joins_clamps": False, "bring_map": _exactly(layer)}
                if isinstance(layer, Dense):
                    changes |= {"_at_once": _not_at_once, "_back_at_once": _not_at_once}
                changes |= {name: self._pass(layer, name) for name in ("forward", "backward")}
                watched = {role: _Watched(one, self._of_layer) for role, one in layer.quantizers.items()}
                changes["quantizers"] = watched
                for name, value in changes.items():
                    stack.enter_context(_replaced(layer, name, value))
            for parameter in self.network.parameters:
                note = self._of_parameter(parameter)
                watched = {role: _Watched(one, note) for role, one in parameter.quantizers.items()}
                stack.enter_context(_replaced(parameter, "quantizers", watched))
            loss = self.network.loss
            stack.enter_context(_replaced(loss, "quantizer", _Watched(loss.quantizer, self._of_loss)))
            if self.trainer is not None:
                stack.enter_context(_replaced(self.trainer.optimizer, "_move_at_once", lambda *_: False))
            yield

    def _pass(self, layer: Layer, name: str) -> Callable[[QTensor, Step], QTensor]:
        plain = getattr(layer, name)

        def run(x: QTensor, step: Step) -> QTensor:
            came = self.builder.key_of(x)
            if isinstance(layer, Product):
                self.operands.setdefault(layer.name, {})["x" if name == "forward" else "dy"] = came
            self.frames.append([])
            made = plain(x, step)
            frame = self.frames.pop()
            for quantizer, exact, rounded, at in frame:
                last = rounded.mantissa is made.mantissa
                tensor = name if last else f"{name}_{quantizer.role_name}"
                from_ = self._sources(layer, name) if last else None
                self.builder.add_rounded(layer.name, tensor, exact, rounded, from_, **_how(quantizer, at))
            if made is not x and not any(one[2].mantissa is made.mantissa for one in frame):
                self.builder.add(layer.name, name, made)
            return made

        return run

    def _sources(self, layer: Layer, name: str) -> dict[str, Any] | None:
        """Return what a dense layer's accumulator was made from."""
        if not isinstance(layer, Dense):
            return None
        found = self.operands[layer.name]
        sources = {"product": name, "weight": self.builder.key(layer.weight.name, "before"), **_accumulator(layer)}
        if name == "backward":
            return {**sources, "dy": found.get("dy")}
        bias = None if layer.bias is None else self.builder.key(layer.bias.name, "before")
        return {**sources, "x": found.get("x"), "bias": bias}

    def _of_layer(self, quantizer: Quantizer, exact: QTensor, rounded: QTensor, step: Step) -> None:
        self.frames[-1].append((quantizer, exact, rounded, step))

    def _of_loss(self, quantizer: Quantizer, exact: QTensor, rounded: QTensor, step: Step) -> None:
        self.builder.add_rounded("loss", "backward", exact, rounded, **_how(quantizer, step))

    def _of_parameter(self, parameter: Parameter) -> Callable[..., None]:
        names = {"weight": "after", "master": "after_master"}

        def note(quantizer: Quantizer, exact: QTensor, rounded: QTensor, step: Step) -> None:
            role = quantizer.role_name
            from_: dict[str, Any] | None = None
            if role == "gradient":
                from_ = self._of_gradient(parameter)
            elif role == parameter.stored_role:
                from_ = self._factors(parameter)
            self.builder.add_rounded(parameter.name, names.get(role, role), exact, rounded, from_, **_how(quantizer, step))

        return note

    def _of_gradient(self, parameter: Parameter) -> dict[str, Any] | None:
        """Return what the exact gradient of a dense layer's weight was made from."""
        for layer in self.network.layers.walk():
            if isinstance(layer, Dense) and layer.weight is parameter:
                found = self.operands[layer.name]
                return {"product": "gradient", "x": found.get("x"), "dy": found.get("dy"), **_accumulator(layer)}
        return None

    def _factors(self, parameter: Parameter) -> dict[str, Any]:
        assert self.trainer is not None
        optimizer = self.trainer.optimizer
        decay, factor = optimizer._factors(parameter, self.rate, self.trainer.batch)
        return {"factor": _pair(factor), "decay": _pair(decay), "momentum": _pair(optimizer.momentum)}

    def add_normalized(self, parameter: Parameter, before: QTensor) -> None:
        """Add a normalized update, whose gradient no quantizer has rounded: see `SGD._move_by_places`."""
        assert self.step is not None
        assert parameter.gradient is not None
        quantizer, sums = parameter.quantizers["gradient"], parameter.gradient.mantissa
        largest, role = kernels.max_magnitude(sums), quantizer.role
        shift = max(0, ((largest - 1).bit_length() if largest else 0) + self.rate.shift)
        move = kernels.requantize(
            sums, shift, role.rounding.code, role.overflow.code, role.format.word_bits, random_bits=role.random_bits,
            seed=self.step.seed, stream=quantizer.stream, step=self.step.number,
        )  # fmt: skip
        name, add = parameter.name, self.builder.add_rounded
        how = _how(quantizer, self.step)
        rounded = QTensor.trusted(move, before.exponent)
        add(name, "gradient", parameter.gradient, rounded, self._of_gradient(parameter), **{**how, "shift": shift})
        exact = QTensor.trusted(before.mantissa.astype(np.int64) - move, before.exponent)
        stored = parameter.quantizers[parameter.stored_role]
        rule = {**_how(stored, self.step), "rounding": Rounding.FLOOR.value, "shift": 0}
        if parameter.master is None:
            add(name, "after", exact, parameter.value, **rule)
        else:
            add(name, "after_master", exact, parameter.master, **rule)
            self.builder.add(name, "after", parameter.value, role="weight")


def _accumulator(layer: Product) -> dict[str, Any]:
    return {"accumulator_bits": layer.recipe.accumulator_bits, "accumulator_overflow": layer.recipe.accumulator_overflow.value}


def _pair(factor: Factor) -> list[int]:
    return [factor.mantissa, factor.shift]


def _not_at_once(*_: Any, **__: Any) -> None:
    """Do nothing in one call: what the exact ways are asked for then."""


def _exactly(layer: Layer) -> Callable[..., QTensor]:
    def bring_map(linear: kernels.LinearMap, shape: tuple[int, ...], role: str, step: Step) -> QTensor:
        values, _ = kernels.evaluate(linear)
        return layer.bring(QTensor.trusted(values.reshape(shape), linear.exponent), role, step)

    return bring_map


def _how(quantizer: Quantizer, step: Step) -> dict[str, Any]:
    """Return how a quantizer rounds in a step."""
    role, rounding = quantizer.role, quantizer.role.rounding
    if quantizer._of_samples and not step.training and rounding is Rounding.STOCHASTIC:
        rounding = Rounding.TIES_EVEN
    return {
        "role": quantizer.role_name, "rounding": rounding.value, "overflow": role.overflow.value,
        "word_bits": role.format.word_bits, "random_bits": role.random_bits, "stream": quantizer.stream,
        "random_step": step.number,
    }  # fmt: skip
