"""Register tiles over windows of images: both operands are woven pixels, and a window is a distance in memory.

The tiles of the matrix product read a right operand whose columns lie side by side, step after step. Here every vector of
columns may begin anywhere and steps may be any distance apart, so that the taps of a kernel read the same pixels. The left
operand lies step after step as well, a word a row, as weaving leaves it.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from intnet.kernels.simd.weaving import VECTOR, _at, _repeat, _splat_byte, _store
from intnet.kernels.tiles import LANES, WIDE, _dot, _load, _splat

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
HEIGHT, MOST = (8, 3) if WIDE else (4, 2)
"""Rows of a tile and its most vectors: sums, a step's vectors and a word of the left operand fit in the registers."""


def _shuffled(builder, vector, order):
    undefined = ir.Constant(vector.type, ir.Undefined)
    return builder.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(_I32, len(order)), order))


def _woven(builder, rows):
    """Return the words of which each holds an element of every row, as bytes."""
    element, count, together = rows[0].type.element, rows[0].type.count, len(rows)
    while len(rows) > 1:  # all rows one after the other
        length = 2 * rows[0].type.count
        both = ir.Constant(ir.VectorType(_I32, length), list(range(length)))
        rows = [builder.shuffle_vector(rows[i], rows[i + 1], both) for i in range(0, len(rows), 2)]
    (joined,) = rows
    if together == 4:  # a byte from everywhere is one instruction on some processors only: first to the right 16 bytes
        quarter = count // 4
        joined = builder.bitcast(joined, ir.VectorType(_I32, count))
        joined = _shuffled(builder, joined, [t * quarter + q for q in range(quarter) for t in range(4)])
        joined = builder.bitcast(joined, ir.VectorType(element, 4 * count))
        joined = _shuffled(builder, joined, [16 * q + 4 * t + i for q in range(quarter) for i in range(4) for t in range(4)])
    elif together == 2:
        joined = _shuffled(builder, joined, [t * count + i for i in range(count) for t in range(2)])
    return builder.bitcast(joined, ir.VectorType(_I8, VECTOR))


