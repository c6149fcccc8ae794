"""Matrix products at the processor's dot-product rate.

B is packed once into panels, a tile's columns wide, in the order in which a tile reads it. A is packed a block of rows at a
time, small enough to stay in the cache, and multiplied by panel after panel (Goto and van de Geijn 2008). What sticks out
of the matrices is padded with zeros and cut off again.
"""

import numpy as np

from intnet._compile import jit
from intnet.kernels import _parallel
from intnet.kernels.plain.bounds import product_is_below
from intnet.kernels.simd.weaving import VECTOR, transpose_words, weave
from intnet.kernels.tiles import AVX2, LANES, MAX_VECTORS, ROW_BLOCK, ROWS, VNNI, WIDE, tile_1, tile_2, tile_3, tile_4

_ROWS_1, _ROWS_2, _ROWS_3, _ROWS_4 = ROWS[1], ROWS[2], ROWS.get(3, 1), ROWS.get(4, 1)
_BLOCK = 2 * ROW_BLOCK  # rows of A that are packed together
DEPTH = 4096  # bytes of a row of A that are packed together
_GAP = 64  # bytes between packed rows: rows a power of two apart would compete for the same places of the cache
_WIDTH = MAX_VECTORS * LANES  # columns of a panel, of 32-bit results
_OFFSET = 128  # vpdpbusd takes unsigned bytes on the left: A + 128, and 128 times the column sums of B are taken off


def packed_type(largest: int) -> type:
    """Return the narrowest type in which operands up to `largest` in magnitude are multiplied into 32-bit sums."""
    if largest < 128 and sums_of(np.int8):
        return np.int8
    if largest < 2**15 and sums_of(np.int16):
        return np.int16
    return np.int32


def sums_of(kind: type) -> bool:
    """Tell whether this processor adds up products of int8, or of int16, several at a time into 32 bits."""
    return VNNI or (kind is np.int16 and AVX2 and not WIDE)


@jit
def _word_of(values, row, k, last_k, together, column):
    """Return the word of some elements of a column, from line `k` on, filled up with zeros; `row` elements in a line."""
    if together == 1:
        return np.int64(values[k * row + column])
    bits = np.int64(32) // together
    mask = (np.int64(1) << bits) - np.int64(1)
    word = np.int64(0)
    for t in range(min(together, last_k - k)):
        word |= (np.int64(values[(k + t) * row + column]) & mask) << (bits * t)
    return word


@jit
def _pack_straight(b, row, first_k, last_k, together, first, columns, words, at, width):
    """Pack a panel of B as it lies: lines woven into words, whole vectors of them where B and the panel have so many."""
    lanes = VECTOR // words.itemsize
    for k in range(first_k, last_k, together):
        whole = k + together <= last_k
        for column in range(0, columns, lanes):
            if whole and first + column + lanes <= row and column + lanes <= width:
                weave(b, k * row + first + column, row, words, at + column, np.uint8(0))
                continue
            for j in range(column, min(column + lanes, width)):
                words[at + j] = _word_of(b, row, k, last_k, together, first + j) if j < columns else np.int64(0)
        at += width


@jit
def _pack_transposed(b, row, first_k, last_k, together, first, columns, words, at, width):
    """Pack a panel of the transpose of B, a square block of words at a time."""
    lanes = VECTOR // words.itemsize
    elements = words.itemsize // b.itemsize
    steps = (last_k - first_k + together - 1) // together
    length = (steps + lanes - 1) // lanes * lanes + _GAP // words.itemsize
    lines, block = np.zeros(lanes * length, words.dtype), np.empty(lanes * lanes, words.dtype)
    narrow = lines.view(b.dtype)
    for column in range(0, columns, lanes):
        for j in range(lanes):
            target = narrow[j * length * elements : (j + 1) * length * elements]
            if column + j < columns:
                source = b[(first + column + j) * row + first_k : (first + column + j) * row + last_k]
                for k in range(source.size):
                    target[k] = source[k]
        some = min(lanes, width - column)
        for step in range(0, steps, lanes):
            count = min(lanes, steps - step)
            if some == lanes and count == lanes:
                transpose_words(lines, step, length, words, at + step * width + column, width)
                continue
            transpose_words(lines, step, length, block, np.int64(0), lanes)
            for i in range(count):
                for j in range(some):
                    words[at + (step + i) * width + column + j] = block[i * lanes + j]


