"""The backward pass of convolutions as a function of the weights: every pixel is woven once, and a kernel tap is a distance.

Images lie as in `intnet.kernels.simd.convolution`. The gradient of the weights is ``dw = dy' . windows(x)``, a sum over output
pixels. A word holds the elements of one pixel and channel of several images, or of as many bands of rows of one image, if
there are few images; so all taps of the kernel see the same words, at distances that are the same for all output pixels:

    dy    [16 channels] [row] [word of images] [column] [channel]       the left operand, a word a row of the product
    x     [16 channels] [row, by phase] [word of images] [column] [channel]

The numbers are those of a vector of 512 bits. Rows that are a stride apart lie together, so that output rows and images
follow each other at one distance, whatever the stride. Where channels do not fill vectors, the columns of the product are
the channels of all taps of a kernel row, which lie side by side.

For 8 bits, x is the unsigned operand of the tile: x + 128, zero padding included. So 128 times the sum of dy is taken off,
a number for each row of the product. What lies beyond the images or bands meets zeros of dy.
"""

import numpy as np

from intnet._compile import jit
from intnet.kernels import _parallel
from intnet.kernels.simd.convolution import _layout, _of_groups, _possible, _together
from intnet.kernels.simd.weaving import VECTOR
from intnet.kernels.simd.windows import HEIGHT, MOST, add_up_vectors, weave_pixels, window_tile_1, window_tile_2, window_tile_3
from intnet.kernels.tiles import MAX_VECTORS

_BLOCK = 2**18  # bytes of woven dy, and of a plane of woven x, that are multiplied at once
_STEPS = 2**8  # words a row, which are multiplied at once whatever their bytes: the sums are read and written each time
_PLANES = 2**19  # bytes of woven x
_CUT = 2**22  # products that are worth to copy images of one row into pieces
_WEAVING = 10  # cycles to weave a vector, from the cache of the last level


# 1. Kernels --------------------------------------------------------------------------------------------------------------


@jit
def _fill(words, at, count, value):
    """Write the same word `count` times."""
    at = np.uint64(at)
    for k in range(np.uint64(count)):
        words[at + k] = value


@jit
def _weave_row(source, image, at, apart, y, y_apart, column, step, number, lines, words, to, to_step, to_plane, planes, flip,
               filler):  # fmt: skip
    """Weave a row of several images, or several rows of one; zero where they do not exist.

    Parameters
    ----------
    source, image : (elements,) integers, (images, height, elements a row)
    at, apart : int
        The first image, and how many images the next element of a word is further on.
    y, y_apart : int
        The first row, and how many rows the next element of a word is further on.
    column, step, number : int
        The first pixel begins at element `column` of the row; then one every `step` elements, `number` in all.
    lines : like `source`
        Scratch: what is taken of a row, for every element of a word.
    words, to, to_step, to_plane, planes, flip : as in `weave_pixels`
    filler : int
        The word of zeros with those bits flipped.
    """
    images, height, row = image
    together, vector = 4 // min(source.itemsize, 4), VECTOR // words.itemsize
    existing = 0
    for t in range(together):
        own = y + t * y_apart
        existing += at + t * apart < images and own >= 0 and own < height
    if existing == 0 or number <= 0:
        for plane in range(planes):
            for k in range(number):
                _fill(words, to + plane * to_plane + k * to_step, vector, filler)
        return
    start, distance = (at * height + y) * row + column, (apart * height + y_apart) * row
    length = (number - 1) * step + planes * vector
    if existing == together and start + (together - 1) * distance + length <= source.size:
        weave_pixels(source, start, distance, step, words, to, to_step, number, to_plane, planes, flip)
        return
    for t in range(together):
        own, place = y + t * y_apart, np.uint64(t * length)
        taken = np.int64(0)
        if at + t * apart < images and own >= 0 and own < height:
            begin = np.uint64(start + t * distance)
            taken = min(length, source.size - (start + t * distance))
            for k in range(np.uint64(taken)):
                lines[place + k] = source[begin + k]
        for k in range(np.uint64(taken), np.uint64(length)):
            lines[place + k] = 0
    weave_pixels(lines, np.int64(0), length, step, words, to, to_step, number, to_plane, planes, flip)


@jit
def _multiply(vectors, a, a_at, b, places, first, step, run, runs, steps, initial, row, anew, c, c_at, c_row):
    """Multiply by the tile of so many vectors."""
    if vectors == 1:
        window_tile_1(a, a_at, b, places, first, step, run, runs, steps, initial, row, anew, c, c_at, c_row)
    elif vectors == 2:
        window_tile_2(a, a_at, b, places, first, step, run, runs, steps, initial, row, anew, c, c_at, c_row)
    else:
        window_tile_3(a, a_at, b, places, first, step, run, runs, steps, initial, row, anew, c, c_at, c_row)


