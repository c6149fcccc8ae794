"""Moving integers about in registers: copies of a few bytes, words woven from several rows, transposed blocks of words.

A word of a tile holds neighbours of the reduction. Where these are neighbours in memory, packing is copying; where they
stand in different rows, the rows are woven: one element of each in turn. Both are memory-bound only when they work on
whole vectors, which Numba's loops over odd lengths do not.

Loads and stores take one-dimensional contiguous arrays and indices of their elements, and check nothing: the caller has.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from intnet.kernels.tiles import LANES, _address, _load

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
VECTOR = 4 * LANES
"""Bytes of a vector."""


def _at(context, builder, array_type, array, index):
    """Return the address of an element."""
    size = ir.Constant(_I64, array_type.dtype.bitwidth // 8)
    return _address(context, builder, array_type, array, builder.mul(index, size))


def _store(builder, value, address):
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 1


def _splat_byte(builder, byte, count):
    vector = ir.VectorType(_I8, count)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, byte, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, count), [0] * count))


def _repeat(builder, count, body):
    """Call ``body(k)`` in a loop for k in ``0 .. count - 1``; `count` is at least 1."""
    before, loop, done = builder.block, builder.append_basic_block("repeat"), builder.append_basic_block("repeated")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(_I64)
    k.add_incoming(ir.Constant(_I64, 0), before)
    body(k)
    following = builder.add(k, ir.Constant(_I64, 1))
    k.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
    builder.position_at_end(done)


def _for_runs(builder, number, count, move):
    """Call ``move(run, offset, bytes)`` so that bytes ``0 .. count - 1`` of every run are moved.

    The moves are whole vectors, of which two may overlap, and touch nothing else.
    """
    constant = lambda value: ir.Constant(_I64, value)  # noqa: E731

    def ends(run, size):
        move(run, constant(0), size)
        move(run, builder.sub(count, constant(size)), size)

    def long_run(run):
        last = builder.sub(count, constant(64))
        vectors = builder.lshr(builder.add(last, constant(63)), constant(6))
        with builder.if_then(builder.icmp_signed(">", vectors, constant(0))):
            _repeat(builder, vectors, lambda k: move(run, builder.shl(k, constant(6)), 64))
        move(run, last, 64)

    def short_run(run):  # of 1 to 3 bytes
        ends(run, 1)
        move(run, builder.lshr(count, constant(1)), 1)

    def of_length(size):
        with builder.if_else(builder.icmp_signed(">=", count, constant(size))) as (longer, shorter):
            with longer:
                _repeat(builder, number, long_run if size == 64 else lambda run: ends(run, size))
            with shorter:
                if size > 4:
                    of_length(size // 2)
                else:
                    with builder.if_then(builder.icmp_signed(">", count, constant(0))):
                        _repeat(builder, number, short_run)

    with builder.if_then(builder.icmp_signed(">", number, constant(0))):
        of_length(64)


@intrinsic
def copy_runs(typing_context, target, to, to_step, source, start, start_step, number, count, flip):  # noqa: ARG001 - Numba's
    """Copy `number` runs of `count` bytes, and flip the same bits in each byte.

    Run r goes from ``source[start + r * start_step]`` on to ``target[to + r * to_step]`` on.
    """

    def emit(context, builder, signature, args):
        kinds = signature.args
        target_at = _at(context, builder, kinds[0], args[0], args[1])
        source_at = _at(context, builder, kinds[3], args[3], args[4])

        def move(run, offset, size):
            start = builder.add(builder.add(source_at, builder.mul(run, args[5])), offset)
            to = builder.add(builder.add(target_at, builder.mul(run, args[2])), offset)
            value = _load(builder, start, ir.VectorType(_I8, size))
            _store(builder, builder.xor(value, _splat_byte(builder, args[8], size)), to)

        _for_runs(builder, args[6], args[7], move)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(target, integer, integer, source, integer, integer, integer, integer, types.uint8), emit


@intrinsic
def fill_runs(typing_context, target, to, to_step, number, count, value):  # noqa: ARG001
    """Write the same byte `count` times from ``target[to + r * to_step]`` on, for `number` runs r."""

    def emit(context, builder, signature, args):
        target_at = _at(context, builder, signature.args[0], args[0], args[1])

        def move(run, offset, size):
            to = builder.add(builder.add(target_at, builder.mul(run, args[2])), offset)
            _store(builder, _splat_byte(builder, args[5], size), to)

        _for_runs(builder, args[3], args[4], move)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(target, integer, integer, integer, integer, types.uint8), emit


def _interleave(builder, a, b):
    """Return the vector, twice as long, of the elements of `a` and `b` in turn."""
    count = a.type.count
    order = [element for pair in zip(range(count), range(count, 2 * count), strict=True) for element in pair]
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, 2 * count), order))


def _halves(builder, vector):
    count = vector.type.count // 2
    undefined = ir.Constant(vector.type, ir.Undefined)
    picks = [ir.Constant(ir.VectorType(_I32, count), list(range(first, first + count))) for first in (0, count)]
    return [builder.shuffle_vector(vector, undefined, pick) for pick in picks]


@intrinsic
def weave(typing_context, source, start, row, words, to, flip):  # noqa: ARG001
    """Write a vector of words: word j holds element j of one row, of the next, ... as many as fit in it.

    `source` has rows of `row` elements and is read from `start` on; `flip`, a byte, is flipped in every byte.
    """
    together = max(1, 32 // source.dtype.bitwidth)
    element = ir.IntType(source.dtype.bitwidth)
    lanes = VECTOR * 8 // (element.width * together)

    def emit(context, builder, signature, args):
        kinds = signature.args
        at = args[1]
        rows = []
        for _ in range(together):
            rows.append(_load(builder, _at(context, builder, kinds[0], args[0], at), ir.VectorType(element, lanes)))
            at = builder.add(at, args[2])
        while len(rows) > 1:  # 0 with 2 and 1 with 3, then these: 0, 1, 2, 3
            half = len(rows) // 2
            rows = [_interleave(builder, rows[i], rows[i + half]) for i in range(half)]
        woven = builder.bitcast(rows[0], ir.VectorType(_I8, VECTOR))
        woven = builder.xor(woven, _splat_byte(builder, args[5], VECTOR))
        _store(builder, woven, _at(context, builder, kinds[3], args[3], args[4]))
        return context.get_dummy_value()

    return types.void(source, types.int64, types.int64, words, types.int64, types.uint8), emit


@intrinsic
def transpose_words(typing_context, source, start, source_row, target, to, target_row):  # noqa: ARG001
    """Transpose a square block of words, as many as a vector holds on each side."""
    word = ir.IntType(source.dtype.bitwidth)
    lanes = VECTOR * 8 // word.width

    def emit(context, builder, signature, args):
        kinds = signature.args
        at, rows = args[1], []
        for _ in range(lanes):
            rows.append(_load(builder, _at(context, builder, kinds[0], args[0], at), ir.VectorType(word, lanes)))
            at = builder.add(at, args[2])
        for _ in range(lanes.bit_length() - 1):  # the perfect shuffle, log2(lanes) times, is the transposition
            pairs = [_interleave(builder, rows[i], rows[i + lanes // 2]) for i in range(lanes // 2)]
            rows = [half for pair in pairs for half in _halves(builder, pair)]
        at = args[4]
        for row in rows:
            _store(builder, row, _at(context, builder, kinds[3], args[3], at))
            at = builder.add(at, args[5])
        return context.get_dummy_value()

    integer = types.int64
    return types.void(source, integer, integer, target, integer, integer), emit
