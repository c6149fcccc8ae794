"""Few-bit weights of a trained network: as they come, and after fine-tuning straight through.

1. What to quantize  QuantizationSpec
2. Running           Row, run
3. Reading           table, describe
4. Writing           export

Codes are made anew from the stored weights before every product. A start with masks, from the study of pruning, keeps its
zeros.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from intnet import compression, files
from intnet.compression import WeightCoding
from intnet.errors import InputError
from intnet.network import Network
from intnet.studies import compression as shared
from intnet.studies import tables
from intnet.studies import trajectories as of_study
from intnet.studies.compression import FineTuning, Start
from intnet.studies.tables import to_csv

NONE = "none"
PICTURE = "quantization.png"


# 1. What to quantize ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QuantizationSpec:
    """How weights are coded.

    Parameters
    ----------
    bits : sequence of int, 1..8
    schemes : sequence of {"affine", "symmetric"}
    scale : {"ratio", "power"}
    layers : sequence of str, optional
        Names or patterns; by default all layers with weights but the first and the last.
    input_bits : int, 1..8, optional
        What these layers multiply their weights by is rounded to so many bits, too.
    tune_bits : sequence of int, optional
        Which of the bits are fine-tuned; by default all.
    tuning : FineTuning

    Raises
    ------
    InputError
        If something is unknown or out of range.
    """

    bits: Sequence[int] = (6, 5, 4, 3, 2)
    schemes: Sequence[str] = ("affine",)
    scale: str = "ratio"
    layers: Sequence[str] | None = None
    input_bits: int | None = None
    tune_bits: Sequence[int] | None = None
    tuning: FineTuning = field(default_factory=partial(FineTuning, epochs=0))

    def __post_init__(self) -> None:
        bits = tuple(self.bits) if isinstance(self.bits, (list, tuple, range)) else (self.bits,)
        schemes = (self.schemes,) if isinstance(self.schemes, str) else tuple(dict.fromkeys(self.schemes))
        if not bits or not schemes:
            raise InputError("bits and schemes must not be empty")
        for one in bits:
            for scheme in schemes:
                WeightCoding(one, scheme, self.scale)
        object.__setattr__(self, "bits", tuple(dict.fromkeys(bits)))
        object.__setattr__(self, "schemes", schemes)
        tuned = self.bits if self.tune_bits is None else tuple(dict.fromkeys(self.tune_bits))
        if others := [one for one in tuned if one not in self.bits]:
            raise InputError(f"fine-tuned are some of the bits {', '.join(map(str, self.bits))}, got {others[0]}")
        object.__setattr__(self, "tune_bits", tuned)
        if isinstance(self.layers, str):
            object.__setattr__(self, "layers", (self.layers,))
        for text in self.layers or ():
            if not isinstance(text, str):
                raise InputError(f"layers are names or patterns of names, got {text!r}")
        if self.input_bits is not None:
            tables.numbers("input_bits", self.input_bits, int, 1, most=8)

    def codings(self, bits: Sequence[int]) -> list[WeightCoding]:
        """Return every scheme with these bits."""
        return [WeightCoding(one, scheme, self.scale) for scheme in self.schemes for one in bits]

    def apply(self, network: Network, coding: WeightCoding) -> None:
        """Let a network multiply by codes."""
        compression.quantize_weights(network, coding, self.layers)
        if self.input_bits is not None:
            compression.quantize_inputs(network, self.input_bits, self.layers)


# 2. Running -------------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A row of ``quantization.csv``: accuracy is a fraction of 1, the loss in nats a sample.

    `scheme` is "none" of the network as it is, with the bits that it is stored in; a power of two as scale adds "-power",
    inputs of n bits "-inputs" and n. `finetuned` is the epochs of fine-tuning: 0, none; a training has a row an epoch.
    """

    scheme: str
    bits: int
    finetuned: int
    test_loss: float
    test_accuracy: float


STUDY = shared.Study("untuned.csv", "quantization.csv", Row, ("table.md", PICTURE))


@dataclass(eq=False)
class Trajectory(of_study.Trajectory[Row]):
    """A network with coded weights while it is trained on."""

    kind: ClassVar[type] = Row
    scheme: str
    bits: int
    start: Start = field(repr=False)

    def evaluate(self) -> list[Row]:
        """Return the row of the epoch that has just ended."""
        return [_row(self.scheme, self.bits, self.trainer.epoch, self.start, self.trainer.network)]


def _row(scheme: str, bits: int, epochs: int, start: Start, network: Network) -> Row:
    found = shared.tested(start, network)
    return Row(scheme, bits, epochs, found.loss, found.accuracy)


def name_of(spec: QuantizationSpec, coding: WeightCoding) -> str:
    """Return what rows call a scheme."""
    inputs = "" if spec.input_bits is None else f"-inputs{spec.input_bits}"
    return f"{coding.scheme}{'-power' if coding.scale == 'power' else ''}{inputs}"


def stored_bits(network: Network) -> int:
    """Return how many bits the weights are stored in."""
    first = network.parameters[0]
    return int(first.quantizers[first.stored_role].format.word_bits)


def _untuned(spec: QuantizationSpec, start: Start, coding: WeightCoding | None) -> list[Row]:
    network = start.network()
    if coding is None:
        return [_row(NONE, stored_bits(network), 0, start, network)]
    spec.apply(network, coding)
    return [_row(name_of(spec, coding), coding.bits, 0, start, network)]


