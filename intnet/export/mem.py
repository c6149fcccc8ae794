"""Vector files for hardware: what Verilog's ``$readmemh`` and ``$readmemb`` read.

A file is lines of unsigned hexadecimal or binary digits, a word in two's complement masked to its length and padded with zeros
to ``ceil(W / 4)`` hexadecimal or W binary digits. With ``words_per_line=n`` a line is one packed row, the number of ``n * W``
bits whose *first* word is the most significant, padded with zeros in front to whole digits: so in binary the words stand side
by side in their order, as in the vector files of the published study (30 words of 20 bits a line). In Verilog::

    reg [n*W-1:0] rows [0:count-1];     // word i of a row is  row[(n-1-i)*W +: W]
    reg [0:n*W-1] rows [0:count-1];     // or, declared so,    row[i*W +: W]

Written and read are also ``//`` comments and blank lines; read are ``@hex`` addresses, which count lines as Verilog does
(memory entries: words, or packed rows), and several entries a line with blanks between.
"""

import re
from collections.abc import Iterator, Sequence
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intnet.errors import InputError
from intnet.files import write_atomically
from intnet.formats import BlockFloat, Fixed, parse_format
from intnet.formats._words import integer
from intnet.tensor.qtensor import as_integers

RADICES = {"hex": 16, "binary": 2}
WORD_BITS_MAX = 64
"""The longest word: of an accumulator. Unsigned words have 63 bits at most, as values are int64."""

_DIGITS = {"hex": re.compile(r"[0-9a-fA-F]+"), "binary": re.compile(r"[01]+")}
_ADDRESS = re.compile(r"@([0-9a-fA-F]{1,15})")

FilePath = str | PathLike[str]


def write_mem(
    path: FilePath, values: ArrayLike, format_or_word_bits: Fixed | BlockFloat | str | int, *, radix: str = "hex",
    words_per_line: int = 1, signed: bool | None = None, comment: str | None = None,
) -> None:  # fmt: skip
    """Write integers as a vector file, whole or not at all.

    Parameters
    ----------
    path : path
        The folder must be there.
    values : array of integers, any shape
        In C order. What does not fit into the word is refused, not masked.
    format_or_word_bits : Fixed, BlockFloat, their text, or int 1..64
        The word; of a block format the mantissas'.
    radix : {"hex", "binary"}
    words_per_line : int
        More than 1: packed rows; it must divide the number of values.
    signed : bool, optional
        Of a word given as a number of bits: two's complement (the default) or from zero, then 1..63 bits.
    comment : str, optional
        Written in front, each line after ``//``.

    Raises
    ------
    InputError
        If a value leaves the word, an argument is out of range, or the values do not fill the last row.
    StudyError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "w.mem"
    >>> write_mem(path, [1, -1, -8, 7], Fixed(4, 0), words_per_line=2)
    >>> path.read_text().split(), read_mem(path, Fixed(4, 0), words_per_line=2).tolist()
    (['1f', '87'], [[1, -1], [-8, 7]])
    """
    bits, signed = _word(format_or_word_bits, signed)
    per_line = _checked(radix, words_per_line)
    array = as_integers("the values of a vector file", values).astype(np.int64)
    low, high = _range(bits, signed)
    flat = array.reshape(-1)
    outside = np.flatnonzero((flat < low) | (flat > high))
    if outside.size:
        first = int(outside[0])
        raise InputError(
            f"{path}: {outside.size} of {flat.size} values leave the word of {bits} bits, {low}..{high}; the first is "
            f"{flat[first]}, value {first}; use a longer word, or bring them into the format first (intnet.requantize)"
        )
    if flat.size % per_line:
        raise InputError(
            f"{path}: {flat.size} values do not fill rows of {per_line}; the last would have {flat.size % per_line}; use a "
            "number of words a line that divides them"
        )
    lines = [f"// {line}".rstrip() for line in (comment or "").splitlines()]
    mask, digits = (1 << bits) - 1, _digits(bits * per_line, radix)
    kind = f"0{digits}{'x' if radix == 'hex' else 'b'}"
    if per_line == 1:
        lines += [format(value & mask, kind) for value in flat.tolist()]
    else:
        lines += [format(_pack(row, bits, mask), kind) for row in flat.reshape(-1, per_line).tolist()]
    text = "".join(f"{line}\n" for line in lines)
    write_atomically(Path(path), lambda draft: draft.write_text(text, encoding="ascii", errors="replace"))


