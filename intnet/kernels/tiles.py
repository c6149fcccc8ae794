"""Register tiles of matrix products: the inner loop, emitted as LLVM IR.

A tile is `rows` rows times a few vectors of results, held in registers while the loop walks the reduction. A step loads the
vectors of B (packed so that they are contiguous), broadcasts one word of each row of A, and multiplies and accumulates.
A word holds as many elements of the reduction as fit in 32 bits:

    A        B       result  elements a word   multiply and accumulate
    uint8    int8    int32   4                 vpdpbusd (AVX512-VNNI), or part by part
    int16    int16   int32   2                 vpdpwssd (AVX512-VNNI), vpmaddwd and an addition (AVX2), or part by part
    int32    int32   int32   1                 vector multiplication and addition, wrapping
    int32    int32   int64   1                 sign-extended multiplication and addition
    int64    int64   int64   1                 (a word has 64 bits)

All are exact modulo the width of the result; whoever calls them has proven that nothing leaves it, or wants it to wrap.
Neither dot-product instruction saturates.
"""

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

I32, I64 = ir.IntType(32), ir.IntType(64)


def _processor_features() -> set[str]:
    """Return the features of the processor that Numba compiles for."""
    if numba.config.CPU_FEATURES is not None:
        return {name[1:] for name in numba.config.CPU_FEATURES.split(",") if name.startswith("+")}
    if numba.config.CPU_NAME not in (None, "host"):
        return set()  # a named processor: trust nothing beyond plain vectors
    return {name for name, present in llvm.get_host_cpu_features().items() if present}


_FEATURES = _processor_features()
VNNI = {"avx512f", "avx512vnni"} <= _FEATURES
AVX2 = "avx2" in _FEATURES
WIDE = "avx512f" in _FEATURES

LANES = 16 if WIDE else 8
"""32-bit results in a vector."""

MAX_VECTORS = 4 if WIDE else 2
"""Vectors of results in the widest tile. Its columns are ``MAX_VECTORS * LANES``, or half of that for 64-bit results."""

# Rows of a tile by its number of vectors: enough independent sums to hide the latency, few enough to stay in registers.
ROWS = {1: 12, 2: 12, 3: 8, 4: 6} if WIDE else {1: 6, 2: 4}
ROW_BLOCK = 24  # a multiple of all of them


def _address(context, builder, array_type, array, offset_bytes):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.add(builder.ptrtoint(data, I64), offset_bytes)


def _load(builder, address, type_):
    value = builder.load(builder.inttoptr(address, type_.as_pointer()))
    value.align = 1
    return value


