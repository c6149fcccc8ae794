"""Formats as a whole: values in the sense of Python, light to import, and a document that holds."""

import doctest
import pickle
import re
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from intnet.formats import OVERFLOW_NAMES, ROUNDING_NAMES, BlockFloat, Channel, Fixed, Overflow, Rounding, Tile, parse_format

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
BLOCKS = st.one_of(
    st.sampled_from(["tensor", "row", "sample", "channel"]),
    st.builds(Channel, st.integers(-4, 4)),
    st.builds(Tile, st.integers(1, 64), st.integers(-4, 4)),
)
FORMATS = st.one_of(
    st.builds(Fixed, st.integers(1, 63), st.integers(-960, 960), st.booleans()),
    st.builds(BlockFloat, st.integers(2, 63), BLOCKS),
)


@given(FORMATS)
def test_formats_are_values(form):
    twin = pickle.loads(pickle.dumps(form))
    assert twin == form == eval(repr(form))
    assert hash(twin) == hash(form)
    assert parse_format(str(form)) == parse_format(form) == form
    assert len({form, twin, Fixed(16, 12)}) <= 2


def test_the_document_runs():
    result = doctest.testfile(str(DOCUMENT), module_relative=False)
    assert result.attempted >= 9
    assert result.failed == 0


def test_the_document_shows_one_word():
    rows = re.findall(r"^\|[^|]+\|.*\| `([^`]+)` \| `([a-z_]+)\((.*)\)` \|$", TEXT, re.MULTILINE)
    assert len(rows) == 8
    for shown, method, argument in rows:
        made = str(Fixed(16, 12)) if method == "str" else getattr(Fixed(16, 12), method)(*filter(None, [argument.strip('"')]))
        assert shown == (made if isinstance(made, str) else ", ".join(f"{key}={value}" for key, value in made.items()))


def names_in_the_document(heading, modes):
    """Return the table under a heading as ``{tool: {name: mode}}``."""
    lines = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert [row[0].strip("`") for row in rows] == [mode.value for mode in modes]
    return {
        tool: {name: modes(row[0].strip("`")) for row in rows for name in re.findall(r"`([^`]+)`", row[column])}
        for column, tool in enumerate(header)
        if column >= 2
    }


def test_the_document_lists_every_name():
    assert names_in_the_document("Rounding names", Rounding) == ROUNDING_NAMES
    assert names_in_the_document("Overflow names", Overflow) == OVERFLOW_NAMES


def test_import_is_light():
    code = "import sys, intnet.formats; print([m for m in ('numba', 'scipy', 'intnet.arithmetic') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
