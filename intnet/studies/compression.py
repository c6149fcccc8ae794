"""What the studies of pruning and of quantization share: a trained network to start from, and its fine-tuning.

1. The start       Start, load, dense_spec, dense
2. Fine-tuning     FineTuning, trainer
3. A study         Study

The start is a checkpoint: of ``experiments/train.py``, or of one of these studies, whose masks then hold on.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from intnet import checkpoint, files, models
from intnet._version import __version__
from intnet.errors import InputError, StudyError
from intnet.inputs import Augmentation, Encoder, Inputs
from intnet.network import Network
from intnet.optimizers import SGD, Factor
from intnet.recipe import Recipe
from intnet.studies import tables, training
from intnet.studies import trajectories as of_study
from intnet.training import Evaluation, Trainer, evaluate
from intnet.trainings import TrainingSpec, first_parts, first_samples, prepare

DENSE = "dense"
"""The folder of a network that a study trains for itself."""

_WAIT = 600.0  # seconds, for another command that evaluates in the same folder
_HALF = (KeyError, TypeError, ValueError, AttributeError, OverflowError)  # what half a description leads to

_COMPARED = ("cifar10", "cifar10-jpeg")
_NEEDS = ("dataset", "model", "standardize", "recipe", "samples", "test_samples", "augmentation", "initial_seed")


# 1. The start -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Start:
    """A trained network, as a checkpoint has it, and its data.

    Attributes
    ----------
    path : path
        Of the checkpoint.
    stored : Checkpoint
    train, test : Inputs
    """

    path: Path
    stored: checkpoint.Checkpoint
    train: Inputs = field(repr=False)
    test: Inputs = field(repr=False)

    @property
    def config(self) -> dict[str, Any]:
        """What decides the network and its data, as results are kept with it."""
        kept = {name: self.stored.config[name] for name in ("dataset", "model", "standardize", "samples", "test_samples")}
        return {**kept, "start_sha256": self.digest}

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.stored.config["model"]["name"])

    @property
    def compares(self) -> bool:
        """Whether it is what the course has: ResNet-20 on CIFAR-10, of whatever width and pixels, not pruned before."""
        return self.model == "resnet20" and self.stored.config["dataset"]["name"] in _COMPARED and not self.masked

    @property
    def masked(self) -> bool:
        """Whether it has masks."""
        return any(name.endswith("/mask") for name in self.stored.arrays)

    @cached_property
    def loss_unit(self) -> str:
        """The unit of its loss, as results are kept with it."""
        return f"{self.network().loss.unit} a sample, of all test samples"

    @property
    def title(self) -> str:
        """What pictures call it."""
        config = self.stored.config
        return f"{config['dataset']['name']}, {self.model} at width {config['model']['width']:g}, {config['recipe']['name']}"

    @property
    def augmentation(self) -> Augmentation | None:
        """How samples were augmented when it was trained."""
        stored = self.stored.config["augmentation"]
        return None if stored is None else Augmentation(stored["padding"], stored["flip"])

    @cached_property
    def digest(self) -> str:
        """A SHA-256 of the network's weights, statistics and masks."""
        return self.network().digest()

    def network(self) -> Network:
        """Return the network, a new one: weights, statistics and masks of the checkpoint, without its momentum."""
        config = self.stored.config
        options = {name: value for name, value in config["model"].items() if name not in ("name", "width")}
        layers = models.make_model(self.model, self.train.classes, config["model"]["width"], **options)
        recipe = Recipe.from_dict(config["recipe"])
        network = Network(layers, self.train.shape, recipe, config["initial_seed"], config["loss"])
        arrays = {name: array for name, array in self.stored.arrays.items() if "/momentum" not in name}
        try:
            network.load_state(arrays)
        except InputError as error:
            raise StudyError(f"{self.path} does not hold the weights of its {self.model}: {error}") from None
        return network