def read_mem(
    path: FilePath, format_or_word_bits: Fixed | BlockFloat | str | int, *, radix: str = "hex", words_per_line: int = 1,
    shape: Sequence[int] | None = None, signed: bool | None = None,
) -> NDArray[np.int64]:  # fmt: skip
    """Read a vector file.

    Parameters
    ----------
    path : path
    format_or_word_bits, radix, words_per_line, signed : as of `write_mem`
    shape : sequence of int, optional
        Of the result; the file must have so many words. By default (words,), or (rows, words_per_line).

    Returns
    -------
    int64 array

    Raises
    ------
    InputError
        If there is no such file, or a line has another width, other digits, a number that leaves the word, or an address that
        leaves a gap or comes twice; if there are more or fewer words than `shape` has. The line says file and line.
    """
    bits, signed = _word(format_or_word_bits, signed)
    per_line = _checked(radix, words_per_line)
    wanted = None if shape is None else _shape(shape)
    if wanted is not None and prod(wanted) % per_line:
        raise InputError(f"shape {wanted} has {prod(wanted)} words, which do not fill rows of {per_line}")
    expected = None if wanted is None else prod(wanted) // per_line
    entries: dict[int, int] = {}
    place, number = 0, 0
    for number, text in _texts(Path(path)):
        here = f"{path}, line {number}"
        if text.startswith("@"):
            if not (match := _ADDRESS.fullmatch(text)):
                raise InputError(f"{here}: {_short(text)} is no address; write @ and up to 15 hexadecimal digits")
            place = int(match[1], 16)
            continue
        if place in entries:
            raise InputError(f"{here}: entry {place} comes a second time; give each address once")
        if expected is not None and place >= expected:
            raise InputError(
                f"{here}: this is entry {place}, and {_entries(wanted, per_line)} has entries 0..{expected - 1}; give the "
                "shape that was written"
            )
        entries[place] = _number(text, bits, per_line, radix, here)
        place += 1
    due = max(entries, default=-1) + 1 if expected is None else expected
    if len(entries) < due:
        missing = next(entry for entry in range(due) if entry not in entries)
        raise InputError(
            f"{path}, line {number}: the file ends here and entry {missing} was not given: {len(entries)} of {due} were"
        )
    mask, sign = (1 << bits) - 1, (1 << (bits - 1)) if signed else 0
    moves = [bits * (per_line - 1 - word) for word in range(per_line)]
    words = [(((entries[entry] >> move) & mask) ^ sign) - sign for entry in range(len(entries)) for move in moves]
    default = (len(entries),) if per_line == 1 else (len(entries), per_line)
    return np.array(words, np.int64).reshape(default if wanted is None else wanted)


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line number and the text of everything between blanks, without comments."""
    try:
        content = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: this is no text; a vector file has digits, // comments and @addresses"
        ) from None
    for count, row in enumerate(content.split("\n"), 1):
        for text in row.partition("//")[0].split():
            yield count, text


def _number(text: str, word_bits: int, per_line: int, radix: str, here: str) -> int:
    """Return an entry as a number, its width and digits checked."""
    if not _DIGITS[radix].fullmatch(text):
        digits = "0-9 and a-f" if radix == "hex" else "0 and 1"
        why = f"{_short(text)} has characters that are no digits"
        if "_" in text:
            why = f"{_short(text)} has underscores, which are not read"
        elif re.fullmatch(r"[0-9a-fA-FxXzZ?]+", text):
            why = f"{_short(text)} has digits that are unknown or floating (x, z), or not {radix}"
        elif "-" in text:
            why = f"{_short(text)} has a minus sign; negative words are two's complement"
        raise InputError(f"{here}: {why}; allowed are {digits}, // comments and @addresses")
    bits = word_bits * per_line
    width = _digits(bits, radix)
    if len(text) != width:
        what = f"a word of {word_bits} bits has" if per_line == 1 else f"{per_line} words of {word_bits} bits have"
        raise InputError(
            f"{here}: {_short(text)} has {len(text)} digits, and {what} {width} in {radix}; give the width, the radix and the "
            "words a line that were written"
        )
    number = int(text, RADICES[radix])
    if number >> bits:
        raise InputError(f"{here}: {_short(text)} has more than {bits} bits: its padding must be zeros")
    return number


def _word(form: Any, signed: bool | None) -> tuple[int, bool]:
    """Return word bits and sign, checked."""
    if signed is not None and not isinstance(signed, (bool, np.bool_)):
        raise InputError(f"signed must be True, False or None, got {signed!r}")
    if isinstance(form, (Fixed, BlockFloat, str)):
        form = parse_format(form)
        if signed is not None and bool(signed) != form.signed:
            raise InputError(f"signed={signed} contradicts the format {form}; leave it out")
        return form.word_bits, form.signed
    bits = integer("word bits", form, 1, WORD_BITS_MAX)
    if signed is False and bits == WORD_BITS_MAX:
        raise InputError("an unsigned word has 1..63 bits, got 64: values are signed 64-bit integers; read it as signed")
    return bits, signed is not False


def _checked(radix: Any, words_per_line: Any) -> int:
    if not isinstance(radix, str) or radix not in RADICES:
        raise InputError(f"radix must be 'hex' or 'binary', got {radix!r}")
    return integer("words_per_line", words_per_line, 1, 2**20)


def _shape(shape: Any) -> tuple[int, ...]:
    lengths = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    return tuple(integer("a length of the shape", length, 0, 2**40) for length in lengths)


def _range(bits: int, signed: bool) -> tuple[int, int]:
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _digits(bits: int, radix: str) -> int:
    return -(-bits // 4) if radix == "hex" else bits


def _pack(row: list[int], bits: int, mask: int) -> int:
    packed = 0
    for value in row:
        packed = (packed << bits) | (value & mask)
    return packed


def _entries(shape: tuple[int, ...] | None, per_line: int) -> str:
    return f"shape {shape}" + (f" in rows of {per_line}" if per_line > 1 else "")


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
