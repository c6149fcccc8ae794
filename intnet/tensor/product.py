"""Products of matrices: exact sums, then an accumulator."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intnet import kernels
from intnet.errors import InputError, InputTypeError
from intnet.formats import Overflow, Rounding
from intnet.tensor.qtensor import Integers, QTensor, as_integers


def matmul(
    a: QTensor | ArrayLike, b: QTensor | ArrayLike, accumulator_bits: int | None = None, overflow: Overflow | str = "error",
    *, device: str = "cpu",
) -> Any:  # fmt: skip
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
    device : {"cpu", "gpu", "auto"}
        Where to multiply: operands and result cross to a GPU and back. The bits are the same.

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
    mode, device = Overflow.parse(overflow), kernels.resolve_device(device)
    if mode is Overflow.SATURATE_SYMMETRIC:
        raise InputError("an accumulator wraps, saturates or is an error, got 'saturate_symmetric'; requantize afterwards")
    if isinstance(a, QTensor) != isinstance(b, QTensor):
        raise InputTypeError(f"both operands must be QTensors or neither, got {type(a).__name__} and {type(b).__name__}")
    if isinstance(a, QTensor) and isinstance(b, QTensor):
        _check_shapes(a.shape, b.shape)
        a, b = a.moved("cpu"), b.moved("cpu")
        left, left_exponent = _aligned(a, 1)
        right, right_exponent = _aligned(b, 0)
        sums = _product(left, right, accumulator_bits, mode, device)
        return QTensor(sums, left_exponent + right_exponent, None)
    left, right = as_integers("a", a), as_integers("b", b)  # type: ignore[arg-type]
    _check_shapes(left.shape, right.shape)
    return _product(left, right, accumulator_bits, mode, device)


def _check_shapes(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    if len(a) != 2 or len(b) != 2 or a[1] != b[0]:
        raise InputError(f"matmul takes shapes (m, k) and (k, n), got {a} and {b}")


def _product(a: Integers, b: Integers, accumulator_bits: int | None, overflow: Overflow, device: str) -> Integers:
    if accumulator_bits is not None:
        whole = isinstance(accumulator_bits, (int, np.integer)) and not isinstance(accumulator_bits, bool)
        if not whole or not 2 <= accumulator_bits <= 64:
            raise InputError(f"accumulator_bits must be an integer in 2..64, got {accumulator_bits!r}")
        accumulator_bits = int(accumulator_bits)
    (a, a_transposed), (b, b_transposed) = _in_memory(a), _in_memory(b)
    sums, left = kernels.multiply(
        kernels.move(a, device),
        kernels.move(b, device),
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
    return kernels.to_host(sums)


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
