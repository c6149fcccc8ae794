"""The training loop: batches in a seeded order, evaluation, telemetry, checkpoints, and a stop when a network dies.

Every random choice is a function of the seed and a count (epoch, step, element), never of what ran before: so a run that was
stopped and resumed gives the bits of one that was not.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError
from intnet.formats import BlockFloat
from intnet.inputs import Augmentation, Batches, Inputs
from intnet.layers import BatchNorm, Parameter, Step
from intnet.network import Network
from intnet.optimizers import SGD
from intnet.random import random_words
from intnet.telemetry import Reading
from intnet.tensor import QTensor, dequantize

ORDER_STREAM = 0  # of random bits; inputs.AUGMENTATION_STREAM is 1, layers._base.FIRST_STREAM the first of the rest

WATCH_STEPS = 200
"""A network is dead after so many steps without a sign of life; in a shorter training, if there never was one."""

_EVALUATION_VALUES = 1 << 21  # of one layer's widest output at a time, about


@dataclass(frozen=True)
class Epoch:
    """A row of ``train.csv``. Accuracies are fractions of 1; the loss is the mean over the samples, as they were trained."""

    epoch: int
    train_loss: float
    train_accuracy: float
    test_accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """What a network makes of samples: correct answers, the mean loss, and its outputs' classes."""

    accuracy: float
    loss: float
    predictions: NDArray[np.int64] = field(repr=False)


