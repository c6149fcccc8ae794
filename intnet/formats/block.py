"""Block floating point: many words share one power of two.

The shared exponent is chosen from the largest magnitude of the block as in SWALP (Yang et al. 2019, arXiv:1904.11943,
sec. 3), but the 8-bit field here holds the exponent of the mantissas' last bit, not of the largest value.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from intnet.errors import InputError
from intnet.formats._words import Words, integer
from intnet.formats.fixed import MAX_WORD_BITS

_MAX_AXIS = 63  # NumPy arrays have at most 64 axes
_BLOCK_FORMAT = re.compile(r"bfp-s(-?[0-9]{1,6})/(.+)")
_CHANNEL = re.compile(r"channel(-?[0-9]{1,6})?")
_TILE = re.compile(r"tile([0-9]{1,9})(?:@(-?[0-9]{1,6}))?")
_CHOICES = "'tensor', 'row', 'sample', 'channel', Channel(axis), Tile(n, axis), or their text as 'channel1', 'tile16@-1'"


@dataclass(frozen=True)
class Channel:
    """One exponent for each index along `axis`, shared by all other axes."""

    axis: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", integer("the channel's axis", self.axis, -_MAX_AXIS - 1, _MAX_AXIS))

    def __str__(self) -> str:
        return f"channel{self.axis}"


@dataclass(frozen=True)
class Tile:
    """One exponent for every `n` neighbours along `axis`, whose length `n` must divide."""

    n: int
    axis: int = -1

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", integer("the tile's n", self.n, 1, 2**31 - 1))
        object.__setattr__(self, "axis", integer("the tile's axis", self.axis, -_MAX_AXIS - 1, _MAX_AXIS))

    def __str__(self) -> str:
        return f"tile{self.n}@{self.axis}"


class Layout(NamedTuple):
    """A tensor in C order seen as four axes; see `BlockFloat.layout`."""

    outer: int
    blocks: int
    length: int
    inner: int


@dataclass(frozen=True)
class BlockFloat(Words):
    """A block floating-point format: mantissa m and exponent e stand for ``m * 2**e``, with one e for each block.

    Parameters
    ----------
    word_bits : int, 2..63
        Length of the mantissas, two's complement: ``-2**(word_bits - 1) .. 2**(word_bits - 1) - 1``. A single signed bit
        has no positive number.
    block : str, Channel or Tile
        What shares an exponent: the whole ``"tensor"``; each ``"row"`` along the first axis (a row of weights; for
        activations each ``"sample"``, the same block); ``Channel(axis)``, each index along an axis (``"channel"`` is
        axis 1); ``Tile(n, axis)``, every n neighbours along an axis (the last, if it is left out).

    Attributes
    ----------
    exponent_bits : int
        8: the exponent is stored in two's complement, -128..127.

    Raises
    ------
    InputError
        If `word_bits` is outside 2..63, or `block` is none of the above.

    Notes
    -----
    The exponent is the smallest e with ``abs(x) < 2**(word_bits - 1 + e)`` for all x of the block: the largest magnitude
    just fits once the bits below ``2**e`` are cut. Rounding may still carry it to ``2**(word_bits - 1)``, where the
    overflow mode decides. Outside the field the exponent is clamped: at the minimum mantissas lose bits and may become
    zero, at the maximum they overflow. See `exponent`.

    Examples
    --------
    >>> form = BlockFloat(8, Tile(5))
    >>> print(form, form.minimum, form.maximum, BlockFloat(8), BlockFloat(8, "channel"))
    bfp-s8/tile5@-1 -128 127 bfp-s8/tensor bfp-s8/channel1
    >>> form.exponent_shape((3, 4, 10)), tuple(form.layout((3, 4, 10)))
    ((3, 4, 2), (12, 2, 5, 1))
    >>> BlockFloat.parse("bfp-s8/row") == BlockFloat(8, "sample") == BlockFloat(8, Channel(0))
    True
    """

    word_bits: int
    block: str | Channel | Tile = "tensor"
    signed: bool = field(default=True, init=False, repr=False)

    exponent_bits: ClassVar[int] = 8
    minimum_exponent: ClassVar[int] = -128
    maximum_exponent: ClassVar[int] = 127

    def __post_init__(self) -> None:
        object.__setattr__(self, "word_bits", integer("word_bits of a block format", self.word_bits, 2, MAX_WORD_BITS))
        object.__setattr__(self, "block", _canonical_block(self.block))

    def __str__(self) -> str:
        return f"bfp-s{self.word_bits}/{self.block}"

    @classmethod
    def parse(cls, text: Any) -> Self:
        """Return the format that `text` names: ``bfp-s8/tensor``, ``/row``, ``/channel1`` or ``/tile16@-1``.

        Raises
        ------
        InputError
            If the text names no block format.
        """
        if isinstance(text, cls):
            return text
        match = _BLOCK_FORMAT.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None:
            raise InputError(f"a block format is written as 'bfp-s8/tensor', '/row', '/channel1' or '/tile16@-1', got {text!r}")
        return cls(int(match[1]), match[2])

    def exponent(self, largest: int | float | Fraction) -> int:
        """Return the exponent of a block whose largest magnitude is `largest`.

        Parameters
        ----------
        largest : int, float or Fraction
            The greatest ``abs(x)`` of the block; finite.

        Returns
        -------
        int
            ``floor(log2(largest)) - word_bits + 2``, clamped to the field; its minimum for a block of zeros.

        Raises
        ------
        InputError
            If `largest` is negative, infinite or NaN.

        Examples
        --------
        >>> form = BlockFloat(8)
        >>> form.exponent(127), form.exponent(128), form.exponent(0.75), form.exponent(0)
        (0, 1, -7, -128)
        """
        if isinstance(largest, (np.integer, np.floating)):
            largest = largest.item()
        if not isinstance(largest, (int, float, Fraction)) or not 0 <= largest < float("inf"):
            raise InputError(f"the largest magnitude must be a finite number, not negative; got {largest!r}")
        if largest == 0:
            # Where blocks meet, mantissas are aligned to one exponent: zeros must never be the ones that others move for.
            return self.minimum_exponent
        return min(max(_floor_log2(Fraction(largest)) - self.word_bits + 2, self.minimum_exponent), self.maximum_exponent)

    def exponent_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the exponents of a tensor of `shape`, with all its axes.

        An axis whose elements share an exponent has length 1, so the exponents broadcast against the tensor; the axis of a
        tile has one entry a tile, and must be repeated n times first, or seen through `layout`.

        >>> BlockFloat(8, "row").exponent_shape((3, 4, 5)), BlockFloat(8, "channel").exponent_shape((3, 4, 5))
        ((3, 1, 1), (1, 4, 1))
        """
        shape = _checked_shape(shape)
        if self.block == "tensor":
            return (1,) * len(shape)
        axis, length = self._axis(shape)
        if isinstance(self.block, Tile):
            return (*shape[:axis], length // self.block.n, *shape[axis + 1 :])
        return tuple(length if i == axis else 1 for i in range(len(shape)))

    def layout(self, shape: Sequence[int]) -> Layout:
        """Return the four axes ``(outer, blocks, length, inner)`` of a C-order tensor of `shape`.

        ``mantissas.reshape(layout)[o, b, l, i]`` has the exponent ``[o, b, i]`` of the exponents reshaped to
        `exponent_layout` and broadcast. A block covers `length`, and `outer` too where `exponent_layout` has a 1 for it.

        >>> tuple(BlockFloat(8, "channel").layout((3, 4, 5))), BlockFloat(8, "channel").exponent_layout((3, 4, 5))
        ((3, 4, 5, 1), (1, 4, 1))
        """
        shape = _checked_shape(shape)
        if self.block == "tensor":
            return Layout(1, 1, prod(shape), 1)
        axis, length = self._axis(shape)
        before, after = prod(shape[:axis]), prod(shape[axis + 1 :])
        if isinstance(self.block, Tile):
            return Layout(before, length // self.block.n, self.block.n, after)
        return Layout(before, length, after, 1)

    def exponent_layout(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Return the three axes of the exponents that go with `layout`: `outer` or 1, `blocks`, `inner`."""
        outer, blocks, _, inner = self.layout(shape)
        return (outer if isinstance(self.block, Tile) else 1), blocks, inner

    def _axis(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the axis that the blocks are counted along, from the front, and its length."""
        axis = 0 if isinstance(self.block, str) else self.block.axis
        if not -len(shape) <= axis < len(shape):
            raise InputError(f"{self} needs axis {axis}, got shape {shape}; use another block or more axes")
        axis %= len(shape)
        if isinstance(self.block, Tile) and shape[axis] % self.block.n:
            raise InputError(
                f"{self}: tiles of {self.block.n} do not divide axis {axis} of shape {shape}; use a divisor of {shape[axis]}"
            )
        return axis, shape[axis]


def _canonical_block(block: Any) -> str | Channel | Tile:
    """Return the one spelling of each block: "tensor", "row", a Channel that is not the first axis, or a Tile."""
    if isinstance(block, str):
        if block in ("tensor", "row"):
            return block
        if block == "sample":
            return "row"
        if match := _CHANNEL.fullmatch(block):
            block = Channel(int(match[1])) if match[1] else Channel()
        elif match := _TILE.fullmatch(block):
            block = Tile(int(match[1]), int(match[2])) if match[2] else Tile(int(match[1]))
    if isinstance(block, Channel):
        return "row" if block.axis == 0 else block
    if isinstance(block, Tile):
        return block
    raise InputError(f"block must be {_CHOICES}; got {block!r}")


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, str) or not isinstance(shape, Sequence):
        raise InputError(f"shape must be a tuple of lengths, got {shape!r}")
    return tuple(integer("a length in the shape", length, 0, 2**63 - 1) for length in shape)


def _floor_log2(value: Fraction) -> int:
    """Return ``floor(log2(value))`` of a positive fraction, exactly."""
    power = value.numerator.bit_length() - value.denominator.bit_length()  # off by one at most, and only too large
    return power if value >= Fraction(2) ** power else power - 1