def load(path: Path | str, data_dir: Path | str | None = None, *, model: str | None = None) -> Start:
    """Read a checkpoint and the data its network was trained on.

    Parameters
    ----------
    path : path
        Of a file, or of a folder with a ``checkpoint.npz``.
    data_dir : path, optional
        See :func:`intnet.datasets.load`.
    model : str, optional
        What it must be of.

    Raises
    ------
    StudyError
        If there is no such checkpoint, it does not say what it is of, or is of another model or other data.
    DataError
        If the data set is missing or damaged.
    """
    path = Path(path)
    path = path / training.CHECKPOINT if path.is_dir() else path
    stored = checkpoint.load(path)
    config = stored.config
    if missing := [name for name in _NEEDS if name not in config]:
        raise StudyError(f"{path} does not say its {missing[0]}; give a checkpoint of experiments/train.py, or of this study")
    if not isinstance(config["model"], dict) or not isinstance(config["dataset"], dict):
        raise StudyError(f"{path} is of another study; give a checkpoint of experiments/train.py, or of this study")
    named = config["model"].get("name")
    if model is not None and named != model:
        raise StudyError(
            f"{path} is a checkpoint of model {named}, and {model} is asked for; give another --from, or leave it out"
        )
    try:
        loaded = first_parts(config["dataset"]["name"], data_dir, None)
        train, test = (
            first_samples(data, min(int(config[name]), len(data.labels)), part)
            for data, name, part in zip(loaded, ("samples", "test_samples"), ("train", "test"), strict=True)
        )
        known = config["dataset"]["train_checksum"], config["dataset"]["test_checksum"]
        encoder = Encoder.of(train, Recipe.from_dict(config["recipe"]), config["standardize"])
    except InputError:
        raise
    except _HALF as error:
        raise StudyError(f"{path} does not say what it was trained on ({type(error).__name__}: {error})") from None
    if (train.checksum, test.checksum) != known:
        raise StudyError(f"{path} was trained on other data than {train.name} in this place; name its folder with --data-dir")
    start = Start(path, stored, Inputs.of(train, encoder), Inputs.of(test, encoder))
    try:
        start.network()  # which refuses what does not fit
    except InputError:
        raise
    except _HALF as error:
        raise StudyError(f"{path} does not say what it is of ({type(error).__name__}: {error})") from None
    return start


