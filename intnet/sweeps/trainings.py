"""A sweep of trainings: settings that all share, axes along which they differ, and how a cell is trained."""

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from typing import Any

from intnet import files, kernels
from intnet.errors import DataError, DeviceError, InputError
from intnet.formats import BlockFloat
from intnet.inputs import Inputs
from intnet.optimizers import SGD, Schedule
from intnet.recipe import ROLES, Recipe
from intnet.sweeps.axes import Label, axis_of, label_of, training_of
from intnet.sweeps.execution import Loader
from intnet.sweeps.storage import Column, Schema
from intnet.training import Trainer, evaluate
from intnet.trainings import TrainingSpec, prepare

PROTOCOL = 1
"""Version of the rules by which a cell is trained and read. Results of different versions never share a folder."""

CELLS_MAX = 2**20
"""The most cells of one sweep."""

TIMED_STEPS = 32
"""Steps that a cell is timed by."""

IMPOSSIBLE = ("refuse", "skip")

_CANNOT_FAIL = ("seed", "batch", "samples", "augmentation", "standardize", "width")
"""What no cell is refused for before its data are there."""

_SAME_CODE = ("seed", "epochs", "batch", "samples", "standardize", "width")
"""What all compiled code is the same for."""

TRAINED = "trained"
"""The outcome of a cell that trained to its end; others begin with "died: " or "refused: "."""


def _measured() -> tuple[Column, ...]:
    columns = [
        Column("outcome", str, "trained, or why not"),
        Column("epochs_done", int, "epochs trained", "epoch"),
        Column("test_accuracy", float, "share of test samples right after the last epoch"),
        Column("best_test_accuracy", float, "the same of the best epoch"),
        Column("train_accuracy", float, "share of training samples right as they came, in the last epoch"),
        Column("train_loss", float, "mean loss of the last epoch, in the unit of the loss"),
        Column("updates", int, "weights asked to move, all epochs", "count"),
        Column("lost_updates", int, "updates that were not zero and moved nothing", "count"),
        Column("left_accumulator", int, "sums that left their accumulator", "count"),
    ]
    for role in ROLES:
        columns += [
            Column(f"{role}_bits_used", int, f"{role}: the shortest word, sign included, that holds every number", "bit"),
            Column(f"{role}_count", int, f"{role}: numbers written", "count"),
            Column(f"{role}_left", int, f"{role}: numbers that did not fit into their word", "count"),
            Column(f"{role}_lost", int, f"{role}: numbers that rounding made zero", "count"),
        ]
    columns.append(Column("weights_sha256", str, "SHA-256 of everything that was trained"))
    return tuple(columns)


EXPORTS = ("config.json", "sweep.csv", "sweep.json", "sweep.png", "sweep-telemetry.png", files.REPORT)


