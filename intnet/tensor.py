"""Tensors of integers with powers of two: value = mantissa * 2**exponent.

1. QTensor, Counters
2. quantize, requantize, dequantize   between floats and formats
3. round_shift                        plain integers
4. matmul                             exact sums of products
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intnet import kernels
from intnet.errors import InputError, InputTypeError
from intnet.formats import BlockFloat, Fixed, Overflow, Rounding, parse_format
from intnet.formats.block import Tile
from intnet.random import sequence_words

Integers = NDArray[np.signedinteger]
EXPONENT_MAX = 2**20
"""Far beyond any format: an exponent of an accumulator is a sum of two."""

_SIGNED = {"u1": np.int16, "u2": np.int32, "u4": np.int64}


# 1. Tensors --------------------------------------------------------------------------------------------------------------


@dataclass
class Counters:
    """What conversions did to the numbers: pass one to several calls and it adds up.

    Attributes
    ----------
    count : int
        Numbers converted.
    saturated, wrapped : int
        Results that did not fit into the word.
    lost : int
        Numbers that were not zero and were rounded to zero. (What wraps or saturates to zero is counted there.)
    minimum, maximum : int or None
        The least and the greatest mantissa written; None before any.
    """

    count: int = 0
    saturated: int = 0
    wrapped: int = 0
    lost: int = 0
    minimum: int | None = None
    maximum: int | None = None

    def _take(self, counted: NDArray[np.int64], count: int) -> None:
        saturated, wrapped, lost, minimum, maximum = (int(value) for value in counted)
        self.count += count
        self.saturated += saturated
        self.wrapped += wrapped
        self.lost += lost
        if count:
            self.minimum = minimum if self.minimum is None else min(self.minimum, minimum)
            self.maximum = maximum if self.maximum is None else max(self.maximum, maximum)


@dataclass(frozen=True, eq=False)
class QTensor:
    """Integers and the powers of two they count: ``value = mantissa * 2**exponent``.

    Attributes
    ----------
    mantissa : array of int8, int16, int32 or int64, any shape
    exponent : int64 array that has as many axes as the mantissa, within +-2**20
        Of length 1 along every axis that shares an exponent. Along the axis of a tile, one entry a tile.
    format : Fixed, BlockFloat or None
        None for an accumulator: an exact result that has not been brought into a format yet.

    Raises
    ------
    InputError
        If mantissa or exponent hold no signed integers (InputTypeError), or the shapes do not fit.
    """

    mantissa: Integers
    exponent: NDArray[np.int64]
    format: Fixed | BlockFloat | None

    def __post_init__(self) -> None:
        mantissa = _as_integers("the mantissa", self.mantissa)
        exponent = _as_integers("the exponent", self.exponent).astype(np.int64, copy=False)
        shape, lengths = mantissa.shape, exponent.shape
        wanted = self.format.exponent_shape(shape) if isinstance(self.format, BlockFloat) else None
        fits = len(lengths) == len(shape) and all(
            few in (1, many) or (few and many % few == 0) for few, many in zip(lengths, shape, strict=True)
        )
        if not fits or (wanted is not None and lengths != wanted) or (isinstance(self.format, Fixed) and exponent.size != 1):
            need = wanted if wanted is not None else f"{len(shape)} axes of length 1, or that divide those of the mantissa"
            raise InputError(f"the exponent of a mantissa of shape {shape} needs shape {need}, got {lengths}")
        if exponent.size and np.abs(exponent).max() > EXPONENT_MAX:
            raise InputError(f"exponents must be within +-{EXPONENT_MAX}, got {exponent.min()} to {exponent.max()}")
        object.__setattr__(self, "mantissa", mantissa)
        object.__setattr__(self, "exponent", exponent)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the mantissa."""
        return self.mantissa.shape

    def exponents(self) -> NDArray[np.int64]:
        """Return the exponent of every element, with the shape of the mantissa (a read-only view where it can be)."""
        exponent = self.exponent
        for axis, (few, many) in enumerate(zip(exponent.shape, self.shape, strict=True)):
            if few not in (1, many):
                exponent = np.repeat(exponent, many // few, axis)
        return np.broadcast_to(exponent, self.shape)

    def to_float(self) -> NDArray[np.float64]:
        """Return the values as float64: see :func:`dequantize`."""
        return dequantize(self)

    def __repr__(self) -> str:
        return f"QTensor(shape={self.shape}, format={self.format or 'accumulator'})"


# 2. Floats and formats ---------------------------------------------------------------------------------------------------


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
        counters._take(counted, count)


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
        whole = _as_integers("x", values)
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
) -> QTensor:
    """Bring a tensor into another format, without any float on the way.

    Parameters and errors are those of :func:`quantize`. The result is the exact value, rounded once.

    Examples
    --------
    >>> requantize(quantize([0.75, -1.25], "fxp-s8/4"), "fxp-s8/1").mantissa
    array([ 2, -2], dtype=int8)
    """
    if not isinstance(tensor, QTensor):
        raise InputTypeError(f"requantize takes a QTensor, got {type(tensor).__name__}; use quantize for floats")
    form = _as_format(format)
    rounding, overflow = _as_modes(rounding, overflow, random_bits)
    sequence_words(seed, stream, step)
    _check_counters(counters)
    mantissa = np.asarray(tensor.mantissa, order="C")
    if isinstance(form, Fixed):
        exponent = _shared(-form.fraction_bits, mantissa.ndim)
        signed = form.signed
    else:
        exponent, signed = _block_exponents(tensor, form), True
    shifts, layout = _shifts(tensor, exponent, form)
    counted = kernels.new_counters()
    out = kernels.requantize(
        mantissa,
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
        counters=counted,
    )
    _finish(overflow, counted, counters, mantissa.size, form)
    return QTensor(out, exponent, form)


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


