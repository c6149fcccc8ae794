"""The sample-at-a-time integer trainer, for all cells of a grid at once.

One dense layer without bias, ReLU on the output, one sample an iteration, in wrapping 64-bit integers: the network of the
fraction-bitwidth and learning-rate study. A cell is one training: a learning rate, a number of fraction bits, a seed.
Cells are independent; those that share their inputs (same seed, same fraction bits) are trained together, and groups of
them run in parallel threads. On a GPU all cells of a seed are trained together. The bits do not depend on the grouping, on
the number of threads or on the device.

The rule of one iteration is written out in :func:`intnet.kernels.plain.train_online`.
"""

import functools
import itertools
import operator
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError
from intnet.jobs import available_cores, in_threads

FRACTION_BITS_MAX = 31
SHIFT_MAX = 62
"""The largest ``fraction_bits + lr_shift``: the update is shifted right by it, and ``2**62`` is the last power in int64."""

_GROUP_LANES = 160  # outputs trained together: enough for the vectors to be full and the samples' data to be shared
_CHUNK = 2**14  # iterations between two looks at whether to stop
_LAUNCH_BYTES = 2**30  # what the cells trained together on a GPU may take of its memory, and of the host's


class Cell(NamedTuple):
    """One training: learning rate ``2**-lr_shift``, `fraction_bits` of every number, and the seed of its draws."""

    seed: int
    lr_shift: int
    fraction_bits: int


@dataclass(frozen=True, eq=False)
class OnlineProblem:
    """What the cells of one seed train on.

    Parameters
    ----------
    codes : (samples, inputs) unsigned integers
        The inputs as codes, in the order in which they are presented; after the last sample the first comes again.
    values : (number of codes,) float64
        The real number that each code stands for; quantized with the fraction bits of the cell, to nearest, ties to even.
    labels : (samples,) integers
        Class of each sample. The target is one at its label and zero elsewhere.
    weights : (classes, inputs) int64
        The initial weights as raw integers, the same for every cell.

    Raises
    ------
    InputError
        If shapes do not fit, a code or label is out of range, or there is no sample.
    """

    codes: NDArray[np.unsignedinteger]
    values: NDArray[np.float64]
    labels: NDArray[np.integer]
    weights: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("codes", "values", "labels", "weights"):
            array = np.asarray(getattr(self, name))
            object.__setattr__(self, name, array.astype(array.dtype.newbyteorder("="), copy=False))
        samples, inputs = self.codes.shape if self.codes.ndim == 2 else (0, 0)
        if not samples or not inputs or self.codes.dtype.kind != "u":
            raise InputError(
                "codes must be a non-empty array (samples, inputs) of unsigned integers, "
                f"got shape {self.codes.shape} of {self.codes.dtype}"
            )
        if self.values.ndim != 1 or self.values.dtype.kind not in "iuf":
            raise InputError(f"values must be real numbers in one dimension, got {self.values.dtype} of {self.values.shape}")
        if int(self.codes.max()) >= len(self.values):
            raise InputError(f"codes must be below the number of values, {len(self.values)}, got {self.codes.max()}")
        fits = self.weights.ndim == 2 and self.weights.shape[0] > 0 and self.weights.shape[1] == inputs
        if not fits or self.weights.dtype != np.int64:
            raise InputError(
                f"weights must be int64 of shape (classes, {inputs}), got {self.weights.dtype} of {self.weights.shape}"
            )
        classes = self.weights.shape[0]
        fits = self.labels.shape == (samples,) and self.labels.dtype.kind in "iu"
        if not fits or self.labels.min() < 0 or self.labels.max() >= classes:
            raise InputError(
                f"labels must be {samples} integers in 0..{classes - 1}, got {self.labels.dtype} of {self.labels.shape}"
            )


@dataclass(frozen=True, eq=False)
class CellResult:
    """What one training gave.

    Attributes
    ----------
    cell : Cell
    hits : (iterations,) uint8
        1 where the sample was classified rightly, before it was learned.
    weights : (classes, inputs) int64
        The trained raw integers.
    sum_abs_update, sum_abs_error : int
        Over iterations and weights, in raw units: the sums of ``|U|`` and of ``|U - S * 2**lr_shift|``, where U is the
        update before the learning rate, ``delta * x >> fraction_bits``, and S the one applied.
    lost_updates : int
        Products delta * x that were not zero and moved no weight.
    floored_to_minus_one : int
        Products that were negative, smaller than one unit after the shift, and moved a weight by -1 all the same.
    wraps : int
        Products, sums and weights that left int64 and wrapped. A sum of products counts once, by its exact value.
    """

    cell: Cell
    hits: NDArray[np.uint8]
    weights: NDArray[np.int64]
    sum_abs_update: int
    sum_abs_error: int
    lost_updates: int
    floored_to_minus_one: int
    wraps: int

    @property
    def mean_abs_update(self) -> float:
        """Mean of ``|U|`` over iterations and weights, in raw units."""
        return self.sum_abs_update / (self.hits.size * self.weights.size)

    @property
    def mean_abs_error_scaled(self) -> float:
        """Mean of ``|U - S * 2**lr_shift| * 2**fraction_bits`` over iterations and weights, as the study reports it."""
        return (self.sum_abs_error << self.cell.fraction_bits) / (self.hits.size * self.weights.size)


