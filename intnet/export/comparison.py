"""Where two traces differ first, and which rule of intnet's would explain it.

A tensor that was rounded is rounded again from its exact accumulator, by every rounding mode, overflow mode and shift
nearby; an accumulator is summed again from its operands, exactly, in Python integers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError
from intnet.export.traces import Record, Trace
from intnet.formats import Overflow, Rounding
from intnet.tensor import QTensor

SHIFTS_OFF = (0, 1, -1, 2, -2)
"""By how much a shift may be off to be tried."""

_FEW = 8  # elements that differ: fewer may be met by chance, if only these are met
_TOLD = 4  # explanations that are told at most
_OVERFLOWS = (Overflow.SATURATE, Overflow.WRAP, Overflow.SATURATE_SYMMETRIC)


@dataclass(frozen=True)
class Difference:
    """The first difference of two traces, in the order of computation.

    Attributes
    ----------
    key : str
        The tensor, such as ``step3/dense1/forward``.
    step : int or None
        None: an inference.
    layer : str
        The layer, the parameter (``dense1.weight``), "loss", or "" of the batch.
    tensor : str
        ``forward``, ``backward_exact``, ``after``, ..
    index : tuple of int
        Of the first element, in C order, that differs; of an exponent its place among the exponents.
    a, b : int
        What it is in the two traces.
    count, size : int
        How many elements differ, of how many.
    of_exponents : bool
        Whether the exponents differ; then they are what is compared.
    explanations : tuple of str
        What would explain it, each with the fewest changes to the rule that is written in the trace; none if no mode does.
    """

    key: str
    step: int | None
    layer: str
    tensor: str
    index: tuple[int, ...]
    a: int
    b: int
    count: int
    size: int
    of_exponents: bool
    explanations: tuple[str, ...]

    def __str__(self) -> str:
        where = "inference" if self.step is None else f"step {self.step}"
        what = "exponent" if self.of_exponents else "element"
        place = f"{what} {self.index if len(self.index) != 1 else self.index[0]}"
        owner = self.layer or "the batch"
        first = (
            f"{where}, {owner}, {self.tensor} ({self.key}): {place} is {self.a} in a and {self.b} in b; {self.count} of "
            f"{self.size} differ."
        )
        why = "; or ".join(self.explanations) or "no rounding mode, overflow mode or shift of intnet's explains it"
        return f"{first} {why[0].upper()}{why[1:]}."


def compare_traces(a: Trace | str | PathLike[str], b: Trace | str | PathLike[str]) -> Difference | None:
    """Return the first difference of two traces of one network, with what would explain it; None if all bits are equal.

    Parameters
    ----------
    a, b : Trace or path of one
        `a` is the reference: explanations say by which rule `b` (or, if `a` is not what its own rule gives, `a`) was made.
        Tensors whose names end in ``_exact`` may be missing in one of them.

    Raises
    ------
    InputError
        If they are not of one network and the same steps: the line names what differs.

    Examples
    --------
    >>> difference = compare_traces("golden/traces/steps.npz", device)  # doctest: +SKIP
    >>> print(difference)  # doctest: +SKIP
    step 3, dense1, forward (step3/dense1/forward): element (2, 5) is 17 in a and 18 in b; 214 of 640 differ. B has what
    rounding ties_pos gives where ties_even is due.
    """
    a, b = (one if isinstance(one, Trace) else Trace.load(one) for one in (a, b))
    _same_network(a, b)
    for key, record in a.records.items():
        if key not in b.records:
            continue
        one, other = a[key], b[key]
        exponents = not np.array_equal(one.exponent, other.exponent)
        left, right = (one.exponent, other.exponent) if exponents else (one.mantissa, other.mantissa)
        differs = left != right
        if not differs.any():
            continue
        index = tuple(int(place) for place in np.argwhere(differs)[0])
        why = () if exponents else tuple(_explanations(a, b, record, differs))
        return Difference(
            key, record.step, record.owner, record.tensor, index, int(left[index]), int(right[index]), int(differs.sum()),
            differs.size, exponents, why,
        )  # fmt: skip
    return None


# 1. One network ----------------------------------------------------------------------------------------------------------


def _same_network(a: Trace, b: Trace) -> None:
    """Refuse traces of different networks or steps."""
    for name in ("kind", "sample_shape", "layers", "parameters"):
        one, other = a.info.get(name), b.info.get(name)
        if one != other:
            if isinstance(one, list) and isinstance(other, list) and name == "layers":
                pairs = [(x, y) for x, y in zip(one, other, strict=False) if x != y] or [
                    (f"{len(one)} layers", f"{len(other)}")
                ]
                one, other = pairs[0]
            raise InputError(f"the traces are of different networks: {name}: {one} in a, {other} in b; compare traces of one")
    if a.steps != b.steps:
        raise InputError(f"the traces have steps {list(a.steps)} and {list(b.steps)}; record the same ones")
    for missing, there, name in ((set(a.records) - set(b.records), a, "b"), (set(b.records) - set(a.records), b, "a")):
        for key in there.records:
            if key in missing and not key.endswith("_exact"):
                raise InputError(
                    f"trace {name} has no {key}, which the other has; record both by the same recipe and optimizer"
                )
    for key, one in a.records.items():
        other = b.records.get(key)
        if other is None:
            continue
        if a[key].shape != b[key].shape:
            raise InputError(f"the traces are of different networks or batches: {key} has shape {a[key].shape} in a, "
                             f"{b[key].shape} in b")  # fmt: skip
        if one.format != other.format:
            raise InputError(
                f"the traces are of different recipes: {key} is {one.format or 'an accumulator'} in a, "
                f"{other.format or 'an accumulator'} in b; explanations are of rounding, overflow and shift alone"
            )
        if a[key].exponent.shape != b[key].exponent.shape:
            raise InputError(f"the traces are of different recipes: {key} has exponents of shape {a[key].exponent.shape} in a, "
                             f"{b[key].exponent.shape} in b")  # fmt: skip


# 2. What would explain it ------------------------------------------------------------------------------------------------


def _explanations(a: Trace, b: Trace, record: Record, differs: NDArray[np.bool_]) -> Iterator[str]:
    if record.made_from.get("product"):
        yield from _of_sums(a, b, record, differs)
        return
    exact = next((trace[record.exact] for trace in (a, b) if record.exact and record.exact in trace.records), None)
    if exact is None or record.rounding is None or record.word_bits is None:
        return
    declared = _Rule(Rounding(record.rounding), Overflow(record.overflow), 0)
    again = _Again(exact, a[record.key], record, int(a.info.get("seed", 0)))
    reference = np.array_equal(again.rounded(declared), a[record.key].mantissa)
    if not reference and np.array_equal(again.rounded(declared), b[record.key].mantissa):
        name, values = "a", a[record.key].mantissa
    else:
        name, values = "b", b[record.key].mantissa
    found: list[tuple[int, str]] = []
    partial: list[tuple[int, str]] = []
    for rounding, overflow, off in product(Rounding, _OVERFLOWS, SHIFTS_OFF):
        rule = _Rule(rounding, overflow, off)
        changes = rule.changes(declared)
        if changes == 0 or (found and changes > min(found)[0]):
            continue
        made = again.rounded(rule)
        if np.array_equal(made, values):
            found.append((changes, rule.told(declared, again.shift)))
        elif differs.sum() >= _FEW and np.array_equal(made[differs], values[differs]):
            partial.append((changes, rule.told(declared, again.shift)))
    best = [text for changes, text in found if changes == min(found)[0]]
    if best:
        yield from (f"{name} has what {text}" for text in best[:_TOLD])
        return
    best = [text for changes, text in partial if changes == min(partial)[0]]
    yield from (
        f"at the {differs.sum()} elements that differ, and not at all others, {name} has what {text}" for text in best[:1]
    )


@dataclass(frozen=True)
class _Rule:
    rounding: Rounding
    overflow: Overflow
    off: int

    def changes(self, other: "_Rule") -> int:
        """Return in how much it differs: a mode counts one, a shift by how much it is off."""
        errors = {Overflow.ERROR: Overflow.WRAP}
        overflow = errors.get(other.overflow, other.overflow)
        return (self.rounding is not other.rounding) + (self.overflow is not overflow) + abs(self.off)

    def told(self, due: "_Rule", shift: int | None) -> str:
        """Say what it is instead of what is due."""
        parts, dues = [], []
        if self.rounding is not due.rounding:
            parts.append(f"rounding {self.rounding.value}")
            dues.append(due.rounding.value)
        if self.overflow is not due.overflow and self.overflow is not {Overflow.ERROR: Overflow.WRAP}.get(due.overflow):
            parts.append(f"overflow {self.overflow.value}")
            dues.append(due.overflow.value)
        if self.off:
            parts.append(f"a shift {'by' if shift is None else 'of'} {self.off if shift is None else shift + self.off}"
                         f"{' more' if shift is None else ''}")  # fmt: skip
            dues.append("that of the exponents" if shift is None else f"a shift of {shift}")
        return f"{' and '.join(parts)} gives where {' and '.join(dues)} is due"


class _Again:
    """Rounds an exact tensor again."""

    def __init__(self, exact: QTensor, rounded: QTensor, record: Record, seed: int) -> None:
        self.values, self.record, self.seed = exact.mantissa, record, seed
        if record.shift is not None:
            shifts = np.full(1, record.shift)
        elif exact.exponent.size == rounded.exponent.size == 1:
            shifts = np.full(1, rounded.exponent.item() - exact.exponent.item())
        else:
            shifts = (rounded.exponents() - exact.exponents()).reshape(-1)
        same = shifts.size and bool((shifts == shifts[0]).all())
        self.shift: int | None = int(shifts[0]) if same else None
        self.shifts = shifts

    def rounded(self, rule: _Rule) -> NDArray[Any]:
        """Return the mantissas that a rule gives."""
        record, size = self.record, self.values.size
        word, bits = record.word_bits, record.random_bits or 32
        assert word is not None
        random: dict[str, Any] = {
            "random_bits": bits,
            "seed": self.seed,
            "stream": record.stream or 0,
            "step": record.random_step or 0,
        }
        modes = rule.rounding.code, rule.overflow.code, word
        if self.shift is not None:
            return kernels.requantize(self.values, self.shift + rule.off, *modes, **random)
        shifts = (self.shifts + rule.off).reshape(size, 1, 1)
        return kernels.requantize(self.values, shifts, *modes, layout=(size, 1, 1, 1), **random)


# 3. Accumulators of dense layers -----------------------------------------------------------------------------------------


def _of_sums(a: Trace, b: Trace, record: Record, differs: NDArray[np.bool_]) -> Iterator[str]:
    """Sum again what a dense layer's accumulator was made from, where it differs, and let it wrap or saturate."""
    known = record.made_from
    bits, due = int(known["accumulator_bits"]), str(known["accumulator_overflow"])
    places = np.argwhere(differs)[:10_000]
    sums = _sums(a, known, places)
    if sums is None:
        return
    one, other = ([int(trace[record.key].mantissa[tuple(place)]) for place in places] for trace in (a, b))
    made = {how: [_added(how, bits, parts) for parts in sums] for how in ("saturate", "wrap", "exact")}
    where = "" if len(places) == differs.sum() else f" at the first {len(places)} that differ"
    for name, values, rest in (("b", other, one), ("a", one, other)):
        for how, gives in made.items():
            if gives == values and how != due and rest == made["wrap" if due == "error" else due]:
                what = "sums that leave it would be, uncut" if how == "exact" else f"an accumulator of {bits} bits that {how}s"
                yield f"{name} has what {what}{' gives' * (how != 'exact')} where {due} is due{where}"