def _splat(builder, value, lanes):
    vector = ir.VectorType(value.type, lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def _external(builder, name, result, arguments):
    found = builder.module.globals.get(name)
    return found or ir.Function(builder.module, ir.FunctionType(result, arguments), name=name)


def _dot(builder, a_type, total, a, b):
    """Return `total` plus the products of the words `a` and `b`, lane by lane."""
    vector = total.type
    if a_type == types.uint8 and VNNI:
        return builder.call(_external(builder, "llvm.x86.avx512.vpdpbusd.512", vector, [vector] * 3), [total, a, b])
    if a_type == types.int16 and VNNI:
        return builder.call(_external(builder, "llvm.x86.avx512.vpdpwssd.512", vector, [vector] * 3), [total, a, b])
    if a_type == types.int16 and AVX2 and not WIDE:
        halves = ir.VectorType(ir.IntType(16), 2 * vector.count)
        multiply_add = _external(builder, "llvm.x86.avx2.pmadd.wd", vector, [halves] * 2)
        return builder.add(total, builder.call(multiply_add, [builder.bitcast(a, halves), builder.bitcast(b, halves)]))
    if a_type == types.uint8:
        return _dot_by_parts(builder, total, a, b, 8, signed=False)
    if a_type == types.int16:
        return _dot_by_parts(builder, total, a, b, 16, signed=True)
    return builder.add(total, builder.mul(a, b))


def _dot_by_parts(builder, total, a, b, bits, signed):
    """Do with plain vector operations what the dot-product instructions do."""
    constant = lambda value: ir.Constant(total.type, [value] * total.type.count)  # noqa: E731
    top = constant(32 - bits)
    for position in range(0, 32, bits):
        up = constant(32 - bits - position)
        x, y = builder.shl(a, up), builder.shl(b, up)
        x = builder.ashr(x, top) if signed else builder.lshr(x, top)
        total = builder.add(total, builder.mul(x, builder.ashr(y, top)))
    return total


def _make_tile(vectors: int):
    rows = ROWS[vectors]

    @intrinsic
    def tile(typing_context, a, a_start, a_row, b, b_start, steps, initial, initial_start, c, c_start, c_row):  # noqa: ARG001
        """Write one tile of ``C = initial + A B``.

        Starts and row lengths count elements of their arrays; `steps` counts words of the reduction. Every row begins with
        the same initial vector.
        """
        a_type, result_type = a.dtype, c.dtype
        word = I64 if a_type == types.int64 else I32
        result = I64 if result_type == types.int64 else I32
        lanes = LANES if result is I32 else LANES // 2
        vector, word_bytes, result_bytes = ir.VectorType(result, lanes), word.width // 8, result.width // 8
        a_bytes = a_type.bitwidth // 8

        def emit(context, builder, signature, args):
            kinds = signature.args
            scale = lambda value, size: builder.mul(value, ir.Constant(I64, size))  # noqa: E731
            a_at = _address(context, builder, kinds[0], args[0], scale(args[1], a_bytes))
            a_row_bytes = scale(args[2], a_bytes)
            b_at = _address(context, builder, kinds[3], args[3], scale(args[4], word_bytes))
            initial_at = _address(context, builder, kinds[6], args[6], scale(args[7], result_bytes))
            c_at = _address(context, builder, kinds[8], args[8], scale(args[9], result_bytes))
            c_row_bytes, steps = scale(args[10], result_bytes), args[5]
            step_bytes = vectors * lanes * word_bytes

            def plus(address, offset):
                return builder.add(address, ir.Constant(I64, offset))

            start = [_load(builder, plus(initial_at, v * lanes * result_bytes), vector) for v in range(vectors)]
            a_rows = [a_at]
            for _ in range(rows - 1):
                a_rows.append(builder.add(a_rows[-1], a_row_bytes))
            entry = builder.block
            loop, done = builder.append_basic_block("step"), builder.append_basic_block("done")
            any_step = builder.icmp_signed(">", steps, ir.Constant(I64, 0))
            builder.cbranch(any_step, loop, done)

            builder.position_at_end(loop)
            k = builder.phi(I64)
            k.add_incoming(ir.Constant(I64, 0), entry)
            sums = [[builder.phi(vector) for _ in range(vectors)] for _ in range(rows)]
            for row in sums:
                for total, value in zip(row, start, strict=True):
                    total.add_incoming(value, entry)
            b_step = builder.add(b_at, builder.mul(k, ir.Constant(I64, step_bytes)))
            words = ir.VectorType(word, lanes)
            bs = [_load(builder, plus(b_step, v * lanes * word_bytes), words) for v in range(vectors)]
            if words != vector:
                bs = [builder.sext(b, vector) for b in bs]
            k_bytes = builder.mul(k, ir.Constant(I64, word_bytes))
            new = []
            for row, a_row_at in zip(sums, a_rows, strict=True):
                x = _load(builder, builder.add(a_row_at, k_bytes), word)
                x = _splat(builder, builder.sext(x, result) if word != result else x, lanes)
                new.append([_dot(builder, a_type, total, x, b) for total, b in zip(row, bs, strict=True)])
            following = builder.add(k, ir.Constant(I64, 1))
            k.add_incoming(following, loop)
            for row, values in zip(sums, new, strict=True):
                for total, value in zip(row, values, strict=True):
                    total.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", following, steps), loop, done)

            builder.position_at_end(done)
            at = c_at
            for r in range(rows):
                for v in range(vectors):
                    final = builder.phi(vector)
                    final.add_incoming(start[v], entry)
                    final.add_incoming(new[r][v], loop)
                    new[r][v] = final
            for r in range(rows):
                for v in range(vectors):
                    target = builder.inttoptr(plus(at, v * lanes * result_bytes), vector.as_pointer())
                    builder.store(new[r][v], target).align = 1
                at = builder.add(at, c_row_bytes)
            return context.get_dummy_value()

        integer = types.int64
        signature = types.void(a, integer, integer, b, integer, integer, initial, integer, c, integer, integer)
        return signature, emit

    return tile


tile_1, tile_2 = _make_tile(1), _make_tile(2)
tile_3, tile_4 = (_make_tile(3), _make_tile(4)) if WIDE else (tile_1, tile_2)
