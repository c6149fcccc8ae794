"""Matrix products on the GPU: by their definition, and in tiles where the sums are sure or wanted modulo words.

`multiply`, `limit_sums` and `quantized_multiply` are the twins of those in :mod:`intnet.kernels.plain.product`. `multiply_fast`
is that of ``multiply`` in :mod:`intnet.kernels.simd.product`: both operands are packed, ``[word][row]`` and ``[word][column]``,
padded by zeros to whole tiles, and then multiplied in tiles.
"""

from typing import Any

import numpy as np

from intnet.arithmetic import join_products, multiply_by_quantized_multiplier, product_words, wrap
from intnet.kernels.cuda import _driver
from intnet.kernels.cuda._driver import cuda, kernel
from intnet.kernels.cuda.tiles import (
    BYTES,
    KINDS,
    LONG,
    WORDS,
    Kind,
    Shape,
    clear,
    device,
    divider,
    kind_of,
    shape_for,
    shapes_of,
    start,
    tiled,
)
from intnet.kernels.cuda.words import load4, quotient
from intnet.kernels.plain.product import _limits, bring_into_word

__all__ = ["limit_sums", "multiply", "multiply_fast", "quantized_multiply"]


# 1. By their definition ------------------------------------------------------------------------------------------------------


@kernel(
    "int8[::1], int8[::1], int64, int64, int64, UniTuple(int64, 4), int64, int64, int64, boolean, int32[::1], int64[::1]",
    "int16[::1], int16[::1], int64, int64, int64, UniTuple(int64, 4), int64, int64, int64, boolean, int32[::1], int64[::1]",
    "int32[::1], int32[::1], int64, int64, int64, UniTuple(int64, 4), int64, int64, int64, boolean, int64[::1], int64[::1]",
    "int64[::1], int64[::1], int64, int64, int64, UniTuple(int64, 4), int64, int64, int64, boolean, int64[::1], int64[::1]",
)
def _multiply(a, b, m, n, terms, steps, minimum, maximum, word_bits, saturates, out, left):
    outside_all = np.int64(0)
    for i in range(cuda.grid(1), m * n, cuda.gridsize(1)):
        row = np.int64(i) // n
        at_a, at_b = row * steps[0], (np.int64(i) - row * n) * steps[2]
        top_high, top_low, high, low = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        for _ in range(terms):
            words = product_words(np.int64(a[at_a]), np.int64(b[at_b]))
            top_high += words[0]
            top_low += words[1]
            high += words[2]
            low += words[3]
            at_a += steps[1]
            at_b += steps[3]
        beyond, total = join_products(top_high, top_low, high, low)
        word, outside = bring_into_word(beyond, total, minimum, maximum, word_bits, saturates)
        out[i] = word
        outside_all += outside
    if outside_all > 0:
        cuda.atomic.add(left, 0, outside_all)


def multiply(a, b, a_transposed, b_transposed, word_bits, saturates, out):
    """Multiply matrices of integers; every sum is exact and then wrapped to `word_bits`, or saturated; return how many were."""
    m, n = out.shape
    terms = a.shape[0] if a_transposed else a.shape[1]
    steps = (*((1, m) if a_transposed else (terms, 1)), *((terms, 1) if b_transposed else (1, n)))
    minimum, maximum = _limits(word_bits)
    left = _driver.zeros(1, np.int64)
    _multiply(
        m * n, a.reshape(-1), b.reshape(-1), np.int64(m), np.int64(n), np.int64(terms), tuple(np.int64(s) for s in steps),
        np.int64(minimum), np.int64(maximum), np.int64(word_bits), bool(saturates), out.reshape(-1), left,
    )  # fmt: skip
    return int(_driver.to_host(left)[0])


@kernel(
    "int64[::1], int64, int64, int64, boolean, int32[::1], int64[::1]",
    "int64[::1], int64, int64, int64, boolean, int64[::1], int64[::1]",
)
def _limit_sums(sums, minimum, maximum, word_bits, saturates, out, left):
    outside_all = np.int64(0)
    for i in range(cuda.grid(1), sums.size, cuda.gridsize(1)):
        word, outside = bring_into_word(np.int64(0), np.int64(sums[i]), minimum, maximum, word_bits, saturates)
        out[i] = word
        outside_all += outside
    if outside_all > 0:
        cuda.atomic.add(left, 0, outside_all)


