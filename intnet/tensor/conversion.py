"""Between real numbers, formats and plain integers: every conversion rounds the exact value once."""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intnet import kernels
from intnet.errors import InputError, InputTypeError
from intnet.formats import BlockFloat, Fixed, Overflow, Rounding, parse_format
from intnet.formats.block import Tile
from intnet.random import sequence_words
from intnet.tensor.qtensor import Counters, QTensor, as_integers


def _as_format(form: Any) -> Fixed | BlockFloat:
    return form if isinstance(form, (Fixed, BlockFloat)) else parse_format(form)


def _as_modes(rounding: Any, overflow: Any, random_bits: int) -> tuple[Rounding, Overflow]:
    if isinstance(random_bits, bool) or not isinstance(random_bits, (int, np.integer)) or not 1 <= random_bits <= 62:
        raise InputError(f"random_bits must be an integer in 1..62, got {random_bits!r}")
    return Rounding.parse(rounding), Overflow.parse(overflow)


def _shared(value: int, ndim: int) -> NDArray[np.int64]:
    return np.full((1,) * ndim, value, np.int64)


def _finish(overflow: Overflow, counted: NDArray[np.int64], counters: Counters | None, count: int, form: object) -> None:
    """Raise where an overflow is an error; else hand the counts over."""
    left = int(counted[kernels.COUNT_WRAPPED])
    if overflow is Overflow.ERROR and left:
        raise InputError(
            f"{left} of {count} results do not fit into {form}; use a longer word, fewer fraction bits, or overflow "
            "'saturate' or 'wrap'"
        )
    if counters is not None:
        counters.take(counted, count)


def _check_counters(counters: Any) -> None:
    if counters is not None and not isinstance(counters, Counters):
        raise InputTypeError(f"counters must be a Counters, got {type(counters).__name__}")


def _as_numbers(x: ArrayLike) -> NDArray[Any]:
    """Return integers as they are and real numbers as C-contiguous float32 or float64."""
    if isinstance(x, QTensor):
        raise InputTypeError("quantize takes real numbers, got a QTensor; use requantize")
    try:
        values = np.asarray(x)
    except ValueError:
        raise InputError("x must be an array of real numbers, got rows of different lengths") from None
    if values.dtype.kind not in "fiu" or values.dtype.itemsize > 8:
        raise InputTypeError(f"x must hold float16, float32, float64 or integers of up to 64 bits, got dtype {values.dtype}")
    if values.dtype.kind in "iu":
        return values
    kind = np.float64 if values.dtype.itemsize == 8 else np.float32
    return np.asarray(values, kind, order="C")


def quantize(
    x: ArrayLike,
    format: Fixed | BlockFloat | str,
    rounding: Rounding | str = "ties_even",
    overflow: Overflow | str = "saturate",
    seed: int = 0,
    stream: int = 0,
    step: int = 0,
    *,
    random_bits: int = 32,
    counters: Counters | None = None,
) -> QTensor:
    """Bring real numbers into a format.

    Parameters
    ----------
    x : array of floats or integers, any shape
        Finite.
    format : Fixed, BlockFloat, or its text ("fxp-s16/12", "bfp-s8/row")
        For block formats the exponents are chosen from `x`, before rounding.
    rounding, overflow : modes, or their names
        See ``docs/arithmetic.md``.
    seed, stream, step : int
        Name the sequence of random bits of stochastic rounding: 0..2**64 - 1, and twice 0..2**32 - 1. Element i, in C order,
        takes its bits i.
    random_bits : int, 1..62
    counters : Counters, optional
        Added to.

    Returns
    -------
    QTensor

    Raises
    ------
    InputError
        If a number is NaN or infinite, a mode or format unknown, or, with overflow "error", a number does not fit.

    Examples
    --------
    >>> quantize([0.7, -1.3, 9.0], "fxp-s4/1").mantissa
    array([ 1, -3,  7], dtype=int8)
    """
    form = _as_format(format)
    rounding, overflow = _as_modes(rounding, overflow, random_bits)
    sequence_words(seed, stream, step)
    _check_counters(counters)
    values = _as_numbers(x)
    if values.dtype.kind in "iu":  # exactly: as floats, large ones would be rounded
        whole = as_integers("x", values)
        tensor = QTensor(whole, _shared(0, whole.ndim), None)
        return requantize(tensor, form, rounding, overflow, seed, stream, step, random_bits=random_bits, counters=counters)
    counted = kernels.new_counters()
    options: dict[str, Any] = {"random_bits": int(random_bits), "seed": seed, "stream": stream, "step": step}
    options["counters"] = counted
    if isinstance(form, Fixed):
        exponent = _shared(-form.fraction_bits, values.ndim)
        mantissa = kernels.quantize(
            values, -form.fraction_bits, rounding.code, overflow.code, form.word_bits, signed=form.signed, **options
        )
    else:
        layout = form.layout(values.shape)
        exponents = kernels.exponents_of(
            values,
            layout,
            form.word_bits,
            form.minimum_exponent,
            form.maximum_exponent,
            share_outer=not isinstance(form.block, Tile),
        )
        mantissa = kernels.quantize(values, exponents, rounding.code, overflow.code, form.word_bits, layout=layout, **options)
        exponent = exponents.reshape(form.exponent_shape(values.shape))
    _finish(overflow, counted, counters, values.size, form)
    return QTensor(mantissa, exponent, form)


