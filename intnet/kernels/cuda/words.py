"""Instructions that Numba has no call for, or would leave arrays in memory for: dot products of bytes, four words at once.

Each is an intrinsic over scalars and tuples, which stay in registers. In Numba's simulator each is a twin in Python with the
same bits.
"""

import threading
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from intnet.kernels.cuda._driver import SIMULATED

STORE, STORE_QUADS, ADD = range(3)
"""What becomes of a tile's sums: written one by one, or four at once where rows allow it, or added by atomics."""

_I32 = ir.IntType(32)
_LOCK = threading.Lock()


def intrinsic(function: Any) -> Any:
    """Make an intrinsic by the machinery of whichever ``numba.cuda`` is installed."""
    if SIMULATED:
        return None
    try:
        from numba.cuda.extending import intrinsic as make  # numba-cuda's own typing
    except ImportError:
        from numba.extending import intrinsic as make
    return make(function)


def dot_bytes(builder, a, b, total):
    """Emit dp4a: four products of bytes and a sum."""
    form = ir.FunctionType(_I32, [_I32, _I32, _I32])
    return builder.call(ir.InlineAsm(form, "dp4a.s32.s32 $0, $1, $2, $3;", "=r,r,r,r"), [a, b, total])


def dot_words(builder, a, b, total):
    """Emit a product and a sum, in the type of the sum."""
    if a.type.width < total.type.width:
        a, b = builder.sext(a, total.type), builder.sext(b, total.type)
    return builder.add(total, builder.mul(a, b))


def _dot4(context, a, b, total):  # noqa: ARG001 (as Numba calls it)
    signature = types.int32(types.int32, types.int32, types.int32)
    return signature, lambda _context, builder, _signature, args: dot_bytes(builder, *args)


def _multiply_add(context, a, b, total):  # noqa: ARG001
    if a != b or total not in (types.int32, types.int64) or a.bitwidth > total.bitwidth:
        return None
    return total(a, b, total), lambda _context, builder, _signature, args: dot_words(builder, *args)


