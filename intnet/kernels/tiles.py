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


class _Tile:
    """What a tile's code is made of: its types, and the loop over the reduction."""

    def __init__(self, vectors, a_type, result_type):
        self.vectors, self.rows, self.a_type = vectors, ROWS[vectors], a_type
        self.word = I64 if a_type == types.int64 else I32
        self.result = I64 if result_type == types.int64 else I32
        self.lanes = LANES if self.result is I32 else LANES // 2
        self.vector = ir.VectorType(self.result, self.lanes)
        self.a_bytes, self.word_bytes, self.result_bytes = a_type.bitwidth // 8, self.word.width // 8, self.result.width // 8

    def scale(self, builder, value, size):
        return builder.mul(value, ir.Constant(I64, size))

    def plus(self, builder, address, offset):
        return builder.add(address, ir.Constant(I64, offset))

    def initial(self, builder, address):
        """Load the vectors that every row begins with."""
        size = self.lanes * self.result_bytes
        start = [_load(builder, self.plus(builder, address, v * size), self.vector) for v in range(self.vectors)]
        return [list(start) for _ in range(self.rows)]

    def loop(self, builder, steps, a_rows, b_at, start):
        """Walk `steps` words of the reduction; return the sums."""
        entry = builder.block
        loop, done = builder.append_basic_block("step"), builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", steps, ir.Constant(I64, 0)), loop, done)

        builder.position_at_end(loop)
        k = builder.phi(I64)
        k.add_incoming(ir.Constant(I64, 0), entry)
        sums = self._phis(builder, start, entry)
        b_step = builder.add(b_at, self.scale(builder, k, self.vectors * self.lanes * self.word_bytes))
        words = ir.VectorType(self.word, self.lanes)
        size = self.lanes * self.word_bytes
        bs = [_load(builder, self.plus(builder, b_step, v * size), words) for v in range(self.vectors)]
        if words != self.vector:
            bs = [builder.sext(b, self.vector) for b in bs]
        k_bytes = self.scale(builder, k, self.word_bytes)
        new = []
        for row, a_row_at in zip(sums, a_rows, strict=True):
            x = _load(builder, builder.add(a_row_at, k_bytes), self.word)
            x = _splat(builder, builder.sext(x, self.result) if self.word != self.result else x, self.lanes)
            new.append([_dot(builder, self.a_type, total, x, b) for total, b in zip(row, bs, strict=True)])
        following = builder.add(k, ir.Constant(I64, 1))
        k.add_incoming(following, loop)
        self._close(sums, new, loop)
        builder.cbranch(builder.icmp_signed("<", following, steps), loop, done)

        builder.position_at_end(done)
        final = self._phis(builder, start, entry)
        self._close(final, new, loop)
        return final

    def segments(self, builder, count, a_rows, a_segment, b_at, steps, start):
        """Walk `count` (at least 1) runs of `steps` words, in the rows `a_segment` bytes apart; return the sums."""
        entry, segment = builder.block, builder.append_basic_block("segment")
        builder.branch(segment)
        builder.position_at_end(segment)
        s, a_offset, b_offset = (builder.phi(I64) for _ in range(3))
        for phi in (s, a_offset, b_offset):
            phi.add_incoming(ir.Constant(I64, 0), entry)
        sums = self._phis(builder, start, entry)
        rows = [builder.add(row, a_offset) for row in a_rows]
        final = self.loop(builder, steps, rows, builder.add(b_at, b_offset), sums)
        following = builder.add(s, ir.Constant(I64, 1))
        b_segment = self.scale(builder, steps, self.vectors * self.lanes * self.word_bytes)
        s.add_incoming(following, builder.block)
        a_offset.add_incoming(builder.add(a_offset, a_segment), builder.block)
        b_offset.add_incoming(builder.add(b_offset, b_segment), builder.block)
        self._close(sums, final, builder.block)
        done = builder.append_basic_block("segments_done")
        builder.cbranch(builder.icmp_signed("<", following, count), segment, done)
        builder.position_at_end(done)
        return final

    def store(self, builder, sums, c_rows):
        size = self.lanes * self.result_bytes
        for row, at in zip(sums, c_rows, strict=True):
            for v, value in enumerate(row):
                target = builder.inttoptr(self.plus(builder, at, v * size), self.vector.as_pointer())
                builder.store(value, target).align = 1

    def _phis(self, builder, start, entry):
        phis = [[builder.phi(self.vector) for _ in row] for row in start]
        self._close(phis, start, entry)
        return phis

    def _close(self, phis, values, block):
        for row, row_values in zip(phis, values, strict=True):
            for phi, value in zip(row, row_values, strict=True):
                phi.add_incoming(value, block)