def _sums(trace: Trace, known: dict[str, Any], places: NDArray[np.int64]) -> list[tuple[int, int]] | None:
    """Return the exact sum and the bias at these places, or None where exponents differ or an operand is missing."""
    keys = [known.get(name) for name in {"forward": ("x", "weight"), "backward": ("dy", "weight"), "gradient": ("dy", "x")}[
        known["product"]]]  # fmt: skip
    if any(key is None or key not in trace.tensors or trace[key].exponent.size > 1 for key in keys):
        return None
    left, right = (trace[str(key)] for key in keys)
    rows = left.mantissa.T if known["product"] == "gradient" else left.mantissa
    columns = right.mantissa if known["product"] == "forward" else right.mantissa.T
    added = [0] * len(places)
    if known.get("bias") is not None:
        bias = trace[known["bias"]]
        shift = int(bias.exponent.flat[0]) - int(left.exponent.flat[0]) - int(right.exponent.flat[0])
        if bias.exponent.size > 1 or shift < 0:
            return None
        added = [int(bias.mantissa[place[1]]) << shift for place in places]
    lines, others = rows.tolist(), columns.tolist()
    totals = (sum(x * w for x, w in zip(lines[i], others[j], strict=True)) for i, j in places.tolist())
    return list(zip(totals, added, strict=True))


def _added(how: str, bits: int, parts: tuple[int, int]) -> int:
    """Return a sum and a bias in an accumulator: each result meets it."""
    total = 0
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    for part in parts:
        total += part
        if how == "wrap":
            total = ((total - low) % (1 << bits)) + low
        elif how == "saturate":
            total = min(max(total, low), high)
    return total
