"""Matrix products at the processor's dot-product rate.

B is packed once into panels, a tile's columns wide, in the order in which a tile reads it. A is packed a block of rows at a
time, small enough to stay in the cache, and multiplied by panel after panel (Goto and van de Geijn 2008). What sticks out
of the matrices is padded with zeros and cut off again.
"""

import numpy as np

from intnet._compile import jit
from intnet.kernels import _parallel
from intnet.kernels.tiles import AVX2, LANES, MAX_VECTORS, ROW_BLOCK, ROWS, VNNI, WIDE, tile_1, tile_2, tile_3, tile_4

_ROWS_1, _ROWS_2, _ROWS_3, _ROWS_4 = ROWS[1], ROWS[2], ROWS.get(3, 1), ROWS.get(4, 1)
_BLOCK = 2 * ROW_BLOCK  # rows of A that are packed together
_DEPTH = 4096  # bytes of a row of A that are packed together
_GAP = 64  # bytes between packed rows: rows a power of two apart would compete for the same places of the cache
_OFFSET = 128  # vpdpbusd takes unsigned bytes on the left: A + 128, and 128 times the column sums of B are taken off


def packed_type(largest: int) -> type:
    """Return the narrowest type in which operands up to `largest` in magnitude are multiplied into 32-bit sums."""
    if largest < 128 and VNNI:
        return np.int8
    if largest < 2**15 and (VNNI or (AVX2 and not WIDE)):
        return np.int16
    return np.int32


_RUN = 16  # words that are transposed together, so that both sides stay in the cache


@jit
def _last_word(b, transposed, k, last_k, together, column):
    """Return the word of a column's last elements, filled up with zeros."""
    bits = np.int64(32) // together
    mask = (np.int64(1) << bits) - np.int64(1)
    word = np.int64(0)
    for t in range(last_k - k):
        value = np.int64(b[column, k + t] if transposed else b[k + t, column])
        word |= (value & mask) << (bits * t)
    return word


@jit
def _pack_straight(b, first_k, last_k, together, first, columns, words, at, width):
    """Pack a panel of B as it lies: whole words in loops that compile to vectors. Returns where the rest begins."""
    k = first_k
    while k + together <= last_k:
        if together == 4:
            for j in range(columns):
                c = first + j
                x, y = np.int32(b[k, c]) & np.int32(255), np.int32(b[k + 1, c]) & np.int32(255)
                z, w = np.int32(b[k + 2, c]) & np.int32(255), np.int32(b[k + 3, c])
                low = np.int32(x | np.int32(y << np.int32(8)))
                words[at + j] = np.int32(low | np.int32(np.int32(z << np.int32(16)) | np.int32(w << np.int32(24))))
        elif together == 2:
            for j in range(columns):
                c = first + j
                low = np.int32(b[k, c]) & np.int32(65535)
                words[at + j] = np.int32(low | np.int32(np.int32(b[k + 1, c]) << np.int32(16)))
        else:
            for j in range(columns):
                words[at + j] = b[k, first + j]
        at += width
        k += together
    return k, at


@jit
def _pack_transposed(b, first_k, last_k, together, first, columns, words, at, width):
    """Pack a panel of the transpose of B, `_RUN` words of every column at a time. Returns where the rest begins."""
    whole = (last_k - first_k) // together
    for run in range(0, whole, _RUN):
        for step in range(run, min(run + _RUN, whole)):
            k, place = first_k + step * together, at + step * width
            if together == 4:
                for j in range(columns):
                    c = first + j
                    x, y = np.int32(b[c, k]) & np.int32(255), np.int32(b[c, k + 1]) & np.int32(255)
                    z, w = np.int32(b[c, k + 2]) & np.int32(255), np.int32(b[c, k + 3])
                    low = np.int32(x | np.int32(y << np.int32(8)))
                    words[place + j] = np.int32(low | np.int32(np.int32(z << np.int32(16)) | np.int32(w << np.int32(24))))
            elif together == 2:
                for j in range(columns):
                    low = np.int32(b[first + j, k]) & np.int32(65535)
                    words[place + j] = np.int32(low | np.int32(np.int32(b[first + j, k + 1]) << np.int32(16)))
            else:
                for j in range(columns):
                    words[place + j] = b[first + j, k]
    return first_k + whole * together, at + whole * width


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
def pack_b(b, transposed, first_k, last_k, together, columns, width, first_panel, last_panel, words, sums):
    """Pack panels of B: panel p holds columns ``p * width`` on, its words one reduction step after the other.

    Parameters
    ----------
    b : (k, n) integers, or (n, k) if `transposed`
    together : int
        Elements of the reduction in a word.
    columns, width : int
        Columns of B, and of a panel; the last panel is padded to a multiple of the vector.
    words : int32 or int64, written
    sums : (panels, width) int32, zeros; for 8-bit words the column sums are written
    """
    steps = (last_k - first_k + together - 1) // together
    for panel in range(first_panel, last_panel):
        first = panel * width
        filled = min(width, columns - first)
        padded = _padded(filled, width)
        at = panel * width * steps
        if filled < padded:
            words[at : at + padded * steps] = 0
        if transposed:
            k, at = _pack_transposed(b, first_k, last_k, together, first, filled, words, at, padded)
        else:
            k, at = _pack_straight(b, first_k, last_k, together, first, filled, words, at, padded)
        if k < last_k:
            for j in range(filled):
                words[at + j] = _last_word(b, transposed, k, last_k, together, first + j)
        if together == 4:  # eight-bit words: the left operand is offset
            vectors = padded // (width // MAX_VECTORS)
            _add_up_columns(words, panel * width * steps, steps, padded, vectors, sums[panel])


