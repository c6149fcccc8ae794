"""Pruning a trained network: one-shot and iterative, by a percentile of each layer or by one threshold for all.

1. What to prune     PruningSpec
2. Rows              Row, LayerRow
3. Running           run
4. Reading           table, describe
5. Writing           export

One-shot: pruned once, then trained with a mask. Iterative: before each of the first epochs a percentile that grows linearly is
pruned, and what is pruned may grow again, until the last of these epochs; from then on a mask holds it at zero.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from intnet import compression, files
from intnet.errors import InputError
from intnet.network import Network
from intnet.studies import compression as shared
from intnet.studies import tables
from intnet.studies import trajectories as of_study
from intnet.studies.compression import FineTuning, Start
from intnet.studies.tables import to_csv
from intnet.training import Trainer

METHODS = ("one-shot", "one-shot-global", "iterative", "iterative-global")
DENSE = "dense"

SPARSITY = "sparsity.csv"
PICTURES = ("pruning.png", "sparsity.png")


# 1. What to prune -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PruningSpec:
    """How a network is pruned.

    Parameters
    ----------
    methods : sequence of str
        Of `METHODS`.
    percentile : number, 0..100
        What is pruned when fine-tuning ends.
    percentiles : sequence of numbers
        What is pruned without any fine-tuning, too.
    prune_epochs : int
        In so many epochs iterative pruning reaches the percentile.
    tuning : FineTuning

    Raises
    ------
    InputError
        If something is unknown, out of range, or there are fewer epochs than pruning takes.
    """

    methods: Sequence[str] = ("one-shot", "iterative", "iterative-global")
    percentile: float = 80
    percentiles: Sequence[float] = (20, 40, 60, 80, 90)
    prune_epochs: int = 10
    tuning: FineTuning = field(default_factory=FineTuning)

    def __post_init__(self) -> None:
        names = (self.methods,) if isinstance(self.methods, str) else tuple(dict.fromkeys(self.methods))
        if unknown := [name for name in names if name not in METHODS]:
            raise InputError(f"methods are {', '.join(METHODS)}, got {unknown[0]!r}")
        if not names:
            raise InputError("methods must not be empty; for no fine-tuning, ask for 0 epochs")
        object.__setattr__(self, "methods", names)
        (percentile,) = tables.numbers("percentile", self.percentile, float, 0, most=100)
        object.__setattr__(self, "percentile", percentile)
        object.__setattr__(self, "percentiles", tables.numbers("percentiles", self.percentiles, float, 0, most=100))
        (epochs,) = tables.numbers("prune_epochs", self.prune_epochs, int, 1)
        iterative = [name for name in names if name.startswith("iterative")]
        if iterative and 0 < self.tuning.epochs < epochs:
            raise InputError(
                f"{iterative[0]} prunes in {epochs} epochs and is fine-tuned in {self.tuning.epochs}; use more epochs, or "
                "prune in fewer"
            )

    def share(self, epoch: int) -> Fraction:
        """Return the percentile of iterative pruning before an epoch, from 1 on."""
        return Fraction(str(self.percentile)) * min(epoch, self.prune_epochs) / self.prune_epochs


# 2. Rows ----------------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A row of ``pruning.csv``: accuracy and sparsity are fractions of 1, the loss in nats a sample; epoch 0 is untuned.

    `percentile` was pruned before the epoch, all else is measured after it: without a mask zeros have grown again by then.
    """

    method: str
    percentile: float
    epoch: int
    sparsity: float
    test_loss: float
    test_accuracy: float


class LayerRow(NamedTuple):
    """A row of ``sparsity.csv``; the layer "total" is all of them."""

    method: str
    layer: str
    weights: int
    zeros: int
    sparsity: float


STUDY = shared.Study("untuned.csv", "pruning.csv", Row, (SPARSITY, "table.md", *PICTURES))