@jit
def accumulate_windows(
    x, x_image, dy, dy_image, columns, kernel, stride, padding, bands, group, first, last, first_plane, last_plane, most,
    at_once, lanes, flip, filler, offset, lines, left, left_words, words, places, initial, c,
):  # fmt: skip
    """Write the products of rows `first` to `last` of dy and the windows of some planes of x to C.

    Parameters
    ----------
    x, x_image, dy, dy_image : (elements,) integers, (images, height, elements a row)
    columns : (width, pixel, apart, first pixel, last pixel)
        Columns of `dy`; elements of a pixel of x; pixels of x from one woven pixel to the next; woven pixels of which the
        images have those from the first to the last.
    kernel : (height, width)
        Of the windows, in woven pixels.
    stride, padding : (int, int)
        Of the windows, in rows and woven pixels; rows above, pixels to the left.
    bands : (rows, images, apart)
        A word holds elements of bands of so many rows of one image, if `apart`, else of as many `images`. Row p is row
        ``p % rows`` of word ``p // rows``.
    group : (channels, out channels, planes, words a pixel)
        Of a group of channels; planes of a group, and words that a pixel has in a plane.
    most, at_once : int
        Rows, and planes of a group, that are multiplied at once.
    lanes : int
        Results in a vector.
    flip, filler, offset : uint8, int, int
        Bits flipped in every byte of x, the word of zeros then, and what its elements are too large by.
    lines, left, left_words, words, places, initial : scratch
        `left` has the type that is multiplied, `left_words` the one of words: the same memory twice.
    c : (rows * columns,) int32 or int64
        For every group its out channels, whole tiles of them, of kernel rows of whole vectors.
    """
    width, pixel, apart, first_pixel, last_pixel = columns
    kh, kw = kernel
    rows_of_word, images_of_word, bands_apart = bands
    channels, out_channels, planes, words_of_pixel = group
    image_apart = np.int64(bands_apart == 0)
    nothing = filler ^ filler
    vector = np.int64(VECTOR // words.itemsize)
    whole = words_of_pixel == vector  # else the taps of a kernel row lie side by side
    taps, taken = (kw, vector) if whole else (np.int64(1), (kw * words_of_pixel + lanes - 1) // lanes * lanes)
    pixels = (width - 1) * stride[1] + kw
    pitch, step = pixels * words_of_pixel, stride[1] * words_of_pixel
    if words_of_pixel % vector != 0:
        pitch += vector  # the last vector of a row reaches beyond it
    inside = last_pixel - first_pixel
    x_step, x_to_step, x_number = apart * pixel, words_of_pixel, inside
    if pixel == words_of_pixel and apart == 1:  # pixels lie side by side
        x_step, x_to_step, x_number = vector, vector, (inside * pixel + vector - 1) // vector
    phases = min(stride[0], kh)
    rows_padded = (out_channels + HEIGHT - 1) // HEIGHT * HEIGHT
    blocks_of_rows = (rows_padded + vector - 1) // vector
    c_row = kh * taps * planes * taken
    p = first
    while p < last:
        word, row = p // rows_of_word, p % rows_of_word
        number, rows = np.int64(1), rows_of_word
        if row == 0 and rows_of_word <= min(most, last - p):  # whole images
            left_over = (last - p) // rows
            blocks = (left_over + most // rows - 1) // (most // rows)
            number = (left_over + blocks - 1) // blocks
        else:
            parts = (rows_of_word + most - 1) // most
            rows = min((rows_of_word + parts - 1) // parts, rows_of_word - row, last - p)
        anew = p == first
        p += rows * number
        steps = rows * number * width
        left_plane = (steps + 3) // 4 * 4 * vector
        phase_rows = rows + (kh - 1) // stride[0]
        plane_size = phases * phase_rows * number * pitch
        runs, steps_of_run = rows * number, width
        if pitch == step * width:
            runs, steps_of_run = np.int64(1), steps

        plane, packed = first_plane, np.int64(-1)
        while plane < last_plane:
            g, chunk = plane // planes, plane % planes
            some = min(at_once, planes - chunk, last_plane - plane)
            plane += some
            if g != packed:
                packed = g
                for b in range(number):
                    for i in range(rows):
                        _weave_row(
                            dy, dy_image, (word + b) * images_of_word, image_apart, row + i, bands_apart, g * out_channels,
                            dy_image[2] // width, width, lines, left_words, (i * number + b) * width * vector, vector,
                            left_plane, blocks_of_rows, np.uint8(0), nothing,
                        )  # fmt: skip
                if offset != 0:
                    for block in range(blocks_of_rows):
                        end = block * left_plane + steps * vector
                        _fill(left_words, end, (block + 1) * left_plane - end, nothing)
                        add_up_vectors(left_words, block * left_plane, (steps + 3) // 4, initial, block * vector)
                for k in range(rows_padded):
                    initial[k] = -offset * np.int64(initial[k])

            column = (first_pixel * apart - padding[1]) * pixel + g * channels + chunk * vector
            for b in range(number):
                for r in range((rows - 1) * stride[0] + kh):
                    phase, i = r % stride[0], r // stride[0]
                    if phase >= phases:
                        continue
                    to = ((phase * phase_rows + i) * number + b) * pitch
                    for own in range(some):
                        _fill(words, to + own * plane_size, first_pixel * words_of_pixel, filler)
                    _weave_row(
                        x, x_image, (word + b) * images_of_word, image_apart, row * stride[0] - padding[0] + r,
                        bands_apart * stride[0], column, x_step, x_number, lines, words, to + first_pixel * words_of_pixel,
                        x_to_step, plane_size, some, flip, filler,
                    )  # fmt: skip
                    end = last_pixel * words_of_pixel
                    for own in range(some):
                        _fill(words, to + own * plane_size + end, pitch - end, filler)

            vectors = np.int64(0)
            for own in range(some):
                for ky in range(kh):
                    line = own * plane_size + (ky % stride[0] * phase_rows + ky // stride[0]) * number * pitch
                    for kx in range(taps):
                        for v in range(0, taken, lanes):
                            places[2 * vectors] = line + kx * words_of_pixel + v
                            places[2 * vectors + 1] = ((ky * taps + kx) * planes + chunk + own) * taken + v
                            vectors += 1
            groups = (vectors + MOST - 1) // MOST
            for j in range(groups):
                v, v_last = vectors * j // groups, vectors * (j + 1) // groups
                for r in range(0, rows_padded, HEIGHT):
                    _multiply(
                        v_last - v, left, r // vector * left_plane + r % vector, words, places, v, step, pitch, runs,
                        steps_of_run, initial, r, anew, c, (g * rows_padded + r) * c_row, c_row,
                    )  # fmt: skip


# 2. Drivers --------------------------------------------------------------------------------------------------------------


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
    out_c, kh, kw, c = out.shape
    if not x.size or not dy.size or not out.size:
        out[...] = 0
        return
    number = _together(groups, c, out_c // groups)
    if number > 1:
        joined = np.empty((out_c, kh, kw, number * c), out.dtype)
        conv2d_backward_weights(x, dy, stride, padding, groups // number, kind, joined)
        for part, own in _of_groups(joined, out, groups, number):
            own[...] = part
        return
    kind = _possible(kind, out.dtype)
    _accumulate(x, dy, stride, padding, groups, kind, out)


def _cut_rows(x, dy, stride, left, kernel, pieces):
    """Return images and gradients of one row cut into so many pieces, each an image without padding."""
    n, _, _, channels = x.shape
    columns = -(-dy.shape[2] // pieces)
    span = (columns - 1) * stride + kernel
    x_pieces = np.zeros((n, pieces, 1, span, channels), x.dtype)
    dy_pieces = np.zeros((n, pieces, 1, columns, dy.shape[3]), dy.dtype)
    for piece in range(pieces):
        begin = piece * columns * stride - left
        inside = x[:, :, max(begin, 0) : max(begin + span, 0)]
        x_pieces[:, piece, :, max(-begin, 0) : max(-begin, 0) + inside.shape[2]] = inside
        own = dy[:, :, piece * columns : (piece + 1) * columns]
        dy_pieces[:, piece, :, : own.shape[2]] = own
    return x_pieces.reshape(-1, *x_pieces.shape[2:]), dy_pieces.reshape(-1, *dy_pieces.shape[2:])


def _accumulate(x, dy, stride, padding, groups, kind, out):
    """Do the same, for operands and groups that are not empty."""
    stride, padding = tuple(map(int, stride)), tuple(map(int, padding))  # one type for the compiled function
    n, height, width, channels = x.shape
    oh, ow, out_channels = dy.shape[1:]
    _, kh, kw, c = out.shape
    together, word_type, _, offset, panel = _layout(kind, out.dtype)
    if height == oh == kh == 1 and padding[0] == 0 and n % together and n * ow * out.size >= _CUT:
        x, dy = _cut_rows(x, dy, stride[1], padding[2], kw, together)
        _accumulate(x, dy, stride, (0, 0, 0, 0), groups, kind, out)
        return
    vector, lanes = VECTOR // np.dtype(word_type).itemsize, panel // MAX_VECTORS
    group_out = out_channels // groups
    rows_padded = -(-group_out // HEIGHT) * HEIGHT

    # A word's elements: images, or bands of one.
    words_of_images, band = -(-n // together), -(-oh // together)
    in_bands = 17 * n * band < 16 * words_of_images * oh
    number, rows = (n, band) if in_bands else (words_of_images, oh)
    bands = (rows, 1 if in_bands else together, band if in_bands else 0)

    # Columns: woven pixels of every plane.
    apart, step = (stride[1], 1) if kw == 1 else (1, stride[1])
    side_by_side = apart == 1 and (groups == 1 or c <= vector)
    side_by_side = side_by_side and -(-kw * c // lanes) < kw * -(-c // vector) * (vector // lanes)
    planes, words_of_pixel = (1, c) if side_by_side else (-(-c // vector), vector)
    taps, taken = (1, -(-kw * c // lanes) * lanes) if side_by_side else (kw, vector)
    pixels = (ow - 1) * step + kw
    first_pixel = min(max(-(-padding[2] // apart), 0), pixels)
    last_pixel = max(first_pixel, min(-(-(width + padding[2]) // apart), pixels))
    pitch = pixels * words_of_pixel + (vector if words_of_pixel % vector else 0)

    # Blocks: rows that are multiplied at once, and planes.
    bytes_of_row = max(-(-rows_padded // vector) * ow * vector, pitch * min(stride[0], kh)) * np.dtype(word_type).itemsize
    most = max(_BLOCK // bytes_of_row, -(-_STEPS // ow))
    block_words = min(number, most // rows) if most >= rows else 1
    block_rows = rows if most >= rows else most
    plane = min(stride[0], kh) * (block_rows + (kh - 1) // stride[0]) * block_words * pitch
    vectors = kh * taps * taken // lanes
    at_once = min(planes, max(_PLANES // (plane * np.dtype(word_type).itemsize), -(-MOST // vectors)))
    left_plane = -(-block_rows * block_words * ow // 4) * 4 * vector
    length = max((last_pixel - first_pixel) * apart * channels, ow * out_channels) + (planes + rows_padded) * vector

    dense = rows_padded == group_out and planes * taken * taps == kw * c
    c_size = groups * rows_padded * kh * taps * planes * taken
    operands = [array.astype(kind, copy=False).reshape(-1) for array in (x, dy)]
    images = (n, height, width * channels), (n, oh, ow * out_channels)
    flip, filler = np.uint8(offset), word_type(-0x7F7F7F80 if offset else 0)

    def work(first, last, first_plane, last_plane, target):
        left = np.empty(-(-rows_padded // vector) * left_plane, word_type)
        accumulate_windows(
            operands[0], images[0], operands[1], images[1], (ow, channels, apart, first_pixel, last_pixel),
            (kh, kw), (stride[0], step), (padding[0], padding[2]), bands,
            (c, group_out, planes, words_of_pixel), first, last, first_plane, last_plane, most, at_once, lanes, flip,
            filler, offset, np.empty(together * length, kind), left.view(kind), left,
            np.empty(at_once * plane + vector, word_type), np.empty(2 * at_once * vectors, np.int64),
            np.zeros(rows_padded + vector, out.dtype), target,
        )  # fmt: skip

    # Threads take planes, and weave dy each, or rows of dy and sums of their own; what takes fewer cycles.
    positions, columns = number * rows, groups * planes
    by_plane = _parallel.pieces_of(columns, minimum=max(1, 2**22 // (out.size // columns * positions * ow * together)))
    multiple = rows if number >= 8 * _parallel.threads() else 1
    by_position = _parallel.pieces_of(positions, multiple, minimum=max(1, 2**22 // (out.size * ow * together)))
    longest = max(last - first for first, last in by_plane)
    of_plane, of_dy = _WEAVING + vectors * rows_padded // 2, -(-rows_padded // vector) * _WEAVING
    cycles_by_plane = positions * ow * (of_dy + longest * of_plane)
    cycles_by_position = positions * ow * (groups * of_dy + columns * of_plane) // len(by_position) + len(by_position) * c_size
    if cycles_by_plane <= cycles_by_position:
        total = out.reshape(-1) if dense else np.empty(c_size, out.dtype)
        _parallel.run(lambda first, last: work(0, positions, first, last, total), by_plane)
    else:

        def part(first, last):
            target = out.reshape(-1) if dense and first == 0 else np.empty(c_size, out.dtype)
            work(first, last, 0, columns, target)
            return target

        total, *others = _parallel.run(part, by_position)
        for other in others:
            total += other  # modulo the word
    if not dense:
        total = total.reshape(groups, rows_padded, kh, taps, -1)[:, :group_out, ..., : kw * c // taps]
        out.reshape(total.shape)[...] = total