@dataclass(frozen=True)
class SweepSpec:
    """Trainings that differ along axes: every combination of their values.

    Parameters
    ----------
    axes : mapping of names to sequences
        See :data:`intnet.sweeps.axes.NAMES`; a whole number or a text alone is one value. Ranges are Python's.
    settings : mapping, optional
        The same names with one value each, for all.
    impossible : {"refuse", "skip"}
        What becomes of combinations that no training can have, such as inputs that their format cannot hold.

    Raises
    ------
    InputError
        If a name is unknown (with the nearest known one), an axis is empty, a value is none for its axis, a combination is
        impossible, or there are more than `CELLS_MAX` cells.

    Examples
    --------
    >>> spec = SweepSpec({"weight.word_bits": range(6, 9), "seed": [0, 1]}, {"dataset": "digits", "epochs": 5})
    >>> len(spec.cells()), spec.cells()[0], str(spec.training((6, 1)).recipe.weight.format)
    (6, (6, 0), 'fxp-s6/4')
    """

    axes: Any
    settings: Any = ()
    impossible: str = "refuse"
    recipes: Any = field(default=(), repr=False)

    def __post_init__(self) -> None:
        axes, settings = _pairs("axes", self.axes), _pairs("settings", self.settings)
        if not axes:
            raise InputError("a sweep needs at least one axis; give it, for example, seed = [0, 1, 2]")
        if twice := sorted({name for name, _ in axes} & {name for name, _ in settings}):
            raise InputError(f"{twice[0]} is both an axis and a setting; leave it out of one")
        if self.impossible not in IMPOSSIBLE:
            raise InputError(f"impossible is refuse or skip, got {self.impossible!r}")
        object.__setattr__(self, "axes", tuple((name, labels_of(name, values)) for name, values in axes))
        object.__setattr__(self, "settings", tuple((name, label_of(axis_of(name), value)) for name, value in settings))
        count = math.prod(len(labels) for _, labels in self.axes)
        if count > CELLS_MAX:
            raise InputError(f"a sweep may have at most {CELLS_MAX} cells, got {count}; run it in pieces")
        given = dict(self.recipes)
        recipes = {name: given.get(name) or Recipe.load(name) for name in self._values("recipe")}
        object.__setattr__(self, "recipes", tuple(recipes.items()))
        self.cells()

    # What a sweep does (intnet.sweeps.execution.Sweep)

    @cached_property
    def schema(self) -> Schema[tuple]:
        """What a row is: the labels of the axes, then what was measured."""
        axes = [axis_of(name) for name, _ in self.axes]
        return Schema(
            axes=tuple(Column(axis.name, axis.kind, axis.description, axis.units) for axis in axes),
            measured=_measured(),
            row=tuple,
            database="sweep.sqlite",
            table="sweep.csv",
            exports=EXPORTS,
            program="experiments/sweep.py",
            hollow="outcome",
        )

    def study(self) -> dict[str, Any]:
        """Return what makes results comparable: cells of equal studies may share a folder."""
        settings = dict(self.settings)
        recipe = settings.get("recipe")
        return {
            "study": "sweep",
            "protocol": PROTOCOL,
            "settings": dict(sorted(settings.items())),
            "axes": [name for name, _ in self.axes],
            # a file may change its contents, and a name its meaning
            "recipe": None if recipe is None else dict(self.recipes)[recipe].to_dict(),
        }

    def cells(self) -> list[tuple[Label, ...]]:
        """Return every possible cell, the values of its axes, in the order of the axes."""
        return list(self._possible[0])

    @property
    def left_out(self) -> str:
        """What is impossible and left out, in a sentence; nothing if all is possible."""
        return self._possible[1]

    @cached_property
    def _possible(self) -> tuple[tuple[tuple[Label, ...], ...], str]:
        """The possible cells, and what is left out."""
        cells, refused = [], []
        matters = [name not in _CANNOT_FAIL for name, _ in self.axes]
        known: dict[tuple[Label, ...], InputError | None] = {}
        for cell in itertools.product(*(labels for _, labels in self.axes)):
            key = tuple(itertools.compress(cell, matters))
            if key not in known:
                known[key] = self._refusal(cell)
            error = known[key]
            if error is None:
                cells.append(cell)
            else:
                refused.append((cell, error))
        left_out = ""
        if refused:
            (cell, reason), more = refused[0], f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
            told = f"{self.name_of(cell)} is impossible{more}: {reason}"
            if not cells:
                raise InputError(f"no combination is possible: {told}")
            if self.impossible == "refuse":
                raise InputError(f'{told}; leave it out, or say impossible = "skip"')
            left_out = f"Left out: {len(refused)} of {len(refused) + len(cells)} combinations; {told}."
        return tuple(cells), left_out

    def _refusal(self, cell: tuple[Label, ...]) -> InputError | None:
        """Return what can be said against a cell without the data and the network."""
        try:
            spec: Any = self.training(cell)
            _check_optimizer(spec.schedule, spec.rate, spec.momentum, spec.decay, spec.recipe, spec.epochs)
        except InputError as error:
            return error
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker is sent: not the list of all cells, which it does not need."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def shard(self, number: int, of: int) -> list[tuple[Label, ...]]:
        """Return the cells of a shard: every so-manieth."""
        return self.cells()[number - 1 :: of]

    def training(self, cell: Sequence[Label]) -> TrainingSpec:
        """Return the training of a cell."""
        names = [name for name, _ in self.axes]
        return training_of({**dict(self.settings), **dict(zip(names, cell, strict=True))}, dict(self.recipes))

    def name_of(self, cell: Sequence[Label]) -> str:
        """Return a cell in words."""
        return ", ".join(f"{name} {label}" for (name, _), label in zip(self.axes, cell, strict=True))

    def facts(self, load: Loader) -> dict[str, Any]:
        """Return what is to be known of each data set, by its name, and of each recipe that an axis names."""
        facts: dict[str, Any] = {}
        for name in self._values("dataset") or ("digits",):
            parts = {part: load(name, subset=part) for part in ("train", "test")}
            facts[name] = {
                "checksum": parts["train"].checksum,
                "test_checksum": parts["test"].checksum,
                "classes": parts["train"].classes,
                "samples": len(parts["train"].labels),
            }
        return facts | {f"recipe {name}": recipe.to_dict() for name, recipe in self.recipes}

    def _values(self, name: str) -> tuple[Any, ...]:
        return dict(self.axes).get(name) or ((dict(self.settings)[name],) if name in dict(self.settings) else ())

    def train(
        self, cells: Sequence[tuple[Label, ...]], load: Loader, *, threads: int | None = None, device: str = "cpu"
    ) -> Iterator[list[tuple]]:
        """Train cells and yield their rows as they come, one by one."""
        if threads is not None:
            kernels.set_threads(threads)
        device = kernels.resolve_device(device)
        return ([(*cell, *self._trained(cell, load, device))] for cell in cells)

    def _trained(self, cell: tuple[Label, ...], load: Loader, device: str) -> tuple[Any, ...]:
        try:
            ready = prepare(self.training(cell), device=device, load=load)
            ready.trainer.run(ready.test)
        except (DataError, DeviceError):
            raise  # not the cell's fault
        except InputError as error:
            return _refused(error)
        return measure(ready.trainer)

    def kinds(self, cells: Sequence[tuple[Label, ...]]) -> list[tuple[str, tuple[Label, ...]]]:
        """Return the kinds of compiled code that cells need, by name, and a cell of each."""
        matters = [name not in _SAME_CODE for name, _ in self.axes]
        first = {tuple(itertools.compress(cell, matters)): cell for cell in reversed(cells)}
        return list({_kind(self.training(cell)): cell for cell in first.values()}.items())[::-1]

    def warm(self, cell: tuple[Label, ...], load: Loader) -> None:
        """Compile what a cell needs: train on two batches, and evaluate a few samples."""
        try:
            spec: Any = self.training(cell)
            samples = min(2 * spec.batch, len(load(spec.dataset, subset="train").labels), spec.samples or 2 * spec.batch)
            ready = prepare(_short(spec, samples), load=load)
            ready.trainer.run(_first(ready.test, 2 * ready.trainer.batch))
        except InputError:
            pass  # it is refused when it is trained

    def estimate(
        self, some: Sequence[tuple[Label, ...]], cells: Sequence[tuple[Label, ...]], load: Loader
    ) -> tuple[float, int, str]:
        """Return about how many seconds `cells` take in one thread, from how many of `some`, and why others are refused."""
        for _, cell in self.kinds(some):
            self.warm(cell, load)  # what the cache has is loaded once, and no part of a cell's time
        seconds, refused = [], ""
        for cell in some:
            found = self._seconds(cell, load)
            if isinstance(found, float):
                seconds.append(found)
            else:
                refused = refused or f"{self.name_of(cell)}: {found}"
        if not seconds:
            return 0.0, 0, refused
        return sum(seconds) / len(seconds) * len(cells), len(seconds), refused

    def _seconds(self, cell: tuple[Label, ...], load: Loader) -> float | InputError:
        """Return about how long a cell takes: to prepare it, for its steps and for its evaluations, of each a few timed.

        Or why it cannot be trained.
        """
        try:
            start = time.perf_counter()
            spec: Any = self.training(cell)
            ready = prepare(spec, load=load)
            prepared = time.perf_counter() - start
            trainer, test = ready.trainer, ready.test
            steps = min(trainer.steps_per_epoch, TIMED_STEPS)
            samples = min(steps * trainer.batch, len(trainer.train))
            short = prepare(_short(spec, samples), load=load).trainer
            start = time.perf_counter()
            short.run()
            a_step = (time.perf_counter() - start) / short.steps_per_epoch
            some = _first(test, 2048)
            start = time.perf_counter()
            evaluate(short.network, some)
            a_test = (time.perf_counter() - start) * len(test) / len(some)
        except (DataError, DeviceError):
            raise
        except InputError as error:
            return error
        return prepared + spec.epochs * (trainer.steps_per_epoch * a_step + a_test)


