"""Tiles of matrix products on the GPU: the dot product instruction, words in shared memory, and the kernel around them.

A block computes a tile of `tile` by `tile` sums, a thread 4 by 4 of them or 8 by 8. Along what is summed, the operands come in
words: four int8 in an int32, or one integer. A slice of words of both operands lies in shared memory, ``[word][row]`` and
``[word][column]``, while the next one is on its way from global memory in registers.

The sums of a thread are a tuple, which the compiler keeps in registers; an array it would leave in memory.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from intnet.kernels.cuda import _driver
from intnet.kernels.cuda._driver import SIMULATED, cuda
from intnet.kernels.cuda.words import (
    ADD,
    STORE,
    STORE_QUADS,
    align_shared_memory,
    dot4,
    dot_bytes,
    dot_words,
    intrinsic,
    multiply_add,
    quad_pointer,
    store4,
    store_sums,
)

_REGISTERS = 128
"""Of a thread with 64 sums: with a few more, a multiprocessor has room for one block instead of two."""


# 1. Kinds of words, sizes of tiles -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """What is multiplied and summed: integers in a word, the types of a word and of a sum."""

    together: int
    word: Any
    sums: Any

    @property
    def dot(self) -> Any:
        """The dot product of two words, added to a sum."""
        return dot4 if self.together == 4 else multiply_add

    def words_of(self, count: int) -> int:
        """Return how many words hold so many integers."""
        return -(-count // self.together)


BYTES, WORDS = Kind(4, np.int32, np.int32), Kind(1, np.int32, np.int32)
WIDE, LONG = Kind(1, np.int32, np.int64), Kind(1, np.int64, np.int64)
KINDS = (BYTES, WORDS, WIDE, LONG)


def kind_of(operands: Any, sums: Any) -> Kind:
    """Return how to multiply operands that fit in a type, modulo the width of the sums' type."""
    if np.dtype(sums) == np.int32:
        return BYTES if np.dtype(operands) == np.int8 else WORDS
    return LONG if np.dtype(operands) == np.int64 else WIDE