def _make_tile(vectors: int):
    @intrinsic
    def tile(typing_context, a, a_start, a_row, b, b_start, steps, initial, initial_start, c, c_start, c_row):  # noqa: ARG001
        """Write one tile of ``C = initial + A B``.

        Starts and row lengths count elements of their arrays; `steps` counts words of the reduction. Every row begins with
        the same initial vector.
        """

        def emit(context, builder, signature, args):
            kinds, tile = signature.args, _Tile(vectors, a.dtype, c.dtype)

            def address(array, start, size):
                return _address(context, builder, kinds[array], args[array], tile.scale(builder, args[start], size))

            a_row_bytes = tile.scale(builder, args[2], tile.a_bytes)
            a_rows = [address(0, 1, tile.a_bytes)]
            b_at = address(3, 4, tile.word_bytes)
            start = tile.initial(builder, address(6, 7, tile.result_bytes))
            c_rows, c_row_bytes = [address(8, 9, tile.result_bytes)], tile.scale(builder, args[10], tile.result_bytes)
            for _ in range(tile.rows - 1):
                a_rows.append(builder.add(a_rows[-1], a_row_bytes))
            sums = tile.loop(builder, args[5], a_rows, b_at, start)
            for _ in range(tile.rows - 1):
                c_rows.append(builder.add(c_rows[-1], c_row_bytes))
            tile.store(builder, sums, c_rows)
            return context.get_dummy_value()

        integer = types.int64
        signature = types.void(a, integer, integer, b, integer, integer, initial, integer, c, integer, integer)
        return signature, emit

    return tile


def _make_scattered_tile(vectors: int):
    @intrinsic
    def scattered_tile(
        typing_context, a, a_places, first_place, a_segment, segments, b, b_start, steps,  # noqa: ARG001
        initial, c, c_start, c_places, first_c,  # noqa: ARG001
    ):  # fmt: skip
        """Write one tile of ``C = initial + A B``, whose rows stand anywhere and consist of segments.

        Row r of A begins at ``a[a_places[first_place + r]]`` and has `segments` (at least 1) runs of `steps` words, the next
        one `a_segment` elements on. Row r of C begins at ``c[c_start + c_places[first_c + r]]``.
        """

        def emit(context, builder, signature, args):
            kinds, tile = signature.args, _Tile(vectors, a.dtype, c.dtype)

            def address(array, start, size):
                offset = ir.Constant(I64, 0) if start is None else tile.scale(builder, start, size)
                return _address(context, builder, kinds[array], args[array], offset)

            def rows(base, places, first, size):
                table = address(places, args[first], 8)
                for r in range(tile.rows):
                    place = _load(builder, tile.plus(builder, table, 8 * r), I64)
                    yield builder.add(base, tile.scale(builder, place, size))

            a_rows = list(rows(address(0, None, 0), 1, 2, tile.a_bytes))
            a_segment = tile.scale(builder, args[3], tile.a_bytes)
            b_at = address(5, args[6], tile.word_bytes)
            start = tile.initial(builder, address(8, None, 0))
            sums = tile.segments(builder, args[4], a_rows, a_segment, b_at, args[7], start)
            tile.store(builder, sums, rows(address(9, args[10], tile.result_bytes), 11, 12, tile.result_bytes))
            return context.get_dummy_value()

        integer = types.int64
        signature = types.void(
            a, a_places, integer, integer, integer, b, integer, integer, initial, c, integer, c_places, integer
        )
        return signature, emit

    return scattered_tile


tile_1, tile_2 = _make_tile(1), _make_tile(2)
tile_3, tile_4 = (_make_tile(3), _make_tile(4)) if WIDE else (tile_1, tile_2)
scattered_tile_1, scattered_tile_2 = _make_scattered_tile(1), _make_scattered_tile(2)
scattered_tile_3, scattered_tile_4 = (
    (_make_scattered_tile(3), _make_scattered_tile(4)) if WIDE else (scattered_tile_1, scattered_tile_2)
)