@lru_cache(maxsize=4096)
def _check_optimizer(schedule: str, rate: Any, momentum: Any, decay: Any, recipe: Recipe, epochs: int) -> None:
    SGD(Schedule.parse(schedule, rate), momentum, decay).check(recipe, epochs)


def _short(spec: TrainingSpec, samples: int) -> TrainingSpec:
    """Return a training of one epoch of so many samples."""
    return replace(spec, epochs=1, schedule="constant", samples=samples)


def _first(inputs: Inputs, count: int) -> Inputs:
    return replace(inputs, codes=inputs.codes[:count], labels=inputs.labels[:count])


def _kind(spec: TrainingSpec) -> str:
    """Return what decides which kernels a training needs: the model, and the words and blocks of its recipe."""
    recipe: Any = spec.recipe
    roles = []
    for role in ROLES:
        one = getattr(recipe, role)
        if one is not None:
            block = one.format.block if isinstance(one.format, BlockFloat) else "fixed"
            roles.append(f"{role} {one.format.storage} {block}")
    others = (
        spec.dataset,
        spec.model,
        spec.loss or recipe.loss,
        recipe.update,
        str(spec.momentum),
        str(spec.decay),
        spec.augmentation,
    )
    return "; ".join((*roles, f"accumulator {recipe.accumulator_bits > 32}", *map(str, others)))