def dequantize(tensor: QTensor) -> NDArray[np.float64]:
    """Return the real numbers that a tensor stands for, as float64.

    Exact for mantissas up to 2**53 in magnitude whose value is a normal float64. A greater mantissa is rounded to nearest,
    ties to even, and so is a subnormal result; only a number that is both is rounded twice.
    """
    if not isinstance(tensor, QTensor):
        raise InputTypeError(f"dequantize takes a QTensor, got {type(tensor).__name__}")
    tensor = tensor.moved("cpu")
    if tensor.exponent.size == 1:
        return kernels.dequantize(tensor.mantissa, int(tensor.exponent.item()))
    if isinstance(tensor.format, BlockFloat):
        blocks = tensor.format
        exponents = tensor.exponent.reshape(blocks.exponent_layout(tensor.shape))
        return kernels.dequantize(tensor.mantissa, exponents, layout=blocks.layout(tensor.shape))
    size = tensor.mantissa.size
    return kernels.dequantize(tensor.mantissa, tensor.exponents().reshape(1, size, 1), layout=(1, size, 1, 1))


def requantize(
    tensor: QTensor,
    format: Fixed | BlockFloat | str,
    rounding: Rounding | str = "ties_even",
    overflow: Overflow | str = "saturate",
    seed: int = 0,
    stream: int = 0,
    step: int = 0,
    *,
    random_bits: int = 32,
    counters: Counters | None = None,
    device: str = "cpu",
) -> QTensor:
    """Bring a tensor into another format, without any float on the way.

    Parameters and errors are those of :func:`quantize`. The result is the exact value, rounded once. With `device` "gpu" (or
    "auto", where there is one) it is rounded there, to the same bits; the tensor crosses to it and back.

    Examples
    --------
    >>> requantize(quantize([0.75, -1.25], "fxp-s8/4"), "fxp-s8/1").mantissa
    array([ 2, -2], dtype=int8)
    """
    if not isinstance(tensor, QTensor):
        raise InputTypeError(f"requantize takes a QTensor, got {type(tensor).__name__}; use quantize for floats")
    device = kernels.resolve_device(device)
    form = _as_format(format)
    rounding, overflow = _as_modes(rounding, overflow, random_bits)
    sequence_words(seed, stream, step)
    _check_counters(counters)
    tensor = tensor.moved("cpu")
    mantissa = np.asarray(tensor.mantissa, order="C")
    if isinstance(form, Fixed):
        exponent = _shared(-form.fraction_bits, mantissa.ndim)
        signed = form.signed
    else:
        exponent, signed = _block_exponents(tensor, form), True
    shifts, layout = _shifts(tensor, exponent, form)
    there = kernels.move(kernels.new_counters(), device)
    out = kernels.requantize(
        kernels.move(mantissa, device),
        shifts,
        rounding.code,
        overflow.code,
        form.word_bits,
        signed=signed,
        layout=layout,
        random_bits=int(random_bits),
        seed=seed,
        stream=stream,
        step=step,
        counters=there,
    )
    _finish(overflow, kernels.to_host(there), counters, mantissa.size, form)
    return QTensor(kernels.to_host(out), exponent, form)


def _shifts(tensor: QTensor, exponent: NDArray[np.int64], form: Fixed | BlockFloat) -> tuple[Any, tuple[int, ...] | None]:
    """Return by how much each block is shifted to come from its exponent to another, and the layout of the blocks."""
    if tensor.exponent.size == 1 and exponent.size == 1:
        return int(exponent.item() - tensor.exponent.item()), None
    if tensor.exponent.size == 1 and isinstance(form, BlockFloat):
        return (exponent - tensor.exponent.item()).reshape(form.exponent_layout(tensor.shape)), form.layout(tensor.shape)
    if exponent.size == 1 and isinstance(tensor.format, BlockFloat):
        blocks = tensor.format
        return (exponent.item() - tensor.exponent).reshape(blocks.exponent_layout(tensor.shape)), blocks.layout(tensor.shape)
    new = QTensor(tensor.mantissa, exponent, form).exponents()
    size = prod(tensor.shape)
    return (new - tensor.exponents()).reshape(1, size, 1), (1, size, 1, 1)  # every element by itself