def quad_pointer(context, builder, type_of_array, array, at):
    """Return a pointer to four elements of an array, and the alignment that the caller promises."""
    data = builder.gep(context.make_array(type_of_array)(context, builder, array).data, [at])
    quad = ir.VectorType(data.type.pointee, 4)
    return builder.bitcast(data, ir.PointerType(quad, data.type.addrspace)), min(16, type_of_array.dtype.bitwidth // 2)


def _as_vector(builder, elements):
    vector = ir.Constant(ir.VectorType(elements[0].type, 4), ir.Undefined)
    for i, element in enumerate(elements):
        vector = builder.insert_element(vector, element, _I32(i))
    return vector


def _load4(context, array, at):  # noqa: ARG001
    def emit(context, builder, signature, args):
        pointer, align = quad_pointer(context, builder, signature.args[0], *args)
        quad = builder.load(pointer, align=align)
        elements = [builder.extract_element(quad, _I32(i)) for i in range(4)]
        return context.make_tuple(builder, signature.return_type, elements)

    return types.UniTuple(array.dtype, 4)(array, types.int64), emit


def _store4(context, array, at, words):  # noqa: ARG001
    def emit(context, builder, signature, args):
        pointer, align = quad_pointer(context, builder, signature.args[0], *args[:2])
        builder.store(_as_vector(builder, [builder.extract_value(args[2], i) for i in range(4)]), pointer, align=align)
        return context.get_dummy_value()

    return types.void(array, types.int64, words), emit


def _align_shared(context):  # noqa: ARG001
    """Let shared memory start where four words can be loaded at once: not every Numba can be told."""

    def emit(context, builder, signature, args):  # noqa: ARG001
        for memory in builder.module.global_values:
            if isinstance(memory, ir.GlobalVariable) and memory.addrspace == 3:
                memory.align = 16
        return context.get_dummy_value()

    return types.void(), emit


def _transpose_bytes(context, words):  # noqa: ARG001
    """Turn a 4 by 4 matrix of bytes, a word a row, by eight selections of four bytes out of two words."""

    def select(builder, a, b, which):
        form = ir.FunctionType(_I32, [_I32, _I32, _I32])
        return builder.call(ir.InlineAsm(form, "prmt.b32 $0, $1, $2, $3;", "=r,r,r,r"), [a, b, _I32(which)])

    def emit(context, builder, signature, args):
        a, b, c, d = (builder.extract_value(args[0], i) for i in range(4))
        even = [select(builder, x, y, 0x5140) for x, y in ((a, b), (c, d))]  # a0 b0 a1 b1
        odd = [select(builder, x, y, 0x7362) for x, y in ((a, b), (c, d))]  # a2 b2 a3 b3
        turned = [select(builder, *pair, which) for pair in (even, odd) for which in (0x5410, 0x7632)]
        return context.make_tuple(builder, signature.return_type, turned)

    quad = types.UniTuple(types.int32, 4)
    return quad(quad), emit


def _quotient(context, value, factor, shift):  # noqa: ARG001
    """Divide ``0 <= value < 2**31`` by the divisor of :func:`divider`, by a multiplication of 32 bits."""

    def emit(context, builder, signature, args):  # noqa: ARG001
        value, factor, shift = (builder.trunc(arg, _I32) if arg.type.width > 32 else arg for arg in args)
        form = ir.FunctionType(_I32, [_I32, _I32])
        high = builder.call(ir.InlineAsm(form, "mul.hi.u32 $0, $1, $2;", "=r,r,r"), [builder.shl(value, _I32(1)), factor])
        return builder.lshr(high, shift)

    return types.int32(value, factor, shift), emit


def _store_sums(context, out, rows, starts, counts, sums, what):  # noqa: ARG001
    def emit(context, builder, signature, args):
        out, rows, starts, counts, sums, what = args
        data = context.make_array(signature.args[0])(context, builder, out).data
        across = signature.args[2].count
        first = ir.IntType(64)(0)

        def quads():
            for row in range(signature.args[1].count):
                place = builder.extract_value(rows, row)
                with builder.if_then(builder.icmp_signed(">=", place, first)):
                    for quad in range(across):
                        at = builder.add(place, builder.extract_value(starts, quad))
                        base = (row * across + quad) * 4
                        elements = [builder.extract_value(sums, base + i) for i in range(4)]
                        yield builder.extract_value(counts, quad), builder.gep(data, [at]), elements

        def is_what(number):
            return builder.if_then(builder.icmp_signed("==", what, ir.IntType(64)(number)))

        with is_what(STORE_QUADS):
            for count, pointer, elements in quads():
                with builder.if_then(builder.icmp_signed(">", count, first)):
                    vector = _as_vector(builder, elements)
                    builder.store(vector, builder.bitcast(pointer, ir.PointerType(vector.type)), align=16)
        for number in (STORE, ADD):
            with is_what(number):
                for count, pointer, elements in quads():
                    for i, element in enumerate(elements):
                        with builder.if_then(builder.icmp_signed(">", count, ir.IntType(64)(i))):
                            at = builder.gep(pointer, [_I32(i)])
                            if number == ADD:
                                builder.atomic_rmw("add", at, element, "monotonic")
                            else:
                                builder.store(element, at)
        return context.get_dummy_value()

    return types.void(out, rows, starts, counts, sums, types.int64), emit


def dot4_twin(a, b, total):
    """Return `total` and the products of the four bytes of two words, modulo ``2**32``."""
    products = sum(((int(a) >> at & 255 ^ 128) - 128) * ((int(b) >> at & 255 ^ 128) - 128) for at in (0, 8, 16, 24))
    return np.int32(_wrapped(int(total) + products, 32))


def multiply_add_twin(a, b, total):
    """Return ``total + a * b`` modulo the width of `total`."""
    return type(total)(_wrapped(int(total) + int(a) * int(b), 8 * total.itemsize))


def _wrapped(value: int, bits: int) -> int:
    half = 1 << (bits - 1)  # of any width, which arithmetic.wrap is not for
    return (value + half & 2 * half - 1) - half


def transpose_bytes_twin(words):
    """Return the four words that hold the columns of a 4 by 4 matrix of bytes, given those that hold its rows."""
    return tuple(np.array(words, np.int32).view(np.int8).reshape(4, 4).T.copy().view(np.int32).reshape(-1))


def quotient_twin(value, factor, shift):
    """Return ``value // divisor`` for ``0 <= value < 2**31``."""
    return np.int32(int(value) * int(factor) >> 31 + int(shift))


def _load4_twin(array, at):
    return tuple(array[at : at + 4])


def _store4_twin(array, at, words):
    array[at : at + 4] = words


def _store_sums_twin(out, rows, starts, counts, sums, what):
    across = len(starts)
    for row, place in enumerate(rows):
        for i in range(4 * across if place >= 0 else 0):
            if i % 4 < counts[i // 4]:
                at, value = place + starts[i // 4] + i % 4, sums[row * 4 * across + i]
                with _LOCK:
                    out[at] = multiply_add_twin(value, type(value)(1), out[at]) if what == ADD else value


dot4 = intrinsic(_dot4) or dot4_twin
multiply_add = intrinsic(_multiply_add) or multiply_add_twin
quotient = intrinsic(_quotient) or quotient_twin
load4 = intrinsic(_load4) or _load4_twin
store4 = intrinsic(_store4) or _store4_twin
transpose_bytes = intrinsic(_transpose_bytes) or transpose_bytes_twin
align_shared_memory = intrinsic(_align_shared) or (lambda: None)
store_sums = intrinsic(_store_sums) or _store_sums_twin
