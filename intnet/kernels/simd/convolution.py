"""Convolutions at the rate of the matrix product: patches are packed a block of rows at a time into its left operand.

Images lie with their channels last, ``(n, height, width, channels)``, weights as ``(out channels, kernel height, kernel
width, channels of a group)``. So a patch, all that one output sees, is a few contiguous runs of memory, one a kernel row,
and the elements that a word of the tiles holds lie side by side in it. A patch is a row of the left operand, the weights of
an output channel are a column of the right one, and no more than a cache full of patches ever exists.

    forward            y = patches(x) . weights'       a row an output pixel, a column an output channel
    backward, input    dx = patches(dy) . weights      stride s leaves s * s phases of input pixels, each seen by the kernel
                                                       taps of its own phase: a convolution of stride 1 each
    backward, weights  dw = dy' . patches(x)           the sum runs over output pixels, in blocks

Everything is exact modulo the word of the result. Zero padding is written into the patches.
"""

import numpy as np

from intnet._compile import jit
from intnet.kernels import _parallel
from intnet.kernels.simd.lines import lines_of, pad_lines, places_of
from intnet.kernels.simd.patches import gather_patches
from intnet.kernels.simd.product import _padded, _tile, pack_b, packed_type
from intnet.kernels.simd.weaving import VECTOR, add_up_bytes, copy_runs, fill_runs, transpose_words, weave
from intnet.kernels.tiles import (
    LANES,
    MAX_VECTORS,
    ROW_BLOCK,
    ROWS,
    scattered_tile_1,
    scattered_tile_2,
    scattered_tile_3,
    scattered_tile_4,
)

_GAP = 64  # bytes between packed rows: rows a power of two apart would compete for the same places of the cache
_OFFSET = 128  # of unsigned bytes on the left, as in the product
_HEIGHTS = (0, ROWS[1], ROWS[2], ROWS.get(3, 1), ROWS.get(4, 1))  # of a tile, by its vectors
_DEPTH = 2**14  # bytes of a patch that are packed together, more if one kernel row has more
_LINES = 2**16  # bytes of padded lines that are worked on together
_WINDOWS = 4096  # and at most so many windows, if a line has no more
_COLUMNS = 1200  # bytes of a patch that meet a block of output pixels together, in the backward pass of the weights
_POSITIONS = 2**20  # bytes of that block


# 1. Kernels --------------------------------------------------------------------------------------------------------------


@jit
def convolve_lines(
    source, image, taps, grid, first, last, lines_at_once, flip, offset, padded, left, steps, words, sums, n, width, place,
    channel, add, c,
):  # fmt: skip
    """Multiply the windows of lines `first` to `last` by packed weights.

    Parameters
    ----------
    source, image, taps, grid, flip : as in `pad_lines`
    lines_at_once : int
        Lines of windows padded together.
    offset : int
        What the elements of `left` are too large by.
    padded, left : uint8, the tile's left type
        The same scratch memory twice.
    steps : int
        Words of a kernel row. Its last one may reach beyond the row, where the weights are zeros.
    words, sums : from `pack_b`
    n, width : int
        Columns of C, and of a panel.
    place : as in `places_of`, of the images in C
    channel : int
        Where the results begin in a pixel of C.
    add : bool
        Whether to add to what C holds.
    c : int32 or int64, written
    """
    vector = width // MAX_VECTORS
    panels, size = sums.shape[0], padded.size // left.size
    row = ((grid[1] - 1) * taps[5] + taps[1]) * taps[3] // size  # elements of a padded line
    scratch = np.zeros(ROW_BLOCK * width, c.dtype)
    initial = np.zeros(width, c.dtype)
    places = np.empty(lines_at_once * grid[1] + ROW_BLOCK, np.int64)
    targets, in_scratch = np.empty(places.size, np.int64), np.empty(ROW_BLOCK, np.int64)
    for line in range(first, last, lines_at_once):
        to_line = min(line + lines_at_once, last)
        pad_lines(source, image, taps, grid, line, to_line, flip, padded)
        windows = places_of(taps, grid, line, to_line, size, place, np.int64(ROW_BLOCK), places, targets)
        for panel in range(panels):
            columns = min(width, n - panel * width)
            filled = _padded(columns, width)
            vectors = filled // vector
            for j in range(filled):
                initial[j] = -offset * np.int64(sums[panel, j])
            for r in range(ROW_BLOCK):
                in_scratch[r] = r * filled
            at, c_at, height = panel * width * steps * taps[0], channel + panel * width, _HEIGHTS[vectors]
            for i in range(0, windows, height):
                if not add and i + height <= windows and columns == filled:
                    _scattered_tile(vectors, left, places, i, row, taps[0], words, at, steps, initial, c, c_at, targets, i)
                    continue
                zero = np.int64(0)
                _scattered_tile(
                    vectors, left, places, i, row, taps[0], words, at, steps, initial, scratch, zero, in_scratch, zero
                )
                for r in range(min(height, windows - i)):
                    _put(c, c_at + targets[i + r], scratch, r * filled, columns, add)


