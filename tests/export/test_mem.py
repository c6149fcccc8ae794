"""Vector files: written, read back, and refused with the line that is wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intnet import Fixed
from intnet.errors import InputError
from intnet.export import read_mem, write_mem


def digits_of(value, bits, radix):
    """Return a word as `$readmemh` or `$readmemb` wants it, digit by digit."""
    masked = value if value >= 0 else value + 2**bits
    each = 4 if radix == "hex" else 1
    text = ""
    for _ in range(-(-bits // each)):
        text = "0123456789abcdef"[masked % 2**each] + text
        masked //= 2**each
    return text


def rows_of(values, bits, radix, per_line):
    """Return packed rows as text: of binary words simply side by side."""
    rows = [values[first : first + per_line] for first in range(0, len(values), per_line)]
    binary = ["".join(digits_of(value, bits, "binary") for value in row) for row in rows]
    return binary if radix == "binary" else [digits_of(int(row, 2), bits * per_line, "hex") for row in binary]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("mem") / "vector.mem"


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", range(1, 64))
def test_every_format_comes_back_with_its_extremes(path, bits, signed):
    form = Fixed(bits, bits // 2, signed)
    values = [form.minimum, form.maximum, 0, form.maximum - form.maximum // 3, form.minimum // 2, min(1, form.maximum)]
    for radix in ("hex", "binary"):
        for per_line in (1, 2, 3, 6):
            write_mem(path, np.array(values), form, radix=radix, words_per_line=per_line)
            assert path.read_text().split() == rows_of(values, bits, radix, per_line)
            back = read_mem(path, form, radix=radix, words_per_line=per_line, shape=(2, 3))
            assert back.dtype == np.int64
            assert back.reshape(-1).tolist() == values


@given(st.data())
def test_whatever_fits_comes_back(path, data):
    bits = data.draw(st.integers(1, 64), label="bits")
    signed = data.draw(st.booleans(), label="signed") or bits == 64
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    per_line, rows = data.draw(st.integers(1, 31), label="words a line"), data.draw(st.integers(0, 3), label="rows")
    values = data.draw(st.lists(st.integers(low, high), min_size=per_line * rows, max_size=per_line * rows), label="values")
    radix = data.draw(st.sampled_from(["hex", "binary"]), label="radix")
    comment = data.draw(st.sampled_from([None, "one line", "two\nlines // and more", "n\u00f6"]), label="comment")
    options = {"radix": radix, "words_per_line": per_line, "signed": signed}
    write_mem(path, np.array(values, np.int64), bits, comment=comment, **options)
    back = read_mem(path, bits, **options)
    assert back.shape == ((rows,) if per_line == 1 else (rows, per_line))
    assert back.reshape(-1).tolist() == values


def test_the_published_rows(path):
    """Rows of 30 words of 20 bits in binary, words side by side."""
    values = np.arange(60).reshape(2, 30) - 30
    write_mem(path, values, "fxp-s20/16", radix="binary", words_per_line=30)
    first, second = path.read_text().splitlines()
    assert len(first) == len(second) == 600
    assert first[:20] == "11111111111111100010"  # -30
    assert second[-20:] == "00000000000000011101"  # 29


def test_comments_blank_lines_addresses_and_several_entries_a_line(path):
    path.write_text("// head\n\n@2 03 04\n  @0\n01\t02 // these are the first\n@4\n05")
    assert read_mem(path, 8).tolist() == [1, 2, 3, 4, 5]
    path.write_text("@1\nFF\n@0\n7f\n")
    assert read_mem(path, 8).tolist() == [127, -1]
    assert read_mem(path, 8, signed=False).tolist() == [127, 255]
    path.write_text("@1\n0001\n@0\n0203\n")  # addresses count packed rows
    assert read_mem(path, 8, words_per_line=2).tolist() == [[2, 3], [0, 1]]
    path.write_text("")
    assert read_mem(path, 8).tolist() == []


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("00\n123\n", 2, "'123' has 3 digits, and a word of 8 bits has 2 in hex"),
        ("00\n\n1\n", 3, "'1' has 1 digits"),
        ("// x\n0g\n", 2, "'0g' has characters that are no digits"),
        ("00\n0_0\n", 2, "underscores"),
        ("0x\n", 1, "unknown or floating (x, z)"),
        ("00\nzz\n", 2, "unknown or floating (x, z)"),
        ("00\n-1\n", 2, "two's complement"),
        ("00\n/* no */\n", 2, "'/*' has characters that are no digits"),
        ("00 01 02\n03\n04\n", 3, "this is entry 4, and shape (2, 2) has entries 0..3"),
        ("00\n01\n02\n", 3, "entry 3 was not given: 3 of 4 were"),
        ("00\n@3\n01\n", 3, "entry 1 was not given: 2 of 4 were"),
        ("00\n@0\n01\n", 3, "entry 0 comes a second time"),
        ("@\n", 1, "'@' is no address"),
        ("00\n@0x1\n", 2, "'@0x1' is no address"),
        ("00\n@-1\n", 2, "'@-1' is no address"),
    ],
)
def test_a_refusal_names_the_file_and_the_line(path, text, line, part):
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_mem(path, 8, shape=(2, 2))
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}: ")
    assert part in message
    assert "\n" not in message


def test_padding_and_other_radices_are_refused(path):
    path.write_text("0f\n2f\n40\n")
    with pytest.raises(InputError, match=r"line 3: '40' has more than 6 bits"):
        read_mem(path, 6)
    write_mem(path, [1, 2], 8)
    with pytest.raises(InputError, match=r"line 1: '01' has 2 digits, and a word of 8 bits has 8 in binary"):
        read_mem(path, 8, radix="binary")
    write_mem(path, [1, 2, 3, 4], 8, words_per_line=2)
    with pytest.raises(InputError, match=r"line 1: '0102' has 4 digits, and 4 words of 8 bits have 8 in hex"):
        read_mem(path, 8, words_per_line=4)
    path.write_bytes(b"00\n\xff\n")
    with pytest.raises(InputError, match="line 2: this is no text"):
        read_mem(path, 8)
    with pytest.raises(InputError, match="cannot be read"):
        read_mem(path.with_name("none.mem"), 8)


def test_what_does_not_fit_is_not_written(path):
    path.unlink(missing_ok=True)
    for values, form, options, part in (
        ([1, 128], 8, {}, "1 of 2 values leave the word of 8 bits, -128..127; the first is 128, value 1"),
        ([-1], 8, {"signed": False}, "leave the word of 8 bits, 0..255"),
        ([1, 2, 3], 8, {"words_per_line": 2}, "3 values do not fill rows of 2; the last would have 1"),
        ([0.5], 8, {}, "must hold integers, got dtype float64"),
        ([0], 0, {}, "word bits must be in 1..64, got 0"),
        ([0], 65, {}, "word bits must be in 1..64, got 65"),
        ([0], 64, {"signed": False}, "an unsigned word has 1..63 bits"),
        ([0], "fxp-s8/4", {"signed": False}, "contradicts the format fxp-s8/4"),
        ([0], 8, {"radix": "b"}, "radix must be 'hex' or 'binary', got 'b'"),
        ([0], 8, {"words_per_line": 0}, "words_per_line must be in"),
    ):
        with pytest.raises(InputError) as caught:
            write_mem(path, values, form, **options)
        assert part in str(caught.value)
    assert not path.exists()
