"""Tiled kernels of convolutions on the GPU: products of which one operand is the windows of an image, found where they lie.

A window is a row of the product, summed over taps and channels, or its integers are columns, summed over windows. Places within
an image are 32-bit numbers: it has fewer than ``2**31`` words.
"""

from typing import Any

import numpy as np

from intnet.kernels.cuda.product import packed
from intnet.kernels.cuda.tiles import BYTES, KINDS, WORDS, Kind, Shape, device, shapes_of, tiled
from intnet.kernels.cuda.words import load4, quotient, transpose_bytes

__all__ = ["WINDOWS", "WINDOW_COLUMNS"]

_OUTSIDE = -(2**30)  # a row of no image


def _sources(kind: Kind, count: int) -> list[tuple[str, str, str, str]]:
    """Return the signatures of a tiled kernel: types of an image, packed words, results, numbers."""
    word, sums = (f"int{8 * np.dtype(which).itemsize}[::1]" for which in (kind.word, kind.sums))
    image = ("int32[::1]",) if kind is BYTES else ("int16[::1]", word) if kind is WORDS else (word,)
    return [(one, word, sums, f"UniTuple(int64, {count})") for one in image]


# 1. Windows as rows ----------------------------------------------------------------------------------------------------------


def _windows(kind: Kind, shape: Shape) -> Any:
    """Return the functions of an image's windows as rows, see `tiled`.

    ``numbers[4:]`` are: rows; width and area of the grid of windows; height, width and words of a pixel of the image; words of
    a tap; stride down and right; padding at the top and the left; the dividers by a tap's words and by taps in a row, and
    these; whether four words are loaded at once.
    """
    across, depth, word, none = shape.depth // 4, shape.depth, kind.word, kind.word(0)

    def start_windows(numbers, first, group, thread):
        row = first + thread // across
        image = row // numbers[6]
        pixel = row - image * numbers[6]
        line = pixel // numbers[5]
        top = np.int32(line * numbers[11] - numbers[13] if row < numbers[4] else np.int64(_OUTSIDE))
        left = np.int32((pixel - line * numbers[5]) * numbers[12] - numbers[14])
        base = image * numbers[7] * numbers[8] * numbers[9] + group * numbers[10]
        return base, top, left, np.int32(thread % across * 4)

    def at_word(kept, k, numbers):
        tap = quotient(k, numbers[15], numbers[16])
        ky = quotient(tap, numbers[17], numbers[18])
        row, column = np.int32(kept[1] + ky), np.int32(kept[2] + np.int32(tap - np.int32(ky * np.int32(numbers[19]))))
        if 0 <= row < np.int32(numbers[7]) and 0 <= column < np.int32(numbers[8]):
            pixel = np.int32(row * np.int32(numbers[8]) + column)
            channel = np.int32(k - np.int32(tap * np.int32(numbers[10])))
            return kept[0] + np.int32(np.int32(pixel * np.int32(numbers[9])) + channel)
        return np.int64(-1)

    at_word = device(at_word)

    def one(operand, kept, k, numbers):
        at = at_word(kept, np.int32(k), numbers)
        return word(operand[at]) if at >= 0 else none

    one = device(one)

    def fetch_windows(operand, kept, step, numbers):
        k = np.int32(kept[3] + np.int32(step) * depth)
        if numbers[20]:
            at = at_word(kept, k, numbers)
            if at >= 0:
                words = load4(operand, at)
                return word(words[0]), word(words[1]), word(words[2]), word(words[3])
            return none, none, none, none
        return (
            one(operand, kept, k, numbers), one(operand, kept, k + 1, numbers), one(operand, kept, k + 2, numbers),
            one(operand, kept, k + 3, numbers),
        )  # fmt: skip

    return device(start_windows), device(fetch_windows), True


# numbers[21:23] are width and words of the packed weights, then: height, width and channels of the results; first row and
# column, steps down and right; channels of a group.
@device
def _row_of_window(numbers, row, group):
    if row >= numbers[4]:
        return np.int64(-1)
    image = row // numbers[6]
    pixel = row - image * numbers[6]
    line = pixel // numbers[5]
    y, x = numbers[26] + line * numbers[28], numbers[27] + (pixel - line * numbers[5]) * numbers[29]
    return ((image * numbers[23] + y) * numbers[24] + x) * numbers[25] + group * numbers[30]


