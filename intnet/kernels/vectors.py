"""Integer vectors for Numba, emitted as LLVM IR.

Numba has no vector types. Here are two, of 16 lanes each (``i32x16`` and ``i64x16``), and the few operations on them that
the fast kernels use. LLVM fits them to the processor: two AVX-512 registers for 16 int64, four AVX2 ones, eight NEON ones.
Sums and products wrap, as LLVM's ``add`` and ``mul`` do; the kernels that use them prove that nothing leaves the word.

Loads and stores take a one-dimensional contiguous array and the index of the first of 16 elements. They do not check the
index: the caller has.
"""

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

LANES = 16


class _Vector(types.Type):
    """A Numba type: `LANES` signed integers of `bits` bits in vector registers."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        super().__init__(name=f"i{bits}x{LANES}")

    @property
    def ir_type(self) -> ir.VectorType:
        return ir.VectorType(ir.IntType(self.bits), LANES)


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, data_model_manager, numba_type):
        super().__init__(data_model_manager, numba_type, numba_type.ir_type)


I32X16, I64X16 = _Vector(32), _Vector(64)


def _pointer(context, builder, array_type, array, index, vector):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.ir_type.as_pointer())


def _make_load(vector: _Vector) -> Callable:
    @intrinsic
    def load(typing_context, array, index):  # noqa: ARG001 - Numba's calling convention
        def emit(context, builder, signature, args):
            value = builder.load(_pointer(context, builder, signature.args[0], *args, vector))
            value.align = vector.bits // 8
            return value

        return vector(array, types.uint64), emit

    return load


def _make_store(vector: _Vector) -> Callable:
    @intrinsic
    def store(typing_context, array, index, value):  # noqa: ARG001
        def emit(context, builder, signature, args):
            target = _pointer(context, builder, signature.args[0], args[0], args[1], vector)
            builder.store(args[2], target).align = vector.bits // 8
            return context.get_dummy_value()

        return types.void(array, types.uint64, vector), emit

    return store


def _make_binary(operation: str, vector: _Vector) -> Callable:
    @intrinsic
    def binary(typing_context, a, b):  # noqa: ARG001
        def emit(context, builder, signature, args):  # noqa: ARG001
            return getattr(builder, operation)(*args)

        return vector(vector, vector), emit

    return binary


load_i32 = _make_load(I32X16)
load_i64 = _make_load(I64X16)
store_i32 = _make_store(I32X16)
store_i64 = _make_store(I64X16)
add_i32 = _make_binary("add", I32X16)
add_i64 = _make_binary("add", I64X16)
multiply_i64 = _make_binary("mul", I64X16)
and_i64 = _make_binary("and_", I64X16)
shift_floor_i64 = _make_binary("ashr", I64X16)


@intrinsic
def splat_i64(typing_context, value):  # noqa: ARG001
    """Return a vector with `value`, an int64, in every lane."""

    def emit(context, builder, signature, args):  # noqa: ARG001
        undefined = ir.Constant(I64X16.ir_type, ir.Undefined)
        first = builder.insert_element(undefined, args[0], ir.Constant(ir.IntType(32), 0))
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, undefined, everywhere)

    return I64X16(types.int64), emit


@intrinsic
def widen(typing_context, vector):  # noqa: ARG001
    """Return the int32 lanes sign-extended to int64."""

    def emit(context, builder, signature, args):  # noqa: ARG001
        return builder.sext(args[0], I64X16.ir_type)

    return I64X16(I32X16), emit


@intrinsic
def narrow(typing_context, vector):  # noqa: ARG001
    """Return the low 32 bits of the int64 lanes."""

    def emit(context, builder, signature, args):  # noqa: ARG001
        return builder.trunc(args[0], I32X16.ir_type)

    return I32X16(I64X16), emit


@intrinsic
def count_below(typing_context, count, vector, limit):  # noqa: ARG001
    """Return `count` plus one in the lanes where ``0 <= vector < limit``; `limit` is not negative."""

    def emit(context, builder, signature, args):  # noqa: ARG001
        count, vector, limit = args
        inside = builder.icmp_unsigned("<", vector, limit)
        return builder.add(count, builder.zext(inside, I64X16.ir_type))

    return I64X16(I64X16, I64X16, I64X16), emit


@intrinsic
def shift_right_32(typing_context, value, shift):  # noqa: ARG001
    """Return the arithmetic right shift of an int32 by 0..31, in 32 bits; Numba's own is one of 64 bits."""

    def emit(context, builder, signature, args):  # noqa: ARG001
        return builder.ashr(args[0], builder.trunc(args[1], ir.IntType(32)))

    return types.int32(types.int32, types.int64), emit


@intrinsic
def shift_left_32(typing_context, value, shift):  # noqa: ARG001
    """Return an int32 shifted left by 0..31, modulo ``2**32``, in 32 bits."""

    def emit(context, builder, signature, args):  # noqa: ARG001
        return builder.shl(args[0], builder.trunc(args[1], ir.IntType(32)))

    return types.int32(types.int32, types.int64), emit