@jit
def _scattered_tile(vectors, a, places, first, row, rows, words, at, steps, initial, c, c_at, targets, first_target):
    """Multiply by the scattered tile of so many vectors."""
    if vectors == 1:
        scattered_tile_1(a, places, first, row, rows, words, at, steps, initial, c, c_at, targets, first_target)
    elif vectors == 2:
        scattered_tile_2(a, places, first, row, rows, words, at, steps, initial, c, c_at, targets, first_target)
    elif vectors == 3:
        scattered_tile_3(a, places, first, row, rows, words, at, steps, initial, c, c_at, targets, first_target)
    else:
        scattered_tile_4(a, places, first, row, rows, words, at, steps, initial, c, c_at, targets, first_target)


@jit
def _put(c, to, block, start, count, add):
    """Copy a row of results, or add it modulo the word."""
    to, start = np.uint64(to), np.uint64(start)
    if add:
        for k in range(np.uint64(count)):
            c[to + k] += block[start + k]
    else:
        for k in range(np.uint64(count)):
            c[to + k] = block[start + k]


@jit
def _weave_rows(block, row, steps, together, columns, vector, words, flip):
    """Write words of `together` neighbouring rows, `columns` of them a step, and after the last up to a vector more."""
    for step in range(steps):
        for column in range(0, columns, vector):
            weave(block, step * together * row + column, row, words, step * columns + column, flip)