# 3. Running -------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Trajectory(of_study.Trajectory[Row]):
    """A network while it is pruned and trained on."""

    kind: ClassVar[type] = Row
    method: str
    spec: PruningSpec
    start: Start = field(repr=False)

    def before(self, trainer: Trainer) -> None:
        """Prune as the schedule says."""
        epoch, prune = trainer.epoch + 1, pruner(self.method)
        if self.method.startswith("iterative"):
            if epoch <= self.spec.prune_epochs:
                prune(trainer.network, self.spec.share(epoch), masked=epoch == self.spec.prune_epochs)
        elif epoch == 1:
            prune(trainer.network, self.spec.percentile)

    def evaluate(self) -> list[Row]:
        """Return the row of the epoch that has just ended."""
        epoch = self.trainer.epoch
        percentile = float(self.spec.share(epoch)) if self.method.startswith("iterative") else self.spec.percentile
        return [_row(self.method, percentile, epoch, self.start, self.trainer.network)]

    def tables(self) -> dict[str, str]:
        """Return the rows, and the sparsity of the layers as they are now."""
        return super().tables() | {SPARSITY: to_csv(LayerRow, layer_rows(self.method, self.trainer.network))}


def pruner(method: str) -> Callable[..., list[compression.Sparsity]]:
    """Return the function that prunes in this method."""
    return compression.prune_globally if method.endswith("-global") else compression.prune_layers


def layer_rows(method: str, network: Network) -> list[LayerRow]:
    """Return the sparsity of the layers that are pruned."""
    return [LayerRow(method, one.layer, one.weights, one.zeros, one.sparsity) for one in compression.sparsity(network)]


def _row(method: str, percentile: float, epoch: int, start: Start, network: Network) -> Row:
    found = shared.tested(start, network)
    return Row(method, percentile, epoch, compression.sparsity(network)[-1].sparsity, found.loss, found.accuracy)


def _untuned(start: Start, method: str, percentile: float) -> list[Row]:
    network = start.network()
    if method != DENSE:
        pruner(method)(network, percentile)
    return [_row(method, percentile, 0, start, network)]


def configuration(start: Start) -> dict[str, Any]:
    """Return what must be the same for results to belong together."""
    return {"study": "pruning", **start.config, "loss_unit": start.loss_unit}


def parts(spec: PruningSpec, start: Start) -> Iterator[tuple[tuple, Callable[[], Iterable[tuple]]]]:
    """Yield what is evaluated without fine-tuning: the dense network, and each rule at each percentile."""
    yield (DENSE, 0.0), partial(_untuned, start, DENSE, 0.0)
    for method in ("one-shot", "one-shot-global"):
        for percentile in dict.fromkeys((*spec.percentiles, spec.percentile)):
            yield (method, percentile), partial(_untuned, start, method, percentile)


def trajectories(spec: PruningSpec, start: Start) -> Iterator[Trajectory]:
    """Yield every method, ready to be fine-tuned."""
    if not spec.tuning.epochs:
        return
    for method in spec.methods:
        iterative = method.startswith("iterative")
        config = configuration(start) | {"method": method, "percentile": spec.percentile}
        config |= {"prune_epochs": spec.prune_epochs} if iterative else {}
        name = f"{method}-{spec.percentile:g}"
        yield Trajectory(name, spec.tuning.trainer(start, start.network()), config, method, spec, start)


def run(spec: PruningSpec, start: Start, folder: Path | str, **told: Any) -> list[str]:
    """Prune, evaluate and fine-tune: see :meth:`intnet.studies.compression.Study.run`, which takes `told`."""
    return STUDY.run(folder, configuration(start), parts(spec, start), trajectories(spec, start), **told)


# 4. Reading -------------------------------------------------------------------------------------------------------------

REPORTED = {  # of the course's network (0.9151 dense, width 1), 20 epochs, at 80 percent: two reports from one checkpoint
    "one-shot": 0.8805,
    "iterative": 0.8756,  # of the second report; the first gives none at 80 percent
    "iterative-global": 0.8834,
}
REPORTED_DENSE = 0.9151
REPORTED_UNTUNED = {40: 0.8874, 60: 0.7223, 80: 0.100}


def stored_rows(spec: PruningSpec, start: Start, folder: Path | str) -> tuple[list[Row], list[LayerRow]]:
    """Return all rows of these parts and methods that are kept, and those of the layers.

    Raises
    ------
    StudyError
        If a table is damaged.
    """
    folder = Path(folder)
    every = of_study.read_rows(folder / STUDY.untuned, Row)
    wanted = [key for key, _ in parts(spec, start)]
    rows = [row for key in wanted for row in every if row[: len(key)] == key]
    layers: list[LayerRow] = []
    for method in ("one-shot", "one-shot-global"):
        network = start.network()
        pruner(method)(network, spec.percentile)
        layers += layer_rows(method, network)
    for method in spec.methods if spec.tuning.epochs else ():
        name = f"{method}-{spec.percentile:g}"
        rows += of_study.stored_rows(folder, name, Row, partial(_belongs, method), f"method {method}")
        path = folder / of_study.RUNS / name / SPARSITY
        if method.startswith("iterative") and path.is_file():
            layers += of_study.read_rows(path, LayerRow)
    return rows, layers


