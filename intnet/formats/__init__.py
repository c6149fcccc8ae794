"""Number formats: what a raw integer stands for, how it is rounded, and what happens when it does not fit.

`Fixed` is a word with a fixed binary point, `BlockFloat` words that share a power of two; `Rounding` and `Overflow` name
the modes. ``docs/formats.md`` has the formulas, the notations of other tools and a worked case of each.
"""

from typing import Any

from intnet.formats.block import BlockFloat, Channel, Layout, Tile
from intnet.formats.fixed import Fixed
from intnet.formats.modes import OVERFLOW_NAMES, ROUNDING_NAMES, Overflow, Rounding

__all__ = [
    "OVERFLOW_NAMES",
    "ROUNDING_NAMES",
    "BlockFloat",
    "Channel",
    "Fixed",
    "Layout",
    "Overflow",
    "Rounding",
    "Tile",
    "parse_format",
]


def parse_format(text: Any, convention: str | None = None) -> Fixed | BlockFloat:
    """Return the format that `text` names, fixed point or block; a format is returned as it is.

    Parameters
    ----------
    text : str, Fixed or BlockFloat
        As `Fixed.parse` and `BlockFloat.parse` take it.
    convention : {None, "ti", "arm"}
        How to read a signed Qm.n.

    Raises
    ------
    InputError
        If the text names no format.

    Examples
    --------
    >>> parse_format("fxp-s16/12"), parse_format("bfp-s8/row")
    (Fixed(word_bits=16, fraction_bits=12, signed=True), BlockFloat(word_bits=8, block='row'))
    """
    if isinstance(text, BlockFloat) or (isinstance(text, str) and text.strip().startswith("bfp-")):
        return BlockFloat.parse(text)
    return Fixed.parse(text, convention)