def dense_spec(
    dataset: str = "cifar10", model: str = "resnet20", *, width: float = 0.5, recipe: Recipe | str = "int8", epochs: int = 60,
    samples: int | None = None, seed: int = 0,
) -> TrainingSpec:  # fmt: skip
    """Return how a network to start from is trained: the course's rate, momentum and steps at half and three quarters.

    Parameters
    ----------
    As of :class:`intnet.trainings.TrainingSpec`.

    Raises
    ------
    InputError
        If something is unknown or does not fit together.
    """
    (epochs,) = tables.numbers("epochs of the dense network", epochs, int, 1)
    steps = {epochs // 2: "0.01", 3 * epochs // 4: "0.001"} if epochs >= 4 else {}
    return TrainingSpec(
        dataset, model, recipe, epochs, 128, "0.1", "0.875", "1e-4",
        "step:" + ",".join(f"{epoch}={rate}" for epoch, rate in steps.items()) if steps else "constant",
        width=width, augmentation=True, samples=samples, seed=seed,
    )  # fmt: skip


def dense(
    spec: TrainingSpec, folder: Path | str, data_dir: Path | str | None = None, *,
    begun: Callable[[Trainer], object] | None = None, progress: tables.Progress = tables.ignore,
    after: Callable[[Trainer], object] | None = None,
) -> Start:  # fmt: skip
    """Train a network to start from in ``folder/dense``, from wherever that is, and return it.

    Raises
    ------
    StudyError
        If that folder holds another training, or the network dies.
    """
    ready, where = prepare(spec, data_dir), Path(folder) / DENSE
    with training.opened(ready, where) as opened:
        if begun is not None:
            begun(ready.trainer)
        training.run(ready, opened, progress=progress, after=after)
        training.export(ready, opened, plots=False)
    if ready.trainer.died:
        raise StudyError(f"{where}: {ready.trainer.died}")
    return load(where, data_dir)


# 2. Fine-tuning ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FineTuning:
    """How a network is trained on: by default as in the course, but for the epochs and the seed of its order.

    Parameters
    ----------
    epochs : int, at least 0
    batch : int
    rate, momentum, decay : what `Factor.of` takes
        The rate is constant.
    seed : int
        Of the order, the augmentation and the rounding.
    """

    epochs: int = 20
    batch: int = 256
    rate: Any = "0.002"
    momentum: Any = "0.875"
    decay: Any = "1e-4"
    seed: int = 1

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("batch", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least or value >= 2**63:
                raise InputError(f"{name} must be an integer of at least {least}, got {value!r}")
        for name in ("rate", "momentum", "decay"):
            try:
                object.__setattr__(self, name, Factor.of(getattr(self, name)))
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
        SGD(self.rate, self.momentum, self.decay)

    def check(self, network: Network) -> None:
        """Refuse what the recipe of a network cannot do."""
        if self.epochs:
            self._optimizer(network).check(network.recipe, self.epochs, self.batch)

    def _optimizer(self, network: Network) -> SGD:
        normalized = network.recipe.update == "normalized"
        momentum, decay = (0, 0) if normalized or network.recipe.momentum is None else (self.momentum, self.decay)
        return SGD(self.rate, momentum, decay)

    def trainer(self, start: Start, network: Network) -> Trainer:
        """Return what trains a network of that start."""
        return Trainer(
            network, self._optimizer(network), start.train, epochs=max(1, self.epochs), batch=self.batch, seed=self.seed,
            augmentation=start.augmentation,
        )  # fmt: skip


def tested(start: Start, network: Network) -> Evaluation:
    """Evaluate a network on the test samples."""
    return evaluate(network, start.test)


# 3. A study -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Study:
    """Where a study's results go, and what they are.

    Attributes
    ----------
    untuned, tuned : str
        Files: results without fine-tuning, and all of them.
    kind : type
        Of the rows of both, a NamedTuple.
    exports : collection of str
        The files that are made from them.
    """

    untuned: str
    tuned: str
    kind: type
    exports: Collection[str]

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that may be in the folder beside the trainings."""
        return (self.untuned, self.tuned, tables.CONFIG, DENSE, *self.exports)

    def check(self, folder: Path | str, name: str, trains: bool = False) -> None:
        """Refuse a folder that cannot be the study's, before hours are spent.

        Parameters
        ----------
        folder : path
        name : str
            Of the study, in its configuration.
        trains : bool
            Whether the network to start from is to be trained in it.

        Raises
        ------
        StudyError
            If it is a file, holds something else, or a study of a network that was not trained in it.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise StudyError(f"{folder} is not a folder; --out must name a folder")
        if not folder.is_dir():
            return
        with files.explained(folder):
            present = {path.name for path in folder.iterdir() if path.name[0] != "."}
        stored = tables.read_config(folder)
        if stored is not None and stored.get("study") != name:
            raise StudyError(
                f"{folder} holds a study of {stored.get('study')}, and this is one of {name}; choose another --out"
            )
        if stored is not None and trains and DENSE not in present:
            raise StudyError(f"{folder} holds a study of a checkpoint; give it again with --from, or choose another --out")
        if others := sorted(present - {*self.files, of_study.RUNS, files.REPORT}):
            raise StudyError(f"{folder} holds {others[0]}, which is none of this study's; choose another --out")

    def run_untuned(
        self, folder: Path | str, config: Mapping[str, Any], parts: Iterable[tuple[tuple, Callable[[], Iterable[tuple]]]],
        progress: tables.Progress = tables.ignore,
    ) -> list[Any]:  # fmt: skip
        """Make what is missing in the table without fine-tuning.

        Parameters
        ----------
        folder : path
        config : mapping
            What must be the same for rows to belong together.
        parts : iterable of (key, function)
            A row belongs to a part if it begins with its key; the function makes the rows of the part.
        progress : function of an int, optional
            Told of every part.

        Returns
        -------
        list of rows
            Of these parts, in their order.
        """
        versions = {"intnet": __version__}
        rows: list[Any] = []
        Path(folder).mkdir(parents=True, exist_ok=True)
        beside = (DENSE, of_study.RUNS)
        with tables.opened(folder, self.untuned, self.kind, config, versions, beside, wait=_WAIT) as table:
            for key, make in parts:
                found = [row for row in table.rows if row[: len(key)] == key]
                if not found:
                    found = list(make())
                    table.add(found)
                rows += found
                progress(1)
        return rows

    def run(
        self, folder: Path | str, config: Mapping[str, Any], parts: Iterable[tuple[tuple, Callable[[], Iterable[tuple]]]],
        trajectories: Iterable[of_study.Trajectory[Any]], *, begun: Callable[[Any], object] | None = None,
        progress: tables.Progress | None = None, after: Callable[[Any], object] | None = None,
    ) -> list[str]:  # fmt: skip
        """Evaluate what is not fine-tuned, see `run_untuned`, then fine-tune, from wherever the folder is.

        Returns
        -------
        list of str
            The trainings that another process is doing.

        Raises
        ------
        StudyError
            If the folder cannot be used, or holds another study.
        """
        self.run_untuned(folder, config, parts)
        return of_study.run(trajectories, folder, self.files, lambda _: None, begun=begun, progress=progress, after=after)

    def set_aside(self, folder: Path | str) -> Path | None:
        """Rename the folder to a dated name: see :func:`intnet.files.set_aside`."""
        drafts = [f".{Path(name).stem}.draft{Path(name).suffix}" for name in self.files]
        with files.explained(Path(folder)):
            return files.set_aside(folder, tables.CONFIG, (*self.files, of_study.RUNS, *drafts))