@jit
def _add_up_columns(words, at, steps, padded, vectors, sums):
    """Write the column sums of a packed 8-bit panel: its product with rows of ones."""
    ones = np.ones(4 * steps, np.uint8)
    initial = np.zeros(padded, np.int32)
    scratch = np.empty(ROW_BLOCK * padded, np.int32)
    _tile(vectors, ones, np.int64(0), np.int64(0), words, at, steps, initial, scratch, np.int64(0), padded)
    for j in range(padded):
        sums[j] = scratch[j]


@jit
def _tile(vectors, a, a_at, a_row, words, at, steps, initial, c, c_at, c_row):
    """Multiply by the tile of so many vectors."""
    zero = np.int64(0)
    if vectors == 1:
        tile_1(a, a_at, a_row, words, at, steps, initial, zero, c, c_at, c_row)
    elif vectors == 2:
        tile_2(a, a_at, a_row, words, at, steps, initial, zero, c, c_at, c_row)
    elif vectors == 3:
        tile_3(a, a_at, a_row, words, at, steps, initial, zero, c, c_at, c_row)
    else:
        tile_4(a, a_at, a_row, words, at, steps, initial, zero, c, c_at, c_row)


@jit
def pack_b(b, row, transposed, first_k, last_k, together, columns, width, first_panel, last_panel, words, sums):
    """Pack panels of B: panel p holds columns ``p * width`` on, its words one reduction step after the other.

    Parameters
    ----------
    b : (k * n,) integers of the type that is multiplied: a matrix (k, n), or (n, k) if `transposed`
    row : int
        Elements of a line of that matrix.
    together : int
        Elements of the reduction in a word.
    columns, width : int
        Columns of B, and of a panel; the last panel is padded to a multiple of the vector with whatever there is.
    words : int32 or int64, written
    sums : (panels, width) int32, zeros; for 8-bit words the column sums are written
    """
    steps = (last_k - first_k + together - 1) // together
    for panel in range(first_panel, last_panel):
        first = panel * width
        filled = min(width, columns - first)
        padded = _padded(filled, width)
        at = panel * width * steps
        if transposed:
            _pack_transposed(b, row, first_k, last_k, together, first, filled, words, at, padded)
        else:
            _pack_straight(b, row, first_k, last_k, together, first, filled, words, at, padded)
        if together == 4:  # eight-bit words: the left operand is offset
            vectors = padded // (width // MAX_VECTORS)
            _add_up_columns(words, at, steps, padded, vectors, sums[panel])


@jit
def _padded(columns, width):
    """Return the columns of a panel, filled up to whole vectors."""
    vector = width // MAX_VECTORS
    return (columns + vector - 1) // vector * vector


@jit
def _pack_a(a, row, transposed, first_row, last_row, first_k, last_k, together, offset, packed, packed_words, packed_row):
    """Write a block of rows of A, plus `offset`, into `packed`; beyond A there is whatever there is.

    Where A is transposed, lines are woven into words, and square blocks of words transposed. The last block of a row may
    reach into the gap.
    """
    if not transposed:
        for i in range(first_row, last_row):
            place = (i - first_row) * packed_row
            source, target = a[i * row + first_k : i * row + last_k], packed[place : place + packed_row]
            for k in range(source.size):
                target[k] = source[k] + offset
        return
    lanes, word_row = VECTOR // packed_words.itemsize, packed_row // together
    steps = (last_k - first_k + together - 1) // together
    block = np.zeros(lanes * lanes, packed_words.dtype)
    for i in range(first_row, last_row, lanes):
        for first_step in range(0, steps, lanes):
            for step in range(first_step, min(first_step + lanes, steps)):
                k, place = first_k + step * together, (step - first_step) * lanes
                if k + together <= last_k and i + lanes <= row:
                    weave(a, k * row + i, row, block, place, np.uint8(offset))
                    continue
                for j in range(min(lanes, row - i)):
                    block[place + j] = _word_of(a, row, k, last_k, together, i + j) ^ (offset * np.int64(0x01010101))
            transpose_words(block, np.int64(0), lanes, packed_words, (i - first_row) * word_row + first_step, word_row)