def _belongs(method: str, row: Row) -> bool:
    return row.method == method


def table(spec: PruningSpec, rows: Sequence[Row], compares: bool = True) -> str:
    """Return a Markdown table of drops from the dense network, in points, beside those of the course if it `compares`."""
    dense = next(row.test_accuracy for row in rows if row.method == DENSE)
    there = f", {REPORTED_DENSE:.2%} in the course" if compares else ""
    lines = [
        f"Dense: {dense:.2%} here{there}. Drops from dense, in points:",
        "",
        "| pruned | fine-tuned | sparsity | accuracy | drop | drop reported |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        if row.epoch == 0 and row.method != DENSE:
            known = REPORTED_UNTUNED.get(int(row.percentile)) if compares and row.method == "one-shot" else None
            lines.append(_line(f"{row.method}, {row.percentile:g} %", "no", row, dense, known))
    for method in spec.methods:
        last = [row for row in rows if row.method == method and row.epoch and row.percentile == spec.percentile]
        if last:
            known = REPORTED.get(method) if compares and spec.percentile == 80 else None
            done = f"{last[-1].epoch} epochs"
            lines.append(_line(f"{method}, {spec.percentile:g} %", done, last[-1], dense, known))
            best = max(last, key=lambda row: row.test_accuracy)
            if best is not last[-1]:
                lines.append(_line("its best epoch on the test set", f"{best.epoch} epochs", best, dense, known))
    return "\n".join(lines) + "\n"


def _line(name: str, tuned: str, row: Row, dense: float, known: float | None) -> str:
    drop = f"{100 * (dense - row.test_accuracy):.2f}"
    reported = "" if known is None else f"{100 * (REPORTED_DENSE - known):.2f}"
    return f"| {name} | {tuned} | {row.sparsity:.4%} | {row.test_accuracy:.2%} | {drop} | {reported} |"


def describe(layers: Sequence[LayerRow]) -> list[str]:
    """Say in sentences what came out."""
    sentences = []
    for method in dict.fromkeys(row.method for row in layers):
        some = [row for row in layers if row.method == method and row.layer != "total"]
        most, least = max(some, key=lambda row: row.sparsity), min(some, key=lambda row: row.sparsity)
        total = next(row for row in layers if row.method == method and row.layer == "total")
        sentences.append(
            f"{method}: {total.zeros:,} of {total.weights:,} weights are zero ({total.sparsity:.4%}); most in {most.layer} "
            f"({most.sparsity:.1%}), least in {least.layer} ({least.sparsity:.1%})."
        )
    return sentences


# 5. Writing -------------------------------------------------------------------------------------------------------------


def export(spec: PruningSpec, start: Start, folder: Path | str, *, plots: bool = True) -> list[str]:
    """Write the tables and pictures of what is kept, and return what came out, in sentences.

    Raises
    ------
    StudyError
        If a file cannot be written, or a table is damaged.
    """
    folder = Path(folder)
    with files.locked(folder, wait=60):
        rows, layers = stored_rows(spec, start, folder)  # within the lock: who writes last knows all
        text = table(spec, rows, start.compares)
        contents = {STUDY.tuned: to_csv(Row, rows), SPARSITY: to_csv(LayerRow, layers), "table.md": text}
        for name, content in contents.items():
            files.write_changed(folder / name, content.encode())
        if plots:
            from intnet import plotting

            for name, figure in zip(
                PICTURES,
                (
                    plotting.plot_pruning(rows, title=start.title),
                    plotting.plot_sparsity(layers, title=f"{start.title}, {spec.percentile:g} % pruned"),
                ),
                strict=True,
            ):
                files.write_atomically(folder / name, partial(figure.savefig, dpi=150))
    ends = of_study.stored_ends(folder, (f"{method}-{spec.percentile:g}" for method in spec.methods))
    return [text.rstrip(), *describe(layers), *(f"{name} ended early: {why}." for name, why in ends.items())]
