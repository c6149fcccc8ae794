"""Tables as HTML: of CSV files, of which a page shows so many rows at most, and of Markdown in sentences."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import islice
from pathlib import Path

from intnet.report._values import inline, is_number, shortened

ROWS = 2_000
"""The most rows of a table on the page."""


def of_file(path: Path, *, last: bool = False) -> str:
    """Return the table in a CSV file: its first rows, or its last ones. Beyond these its lines are counted, not read.

    Parameters
    ----------
    path : path
    last : bool
        Where rows are added as time goes on, the last ones tell the most.
    """
    try:
        names, rows, count = _read(path, last)
    except csv.Error as error:
        return f'<p class="note"><code>{escape(path.name)}</code> is no table that can be shown: {escape(str(error))}.</p>'
    if not names:
        return f'<p class="note"><code>{escape(path.name)}</code> is empty.</p>'
    of_all = f"{count:,} row{'s' * (count != 1)}"
    if left_out := max(0, count - ROWS):
        which = "first" if last else "last"
        of_all = f"{ROWS:,} of {count:,} rows, also when they are sorted. The {which} {left_out:,} are left out; all are there"
    numeric = [_is_numeric(row[place] for row in rows if place < len(row)) for place in range(len(names))]
    body = [[_cell(row[i] if i < len(row) else "", numeric[i]) for i in range(len(names))] for row in rows]
    return _table(f"<code>{escape(path.name)}</code>: {of_all}", path.name, map(_name, names), numeric, body)


def _read(path: Path, last: bool) -> tuple[list[str], list[list[str]], int]:
    """Return the names of the columns, the rows to show, and how many there are."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        names = next(csv.reader(file), [])
        if last:
            lines = deque(enumerate(file, 1), ROWS)
            count = lines[-1][0] if lines else 0
            rows = list(csv.reader(line for _, line in lines))
        else:
            rows = list(islice(csv.reader(file), ROWS))
            count = len(rows) + sum(1 for _ in file)
    return names, rows, count


def of_markdown(lines: Sequence[str]) -> str:
    """Return the table in lines of Markdown: names, how columns are aligned, rows."""
    names, alignment, *rows = (_split(line) for line in lines)
    numeric = [mark.endswith(":") for mark in alignment]
    numeric += [False] * (len(names) - len(numeric))
    body = [
        [_tagged("td", numeric[i], inline(cell)) for i, cell in enumerate((row + [""] * len(names))[: len(names)])]
        for row in rows
    ]
    return _table("", "summary", map(inline, names), numeric, body)


def is_markdown(lines: Sequence[str]) -> bool:
    """Return whether lines that begin with a bar are a table: whether the second is a rule."""
    return len(lines) > 1 and all(cell and not cell.strip("-:") for cell in _split(lines[1]))


def _split(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _is_numeric(cells: Iterable[str]) -> bool:
    present = [cell for cell in cells if cell]
    return bool(present) and all(map(is_number, present))


def _cell(text: str, numeric: bool) -> str:
    short = shortened(text) if numeric else text
    title = f' title="{escape(text)}"' if short != text else ""
    return _tagged("td", numeric, escape(short), title)


def _name(text: str) -> str:
    """Return the name of a column, which may be broken after an underscore."""
    return escape(text).replace("_", "_<wbr>")


def _tagged(tag: str, numeric: bool, content: str, more: str = "") -> str:
    return f"<{tag}{' class=n' if numeric else ''}{more}>{content}</{tag}>"


def _table(caption: str, name: str, names: Iterable[str], numeric: Sequence[bool], body: Sequence[Sequence[str]]) -> str:
    heads = "".join(_tagged("th", one, text, ' scope="col"') for one, text in zip(numeric, names, strict=True))
    return "\n".join(_lines(caption, name, heads, body))


def _lines(caption: str, name: str, heads: str, body: Sequence[Sequence[str]]) -> Iterator[str]:
    yield '<div class="table">'
    if caption:
        yield f'<p class="note">{caption}.</p>'
    yield f'<div class="box" tabindex="0" role="region" aria-label="Table {escape(name)}"><table>'
    yield f"<thead><tr>{heads}</tr></thead>"
    yield "<tbody>"
    for row in body:
        yield f"<tr>{''.join(row)}</tr>"
    yield "</tbody></table></div></div>"