# 3. Plain integers -------------------------------------------------------------------------------------------------------


def _as_integers(name: str, values: ArrayLike) -> Integers:
    """Return signed integers in the machine's byte order; shorter unsigned ones widened."""
    if isinstance(values, QTensor):
        raise InputTypeError(f"{name} must hold integers, got a QTensor; use its mantissa, or requantize")
    try:
        array = np.asarray(values)
    except ValueError:
        raise InputError(f"{name} must be an array of integers, got rows of different lengths") from None
    if array.size == 0 and isinstance(values, list):
        array = array.astype(np.int64)
    if array.dtype.kind == "O":
        raise InputTypeError(f"{name} must fit in signed 64-bit integers, got Python objects or larger integers")
    kind = array.dtype.str[1:]
    if kind in _SIGNED:
        return array.astype(_SIGNED[kind])
    if array.dtype.kind == "u":
        raise InputTypeError(f"{name} must fit in signed 64-bit integers, got dtype {array.dtype}; convert it where it fits")
    if array.dtype.kind != "i":
        raise InputTypeError(f"{name} must hold integers, got dtype {array.dtype}; use quantize for real numbers")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


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
    values = np.asarray(_as_integers("ints", ints), order="C")
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


# 4. Products -------------------------------------------------------------------------------------------------------------


def matmul(
    a: QTensor | ArrayLike, b: QTensor | ArrayLike, accumulator_bits: int | None = None, overflow: Overflow | str = "error"
) -> Any:
    """Multiply matrices exactly; every whole sum then goes into an accumulator.

    Parameters
    ----------
    a : (m, k) signed integers or QTensor
    b : (k, n) signed integers or QTensor
        Views and transposes are taken as they are, without a copy where their memory is contiguous.
    accumulator_bits : int, 2..64, optional
        Width of the accumulator. By default 32 where the types prove that every sum fits, else 64.
    overflow : {"error", "wrap", "saturate"}
        What becomes of a sum outside the accumulator. Only the whole sum counts, so the result depends on no order.

    Returns
    -------
    (m, n) int32 (accumulators of up to 32 bits) or int64; for QTensors a QTensor without a format
        Exponents are added. Where blocks meet within a sum, the parts are first aligned exactly to the least exponent of
        those that are not zero.

    Raises
    ------
    InputError
        If shapes do not fit, an argument is out of range, a sum leaves the accumulator, or aligning takes more than 64 bits.
    InputTypeError
        If an operand holds no signed integers, or only one of the two is a QTensor.

    Examples
    --------
    >>> matmul(np.array([[1, 2]], np.int8), np.array([[3], [-4]], np.int8))
    array([[-5]], dtype=int32)
    """
    mode = Overflow.parse(overflow)
    if mode is Overflow.SATURATE_SYMMETRIC:
        raise InputError("an accumulator wraps, saturates or is an error, got 'saturate_symmetric'; requantize afterwards")
    if isinstance(a, QTensor) != isinstance(b, QTensor):
        raise InputTypeError(f"both operands must be QTensors or neither, got {type(a).__name__} and {type(b).__name__}")
    if isinstance(a, QTensor) and isinstance(b, QTensor):
        _check_shapes(a.shape, b.shape)
        left, left_exponent = _aligned(a, 1)
        right, right_exponent = _aligned(b, 0)
        sums = _product(left, right, accumulator_bits, mode)
        return QTensor(sums, left_exponent + right_exponent, None)
    left, right = _as_integers("a", a), _as_integers("b", b)  # type: ignore[arg-type]
    _check_shapes(left.shape, right.shape)
    return _product(left, right, accumulator_bits, mode)