@dataclass(frozen=True)
class Shape:
    """A tile: its side, and into how many quads of rows and of columns of a thread; how threads share it.

    A warp is a rectangle of threads, `lanes` across, so that it reads few words at once and none from the same bank.
    """

    side: int
    quads: int
    lanes: tuple[int, int]

    @property
    def threads(self) -> int:
        """In a block."""
        return (self.side // (4 * self.quads)) ** 2

    @property
    def depth(self) -> int:
        """Words of a slice: every thread brings four of each operand."""
        return self.threads * 4 // self.side

    @property
    def pitch(self) -> int:
        """Words from one row of a slice to the next: not all start in one bank."""
        return self.side + 4


# The simulator's are the same code with few threads.
NARROW, BROAD = (Shape(16, 1, (2, 2)), Shape(64, 2, (4, 4))) if SIMULATED else (Shape(64, 1, (8, 4)), Shape(128, 2, (8, 4)))


def shapes_of(kind: Kind) -> tuple[Shape, ...]:
    """Return the tiles that a thread's registers have room for."""
    return (NARROW, BROAD) if kind.sums is np.int32 else (NARROW,)


def shape_for(kind: Kind, rows: int, columns: int, words: int) -> Shape:
    """Return the tiles for a product of this size: broad ones, if they are well filled and enough to keep the device busy."""
    tiles = -(-rows // BROAD.side) * -(-columns // BROAD.side)
    filled = rows * columns * 4 >= tiles * BROAD.side**2 * 3
    blocks = tiles * max(1, words // BROAD.depth // 16)
    return BROAD if BROAD in shapes_of(kind) and filled and blocks >= processors() else NARROW


def processors() -> int:
    """Return how many multiprocessors the device has."""
    return 2 if SIMULATED else int(cuda.get_current_device().MULTIPROCESSOR_COUNT)


def _multiplier(kind: Kind, shape: Shape) -> Any:
    """Make the intrinsic that adds the products of a slice to a thread's sums, all unrolled."""
    side, half = 4 * shape.quads, shape.side // shape.quads
    offsets = [k * shape.pitch + quad * half for k in range(shape.depth) for quad in range(shape.quads)]

    def multiply_slice(context, shared, at_a, at_b, sums):  # noqa: ARG001
        def emit(context, builder, signature, args):
            shared, at_a, at_b, sums = args
            totals = [builder.extract_value(sums, i) for i in range(side * side)]

            def quad_at(at, offset):
                at = builder.add(at, ir.IntType(64)(offset))
                pointer, align = quad_pointer(context, builder, signature.args[0], shared, at)
                quad = builder.load(pointer, align=align)
                return [builder.extract_element(quad, ir.IntType(32)(i)) for i in range(4)]

            for first in range(0, len(offsets), shape.quads):
                own = offsets[first : first + shape.quads]
                row = [word for offset in own for word in quad_at(at_a, offset)]
                column = [word for offset in own for word in quad_at(at_b, offset)]
                for i in range(side * side):
                    dot = dot_bytes if kind.together == 4 else dot_words
                    totals[i] = dot(builder, row[i // side], column[i % side], totals[i])
            return context.make_tuple(builder, signature.args[3], totals)

        return sums(shared, types.int64, types.int64, sums), emit

    def multiply_slice_twin(shared, at_a, at_b, sums):
        totals = list(sums)
        for first in range(0, len(offsets), shape.quads):
            own = offsets[first : first + shape.quads]
            row, column = ([shared[at + offset + i] for offset in own for i in range(4)] for at in (at_a, at_b))
            for i in range(side * side):
                totals[i] = kind.dot(row[i // side], column[i % side], totals[i])
        return tuple(totals)

    return intrinsic(multiply_slice) or multiply_slice_twin


# 2. The kernel ---------------------------------------------------------------------------------------------------------------
#
# An operand comes through four functions. `start` returns what a thread keeps: UniTuple(int64). `fetch` returns its four
# words of a slice, and `along` tells whether they are of one row (or column) and four words, or of one word and four rows.


def device(function: Any) -> Any:
    """Make a function that kernels call."""
    return cuda.jit(device=True)(function)


def _storer(shape: Shape, along: bool) -> Any:
    """Make the function that writes a thread's four words of a slice into shared memory."""
    pitch, across, side = shape.pitch, shape.depth // 4, shape.side // 4

    def put_words(shared, at, thread, words):
        at += thread % across * (4 * pitch) + thread // across
        shared[at], shared[at + pitch], shared[at + 2 * pitch], shared[at + 3 * pitch] = words

    def put_rows(shared, at, thread, words):
        store4(shared, at + thread // side * pitch + thread % side * 4, words)

    return device(put_words if along else put_rows)


def _finder(shape: Shape, row_of: Any, columns_of: Any) -> Any:
    """Make the functions that tell where the rows and the quads of columns of a thread's sums go."""
    half = shape.side // shape.quads

    def four(numbers, row, group):
        return (
            row_of(numbers, row, group), row_of(numbers, row + 1, group), row_of(numbers, row + 2, group),
            row_of(numbers, row + 3, group),
        )  # fmt: skip

    four = device(four)

    def rows_of_two(numbers, row, group):
        return four(numbers, row, group) + four(numbers, row + half, group)

    def one(numbers, column):
        start, count = columns_of(numbers, column)
        return (start,), (count,)

    def two(numbers, column):
        start, count = columns_of(numbers, column)
        other_start, other_count = columns_of(numbers, column + half)
        return (start, other_start), (count, other_count)

    return (four, device(one)) if shape.quads == 1 else (device(rows_of_two), device(two))


def tiled(kind: Kind, shape: Shape, a: Any, b: Any, row_of: Any, columns_of: Any, signatures: tuple[str, ...]) -> Any:
    """Make the kernel of a product.

    Parameters
    ----------
    kind : Kind
    shape : Shape
    a, b : (start, fetch, along)
        ``start(numbers, first, group, thread)`` and ``fetch(operand, kept, slice, numbers)``, see above; `first` is the tile's
        first row or column.
    row_of : function
        ``row_of(numbers, row, group)`` returns where a row of sums starts in `out`, -1 for none.
    columns_of : function
        ``columns_of(numbers, column)`` returns where four columns start in a row, and how many of them there are.
    signatures : tuple of str

    Returns
    -------
    Kernel
        To be started by :func:`start` with operands, `out` and a tuple of int64.
    """
    start_a, fetch_a, along_a = a
    start_b, fetch_b, along_b = b
    put_a, put_b = _storer(shape, along_a), _storer(shape, along_b)
    rows_of, quads_of = _finder(shape, row_of, columns_of)
    multiply_slice, zeros = _multiplier(kind, shape), (kind.sums(0),) * (4 * shape.quads) ** 2
    side, word, (lanes, lanes_down) = shape.side, kind.word, shape.lanes
    slice_words = shape.depth * shape.pitch
    shared_words, warp = 4 * slice_words, lanes * lanes_down
    warps_across = side // (4 * shape.quads) // lanes

    def body(operand_a, operand_b, out, numbers):
        shared = cuda.shared.array(shared_words, word)
        align_shared_memory()
        thread, tile, group = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x), np.int64(cuda.blockIdx.y)
        row, column = tile // numbers[0] * side, tile % numbers[0] * side
        now = np.int64(cuda.blockIdx.z) * numbers[2]
        last = now + numbers[2] if now + numbers[2] < numbers[1] else numbers[1]
        kept_a, kept_b = start_a(numbers, row, group, thread), start_b(numbers, column, group, thread)
        at_row = (thread // warp // warps_across * lanes_down + thread % warp // lanes) * 4
        at_column = (thread // warp % warps_across * lanes + thread % lanes) * 4
        half, sums = np.int64(0), zeros
        put_a(shared, half, thread, fetch_a(operand_a, kept_a, now, numbers))
        put_b(shared, half + slice_words, thread, fetch_b(operand_b, kept_b, now, numbers))
        cuda.syncthreads()
        while now + 1 < last:
            now += 1
            words_a, words_b = fetch_a(operand_a, kept_a, now, numbers), fetch_b(operand_b, kept_b, now, numbers)
            sums = multiply_slice(shared, half + at_row, half + slice_words + at_column, sums)
            half = 2 * slice_words - half
            put_a(shared, half, thread, words_a)
            put_b(shared, half + slice_words, thread, words_b)
            cuda.syncthreads()
        sums = multiply_slice(shared, half + at_row, half + slice_words + at_column, sums)
        starts, counts = quads_of(numbers, column + at_column)
        store_sums(out, rows_of(numbers, row + at_row, group), starts, counts, sums, numbers[3])

    made = _driver.kernel(*signatures)(body)
    if shape.quads > 1 and not SIMULATED:
        made._compiled = cuda.jit(body, max_registers=_REGISTERS)
    return made


def start(
    kernel: Any,
    shape: Shape,
    size: tuple[int, int, int, int],
    a: Any,
    b: Any,
    out: Any,
    quads: bool,
    *numbers: int,
    cleared: bool = False,
) -> None:
    """Start a tiled kernel.

    Parameters
    ----------
    kernel : Kernel
    shape : Shape
    size : (int, int, int, int)
        Rows, columns, words of a sum (none of them 0), groups.
    a, b, out : device arrays, flat
    quads : bool
        Whether four columns start at a multiple of four in `out`, wherever they are written.
    numbers : int
        What the functions that `kernel` was made of know as ``numbers[4:]``.
    cleared : bool
        Whether `out` holds zeros where this writes, and elsewhere what must stay.
    """
    rows, columns, words, groups = size
    across, slices = -(-columns // shape.side), -(-words // shape.depth)
    tiles = -(-rows // shape.side) * across
    # A block has at least 4 slices: fewer are not worth adding its sums to those of others.
    splits = max(1, min(2 * processors() // (tiles * groups), slices // 4, 65535))
    each = -(-slices // splits)
    splits = -(-slices // each)
    what = ADD if splits > 1 else STORE_QUADS if quads and aligned(out, 4) else STORE
    if splits > 1 and not cleared:
        clear(out)
    common = (across, slices, each, what)
    kernel.at((tiles, groups, splits), shape.threads, a, b, out, tuple(np.int64(n) for n in (*common, *numbers)))


def clear(out: Any) -> None:
    """Write zeros into an array on the device."""
    if out.size:
        _driver._fill(out.size, out.reshape(-1), np.int64(0))


def aligned(array: Any, count: int) -> bool:
    """Tell whether an array starts where so many elements can be loaded at once."""
    return SIMULATED or int(array.device_ctypes_pointer.value or 0) % min(16, count * array.dtype.itemsize) == 0


def divider(divisor: int) -> tuple[int, int]:
    """Return ``(factor, shift)`` for :func:`quotient`: Granlund and Montgomery 1994, theorem 4.2."""
    bits = (divisor - 1).bit_length()
    return -(-(2 ** (31 + bits)) // divisor), bits