@device
def _columns_of_window(numbers, column):
    return column, numbers[30] - column


def _tiled_windows(kind: Kind, shape: Shape) -> Any:
    operands, signatures = (_windows(kind, shape), packed(kind, shape, 21)), tuple(map(", ".join, _sources(kind, 31)))
    return tiled(kind, shape, *operands, _row_of_window, _columns_of_window, signatures)


WINDOWS = {(kind, shape): _tiled_windows(kind, shape) for kind in KINDS for shape in shapes_of(kind)}


# 2. Windows as columns -------------------------------------------------------------------------------------------------------


def _window_columns(kind: Kind, shape: Shape) -> Any:
    """Return the functions of an image's windows as columns, summed over pixels of `dy`, see `tiled`.

    ``numbers[7:]`` are: pixels of `dy`; divider by an image's and this; divider by a line's and this; height, width and words
    of a pixel of the image; words of a tap; stride down and right; padding at the top and the left; taps in a row, and all.
    """
    across, depth, word, none, together = shape.side // 4, shape.depth, kind.word, kind.word(0), kind.together

    def start_columns(numbers, first, group, thread):
        own = (first + thread % across * 4) // together
        tap = own // numbers[17]
        ky = tap // numbers[22]
        top = np.int32(ky - numbers[20] if tap < numbers[23] else np.int64(_OUTSIDE))
        left = np.int32(tap - ky * numbers[22] - numbers[21])
        return top, left, np.int32(group * numbers[17] + own - tap * numbers[17]), np.int32(thread // across * together)

    def at_pixel(kept, pixel, numbers):
        image = quotient(pixel, numbers[8], numbers[9])
        rest = np.int32(pixel - image * np.int32(numbers[10]))
        line = quotient(rest, numbers[11], numbers[12])
        row = np.int32(kept[0] + line * np.int32(numbers[18]))
        column = np.int32(kept[1] + np.int32(rest - line * np.int32(numbers[13])) * np.int32(numbers[19]))
        if pixel < numbers[7] and 0 <= row < np.int32(numbers[14]) and 0 <= column < np.int32(numbers[15]):
            line = np.int64(image) * numbers[14] + row
            return (line * numbers[15] + column) * numbers[16] + kept[2]
        return np.int64(-1)

    at_pixel = device(at_pixel)

    def one(operand, kept, pixel, numbers):
        at = at_pixel(kept, np.int32(pixel), numbers)
        return word(operand[at]) if at >= 0 else none

    one = device(one)

    def fetch_bytes(operand, kept, step, numbers):
        pixel = np.int32(kept[3] + np.int32(step) * (depth * 4))
        return transpose_bytes((
            one(operand, kept, pixel, numbers), one(operand, kept, pixel + 1, numbers),
            one(operand, kept, pixel + 2, numbers), one(operand, kept, pixel + 3, numbers),
        ))  # fmt: skip

    def fetch_words(operand, kept, step, numbers):
        at = at_pixel(kept, np.int32(kept[3] + np.int32(step) * depth), numbers)
        if at >= 0:
            words = load4(operand, at)
            return word(words[0]), word(words[1]), word(words[2]), word(words[3])
        return none, none, none, none

    return device(start_columns), device(fetch_bytes if together == 4 else fetch_words), False


# numbers[4:7] are rows, and width and words of the packed `dy`; numbers[24:] channels of a tap, these padded, taps' channels.
@device
def _row_of_weights(numbers, row, group):
    return (group * numbers[4] + row) * numbers[26] if row < numbers[4] else np.int64(-1)


@device
def _columns_of_weights(numbers, column):
    tap = column // numbers[25]
    channel = column - tap * numbers[25]
    return tap * numbers[24] + channel, numbers[24] - channel if tap < numbers[23] else np.int64(0)


def _tiled_columns(kind: Kind, shape: Shape) -> Any:
    operands = packed(kind, shape, 5), _window_columns(kind, shape)
    signatures = tuple(f"{words}, {image}, {sums}, {numbers}" for image, words, sums, numbers in _sources(kind, 27))
    return tiled(kind, shape, *operands, _row_of_weights, _columns_of_weights, signatures)


WINDOW_COLUMNS = {(kind, shape): _tiled_columns(kind, shape) for kind in KINDS for shape in shapes_of(kind)}