def _block_exponents(tensor: QTensor, form: BlockFloat) -> NDArray[np.int64]:
    """Return the smallest exponents that hold the blocks of a tensor, within the format's field."""
    shape = tensor.shape
    layout, low, high = form.layout(shape), form.minimum_exponent, form.maximum_exponent
    share_outer = not isinstance(form.block, Tile)
    mantissa = np.asarray(tensor.mantissa, order="C")
    if tensor.exponent.size == 1:
        have = int(tensor.exponent.item())
        found = kernels.exponents_of_integers(
            mantissa, layout, form.word_bits, low - have, high - have, share_outer=share_outer
        )
        return (found + have).reshape(form.exponent_shape(shape))
    # Every element's own smallest exponent; of a block, the greatest of them. A zero has none.
    size = prod(shape)
    each = kernels.exponents_of_integers(mantissa, (1, size, 1, 1), form.word_bits, -(2**20), 2**20).reshape(shape)
    each = np.where(mantissa == 0, low, each + tensor.exponents())
    each = each.reshape(layout).max(axis=(0, 2) if share_outer else 2, initial=low, keepdims=True)
    return np.clip(each, low, high).reshape(form.exponent_shape(shape))


def round_shift(
    ints: ArrayLike,
    shift: int,
    rounding: Rounding | str = "ties_even",
    random_bits: int = 32,
    seed: int = 0,
    stream: int = 0,
    step: int = 0,
) -> NDArray[np.int64]:
    """Return ``ints / 2**shift``, rounded to integers.

    Parameters
    ----------
    ints : array of signed integers, any shape
    shift : int, 0..62
    rounding, random_bits, seed, stream, step
        As in :func:`quantize`.

    Returns
    -------
    array of int64, shape of `ints`

    Raises
    ------
    InputError
        If `ints` does not hold signed integers (an InputTypeError) or an argument is out of range.

    Examples
    --------
    >>> round_shift([5, 6, -6], 2, "ties_even"), round_shift([5, 6, -6], 2, "floor")
    (array([ 1,  2, -2]), array([ 1,  1, -2]))
    """
    values = np.asarray(as_integers("ints", ints), order="C")
    sequence_words(seed, stream, step)
    if isinstance(shift, bool) or not isinstance(shift, (int, np.integer)) or not 0 <= shift <= 62:
        raise InputError(f"shift must be an integer in 0..62, got {shift!r}; a left shift is a multiplication")
    mode, _ = _as_modes(rounding, Overflow.WRAP, random_bits)
    out = np.empty(values.shape, np.int64)
    return kernels.requantize(
        values,
        int(shift),
        mode.code,
        Overflow.WRAP.code,
        64,
        out=out,
        random_bits=int(random_bits),
        seed=seed,
        stream=stream,
        step=step,
    )


def multiply_by_quantized_multiplier(ints: ArrayLike, multiplier: int, shift: int) -> NDArray[np.int32]:
    """Return ``ints * multiplier / 2**31 * 2**shift`` as TFLite and gemmlowp compute it, rounding twice.

    A doubling high multiplication (ties to plus infinity), then a division by a power of two (ties away from zero); a left
    shift comes first, and saturates int32 (TFLite leaves that undefined).

    Parameters
    ----------
    ints : array of integers that fit in int32, any shape
    multiplier : int, -2**31..2**31 - 1
        The real multiplier's mantissa, times ``2**31``; usually at least ``2**30``.
    shift : int, -31..30
        The real multiplier's exponent.

    Returns
    -------
    array of int32, shape of `ints`

    Raises
    ------
    InputError
        If an argument is out of its range (an InputTypeError where it holds no integers).

    Examples
    --------
    >>> multiply_by_quantized_multiplier([5, -5, 100], 2**30, -1)  # a quarter
    array([ 2, -1, 25], dtype=int32)
    """
    values = np.asarray(as_integers("ints", ints), order="C")
    least, largest = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    if values.size and (values.min() < least or values.max() > largest):
        raise InputError(f"ints must fit in int32, got {values.min()} to {values.max()}")
    for name, value, low, high in (("multiplier", multiplier, least, largest), ("shift", shift, -31, 30)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
            raise InputError(f"{name} must be an integer in {low}..{high}, got {value!r}")
    out = np.empty(values.shape, np.int32)
    flat = values.astype(np.int32, copy=False).reshape(-1)
    kernels.quantized_multiply(flat, np.int64(multiplier), np.int64(shift), out.reshape(-1))
    return out