@jit
def _padded(columns, width):
    """Return the columns of a panel, filled up to whole vectors."""
    vector = width // MAX_VECTORS
    return (columns + vector - 1) // vector * vector


@jit
def _pack_a(a, transposed, first_row, last_row, first_k, last_k, offset, packed):
    """Write a block of rows of A, plus `offset`, into `packed`; what is beyond A stays as it is."""
    if transposed:
        for run in range(first_k, last_k, _RUN):
            for i in range(first_row, last_row):
                for k in range(run, min(run + _RUN, last_k)):
                    packed[i - first_row, k - first_k] = a[k, i] + offset
    else:
        for i in range(first_row, last_row):
            for k in range(first_k, last_k):
                packed[i - first_row, k - first_k] = a[i, k] + offset


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
def multiply_rows(
    a, transposed, first_row, last_row, first_k, last_k, together, offset, packed, flat, words, sums, n, width, add, c
):
    """Multiply rows of A by packed B into the same rows of C, or add to them.

    Parameters
    ----------
    a : (m, k) integers, or (k, m) if `transposed`
    packed : (rows of a block, padded k) scratch of the tile's left type, zeros
    flat : (its size,)
        The same memory. (Reshaping within compiled code would compare sizes as floats.)
    words, sums : from `pack_b`
    n, width : int
        Columns of C, and of a panel.
    add : bool
        Whether the product is added to what C holds.
    c : (m * n,) int32 or int64
    """
    vector = width // MAX_VECTORS
    steps = (last_k - first_k + together - 1) // together
    a_row = packed.shape[1]
    scratch = np.zeros(ROW_BLOCK * width, c.dtype)
    initial = np.zeros(width, c.dtype)
    for row in range(first_row, last_row, _BLOCK):
        rows = min(_BLOCK, last_row - row)
        _pack_a(a, transposed, row, row + rows, first_k, last_k, offset, packed)
        for panel in range(sums.shape[0]):
            columns = min(width, n - panel * width)
            padded = _padded(columns, width)
            for j in range(padded):
                initial[j] = -offset * sums[panel, j]
            c_at = row * n + panel * width
            at = panel * width * steps
            _multiply_panel(
                padded // vector, flat, rows, a_row, words, at, steps, initial, c, c_at, n, padded, columns, scratch, add
            )


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
    flat = out.reshape(-1)
    if m == 0 or n == 0 or k == 0:
        out[...] = 0
        return
    depth = _DEPTH // size
    for first_k in range(0, k, depth):
        last_k = min(first_k + depth, k)
        steps = -(-(last_k - first_k) // together)
        words = np.empty(panels * width * steps, word_type)
        sums = np.zeros((panels, width), np.int32)

        def pack(first, last, words=words, sums=sums, first_k=first_k, last_k=last_k):
            pack_b(b, b_transposed, first_k, last_k, together, n, width, first, last, words, sums)

        def work(first, last, words=words, sums=sums, first_k=first_k, last_k=last_k, steps=steps):
            packed = np.zeros((_BLOCK, steps * together + _GAP // size), left_type)
            multiply_rows(
                a,
                a_transposed,
                first,
                last,
                first_k,
                last_k,
                together,
                offset,
                packed,
                packed.reshape(-1),
                words,
                sums,
                n,
                width,
                first_k > 0,
                flat,
            )

        _parallel.run(pack, _parallel.pieces_of(panels, minimum=max(1, 2**18 // (steps * together * width))))
        _parallel.run(work, _parallel.pieces_of(m, ROW_BLOCK, minimum=max(1, 2**22 // (n * steps * together))))