@dataclass(frozen=True, eq=False)
class _Packed:
    """A problem with its non-zero inputs listed sample by sample, as the kernels take it."""

    starts: NDArray[np.int64]
    columns: NDArray[np.uint32]
    codes: NDArray[np.uint32]
    labels: NDArray[np.int64]
    values: NDArray[np.float64]
    weights: NDArray[np.int64]

    @functools.cached_property
    def on_gpu(self) -> "_Packed":
        """The same with the samples on the GPU, copied there once."""
        names = ("starts", "columns", "codes", "labels")
        return replace(self, **{name: kernels.to_device(getattr(self, name)) for name in names})


def _pack(problem: OnlineProblem, iterations: int) -> _Packed:
    used = min(len(problem.labels), iterations)
    codes = np.ascontiguousarray(problem.codes[:used])
    zeros = np.flatnonzero(problem.values == 0.0)
    zero_code = np.int64(zeros[0] if zeros.size else -1)
    starts = np.zeros(used + 1, np.int64)
    starts[1:] = np.cumsum(kernels.count_nonzero(codes, zero_code))
    columns, packed = np.empty(starts[-1], np.uint32), np.empty(starts[-1], np.uint32)
    kernels.pack_nonzero(codes, zero_code, starts, columns, packed)
    labels = np.ascontiguousarray(problem.labels[:used], np.int64)
    return _Packed(starts, columns, packed, labels, np.asarray(problem.values, np.float64), problem.weights)


def check_cell(cell: Cell) -> None:
    """Raise `InputError` unless 0 <= fraction_bits <= 31, 0 <= lr_shift and their sum is at most 62."""
    if not 0 <= cell.fraction_bits <= FRACTION_BITS_MAX:
        raise InputError(f"fraction bits must be in 0..{FRACTION_BITS_MAX}, got {cell.fraction_bits}")
    if cell.lr_shift < 0:
        raise InputError(f"the learning-rate shift must not be negative, got {cell.lr_shift}")
    if cell.fraction_bits + cell.lr_shift > SHIFT_MAX:
        raise InputError(
            f"fraction bits + learning-rate shift must be at most {SHIFT_MAX}, "
            f"got {cell.fraction_bits} + {cell.lr_shift} = {cell.fraction_bits + cell.lr_shift}"
        )


def _integer(name: str, value: object) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"{name} must be an integer, got {value!r}") from None


def _as_cell(cell: Cell) -> Cell:
    """Return a cell of Python integers, which have no width: NumPy's would wrap in what is computed from them."""
    if not isinstance(cell, tuple) or len(cell) != 3:
        raise InputError(f"a cell must be Cell(seed, lr_shift, fraction_bits), got {cell!r}")
    cell = Cell(*(_integer(name, value) for name, value in zip(Cell._fields, cell, strict=True)))
    check_cell(cell)
    return cell


def train_cells(
    problem_of_seed: Callable[[int], OnlineProblem],
    cells: Iterable[Cell],
    iterations: int,
    *,
    threads: int | None = None,
    device: str = "cpu",
) -> Iterator[list[CellResult]]:
    """Train every cell and yield the results as they come, a few cells at a time, in no particular order.

    Parameters
    ----------
    problem_of_seed : function of a seed
        Makes the inputs and initial weights of the cells of one seed. Called once a seed, in the calling thread.
    cells : iterable of Cell
    iterations : int, 1..2**31 - 1
        Samples presented to each cell.
    threads : int, optional
        How many groups of cells are trained at the same time; by default one a processor core. The results are the same.
        A GPU has no use for it.
    device : {"cpu", "gpu", "auto"}
        Where to train; "auto" is a GPU where there is one that can be used. The results are the same. On a GPU the cells
        of a seed come together, or in pieces where they would take more than 1 GiB.

    Yields
    ------
    list of CellResult

    Raises
    ------
    InputError
        If a cell, `iterations`, `threads` or `device` is outside what is allowed; DeviceError, which tells what is missing,
        if a GPU is asked for and none can be used, or it has no memory left.
    """
    cells = [_as_cell(cell) for cell in cells]
    iterations = _integer("iterations", iterations)
    if not 1 <= iterations < 2**31:
        raise InputError(f"iterations must be in 1..{2**31 - 1}, got {iterations}")
    threads = available_cores() if threads is None else _integer("threads", threads)
    if threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    device = kernels.resolve_device(device)
    # A GPU takes one launch after the other. A thread is for it alone, as meanwhile this one makes the next seed's problem.
    threads = 1 if device == "gpu" else threads
    groups = _groups(problem_of_seed, cells, iterations, threads, device)
    return in_threads(_train_group, ((*group, iterations, device) for group in groups), threads)