def limit_sums(sums, word_bits, saturates, out):
    """Bring exact sums into the accumulator, as `multiply` does with each; return how many lay outside."""
    minimum, maximum = _limits(word_bits)
    left = _driver.zeros(1, np.int64)
    _limit_sums(sums.size, sums, np.int64(minimum), np.int64(maximum), np.int64(word_bits), bool(saturates), out, left)
    return int(_driver.to_host(left)[0])


@kernel("int32[::1], int64, int64, int32[::1]")
def _quantized_multiply(values, multiplier, shift, out):
    for i in range(cuda.grid(1), values.size, cuda.gridsize(1)):
        out[i] = multiply_by_quantized_multiplier(values[i], multiplier, shift)


def quantized_multiply(values, multiplier, shift, out):
    """Write ``values * multiplier / 2**31 * 2**shift``, rounded twice as TFLite does, into `out`."""
    _quantized_multiply(values.size, values, np.int64(multiplier), np.int64(shift), out)


# 2. Packing ------------------------------------------------------------------------------------------------------------------


def _packer(kind: Kind) -> Any:
    """Make the kernel that packs an operand: ``out[group][word][column]``, four integers or one in a word.

    A sum runs over taps (rows of them, and within) and, in each, over `inner` integers, which are padded to whole words.
    """
    together, word_type = kind.together, kind.word

    def pack(source, out, numbers):
        words, width, columns, base, of_group, of_column = numbers[:6]  # words: of a group
        taps, taps_x, tap_y, tap_x, inner, padded, of_inner, across, groups = numbers[6:15]
        for i in range(cuda.grid(1), words * groups, cuda.gridsize(1)):
            group = np.int64(0)
            rest = np.int64(i)
            while rest >= words:
                rest -= words
                group += 1
            # Neighbouring threads take `across` columns and then the next word.
            lanes = rest % 32
            tile = rest // 32
            down = quotient(tile, numbers[15], numbers[16])
            column = (tile - down * (width // across)) * across + lanes % across
            k = down * (32 // across) + lanes // across
            tap = quotient(k * together, numbers[17], numbers[18])
            tap_row = quotient(tap, numbers[19], numbers[20])
            first = k * together - tap * padded
            at = base + group * of_group + column * of_column + tap_row * tap_y + (tap - tap_row * taps_x) * tap_x
            word = np.int64(0)
            for j in range(together):
                if column < columns and tap < taps and first + j < inner:
                    value = np.int64(source[at + (first + j) * of_inner])
                    if together == 4:
                        value = (value & np.int64(255)) << np.int64(8 * j)
                    word |= value
            out[group * words + k * width + column] = word_type(wrap(word, np.int64(32)) if together == 4 else word)

    width = 8 * np.dtype(kind.word).itemsize
    sources = ("int8",) if together == 4 else ("int8", "int16", "int32") if width == 32 else ("int32", "int64")
    return kernel(*(f"{source}[::1], int{width}[::1], UniTuple(int64, 21)" for source in sources))(pack)


_PACK = {(kind.together, kind.word): _packer(kind) for kind in (BYTES, WORDS, LONG)}


def pack(
    kind: Kind,
    shape: Shape,
    source: Any,
    groups: int,
    columns: int,
    taps: tuple[int, int],
    inner: int,
    padded: int,
    strides: Any,
) -> Any:
    """Return an operand packed for tiles of `shape`, ``(group, word, column)`` flat, padded by zeros to whole slices and tiles.

    Parameters
    ----------
    kind, shape : Kind, Shape
    source : flat device array of integers that fit in `kind`
    groups, columns : int
    taps : (int, int)
        Rows of them, and in a row.
    inner, padded : int
        Integers summed in a tap, and how many places they take: a multiple of the integers of a word, but for a single tap.
    strides : (int, int, int, int, int, int)
        Where the first element is in `source`, and how far it is from one group, column, tap row, tap and integer to the next.
    """
    base, of_group, of_column, tap_y, tap_x, of_inner = strides
    words = padded_words(kind, shape, taps[0] * taps[1] * padded)
    width = padded_side(shape, columns)
    out = _driver.empty(groups * words * width, kind.word)
    across = 8 if of_inner == 1 else min(32, shape.side)
    numbers = (
        words * width, width, columns, base, of_group, of_column, taps[0] * taps[1], taps[1], tap_y, tap_x, inner, padded,
        of_inner, across, groups, *divider(width // across), *divider(padded), *divider(taps[1]),
    )  # fmt: skip
    _PACK[kind.together, kind.word](out.size, source, out, tuple(np.int64(number) for number in numbers))
    return out


def padded_side(shape: Shape, columns: int) -> int:
    """Return how many columns fill the tiles."""
    return -(-columns // shape.side) * shape.side


def padded_words(kind: Kind, shape: Shape, terms: int) -> int:
    """Return how many words fill the slices."""
    return -(-kind.words_of(terms) // shape.depth) * shape.depth


# 3. In tiles -----------------------------------------------------------------------------------------------------------------


def packed(kind: Kind, shape: Shape, width_at: int) -> Any:
    """Return the functions of a packed operand, see `tiled`; ``numbers[width_at:]`` are its columns and words of a group."""
    across, pitch = shape.side // 4, shape.depth
    word = kind.word

    def start_packed(numbers, first, group, thread):
        return group * numbers[width_at + 1] + thread // across * numbers[width_at] + first + thread % across * 4, numbers[
            width_at
        ]

    def fetch_packed(operand, kept, step, numbers):  # noqa: ARG001
        words = load4(operand, kept[0] + step * pitch * kept[1])
        return word(words[0]), word(words[1]), word(words[2]), word(words[3])

    return device(start_packed), device(fetch_packed), False


@device
def _row_of(numbers, row, group):  # noqa: ARG001
    return row * numbers[5] if row < numbers[4] else np.int64(-1)


@device
def _columns_of(numbers, column):
    return column, numbers[5] - column


def _tiled(kind: Kind, shape: Shape) -> Any:
    words, sums = (f"int{8 * np.dtype(which).itemsize}[::1]" for which in (kind.word, kind.sums))
    sides = packed(kind, shape, 6), packed(kind, shape, 8)
    return tiled(kind, shape, *sides, _row_of, _columns_of, (f"{words}, {words}, {sums}, UniTuple(int64, 10)",))


_TILED = {(kind, shape): _tiled(kind, shape) for kind in KINDS for shape in shapes_of(kind)}


def multiply_fast(a, b, a_transposed, b_transposed, kind, out):
    """Multiply matrices into `out`, modulo the width of its elements.

    Parameters
    ----------
    a : (m, k) integers, or (k, m) if `a_transposed`
    b : (k, n) integers, or (n, k) if `b_transposed`
    kind : type
        np.int8, np.int16 or np.int32 (operands that fit in it) for an int32 `out`; np.int32 or np.int64 for an int64 one.
    out : (m, n) int32 or int64, written
    """
    m, n = out.shape
    terms = a.shape[0] if a_transposed else a.shape[1]
    if not (m and n and terms):
        clear(out)
        return
    kind = kind_of(kind, out.dtype)
    shape = shape_for(kind, m, n, kind.words_of(terms))
    sides = []
    for operand, count, of_column, of_term in (
        (a, m, *((1, m) if a_transposed else (terms, 1))),
        (b, n, *((terms, 1) if b_transposed else (1, n))),
    ):
        strides = (0, 0, of_column, 0, 0, of_term)
        sides.append(pack(kind, shape, operand.reshape(-1), 1, count, (1, 1), terms, terms, strides))
    words = kind.words_of(terms)
    widths = (padded_side(shape, m), 0, padded_side(shape, n), 0)
    start(_TILED[kind, shape], shape, (m, n, words, 1), *sides, out.reshape(-1), n % 4 == 0, m, n, *widths)