@jit
def _multiply_panel(vectors, a, rows, a_row, words, at, steps, initial, c, c_at, c_row, width, columns, scratch, add):
    """Multiply a packed block of A by one panel; tiles that stick out of C, or are added to it, go through `scratch`."""
    height = _ROWS_1 if vectors == 1 else _ROWS_2 if vectors == 2 else _ROWS_3 if vectors == 3 else _ROWS_4
    for i in range(0, rows, height):
        if not add and i + height <= rows and width == columns:
            _tile(vectors, a, i * a_row, a_row, words, at, steps, initial, c, c_at + i * c_row, c_row)
            continue
        _tile(vectors, a, i * a_row, a_row, words, at, steps, initial, scratch, np.int64(0), width)
        for r in range(min(height, rows - i)):
            for j in range(columns):
                place = c_at + (i + r) * c_row + j
                before = np.int64(c[place]) if add else np.int64(0)
                c[place] = before + np.int64(scratch[r * width + j])  # modulo the word of C


@jit
def _left_row(count, size):
    """Return the elements of a row of the packed left operand: `count` of `size` bytes, and a gap."""
    return count + np.int64(_GAP) // size


def left_size(count: int, size: int) -> int:
    """Return how many elements the scratch of `multiply_rows` has for `count` of `size` bytes of every row."""
    return _BLOCK * (count + _GAP // size)


@jit
def multiply_rows(
    a, row, transposed, first_row, last_row, first_k, last_k, together, offset, packed, packed_words, words, sums, n, width,
    add, c,
):  # fmt: skip
    """Multiply rows of A by packed B into the same rows of C, or add to them.

    Parameters
    ----------
    a, row, transposed : as in `pack_b`, of a matrix (m, k) or (k, m)
    packed : scratch of the tile's left type, as long as `left_size` says
        Whatever it holds: what it has beyond A meets zeros of B, or goes into rows that are cut off.
    packed_words : the type of words
        The same memory.
    words, sums : from `pack_b`
    n, width : int
        Columns of C, and of a panel.
    add : bool
        Whether the product is added to what C holds.
    c : (m * n,) int32 or int64
    """
    vector = width // MAX_VECTORS
    steps = (last_k - first_k + together - 1) // together
    a_row = _left_row(steps * together, packed.itemsize)
    scratch = np.zeros(ROW_BLOCK * width, c.dtype)
    initial = np.zeros(width, c.dtype)
    for first in range(first_row, last_row, _BLOCK):
        rows = min(_BLOCK, last_row - first)
        _pack_a(a, row, transposed, first, first + rows, first_k, last_k, together, offset, packed, packed_words, a_row)
        for panel in range(sums.shape[0]):
            columns = min(width, n - panel * width)
            padded = _padded(columns, width)
            for j in range(padded):
                initial[j] = -offset * sums[panel, j]
            c_at = first * n + panel * width
            at = panel * width * steps
            _multiply_panel(
                padded // vector, packed, rows, a_row, words, at, steps, initial, c, c_at, n, padded, columns, scratch, add
            )


@jit
def multiply_proven(a, a_transposed, b, b_transposed, m, n, k, limit, words, packed, out):
    """Multiply small matrices in one call, if every sum is proven to be below `limit`; else return False.

    Parameters
    ----------
    a, b : (m * k,), (k * n,) both int8 or int16
        The matrices of `multiply` in C order, none empty.
    m, n, k : int64
        Up to ``AT_ONCEDEPTH // size`` terms k.
    limit : int64
        0 if it needs no proof.
    words : int32
        Scratch: as many as `words_size` says.
    packed : uint8 for int8, int16 for int16
        Scratch: as many as `left_size` says for the depth.
    out : (m * n,) int32, written
    """
    if limit > 0 and not product_is_below(limit, a, m, not a_transposed, b, n, b_transposed):
        return False
    zero, width, together = np.int64(0), np.int64(_WIDTH), np.int64(4) // packed.itemsize
    panels = (n + width - 1) // width
    sums = np.zeros((panels, width), np.int32)
    pack_b(b, k if b_transposed else n, b_transposed, zero, k, together, n, width, zero, panels, words, sums)
    offset = np.int64(_OFFSET if packed.itemsize == 1 else 0)
    multiply_rows(
        a, m if a_transposed else k, a_transposed, zero, m, zero, k, together, offset, packed, packed.view(np.int32), words,
        sums, n, width, False, out,
    )  # fmt: skip
    return True


def words_size(n: int, k: int, size: int) -> int:
    """Return how many words `multiply_proven` packs B into."""
    return -(-n // _WIDTH) * _WIDTH * -(-k * size // 4)


def multiply(a, b, a_transposed, b_transposed, kind, out):
    """Multiply matrices into `out`, modulo the width of its elements.

    Parameters
    ----------
    a : (m, k) C-contiguous integers, or (k, m) if `a_transposed`
    b : (k, n) C-contiguous integers, or (n, k) if `b_transposed`
    kind : type
        np.int8, np.int16 or np.int32 (operands that fit in it) for an int32 `out`; np.int32 or np.int64 for an int64 one.
    out : (m, n) C-contiguous int32 or int64, written
    """
    m, k = a.shape[::-1] if a_transposed else a.shape
    n = out.shape[1]
    if out.dtype == np.int32:
        kind = max(kind, packed_type(np.iinfo(kind).max), key=lambda type_: np.dtype(type_).itemsize)  # as the processor can
    size = np.dtype(kind).itemsize
    together = max(1, 4 // size)
    lanes = LANES if out.dtype == np.int32 else LANES // 2
    width = lanes * MAX_VECTORS
    panels = -(-n // width)
    word_type = np.int64 if kind is np.int64 else np.int32
    left_type, offset = (np.uint8, _OFFSET) if kind is np.int8 else (kind, 0)
    if m == 0 or n == 0 or k == 0:
        out[...] = 0
        return
    flat_a, flat_b = (operand.astype(kind, copy=False).reshape(-1) for operand in (a, b))
    flat = out.reshape(-1)
    a_row, b_row = a.shape[1], b.shape[1]
    depth = DEPTH // size
    for first_k in range(0, k, depth):
        last_k = min(first_k + depth, k)
        steps = -(-(last_k - first_k) // together)
        words = np.empty(panels * width * steps, word_type)
        sums = np.zeros((panels, width), np.int32)

        def pack(first, last, words=words, sums=sums, first_k=first_k, last_k=last_k):
            pack_b(flat_b, b_row, b_transposed, first_k, last_k, together, n, width, first, last, words, sums)

        def work(first, last, words=words, sums=sums, first_k=first_k, last_k=last_k, steps=steps):
            packed = np.empty(left_size(steps * together, size), left_type)
            multiply_rows(
                flat_a, a_row, a_transposed, first, last, first_k, last_k, together, offset, packed, packed.view(word_type),
                words, sums, n, width, first_k > 0, flat,
            )  # fmt: skip

        _parallel.run(pack, _parallel.pieces_of(panels, minimum=max(1, 2**18 // (steps * together * width))))
        _parallel.run(work, _parallel.pieces_of(m, ROW_BLOCK, minimum=max(1, 2**22 // (n * steps * together))))