def _groups(
    problem_of_seed: Callable[[int], OnlineProblem], cells: list[Cell], iterations: int, threads: int, device: str
) -> Iterator[tuple[_Packed, list[Cell]]]:
    """Yield cells that share their inputs, with those inputs; seed after seed, so that few problems are in memory."""
    # Cells with many fraction bits learn longest before they die, if ever: first, so that no thread ends alone with them.
    by_seed = sorted(cells, key=lambda cell: (cell.seed, -cell.fraction_bits, cell.lr_shift))
    for seed, of_seed in itertools.groupby(by_seed, key=lambda cell: cell.seed):
        problem = _pack(problem_of_seed(seed), iterations)
        if device == "gpu":
            size = max(1, _LAUNCH_BYTES // _bytes_of_cell(problem, iterations))
            sharing = [list(of_seed)]
        else:
            size = max(1, _GROUP_LANES // problem.weights.shape[0])
            if len(cells) < 2 * threads * size:  # few cells: rather keep every thread busy
                size = max(1, len(cells) // (2 * threads))
            sharing = [list(group) for _, group in itertools.groupby(of_seed, key=lambda cell: cell.fraction_bits)]
        for together in sharing:
            yield from ((problem, together[i : i + size]) for i in range(0, len(together), size))


def _bytes_of_cell(problem: _Packed, iterations: int) -> int:
    """Return what a cell takes at most, on the host or on a GPU: hits, weights, totals, its kind, rate and state."""
    return iterations + 8 * (problem.weights.size + kernels.TOTALS + 3)


def _train_group(problem: _Packed, cells: list[Cell], iterations: int, device: str, stop: threading.Event) -> list[CellResult]:
    bits = list(dict.fromkeys(cell.fraction_bits for cell in cells))
    data = problem.on_gpu if device == "gpu" else problem
    levels, fraction_bits, kinds, lr_shifts, weights, totals = (
        kernels.move(array, device)
        for array in (
            np.stack([kernels.quantize_nearest(problem.values, f) for f in bits]),
            np.array(bits, np.int64),
            np.array([bits.index(cell.fraction_bits) for cell in cells], np.int64),
            np.array([cell.lr_shift for cell in cells], np.int64),
            np.repeat(problem.weights[np.newaxis], len(cells), axis=0),
            np.zeros((len(cells), kernels.TOTALS), np.int64),
        )
    )
    hits = np.zeros((len(cells), iterations), np.uint8)
    for first in range(0, iterations, _CHUNK):
        if stop.is_set():
            return []
        chunk = kernels.empty_beside(weights, (len(cells), min(_CHUNK, iterations - first)), np.uint8)
        kernels.train_online_kinds(
            data.starts,
            data.columns,
            data.codes,
            data.labels,
            levels,
            fraction_bits,
            kinds,
            lr_shifts,
            first,
            weights,
            chunk,
            totals,
        )
        hits[:, first : first + _CHUNK] = kernels.to_host(chunk)
    weights, totals = kernels.to_host(weights), kernels.to_host(totals)
    return [
        CellResult(
            cell=cell,
            hits=hits[i],
            weights=weights[i],
            sum_abs_update=_total(totals[i], kernels.UPDATE_HIGH),
            sum_abs_error=_total(totals[i], kernels.ERROR_HIGH),
            lost_updates=int(totals[i, kernels.LOST]),
            floored_to_minus_one=int(totals[i, kernels.FLOORED]),
            wraps=int(totals[i, kernels.WRAPS]),
        )
        for i, cell in enumerate(cells)
    ]


def _total(totals: NDArray[np.int64], high: int) -> int:
    return (int(totals[high]) << 32) + int(totals[high + 1])
