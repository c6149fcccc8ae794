"""A dense layer in Verilog: a plain reference module, and a test bench that holds it against a trace.

The modules say in hardware's words what `intnet.layers.Dense` and `intnet.optimizers.SGD` compute, and are meant to be read and
replaced: put your own module in the place of `intnet_dense_forward` or `intnet_dense_update`, and the bench checks that.

    intnet_round_shift     one rounding: a right shift by any of intnet's modes, then wrap or saturate into the word
    intnet_multiply_add    a product a clock, added exactly
    intnet_dense_forward   acc(x W^T) + b, rounded; ReLU if wanted
    intnet_dense_update    G = dy^T x over the batch, rounded: g; W - factor g, rounded

Random words of stochastic rounding come from vector files, those that intnet draws for these elements.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intnet.errors import InputError
from intnet.export.mem import write_mem
from intnet.export.traces import Record, Trace
from intnet.files import explained, write_changed
from intnet.formats import Overflow, Rounding
from intnet.random import fill_fractions, room_for, sequence_words
from intnet.tensor import QTensor

MODULES, BENCH = "intnet_dense.v", "bench.v"
SUM_BITS_MAX = 128
"""The longest exact sum that a bench is written for."""

_TEMPLATES = Path(__file__).parent


@dataclass(frozen=True)
class _Rounding:
    """What one `intnet_round_shift` is told."""

    shift: int
    mode: int
    overflow: int
    word: int
    random_bits: int

    @property
    def is_stochastic(self) -> bool:
        return self.mode == Rounding.STOCHASTIC.code


def write_dense_bench(
    folder: str | PathLike[str],
    trace: Trace,
    layer: str,
    *,
    step: int | None = None,
    update: bool = True,
    relu: bool = False,
) -> list[Path]:
    """Write a reference module, a self-checking test bench and its vectors for one step of a dense layer.

    Run it in that folder: ``iverilog -g2012 -o bench bench.v intnet_dense.v && vvp bench``. It ends with PASS and exit code 0,
    or with FAIL, the first word that differs, and exit code 1. With ``vvp bench +dump`` it writes what the module gave as
    ``got_outputs.mem`` and ``got_weights.mem``, for `read_mem`, `Trace.with_values` and `compare_traces`.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    trace : Trace
        With exact tensors, of a training, or of an inference and then `update` must be False.
    layer : str
        A dense layer whose tensors are fixed point, or have one exponent each.
    step : int, optional
        By default the trace's first.
    update : bool
        Whether the update of the weights is checked too.
    relu : bool
        Whether the outputs are those of the ReLU after the layer.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    InputError
        If there is no such layer or step, or it does what the module does not: several exponents in one tensor, a shift to the
        left, momentum, decay, a master copy, normalized updates, sums of more than 128 bits.
    """
    folder = Path(folder)
    if trace.info.get("kinds", {}).get(layer) != "dense":
        dense = [name for name, kind in trace.info.get("kinds", {}).items() if kind == "dense"]
        raise InputError(
            f"layer {layer!r} is no dense layer of this trace; choose one of {', '.join(dense) or 'none: it has none'}"
        )
    if step is not None and step not in trace.steps:
        raise InputError(f"the trace has no step {step}; it has {list(trace.steps) or 'an inference only'}")
    if update and not trace.steps:
        raise InputError("an inference has no update; write its bench with update=False")
    head = f"step{step if step is not None else trace.steps[0]}" if trace.steps else "inference"
    values, parameters = _forward(trace, head, layer)
    if relu:
        array, bits, signed = values["outputs"]
        values["outputs"], parameters["RELU"] = (_after_relu(trace, f"{head}/{layer}/forward", array), bits, signed), 1
    if update:
        more, others = _update(trace, head, layer, parameters)
        values, parameters = {**values, **more}, {**parameters, **others}
    parameters["CHECK_UPDATE"] = int(update)
    parameters.update(_without_update(parameters) if not update else {})
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (array, bits, signed) in values.items():
        path = folder / f"{name}.mem"
        write_mem(
            path, array, bits, signed=signed, comment=f"{head}/{layer}: {name}, shape {array.shape}, words of {bits} bits"
        )
        written.append(path)
    lines = [f"    localparam {name} = {value};" for name, value in parameters.items()]
    bench = (_TEMPLATES / "bench.v").read_text(encoding="ascii")
    texts = {
        MODULES: (_TEMPLATES / MODULES).read_text(encoding="ascii"),
        BENCH: bench.replace("    // PARAMETERS", "\n".join((f"    // {head}/{layer}", *lines))),
    }
    for name, text in texts.items():
        path = folder / name
        write_changed(path, text.encode("ascii"))
        written.append(path)
    return written


Values = dict[str, tuple[NDArray[Any], int, bool]]


def _forward(trace: Trace, head: str, layer: str) -> tuple[Values, dict[str, int]]:
    """Return the vectors and parameters of the forward pass."""
    record, exact = _rounded(trace, f"{head}/{layer}/forward")
    known = exact.made_from
    x, weights = (_one(trace, known.get(name), layer) for name in ("x", "weight"))
    y, sums = _one(trace, record.key, layer), _one(trace, exact.key, layer)
    samples, inputs = x.shape
    outputs = weights.shape[0]
    rule = _rule(record, y, sums, layer)
    bits = {"X": _bits(x), "W": _bits(weights), "A": int(known["accumulator_bits"])}
    bias, bias_bits, bias_shift = np.zeros(outputs, np.int64), 2, 0
    if known.get("bias"):
        tensor = _one(trace, known["bias"], layer)
        bias, bias_bits, bias_shift = tensor.mantissa, _bits(tensor), _place(tensor) - _place(sums)
        if bias_shift < 0:
            raise InputError(f"{layer}: biases finer than the sums are rounded first, which this module does not do")
    sum_bits = bits["X"] + bits["W"] + max(1, (inputs - 1).bit_length())
    wide = max(sum_bits, bits["A"] + 1, bias_bits + bias_shift + 1)
    if wide > SUM_BITS_MAX:
        raise InputError(
            f"{layer}: exact sums take {wide} bits, and a bench is written for up to {SUM_BITS_MAX}; use shorter words"
        )
    parameters = {
        "SAMPLES": samples, "INPUTS": inputs, "OUTPUTS": outputs, "X_BITS": bits["X"], "W_BITS": bits["W"],
        "B_BITS": bias_bits, "B_SHIFT": bias_shift, "A_BITS": bits["A"], "A_WRAPS": _wraps(known), "S_BITS": wide,
        **_named("Y", rule), "RELU": 0,
    }  # fmt: skip
    expected = y.mantissa
    values: Values = {
        "inputs": (x.mantissa, bits["X"], True), "weights": (weights.mantissa, bits["W"], True),
        "biases": (bias, bias_bits, True), "outputs": (expected, rule.word, True),
    }  # fmt: skip
    values["outputs_random"] = (_fractions(trace, record, expected.size), rule.random_bits, rule.random_bits == 64)
    return values, parameters


def _update(trace: Trace, head: str, layer: str, forward: Mapping[str, int]) -> tuple[Values, dict[str, int]]:
    """Return the vectors and parameters of the update."""
    name = f"{head}/{layer}.weight"
    for key in ("before_master", "momentum"):
        if f"{name}/{key}" in trace.records:
            raise InputError(
                f"{layer}: this module's update has no {key.removeprefix('before_')}; train without, or update=False"
            )
    record, exact = _rounded(trace, f"{name}/gradient")
    moved, sums = _rounded(trace, f"{name}/after")
    factor = sums.made_from.get("factor")
    if factor is None or record.shift is not None:
        raise InputError(f"{layer}: this module's update is W - factor g; normalized updates are another: update=False")
    if sums.made_from["decay"][0]:
        raise InputError(f"{layer}: this module's update has no decay; train without, or update=False")
    keys = exact.made_from
    x, dy = (_one(trace, keys.get(one), layer) for one in ("x", "dy"))
    gradient, before, after = (_one(trace, f"{name}/{part}", layer) for part in ("gradient", "before", "after"))
    first = _rule(record, gradient, _one(trace, exact.key, layer), layer)
    mantissa, shift = factor
    base = min(_place(before), _place(gradient) - shift)
    lefts = _place(before) - base, _place(gradient) - shift - base
    how = QTensor.trusted(after.mantissa, base)
    last = _rule(moved, after, how, layer)
    samples = x.shape[0]
    sum_bits = _bits(x) + _bits(dy) + max(1, (samples - 1).bit_length())
    move_bits = max(_bits(before) + lefts[0], first.word + abs(mantissa).bit_length() + lefts[1]) + 2
    accumulator = int(keys["accumulator_bits"])
    wide = max(sum_bits, accumulator, move_bits)
    if wide > SUM_BITS_MAX:
        raise InputError(
            f"{layer}: exact updates take {wide} bits, and a bench is written for up to {SUM_BITS_MAX}; use shorter words"
        )
    parameters = {
        "D_BITS": _bits(dy), "GA_BITS": accumulator, "GA_WRAPS": _wraps(keys), "U_BITS": wide, **_named("G", first),
        "FACTOR": mantissa, "W_LEFT": lefts[0], "G_LEFT": lefts[1], **_named("N", last),
    }  # fmt: skip
    if before.mantissa.size != forward["INPUTS"] * forward["OUTPUTS"]:
        raise InputError(f"{layer}: its weights have {before.mantissa.size} numbers; the trace is not whole")
    values: Values = {
        "errors": (dy.mantissa, _bits(dy), True), "weights_after": (after.mantissa, last.word, True),
        "gradient_random": (_fractions(trace, record, after.mantissa.size), first.random_bits, False),
        "after_random": (_fractions(trace, moved, after.mantissa.size), last.random_bits, False),
    }  # fmt: skip
    return values, parameters


def _after_relu(trace: Trace, key: str, outputs: NDArray[Any]) -> NDArray[Any]:
    """Return the outputs of the ReLU that comes after a layer."""
    keys = list(trace)
    after = next((one for one in keys[keys.index(key) + 1 :] if one.endswith("/forward")), None)
    if after is None or trace.info["kinds"].get(trace.records[after].owner) != "relu":
        raise InputError(f"no ReLU comes after {key}; leave relu out")
    return trace[after].mantissa.reshape(outputs.shape)


def _without_update(forward: Mapping[str, int]) -> dict[str, int]:
    """Return parameters for a module that is not used."""
    word = _named("G", _Rounding(0, 0, 0, 8, 1)) | _named("N", _Rounding(0, 0, 0, forward["W_BITS"], 1))
    return {"D_BITS": 8, "GA_BITS": 32, "GA_WRAPS": 1, "U_BITS": 64, "FACTOR": 1, "W_LEFT": 0, "G_LEFT": 0, **word}


def _rounded(trace: Trace, key: str) -> tuple[Record, Record]:
    """Return the records of a tensor and of what it was rounded from."""
    record = trace.records.get(key)
    if record is None or record.exact is None or record.exact not in trace.records:
        raise InputError(f"the trace has no {key} with the accumulator it was rounded from; record it with its exact tensors")
    return record, trace.records[record.exact]


def _one(trace: Trace, key: str | None, layer: str) -> QTensor:
    """Return a tensor with one exponent."""
    if key is None or key not in trace.tensors:
        raise InputError(f"{layer}: the trace does not hold what its products were made from")
    tensor = trace[key]
    if tensor.exponent.size != 1:
        raise InputError(f"{layer}: {key} has {tensor.exponent.size} exponents; the module takes fixed point, or one a tensor")
    return tensor


def _place(tensor: QTensor) -> int:
    return int(tensor.exponent.flat[0])


def _bits(tensor: QTensor) -> int:
    return 8 * tensor.mantissa.dtype.itemsize if tensor.format is None else tensor.format.word_bits


def _wraps(known: Mapping[str, Any]) -> int:
    return int(known["accumulator_overflow"] != "saturate")


def _rule(record: Record, rounded: QTensor, exact: QTensor, layer: str) -> _Rounding:
    """Return how a tensor is rounded."""
    shift = _place(rounded) - _place(exact)
    if shift < 0:
        raise InputError(f"{layer}: {record.key} is shifted to the left by {-shift}, which this module does not do; use fewer "
                         "fraction bits there")  # fmt: skip
    overflow = Overflow(record.overflow)
    mode = Rounding(record.rounding)
    bits = int(record.random_bits or 1) if mode is Rounding.STOCHASTIC else 1
    code = 0 if overflow is Overflow.ERROR else overflow.code  # an error would have ended the training: nothing wraps
    return _Rounding(shift, mode.code, code, int(record.word_bits or _bits(rounded)), bits)


def _named(prefix: str, rule: _Rounding) -> dict[str, int]:
    return {
        f"{prefix}_SHIFT": rule.shift, f"{prefix}_MODE": rule.mode, f"{prefix}_OVERFLOW": rule.overflow,
        f"{prefix}_BITS": rule.word, f"{prefix}_RANDOM": rule.random_bits,
    }  # fmt: skip


def _fractions(trace: Trace, record: Record, count: int) -> NDArray[np.int64]:
    """Return the random bits of a tensor's elements, or zeros."""
    if record.rounding != Rounding.STOCHASTIC.value:
        return np.zeros(count, np.int64)
    bits = int(record.random_bits or 32)
    room = np.zeros(int(room_for(count, bits)), np.int64)
    sequence = sequence_words(int(trace.info["seed"]), int(record.stream or 0), int(record.random_step or 0))
    first = int(fill_fractions(*sequence, 0, count, bits, room))
    return room[first : first + count]