@intrinsic
def weave_pixels(typing_context, source, start, row, pixel, words, to, to_pixel, pixels, to_plane, planes, flip):  # noqa: ARG001
    """Write vectors of words: word j holds element j of a run, of the run `row` further on, as many as fit in it.

    The vector of pixel i of a plane begins at ``words[to + plane * to_plane + i * to_pixel]``, its first run at ``source[start
    + i * pixel]``, and for the next plane right behind it. There is at least one pixel and one plane. `flip`, a byte, is
    flipped in every byte.
    """
    together = max(1, 32 // source.dtype.bitwidth)
    element = ir.IntType(source.dtype.bitwidth)
    lanes = VECTOR * 8 // (element.width * together)

    def emit(context, builder, signature, args):
        kinds = signature.args
        flips = _splat_byte(builder, args[10], VECTOR)
        size = ir.Constant(_I64, element.width // 8)
        row = builder.mul(args[2], size)

        def move(plane, k):
            at = builder.add(args[1], builder.add(builder.mul(plane, ir.Constant(_I64, lanes)), builder.mul(k, args[3])))
            at, rows = _at(context, builder, kinds[0], args[0], at), []
            for _ in range(together):
                rows.append(_load(builder, at, ir.VectorType(element, lanes)))
                at = builder.add(at, row)
            to = builder.add(builder.add(args[5], builder.mul(plane, args[8])), builder.mul(k, args[6]))
            _store(builder, builder.xor(_woven(builder, rows), flips), _at(context, builder, kinds[4], args[4], to))

        _repeat(builder, args[9], lambda plane: _repeat(builder, args[7], lambda k: move(plane, k)))
        return context.get_dummy_value()

    integer = types.int64
    signature = types.void(source, integer, integer, integer, words, integer, integer, integer, integer, integer, types.uint8)
    return signature, emit


@intrinsic
def add_up_vectors(typing_context, words, start, fours, sums, to):  # noqa: ARG001
    """Write, lane by lane, the sum of the signed bytes of four times `fours` vectors of words that lie side by side."""

    def emit(context, builder, signature, args):
        kinds, vector = signature.args, ir.VectorType(_I32, LANES)
        zero, one = ir.Constant(_I64, 0), ir.Constant(_I64, 1)
        base = _at(context, builder, kinds[0], args[0], args[1])
        ones = _splat(builder, ir.Constant(_I32, 0x01010101), LANES)
        entry, loop, done = builder.block, builder.append_basic_block("four"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        k, totals = builder.phi(_I64), [builder.phi(vector) for _ in range(4)]  # four, for the latency
        k.add_incoming(zero, entry)
        at = builder.add(base, builder.mul(k, ir.Constant(_I64, 4 * VECTOR)))
        new = []
        for i, total in enumerate(totals):
            value = _load(builder, builder.add(at, ir.Constant(_I64, i * VECTOR)), vector)
            new.append(_dot(builder, types.uint8, total, ones, value))
            total.add_incoming(ir.Constant(vector, [0] * LANES), entry)
            total.add_incoming(new[i], loop)
        following = builder.add(k, one)
        k.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, args[2]), loop, done)
        builder.position_at_end(done)
        total = builder.add(builder.add(new[0], new[1]), builder.add(new[2], new[3]))
        _store(builder, total, _at(context, builder, kinds[3], args[3], args[4]))
        return context.get_dummy_value()

    return types.void(words, types.int64, types.int64, sums, types.int64), emit


def _make_tile(vectors: int):
    @intrinsic
    def tile(typing_context, a, a_start, b, places, first, step, run, runs, steps, initial, row, anew, c, c_start, c_row):  # noqa: ARG001
        """Write a tile of C, ``HEIGHT`` rows of some vectors, or add to it: ``C += initial + A B``.

        Parameters
        ----------
        a, a_start : array of the type that is multiplied, int64
            Row r has word ``a_start + r``, and a whole vector of words further on, at every step, the next.
        b, step, run : array of words, int64, int64
            The words of step k of run i begin ``i * run + k * step`` after the place of their vector. Bytes are unsigned.
        places, first : (_, 2) int64, int64
            Of the vectors: in B and in C, from line `first` on.
        runs, steps : int64
            At least 1.
        initial, row : array of the type of C, int64
            A number for each row, from `row` on.
        anew : bool
            Whether the tile is written whatever it holds.
        c, c_start, c_row : array of int32 or int64, int64, int64
        """
        word = _I64 if a.dtype == types.int64 else _I32
        result = _I64 if c.dtype == types.int64 else _I32
        lanes = LANES if result is _I32 else LANES // 2
        vector, words = ir.VectorType(result, lanes), ir.VectorType(word, lanes)
        word_bytes, result_bytes, a_size = word.width // 8, result.width // 8, a.dtype.bitwidth // 8
        dot_type = types.uint8 if a.dtype == types.int8 else a.dtype  # the unsigned bytes are those of B

        def emit(context, builder, signature, args):
            kinds = signature.args
            constant = lambda value: ir.Constant(_I64, value)  # noqa: E731
            scale = lambda value, size: builder.mul(value, constant(size))  # noqa: E731
            a_first = _at(context, builder, kinds[0], args[0], scale(args[1], word_bytes // a_size))
            b_first = _at(context, builder, kinds[2], args[2], constant(0))
            line = _at(context, builder, kinds[3], args[3], scale(args[4], 2))
            b_places, c_ats = [], []
            for v in range(vectors):
                b_places.append(scale(_load(builder, builder.add(line, constant(16 * v)), _I64), word_bytes))
                c_place = builder.add(args[13], _load(builder, builder.add(line, constant(16 * v + 8)), _I64))
                c_ats.append(_at(context, builder, kinds[12], args[12], c_place))
            initial_at = _at(context, builder, kinds[9], args[9], args[10])
            c_row, step, run = scale(args[14], result_bytes), scale(args[5], word_bytes), scale(args[6], word_bytes)
            start, targets = [], []
            for r in range(HEIGHT):
                own = _splat(builder, _load(builder, builder.add(initial_at, constant(r * result_bytes)), result), lanes)
                start.append([own] * vectors)
                targets.append(list(c_ats))
                c_ats = [builder.add(c_at, c_row) for c_at in c_ats]
            entry, names = builder.block, ("add", "run", "step", "next", "done")
            add, one_run, loop, next_run, done = (builder.append_basic_block(name) for name in names)
            builder.cbranch(args[11], one_run, add)
            builder.position_at_end(add)
            added = [[builder.add(_load(builder, target, vector), own) for target, own in zip(*row, strict=True)]
                     for row in zip(targets, start, strict=True)]  # fmt: skip
            builder.branch(one_run)

            def carried(*firsts):
                phi = builder.phi(firsts[0][0].type)
                for first, block in firsts:
                    phi.add_incoming(first, block)
                return phi

            builder.position_at_end(one_run)
            i, a_run, b_run = (carried((value, entry), (value, add)) for value in (constant(0), a_first, b_first))
            of_run = [[carried((own, entry), (total, add)) for own, total in zip(*row, strict=True)]
                      for row in zip(start, added, strict=True)]  # fmt: skip
            builder.branch(loop)

            builder.position_at_end(loop)
            k, a_at, b_at = (carried((value, one_run)) for value in (constant(0), a_run, b_run))
            sums = [[carried((value, one_run)) for value in row] for row in of_run]
            bs = [_load(builder, builder.add(b_at, place), words) for place in b_places]
            if words != vector:
                bs = [builder.sext(b, vector) for b in bs]
            new = []
            for r, row in enumerate(sums):
                x = _load(builder, builder.add(a_at, constant(r * word_bytes)), word)
                x = _splat(builder, builder.sext(x, result) if word != result else x, lanes)
                new.append([_dot(builder, dot_type, total, b, x) for total, b in zip(row, bs, strict=True)])
            a_next, b_next = builder.add(a_at, constant(VECTOR)), builder.add(b_at, step)
            following = builder.add(k, constant(1))
            for phi, value in zip((k, a_at, b_at), (following, a_next, b_next), strict=True):
                phi.add_incoming(value, loop)
            for row, values in zip(sums, new, strict=True):
                for total, value in zip(row, values, strict=True):
                    total.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", following, args[8]), loop, next_run)

            builder.position_at_end(next_run)
            following = builder.add(i, constant(1))
            for phi, value in zip((i, a_run, b_run), (following, a_next, builder.add(b_run, run)), strict=True):
                phi.add_incoming(value, next_run)
            for row, values in zip(of_run, new, strict=True):
                for total, value in zip(row, values, strict=True):
                    total.add_incoming(value, next_run)
            builder.cbranch(builder.icmp_signed("<", following, args[7]), one_run, done)

            builder.position_at_end(done)
            for row, values in zip(targets, new, strict=True):
                for target, value in zip(row, values, strict=True):
                    _store(builder, value, target)
            return context.get_dummy_value()

        integer = types.int64
        signature = types.void(
            a,
            integer,
            b,
            places,
            integer,
            integer,
            integer,
            integer,
            integer,
            initial,
            integer,
            types.boolean,
            c,
            integer,
            integer,
        )
        return signature, emit

    return tile


window_tile_1, window_tile_2 = _make_tile(1), _make_tile(2)
window_tile_3 = _make_tile(3) if WIDE else window_tile_2
