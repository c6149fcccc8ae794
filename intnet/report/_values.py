"""Text, numbers and settings as HTML: everything that comes from outside is escaped here."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

DIGITS = 6
"""The significant digits of a number with a fraction that are shown; a title has all."""

LISTED = 100
"""The most values of a list in the settings that are shown."""

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?inf|nan", re.IGNORECASE)


def inline(text: str) -> str:
    """Return text for a line: escaped, with what stands between backticks as code.

    Examples
    --------
    >>> inline("`wide` < 1")
    '<code>wide</code> &lt; 1'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def is_number(text: str) -> bool:
    """Return whether a cell is a number: inf and nan are, an empty one is not."""
    return _NUMBER.fullmatch(text) is not None


def shortened(text: str) -> str:
    """Return a number in at most so many significant digits; integers and short ones as they are.

    Examples
    --------
    >>> shortened("0.12345678"), shortened("12345678"), shortened("0.10"), shortened("1.5e-300")
    ('0.123457', '12345678', '0.10', '1.5e-300')
    """
    if (
        not re.search(r"[.e]", text, re.IGNORECASE)
        or len(re.sub(r"e.*|\D", "", text, flags=re.IGNORECASE).lstrip("0")) <= DIGITS
    ):
        return text
    return f"{float(text):.{DIGITS}g}"


def setting(value: Any) -> str:
    """Return a value of the configuration: a list of what it holds, if it holds anything by name."""
    if isinstance(value, Mapping) and value:
        items = (f"<div><dt>{escape(str(key))}</dt><dd>{setting(one)}</dd></div>" for key, one in value.items())
        return f"<dl>{''.join(items)}</dl>"
    if isinstance(value, list) and any(isinstance(one, (Mapping, list)) for one in value):
        items = (f"<li>{setting(one)}</li>" for one in value[:LISTED])
        return f"<ul>{''.join(items)}</ul>{escape(_left_out(value))}"
    if isinstance(value, list) and value:
        return escape(_listed(value))
    return escape(_plain(value))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None or value in ("", [], {}) else str(value)


def _listed(values: Sequence[Any]) -> str:
    """Return plain values beside each other; integers that follow each other as a range."""
    runs: list[list[Any]] = []  # first and last
    for value in values:
        if runs and type(value) is type(runs[-1][1]) is int and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(_run(*run) for run in runs[:LISTED]) + _left_out(runs)


def _run(first: Any, last: Any) -> str:
    if first is last:
        return _plain(first)
    return f"{first}, {last}" if last == first + 1 else f"{first}..{last}"


def _left_out(values: Sequence[Any]) -> str:
    return f", and {len(values) - LISTED:,} more" if len(values) > LISTED else ""