def configuration(spec: QuantizationSpec, start: Start) -> dict[str, Any]:
    """Return what must be the same for results to belong together."""
    layers = list(spec.layers) if spec.layers is not None else "all but the first and the last"
    return {"study": "quantization", **start.config, "layers": layers, "loss_unit": start.loss_unit}


def parts(spec: QuantizationSpec, start: Start) -> Iterator[tuple[tuple, Callable[[], Iterable[tuple]]]]:
    """Yield what is evaluated without fine-tuning."""
    yield (NONE,), partial(_untuned, spec, start, None)
    for coding in spec.codings(spec.bits):
        yield (name_of(spec, coding), coding.bits), partial(_untuned, spec, start, coding)


def trajectories(spec: QuantizationSpec, start: Start) -> Iterator[Trajectory]:
    """Yield every scheme with every number of bits, ready to be fine-tuned."""
    for coding in spec.codings(spec.tune_bits or ()) if spec.tuning.epochs else ():
        network, name = start.network(), name_of(spec, coding)
        spec.apply(network, coding)
        config = configuration(spec, start) | {"scheme": name, "bits": coding.bits}
        yield Trajectory(f"{name}-{coding.bits}", spec.tuning.trainer(start, network), config, name, coding.bits, start)


def run(spec: QuantizationSpec, start: Start, folder: Path | str, **told: Any) -> list[str]:
    """Evaluate and fine-tune: see :meth:`intnet.studies.compression.Study.run`, which takes `told`."""
    spec.apply(start.network(), spec.codings(spec.bits)[0])  # refuses unknown layers before anything is stored
    return STUDY.run(folder, configuration(spec, start), parts(spec, start), trajectories(spec, start), **told)


# 3. Reading -------------------------------------------------------------------------------------------------------------

REPORTED_DENSE = 0.9151
REPORTED = {6: 0.9145, 5: 0.9112, 4: 0.8972, 3: 0.7662, 2: 0.0899}
REPORTED_TUNED = {4: 0.9135, 3: 0.9076, 2: 0.8600}  # best of 20 epochs; 3 bits at least; 2 bits from a second report


def stored_rows(spec: QuantizationSpec, start: Start, folder: Path | str) -> list[Row]:
    """Return all rows of these schemes and bits that are kept.

    Raises
    ------
    StudyError
        If a table is damaged.
    """
    folder = Path(folder)
    every = of_study.read_rows(folder / STUDY.untuned, Row)
    rows = [row for key, _ in parts(spec, start) for row in every if row[: len(key)] == key]
    for coding in spec.codings(spec.tune_bits or ()) if spec.tuning.epochs else ():
        name = name_of(spec, coding)
        belongs = partial(_belongs, name, coding.bits)
        rows += of_study.stored_rows(folder, f"{name}-{coding.bits}", Row, belongs, f"{name} codes of {coding.bits} bits")
    return rows


def _belongs(name: str, bits: int, row: Row) -> bool:
    return (row.scheme, row.bits) == (name, bits)


def _last(rows: Sequence[Row], scheme: str, bits: int) -> list[Row]:
    return [row for row in rows if (row.scheme, row.bits) == (scheme, bits) and row.finetuned]


def table(rows: Sequence[Row], compares: bool = True) -> str:
    """Return a Markdown table of drops from the start, in points, beside those of the course if it `compares`."""
    start = rows[0].test_accuracy
    there = f", {REPORTED_DENSE:.2%} in the course" if compares else ""
    lines = [
        f"Start: {start:.2%} here{there}. Drops from it, in points:",
        "",
        "| scheme | bits | as it comes | drop | reported | tuned, last epoch | drop | best epoch on test | drop | reported |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows[1:]:
        if row.finetuned:
            continue
        same = compares and row.scheme == "affine"
        cells = [row.scheme, str(row.bits), *_drop(start, row, REPORTED.get(row.bits) if same else None)]
        if tuned := _last(rows, row.scheme, row.bits):
            best = max(tuned, key=lambda one: one.test_accuracy)
            cells += _drop(start, tuned[-1], None)[:2]
            cells += _drop(start, best, REPORTED_TUNED.get(row.bits) if same else None)
        else:
            cells += [""] * 5
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _drop(start: float, row: Row, known: float | None) -> list[str]:
    reported = "" if known is None else f"{100 * (REPORTED_DENSE - known):.2f}"
    return [f"{row.test_accuracy:.2%}", f"{100 * (start - row.test_accuracy):.2f}", reported]


# 4. Writing -------------------------------------------------------------------------------------------------------------


def export(spec: QuantizationSpec, start: Start, folder: Path | str, *, plots: bool = True) -> list[str]:
    """Write the tables and the picture of what is kept, and return what came out, in sentences.

    Raises
    ------
    StudyError
        If a file cannot be written, or a table is damaged.
    """
    folder = Path(folder)
    with files.locked(folder, wait=60):
        rows = stored_rows(spec, start, folder)  # within the lock: who writes last knows all
        text = table(rows, start.compares)
        for name, content in ((STUDY.tuned, to_csv(Row, rows)), ("table.md", text)):
            files.write_changed(folder / name, content.encode())
        if plots:
            from intnet import plotting

            figure = plotting.plot_quantization(rows, title=f"{start.title}{', pruned' if start.masked else ''}")
            files.write_atomically(folder / PICTURE, partial(figure.savefig, dpi=150))
    ends = of_study.stored_ends(folder, (f"{name_of(spec, one)}-{one.bits}" for one in spec.codings(spec.tune_bits or ())))
    return [text.rstrip(), *(f"{name} ended early: {why}." for name, why in ends.items())]