@jit
def accumulate_rows(
    source, image, taps, grid, first, last, depth, together, flip, offset, dy, dy_pixel, dy_at, rows, block_bytes, block,
    columns, words, left_words, left, width, c, c_at, c_row,
):  # fmt: skip
    """Add ``dy' . patches`` of positions `first` to `last` to columns of C.

    Parameters
    ----------
    source, image, taps, grid : as in `gather_patches`
    depth : int
        Positions taken together.
    together : int
        Elements of the reduction in a word.
    flip, offset : uint8, int
        Bits flipped in every byte of `dy`, and what its elements are too large by then.
    dy : (bytes,) uint8
    dy_pixel, dy_at, rows : int
        Bytes of a position of `dy`, where the first channel taken begins in it, and how many channels are taken: the rows
        of the product.
    block_bytes, block : uint8, the operands' type
        The same scratch memory twice: ``depth`` rows of channels or of `columns`, whole vectors of words.
    columns : int
    words : scratch, of `depth` rows woven
    left_words, left : the type of words, the tile's left type
        The same scratch memory twice: whole vectors of rows of `depth` elements and a gap.
    width : int
        Columns of a panel.
    c : int32 or int64
        The first row of the product begins at `c_at`, the next ones `c_row` further each.
    """
    lanes, vector = width // MAX_VECTORS, VECTOR // words.itemsize  # of results, of words
    size = block_bytes.size // block.size
    rows_padded, columns_padded = (rows + vector - 1) // vector * vector, (columns + vector - 1) // vector * vector
    word_row = depth // together + _GAP // (size * together)
    row = word_row * together
    scratch = np.zeros(ROW_BLOCK * width, c.dtype)
    initial = np.zeros(width, c.dtype)
    sums = np.zeros(width, np.int32)
    for p in range(first, last, depth):
        count = min(depth, last - p)
        steps = (count + together - 1) // together
        start = p * dy_pixel + dy_at
        copy_runs(block_bytes, np.int64(0), rows_padded * size, dy, start, dy_pixel, count, rows * size, np.uint8(0))
        _weave_rows(block, rows_padded, steps, together, rows_padded, vector, words, flip)
        for step in range(0, steps, vector):
            for channel in range(0, rows_padded, vector):
                start, to = step * rows_padded + channel, channel * word_row + step
                transpose_words(words, start, rows_padded, left_words, to, word_row)

        row_bytes = columns_padded * size
        gather_patches(source, image, taps, grid, p, p + count, np.uint8(0), row_bytes, block_bytes)
        fill_runs(block_bytes, count * row_bytes, row_bytes, steps * together - count, row_bytes, np.uint8(0))
        for first_column in range(0, columns, width):
            filled = min(width, columns - first_column)
            padded = (filled + lanes - 1) // lanes * lanes
            _weave_rows(block[first_column:], columns_padded, steps, together, padded, vector, words, np.uint8(0))
            if offset != 0:
                for column in range(0, padded, lanes):
                    add_up_bytes(words, column, padded, steps, sums, column)
                for column in range(padded):
                    initial[column] = -offset * np.int64(sums[column])
            vectors = padded // lanes
            height = _HEIGHTS[vectors]
            for i in range(0, rows, height):
                _tile(vectors, left, i * row, row, words, np.int64(0), steps, initial, scratch, np.int64(0), padded)
                for r in range(min(height, rows - i)):
                    _put(c, c_at + (i + r) * c_row + first_column, scratch, r * padded, filled, True)


# 2. Drivers --------------------------------------------------------------------------------------------------------------


def _numbers(*values):
    """Return a tuple of int64 for a compiled function."""
    return tuple(np.int64(value) for value in values)


def _possible(kind, result):
    """Return `kind`, or the narrowest wider type that this processor multiplies into such results."""
    if result != np.int32:
        return kind
    return max(kind, packed_type(np.iinfo(kind).max), key=lambda type_: np.dtype(type_).itemsize)