class Trainer:
    """Trains a network.

    Parameters
    ----------
    network : Network
    optimizer : SGD
    train : Batches
        Inputs or ArrayInputs.
    epochs : int
        The length of the schedule.
    batch : int
    seed : int, optional
        Of the order, the augmentation and the rounding; by default the network's.
    augmentation : Augmentation, optional
    watch : bool
        Whether a dead network ends the training.
    device : {"cpu", "gpu", "auto"}, optional
        Where to train: the network is moved there. By default where it is. No bit depends on it.

    Attributes
    ----------
    epoch : int
        Epochs finished.
    history : list of Epoch
    readings : list of Reading
        Telemetry.
    died : str or None
        Why training ended early.
    losses : list of float
        Of each step of the last epoch: the mean over its batch, before the step.

    Raises
    ------
    InputError
        If an argument cannot be used.

    Examples
    --------
    >>> from intnet import datasets, models
    >>> from intnet.inputs import Encoder, Inputs
    >>> data = datasets.load_digits()
    >>> network = Network(models.mlp(hidden=(32,)), (8, 8, 1), "fixed16")
    >>> trainer = Trainer(network, SGD("2^-2"), Inputs.of(data, Encoder.of(data, network.recipe)), epochs=3)
    >>> round(trainer.run()[-1].train_accuracy, 1)
    0.9
    """

    def __init__(
        self, network: Network, optimizer: SGD, train: Batches, *, epochs: int, batch: int = 64, seed: int | None = None,
        augmentation: Augmentation | None = None, watch: bool = True, device: str | None = None,
    ) -> None:  # fmt: skip
        for name, value in (("epochs", epochs), ("batch", batch)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise InputError(f"{name} must be an integer of at least 1, got {value!r}")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64):
            raise InputError(f"seed must be an integer in 0..2**64 - 1, got {seed!r}")
        if augmentation is not None and not isinstance(augmentation, Augmentation):
            raise InputError(f"augmentation must be an Augmentation or None, got {augmentation!r}")
        if not len(train):
            raise InputError("there are no samples to train on")
        if network.output_shape != (train.classes,):
            raise InputError(f"the network has outputs of shape {network.output_shape} and the data {train.classes} classes")
        _check_inputs(network, train)
        steps_per_epoch = -(-len(train) // int(batch))
        optimizer.check(network.recipe, int(epochs), int(min(batch, len(train))), steps_per_epoch)
        if device is not None:
            network.to(device)
        self.network, self.optimizer, self.train = network, optimizer, train
        self._placed: tuple[str, Any] = ("cpu", train)  # the samples where the network was last
        self._parameters = network.parameters
        self.epochs, self.batch = int(epochs), int(min(batch, len(train)))
        self.seed = network.seed if seed is None else int(seed)
        self.augmentation, self.watch = augmentation, watch
        self.epoch = 0
        self.history: list[Epoch] = []
        self.readings: list[Reading] = []
        self.died: str | None = None
        self.losses: list[float] = []
        self._silent = self._still = 0  # see _Life
        self._progress: Callable[[int], object] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch, the last, smaller one included."""
        return -(-len(self.train) // self.batch)

    @property
    def parameters(self) -> list[Parameter]:
        """Those of the network."""
        return self._parameters

    @property
    def samples(self) -> int:
        """How many there are to train on."""
        return len(self.train)

    def order(self, epoch: int, seed: int | None = None) -> NDArray[np.int64]:
        """Return the order of the samples in an epoch: sorted by a random word each; of the training's seed, or another."""
        words = random_words(self.seed if seed is None else seed, ORDER_STREAM, epoch, count=len(self.train))
        keys = words.astype(np.uint64) << np.uint64(32) | np.arange(len(words), dtype=np.uint64)  # equal words keep their order
        keys.sort()
        return (keys & np.uint64(2**32 - 1)).astype(np.int64)

    def run(
        self, test: Batches | None = None, *, before: Callable[["Trainer"], None] | None = None,
        after: Callable[["Trainer"], None] | None = None, progress: Callable[[int], object] | None = None,
    ) -> list[Epoch]:  # fmt: skip
        """Train to the end of the schedule, from wherever the trainer is.

        Parameters
        ----------
        test : Batches, optional
            Evaluated after every epoch.
        before : callable, optional
            Called before every epoch, to prune the weights, for example; a resumed training calls it again before the epoch in
            which it was stopped.
        after : callable, optional
            Called after every epoch, to save a checkpoint, for example.
        progress : callable, optional
            Called with the number of samples after every batch; those of full gradients, of optimizers that take them, count.

        Returns
        -------
        list of Epoch
            The history so far.
        """
        while self.epoch < self.epochs and self.died is None:
            if before is not None:
                before(self)
            self.run_epoch(test, progress=progress)
            if after is not None:
                after(self)
        return self.history

    def run_epoch(self, test: Batches | None = None, *, progress: Callable[[int], object] | None = None) -> Epoch:
        """Train one epoch."""
        if test is not None:
            _check_inputs(self.network, test)  # before an epoch is spent
        self._progress = progress
        start = time.perf_counter()
        rate = self.optimizer.schedule.at(self.epoch, self.epochs)
        order = self.order(self.epoch)
        outputs = np.zeros((len(order), *self.network.output_shape))
        life = _Life(self.network, self._silent, self._still) if self.watch else None
        masked = [one for one in self._parameters if one.mask is not None]
        if self.optimizer.has_other_weights and (kind := self.network.compressed()):
            raise InputError(f"{kind} is trained by SGD or SWALP; {type(self.optimizer).__name__} keeps weights of its own")
        done = 0
        for number, rows in enumerate(self._batches(order)):
            step = Step(self.epoch * self.steps_per_epoch + number, self.seed, True)
            made = self.step(rows, rate, step)
            for parameter in masked:
                parameter.enforce()
            self.optimizer.after_step(self._parameters, step.number + 1, self.steps_per_epoch)
            if self.network.device != "cpu":
                made = made.moved("cpu")
            np.multiply(made.mantissa, np.ldexp(1.0, made.exponent), out=outputs[done : done + len(rows)])
            done += len(rows)
            if self.optimizer.finished is not None:
                self.died = self.optimizer.finished
                break
            if life is not None:
                life.note(made)
                if (number + 1) % WATCH_STEPS == 0 or done == len(order):
                    last = done == len(order) and self.epoch + 1 == self.epochs
                    self.died = life.look(min(WATCH_STEPS, step.number + 1) if last else WATCH_STEPS)
                    self._silent, self._still = life.silent, life.still
                    if self.died:
                        break
        labels = self.train.labels[order[:done]]
        value = self.network.loss.value
        self.losses = [
            value(outputs[first : first + self.batch][: done - first], labels[first : first + self.batch])
            / min(self.batch, done - first)
            for first in range(0, done, self.batch)
        ]
        loss = value(outputs[:done], labels) / done
        accuracy = float(np.mean(outputs[:done].argmax(axis=1) == labels))
        tested = None if test is None else evaluate(self.network, test).accuracy
        self.epoch += 1
        self.readings.extend(Reading.of(self.epoch, seen) for seen in self.network.seen())
        self.history.append(Epoch(self.epoch, loss, accuracy, tested, time.perf_counter() - start))
        return self.history[-1]

    def step(self, rows: NDArray[np.int64], rate: Any, step: Step) -> QTensor:
        """Train on the samples of these rows, and return what the network made of them before."""
        return self.optimizer.step(self, rows, rate, step)

    def inputs(self, rows: NDArray[np.int64], step: Step) -> QTensor:
        """Return the samples of these rows as the network takes them, augmented as in that step."""
        if self._placed[0] != self.network.device:
            device = self.network.device
            self._placed = (device, self.train.moved(device) if isinstance(self.train, Inputs) else self.train)
        return self._placed[1].batch(rows, self.augmentation, step.seed, step.number)

    def gradients(self, x: QTensor, rows: NDArray[np.int64], step: Step) -> QTensor:
        """Leave with every parameter its gradient on the samples of these rows, and return the outputs."""
        outputs = self.network.forward(x, step)
        self.network.backward(self.network.loss.gradient(outputs, self.train.labels[rows], step), step)
        return outputs

    def tell(self, samples: int) -> None:
        """Say that so many samples have been looked at."""
        if self._progress is not None:
            self._progress(samples)

    def _batches(self, order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        for first in range(0, len(order), self.batch):
            yield order[first : first + self.batch]

    # What a checkpoint holds beside the arrays of the network and the optimizer

    def progress_state(self) -> dict[str, Any]:
        """Return where the training is, for a checkpoint."""
        return {
            "epoch": self.epoch,
            "died": self.died,
            "quiet": [self._silent, self._still],
            "history": [asdict(row) for row in self.history],
            "readings": [list(asdict(row).values()) for row in self.readings],
        }

    def load_progress(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises
        ------
        InputError
            If it is not what :meth:`progress_state` gives; then the trainer is unchanged.
        """
        self.epoch, self.died, (self._silent, self._still), self.history, self.readings = read_progress(state)
        if self.epoch < self.epochs and max(self._silent, self._still) < WATCH_STEPS and self.optimizer.finished is None:
            self.died = None  # it was judged because its training was short, and now it is longer


def read_progress(state: Any) -> tuple[int, str | None, tuple[int, int], list[Epoch], list[Reading]]:
    """Return the parts of what :meth:`Trainer.progress_state` gave: epoch, died, quiet, history, readings."""
    try:
        silent, still = (int(steps) for steps in state["quiet"])
        history = [Epoch(**row) for row in state["history"]]
        readings = [Reading(*row) for row in state["readings"]]
        epoch, died = state["epoch"], state["died"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"this does not say where a training is ({type(error).__name__}: {error})") from None
    if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0 or not (died is None or isinstance(died, str)):
        raise InputError(f"this does not say where a training is (epoch {epoch!r}, died {died!r})")
    return epoch, died, (silent, still), history, readings


class _Life:
    """Tells when a network has died: all outputs zero, or no weight moving, for a whole watch of steps.

    It looks at the ends of watches and of epochs; `silent` and `still` are the steps before the last look without any output
    and without any weight that moved, carried from epoch to epoch.
    """

    def __init__(self, network: Network, silent: int, still: int) -> None:
        self.network, self.silent, self.still = network, silent, still
        self.begin()

    def begin(self) -> None:
        self.spoke, self.steps = False, 0
        stored = [one.stored for one in self.network.parameters]
        self.before = [(one.moved("cpu").mantissa.copy(), one.exponent.copy()) for one in stored]

    def note(self, outputs: QTensor) -> None:
        self.spoke = self.spoke or bool(outputs.mantissa.any())
        self.steps += 1

    def look(self, enough: int) -> str | None:
        """Say what is wrong, if it has been so for `enough` steps."""
        stored = [one.stored for one in self.network.parameters]
        moved = any(
            not (np.array_equal(old, new.moved("cpu").mantissa) and np.array_equal(exponent, new.exponent))
            for (old, exponent), new in zip(self.before, stored, strict=True)
        )
        self.silent = 0 if self.spoke else self.silent + self.steps
        self.still = 0 if moved else self.still + self.steps
        self.begin()
        if self.silent >= enough:
            return (
                f"the network has died: all outputs were zero in the last {self.silent} steps; try a smaller rate, or more bits"
            )
        if self.still >= enough:
            return (
                f"the network has died: no weight has moved in the last {self.still} steps; its updates are lost to rounding: "
                "try a greater rate, more fraction bits, or stochastic rounding"
            )
        return None


def evaluate(network: Network, inputs: Batches, *, batch: int | None = None) -> Evaluation:
    """Run a network over samples, without training.

    Parameters
    ----------
    network : Network
    inputs : Batches
    batch : int, optional
        Samples at a time. No result depends on it: where a recipe's blocks are whole tensors, every sample has a block of its
        own here, as if it were alone.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        If there are no samples, or they do not fit the network.
    """
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, (int, np.integer)) or batch < 1):
        raise InputError(f"batch must be an integer of at least 1 or None, got {batch!r}")
    if not len(inputs):
        raise InputError("there are no samples to evaluate")
    _check_inputs(network, inputs)
    step = Step(seed=network.seed)
    size = int(np.prod(network.shape))
    many = batch or max(16, min(1024, _EVALUATION_VALUES // (8 * size)))
    predictions = np.zeros(len(inputs), np.int64)
    loss = 0.0
    for first in range(0, len(inputs), many):
        rows = np.arange(first, min(first + many, len(inputs)), dtype=np.int64)
        outputs = network.forward(inputs.batch(rows), step)
        predictions[rows] = kernels.argmax_rows(outputs.mantissa)
        loss += network.loss.value(dequantize(outputs), inputs.labels[rows])
    return Evaluation(float(np.mean(predictions == inputs.labels)), loss / max(1, len(inputs)), predictions)


def pool_statistics(
    network: Network, inputs: Batches, *, batch: int = 128, augmentation: Augmentation | None = None,
    progress: Callable[[int], object] | None = None,
) -> None:  # fmt: skip
    """Set the running statistics of batch normalization to those of samples: the mean of the batches', by rows.

    Weights that were put into a network, an average for example, have had no batch yet. Samples come in their order, and as in
    training: normalized by their batch, augmented if wanted, dropped out if the network does so.

    Parameters
    ----------
    network : Network
        Without batch normalization nothing is done.
    inputs : Batches
    batch : int
    augmentation : Augmentation, optional
        Drawn by the network's seed and the batch's number.
    progress : callable, optional
        Called with the number of samples after every batch.

    Raises
    ------
    InputError
        If there are no samples, or they do not fit the network.
    """
    if isinstance(batch, bool) or not isinstance(batch, (int, np.integer)) or batch < 1:
        raise InputError(f"batch must be an integer of at least 1, got {batch!r}")
    if not len(inputs):
        raise InputError("there are no samples to take statistics of")
    _check_inputs(network, inputs)
    normalizing = [layer for layer in network.layers.walk() if isinstance(layer, BatchNorm)]
    if not normalizing:
        return
    for layer in normalizing:
        layer.pool(True)
    try:
        for number, first in enumerate(range(0, len(inputs), batch)):
            rows = np.arange(first, min(first + batch, len(inputs)), dtype=np.int64)
            network.forward(inputs.batch(rows, augmentation, network.seed, number), Step(number, network.seed, True))
            if progress is not None:
                progress(len(rows))
    finally:
        for layer in normalizing:
            layer.pool(False)


def _check_inputs(network: Network, inputs: Batches) -> None:
    """Refuse samples that the network was not built for: kernels trust shapes, and sums were sized for the recipe's words."""
    if inputs.shape != network.shape:
        raise InputError(f"the network takes samples of shape {network.shape}, got samples of shape {inputs.shape}")
    if len(network.output_shape) != 1 or inputs.classes > network.output_shape[0]:
        raise InputError(f"the network has outputs of shape {network.output_shape} and the data {inputs.classes} classes")
    wanted, given = network.recipe.activation.format, inputs.format
    if isinstance(wanted, BlockFloat):  # the exponent is the samples' own: a word of that length with any point will do
        fits = given is not None and given.signed and given.word_bits == wanted.word_bits
    else:
        fits = given == wanted
    if not fits:
        raise InputError(
            f"the activations of recipe {network.recipe.name!r} are {wanted}, got samples in {given or 'no format'}; encode "
            "them for this recipe"
        )