def _check_shapes(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    if len(a) != 2 or len(b) != 2 or a[1] != b[0]:
        raise InputError(f"matmul takes shapes (m, k) and (k, n), got {a} and {b}")


def _product(a: Integers, b: Integers, accumulator_bits: int | None, overflow: Overflow) -> Integers:
    if accumulator_bits is not None:
        whole = isinstance(accumulator_bits, (int, np.integer)) and not isinstance(accumulator_bits, bool)
        if not whole or not 2 <= accumulator_bits <= 64:
            raise InputError(f"accumulator_bits must be an integer in 2..64, got {accumulator_bits!r}")
        accumulator_bits = int(accumulator_bits)
    (a, a_transposed), (b, b_transposed) = _in_memory(a), _in_memory(b)
    sums, left = kernels.multiply(
        a,
        b,
        a_transposed=a_transposed,
        b_transposed=b_transposed,
        accumulator_bits=accumulator_bits,
        saturates=overflow is Overflow.SATURATE,
    )
    if left and overflow is Overflow.ERROR:
        width = accumulator_bits or 8 * sums.dtype.itemsize
        raise InputError(
            f"{left} of {sums.size} sums leave the accumulator of {width} bits; give it more bits (2..64), use smaller "
            "operands, or overflow 'wrap' or 'saturate'"
        )
    return sums


def _in_memory(matrix: Integers) -> tuple[Integers, bool]:
    """Return a C-contiguous array of the elements, and whether it is the transpose."""
    if not matrix.flags.c_contiguous and matrix.T.flags.c_contiguous:
        return matrix.T, True
    return np.ascontiguousarray(matrix), False


def _aligned(tensor: QTensor, axis: int) -> tuple[Integers, NDArray[np.int64]]:
    """Return mantissas whose exponents do not vary along `axis`, and those exponents: (m, 1), (1, n) or (1, 1)."""
    if tensor.exponent.shape[axis] == 1:
        return tensor.mantissa, tensor.exponent
    exponents = tensor.exponents()
    mantissa = tensor.mantissa.astype(np.int64)
    none = np.iinfo(np.int64).max  # of zeros
    least = np.where(mantissa == 0, none, exponents).min(axis, initial=none, keepdims=True)
    if 1 in tensor.exponent.shape:  # blocks that span the other axis keep one exponent there
        least = least.min(1 - axis, initial=none, keepdims=True)
    if (least == none).any():  # nothing but zeros: any exponent is right
        least = np.where(least == none, np.broadcast_to(exponents, mantissa.shape).min(initial=0), least)
    shifts = np.where(mantissa == 0, 0, exponents - least)
    counted = kernels.new_counters()
    size = mantissa.size
    out = kernels.requantize(
        mantissa,
        -shifts.reshape(1, size, 1),
        Rounding.FLOOR.code,
        Overflow.ERROR.code,
        64,
        layout=(1, size, 1, 1),
        out=np.empty(mantissa.shape, np.int64),
        counters=counted,
    )
    if counted[kernels.COUNT_WRAPPED]:
        raise InputError(
            f"aligning the blocks of a {tensor.format} along a sum takes more than 64 bits (exponents differ by up to "
            f"{int(shifts.max())}); requantize it to blocks that do not meet within a sum"
        )
    return out, least