def _refused(error: InputError) -> tuple[Any, ...]:
    zeros = [{int: 0, float: 0.0, str: ""}[column.kind] for column in _measured()]
    return (f"refused: {error}", *zeros[1:])


def measure(trainer: Trainer) -> tuple[Any, ...]:
    """Return what is stored of a training that has ended; telemetry is of all its epochs."""
    history, recipe = trainer.history, trainer.network.recipe
    last = history[-1]
    tested = [0.0 if row.test_accuracy is None else row.test_accuracy for row in history]
    stored = "weight" if recipe.master is None else "master"
    by_role: dict[str, list[Any]] = {role: [] for role in (*ROLES, "accumulator")}
    for one in trainer.readings:
        by_role[one.role].append(one)
    roles: list[int] = []
    for role in ROLES:
        some = by_role[role]
        roles += (
            max((one.bits_used or 0 for one in some), default=0),
            sum(one.count for one in some),
            sum(one.saturated + one.wrapped for one in some),
            sum(one.lost for one in some),
        )
    return (
        TRAINED if trainer.died is None else f"died: {trainer.died}",
        trainer.epoch,
        float(tested[-1]),
        float(max(tested)),
        float(last.train_accuracy),
        float(last.train_loss),
        sum(one.count for one in by_role[stored]),
        sum(one.lost for one in by_role[stored]),
        sum(one.saturated + one.wrapped for one in by_role["accumulator"]),
        *roles,
        trainer.network.digest(),
    )


def _pairs(what: str, given: Any) -> list[tuple[str, Any]]:
    if isinstance(given, Mapping):
        given = list(given.items())
    try:
        pairs = [(name, value) for name, value in given]
    except (TypeError, ValueError):
        raise InputError(f"{what} are a table of names, got {type(given).__name__}") from None
    for name, _ in pairs:
        axis_of(name)
    if len({name.lower() for name, _ in pairs}) < len(pairs):  # SQLite's columns do not tell A from a
        raise InputError(f"{what} name something twice")
    return pairs


def labels_of(name: str, values: Any) -> tuple[Label, ...]:
    """Return the labels of an axis' values, each once."""
    axis = axis_of(name)
    if isinstance(values, (str, int, float)) or not isinstance(values, Iterable):
        values = [values]
    labels = tuple(dict.fromkeys(label_of(axis, value) for value in itertools.islice(values, CELLS_MAX + 1)))
    if not labels:
        raise InputError(f"axis {name} is empty; give it at least one value, or leave it out")
    return labels