def _layout(kind, result):
    """Return ``(elements a word, type of a word, type of the left operand, its offset, columns of a panel)``."""
    lanes = LANES if result == np.int32 else LANES // 2
    left_type, offset = (np.uint8, _OFFSET) if kind is np.int8 else (kind, 0)
    word_type = np.int64 if kind is np.int64 else np.int32
    return max(1, 4 // np.dtype(kind).itemsize), word_type, left_type, offset, lanes * MAX_VECTORS


def _as_bytes(array, kind):
    """Return a C-contiguous array as flat bytes of elements of `kind`, which hold its values."""
    return array.astype(kind, copy=False).reshape(-1).view(np.uint8)


def _together(groups, channels, out_channels):
    """Return how many narrow groups fill a vector between them, to be treated as one group with zeros among its weights."""
    most = max(1, LANES // max(channels, out_channels, 1))
    return max(number for number in range(1, most + 1) if groups % number == 0)


def _joined(weights, groups, number):
    """Return the weights of `number` groups each as those of one group, zero where input and output are of different ones."""
    out_channels, kh, kw, channels = weights.shape
    joined = np.zeros((out_channels, kh, kw, number * channels), weights.dtype)
    for to, own in _of_groups(joined, weights, groups, number):
        to[...] = own
    return joined


def _of_groups(joined, weights, groups, number):
    """Yield the parts of `joined` and of `weights`, both as in `_joined`, that belong together."""
    out_channels, kh, kw, channels = weights.shape
    shape = (groups // number, number, out_channels // groups, kh, kw)
    joined, weights = joined.reshape(*shape, number, channels), weights.reshape(*shape, channels)
    for group in range(number):
        yield joined[:, group, :, :, :, group], weights[:, group]


def _convolve(source, image, taps, grid, weights, kind, place, channel, add, images, out):
    """Convolve with weights (kernel rows, elements of a row, columns), see `convolve_lines`."""
    together, word_type, left_type, offset, width = _layout(kind, out.dtype)
    rows, elements, n = weights.shape
    steps, panels = -(-elements // together), -(-n // width)
    if steps * together > elements:
        weights = np.pad(weights, ((0, 0), (0, steps * together - elements), (0, 0)))
    flat = np.ascontiguousarray(weights).reshape(-1)
    words = np.empty(panels * width * steps * rows, word_type)
    sums = np.zeros((panels, width), np.int32)
    row = ((int(grid[1]) - 1) * int(taps[5]) + int(taps[1])) * int(taps[3])  # bytes of a padded line
    at_once = max(1, min(_LINES // row, _WINDOWS // int(grid[1])))
    flip, all_steps = np.uint8(offset), steps * rows

    def pack(first, last):
        pack_b(flat, n, False, 0, all_steps * together, together, n, width, first, last, words, sums)

    def work(first, last):
        lines = min(at_once, last - first)
        padded = np.zeros(-(-(lines_of(lines, grid[0], taps[0], taps[4]) * row + _GAP) // 8) * 8, np.uint8)
        convolve_lines(
            source, image, taps, grid, first, last, lines, flip, offset, padded, padded.view(left_type), steps, words, sums, n,
            width, place, channel, add, out,
        )  # fmt: skip

    minimum = max(1, 2**22 // (n * all_steps * together * int(grid[1])))
    _parallel.run(pack, _parallel.pieces_of(panels, minimum=max(1, 2**18 // (all_steps * together * width))))
    _parallel.run(work, _parallel.pieces_of(images * int(grid[0]), minimum=minimum))


def conv2d(x, weights, stride, padding, groups, kind, out):
    """Convolve into `out`, modulo the width of its elements.

    Parameters
    ----------
    x : (n, h, w, c) C-contiguous integers
    weights : (out_c, kh, kw, c // groups) C-contiguous integers
    stride : (int, int)
        Down and to the right.
    padding : (int, int, int, int)
        Rows and columns of zeros: top, bottom, left, right. At the bottom and at the right they only count in the size of
        `out`; negative ones cut off rows or columns.
    groups : int
    kind : type
        np.int8, np.int16 or np.int32 (operands that fit in it) for an int32 `out`; np.int32 or np.int64 for an int64 one.
    out : (n, oh, ow, out_c) C-contiguous int32 or int64, written
    """
    n, height, width, channels = x.shape
    out_c, kh, kw, c = weights.shape
    oh, ow = out.shape[1:3]
    if not out.size or not weights[0].size:
        out[...] = 0
        return
    number = _together(groups, c, out_c // groups)
    if number > 1:
        conv2d(x, _joined(weights, groups, number), stride, padding, groups // number, kind, out)
        return
    kind = _possible(kind, out.dtype)
    size = np.dtype(kind).itemsize
    source, image, grid = _as_bytes(x, kind), _numbers(height, width, channels * size), _numbers(oh, ow)
    weights, place = weights.astype(kind, copy=False), _numbers(oh, ow, out_c, 0, 0, 1, 1)
    at_once = max(1, _DEPTH // (kw * c * size))  # kernel rows
    group_out = out_c // groups
    for group in range(groups):
        of_group = weights[group * group_out : (group + 1) * group_out]
        for ky in range(0, kh, at_once):
            some = of_group[:, ky : ky + at_once]
            taps = _numbers(some.shape[1], kw, group * c * size, c * size, *stride, padding[0] - ky, padding[2])
            rows = some.transpose(1, 2, 3, 0).reshape(some.shape[1], kw * c, group_out)
            _convolve(source, image, taps, grid, rows, kind, place, group * group_out, ky > 0, n, out.reshape(-1))


def _phases(stride, padding, kernel, size):
    """List the phases of the input pixels of one axis: ``(first pixel, pixels, first tap, taps, padding)``.

    Output pixel o has the tap k on input pixel ``o * stride - padding + k``. So pixel i is touched by the taps k of the
    phase ``(i + padding) % stride``, a stride apart; in descending order they meet ascending outputs.
    """
    for tap in range(stride):
        first = (tap - padding) % stride
        if first < size:
            taps = len(range(tap, kernel, stride))
            yield first, len(range(first, size, stride)), tap, taps, taps - 1 - (first + padding - tap) // stride


def conv2d_backward_input(dy, weights, stride, padding, groups, kind, out):
    """Multiply by the transpose of the convolution, as a function of its input, into `out`.

    Parameters
    ----------
    dy : (n, oh, ow, out_c) C-contiguous integers
    weights, stride, padding, groups : as in `conv2d`
    kind : type
        As in `conv2d`, of the operands `dy` and `weights`.
    out : (n, h, w, c) C-contiguous int32 or int64, written
        The gradient of `x`.
    """
    n, height, width, channels = out.shape
    out_c, kh, kw, c = weights.shape
    oh, ow = dy.shape[1:3]
    if not dy.size or not weights.size or kh < stride[0] or kw < stride[1]:
        out[...] = 0  # some pixels are not touched
    if not out.size or not dy.size or not weights.size:
        return
    number = _together(groups, c, out_c // groups)
    if number > 1:
        conv2d_backward_input(dy, _joined(weights, groups, number), stride, padding, groups // number, kind, out)
        return
    kind = _possible(kind, out.dtype)
    size = np.dtype(kind).itemsize
    source, image = _as_bytes(dy, kind), _numbers(oh, ow, out_c * size)
    group_out = out_c // groups
    tapwise = weights.astype(kind, copy=False).reshape(groups, group_out, kh, kw, c).transpose(0, 2, 3, 1, 4)
    for y, rows, tap_y, taps_y, top in _phases(stride[0], padding[0], kh, height):
        for x, columns, tap_x, taps_x, left in _phases(stride[1], padding[2], kw, width):
            if not taps_y or not taps_x:
                continue
            phase = tapwise[:, tap_y :: stride[0], tap_x :: stride[1]][:, ::-1, ::-1]
            at_once = max(1, _DEPTH // (taps_x * group_out * size))
            for group in range(groups):
                place, grid = _numbers(height, width, channels, y, x, *stride), _numbers(rows, columns)
                for ky in range(0, taps_y, at_once):
                    some = phase[group, ky : ky + at_once].reshape(-1, taps_x * group_out, c)
                    channels_at, of_tap = group * group_out * size, group_out * size
                    taps = _numbers(len(some), taps_x, channels_at, of_tap, 1, 1, top - ky, left)
                    _convolve(source, image, taps, grid, some, kind, place, group * c, ky > 0, n, out.reshape(-1))


def _column_chunks(kh, kw, c, limit):
    """Cut the columns of the patches into chunks of about `limit`: ``(first row, rows, first column, columns, first, count)``.

    A chunk is some kernel rows, or some taps of one row, or some channels of one tap, so that its columns lie side by side.
    """
    if kw * c <= limit:
        for _, ky, last in _even_pieces(kh, limit // (kw * c)):
            yield ky, last - ky, 0, kw, 0, c
    elif c <= limit:
        for ky in range(kh):
            for _, kx, last in _even_pieces(kw, limit // c):
                yield ky, 1, kx, last - kx, 0, c
    else:
        for ky in range(kh):
            for kx in range(kw):
                for _, first, last in _even_pieces(c, limit):
                    yield ky, 1, kx, 1, first, last - first


def _even_pieces(count, largest):
    """Cut ``range(count)`` into pieces of nearly equal length, none longer than `largest`."""
    number = -(-count // largest)
    bounds = [count * i // number for i in range(number + 1)]
    return [(i, bounds[i], bounds[i + 1]) for i in range(number)]


def conv2d_backward_weights(x, dy, stride, padding, groups, kind, out):
    """Multiply by the transpose of the convolution, as a function of its weights, into `out`.

    Parameters
    ----------
    x : (n, h, w, c) C-contiguous integers
    dy : (n, oh, ow, out_c) C-contiguous integers
    stride, padding, groups : as in `conv2d`
    kind : type
        As in `conv2d`, of the operands `x` and `dy`.
    out : (out_c, kh, kw, c // groups) C-contiguous int32 or int64, written
        The gradient of the weights.
    """
    _, height, width, channels = x.shape
    out_c, kh, kw, c = out.shape
    out[...] = 0
    if not x.size or not dy.size or not out.size:
        return
    number = _together(groups, c, out_c // groups)
    if number > 1:
        joined = np.empty((out_c, kh, kw, number * c), out.dtype)
        conv2d_backward_weights(x, dy, stride, padding, groups // number, kind, joined)
        for part, own in _of_groups(joined, out, groups, number):
            own[...] = part
        return
    kind = _possible(kind, out.dtype)
    size = np.dtype(kind).itemsize
    positions = dy.size // out_c
    source, image, grid = _as_bytes(x, kind), _numbers(height, width, channels * size), _numbers(*dy.shape[1:3])
    dy_bytes = _as_bytes(dy, kind)
    group_out, columns_all = out_c // groups, kh * kw * c
    chunks = list(_column_chunks(kh, kw, c, _COLUMNS // size))
    pieces = [(group, *chunk) for group in range(groups) for chunk in chunks]

    def work(first, last, first_piece, last_piece, target):
        for group, ky, rows, kx, columns, channel, count in pieces[first_piece:last_piece]:
            offset, top, left = (group * c + channel) * size, padding[0] - ky, padding[2] - kx
            taps = _numbers(rows, columns, offset, count * size, stride[0], stride[1], top, left)
            _accumulate(
                source, image, taps, grid, first, last, kind, dy_bytes, out_c * size, group * group_out,
                (group + 1) * group_out, rows * columns * count, target, (ky * kw + kx) * c + channel, columns_all,
            )  # fmt: skip

    # Threads take chunks of columns, or output pixels and a sum of their own; what is less work with as many of them.
    work_of_piece = group_out * columns_all // len(chunks) * positions
    by_piece = _parallel.pieces_of(len(pieces), minimum=max(1, 2**22 // work_of_piece))
    by_position = _parallel.pieces_of(positions, 4, minimum=max(1, 2**22 // out.size))
    longest = max(last - first for first, last in by_piece)
    if longest * positions <= len(pieces) * (positions // len(by_position) + 64 * len(by_position)):
        _parallel.run(lambda first, last: work(0, positions, first, last, out.reshape(-1)), by_piece)
        return

    def part(first, last):
        target = out.reshape(-1) if first == 0 else np.zeros(out.size, out.dtype)
        work(first, last, 0, len(pieces), target)
        return target

    total, *others = _parallel.run(part, by_position)
    for other in others:
        total += other  # modulo the word


def _accumulate(source, image, taps, grid, first, last, kind, dy, dy_pixel, first_row, last_row, columns, out, at, row):
    """Add a group's products of `dy` and some columns of the patches to `out`, see `accumulate_rows`."""
    together, word_type, left_type, offset, width = _layout(kind, out.dtype)
    size = np.dtype(kind).itemsize
    rows, vector = last_row - first_row, VECTOR // np.dtype(word_type).itemsize
    depth = min(_POSITIONS // (rows + columns) // size, last - first)
    depth = max(1, -(-depth // (vector * together))) * vector * together
    rows_padded, columns_padded = -(-rows // vector) * vector, -(-columns // vector) * vector
    block = np.empty(depth * max(rows_padded, columns_padded) * size, np.uint8)
    words = np.empty(depth // together * max(rows_padded, width) + vector, word_type)
    left = np.zeros((rows_padded + ROW_BLOCK) * (depth * size + _GAP), np.uint8)  # the last tile reaches beyond the rows
    accumulate_rows(
        source, image, taps, grid, first, last, depth, together, np.uint8(offset), offset, dy, dy_pixel, first_row * size,
        rows, block, block.view(kind), columns, words, left.view(word_type), left.view(left_type), width, out,
        first_row * row + at, row,
    )  # fmt: skip
