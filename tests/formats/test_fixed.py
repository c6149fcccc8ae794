"""Fixed point: range, storage, exact values, and every notation there and back."""

from fractions import Fraction

import apytypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from intnet.errors import InputError
from intnet.formats import Fixed, parse_format

FIXED = st.builds(Fixed, st.integers(1, 63), st.integers(-960, 960), st.booleans())


# 1. Range, storage, values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("word_bits", range(1, 64))
def test_range_and_storage(word_bits, signed):
    form = Fixed(word_bits, 3, signed)
    words = 2**word_bits
    assert form.minimum == (-words // 2 if signed else 0)
    assert form.maximum - form.minimum + 1 == words
    holds = [kind for kind in (np.int8, np.int16, np.int32, np.int64) if np.iinfo(kind).max >= form.maximum]
    assert form.storage == holds[0]
    assert np.iinfo(form.storage).min <= form.minimum


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("word_bits", [1, 2, 8, 31, 32, 33, 63])
@pytest.mark.parametrize("overflow", ["wrap", "saturate", "saturate_symmetric", "error"])
def test_limits(word_bits, signed, overflow):
    form = Fixed(word_bits, 0, signed)
    least, greatest = form.limits(overflow)
    assert greatest == form.maximum
    assert least == (-greatest if signed and overflow == "saturate_symmetric" else form.minimum)


@pytest.mark.parametrize(("signed", "storage"), [(True, np.int8), (False, np.int16)])
def test_a_byte_is_stored_signed(signed, storage):
    assert Fixed(8, 0, signed).storage == np.dtype(storage)


@given(FIXED)
def test_values_are_exact(form):
    unit = Fraction(2) ** -form.fraction_bits
    assert Fraction(form.resolution) == unit
    assert form.minimum_value == form.minimum * unit
    assert form.maximum_value == form.maximum * unit
    assert np.isfinite(float(form.maximum_value))  # the reason for the bound of 960


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("word_bits", [1, 7, 8, 16, 63])
def test_allowed_equals_python(word_bits, signed):
    form = Fixed(word_bits, 5, signed)
    edges = sorted({e + d for e in (form.minimum, 0, form.maximum) for d in (-1, 0, 1)})
    assert_array_equal(form.allowed(edges), [form.minimum <= raw <= form.maximum for raw in edges], strict=True)
    for kind in (np.int8, np.uint8, np.int64, np.uint64):
        raws = np.array([np.iinfo(kind).min, 0, np.iinfo(kind).max], kind).reshape(3, 1)
        ref = [[form.minimum <= int(raw) <= form.maximum] for raw in raws.ravel()]
        assert_array_equal(form.allowed(raws), np.array(ref), strict=True)
    assert form.allowed([[2**70], [0]]).tolist() == [[False], [True]]
    assert form.allowed([]).shape == (0,)
    assert form.allowed(np.int16(0)).shape == form.allowed(2**70).shape == ()
    assert not form.allowed(2**70)
    assert form.allowed(form.maximum).dtype == bool


@pytest.mark.parametrize("raw", [1.0, [1.5], True, np.array([True]), "1", None, [0, True], [[0], [1, 2]]])
def test_allowed_refuses_what_is_no_integer(raw):
    with pytest.raises(InputError, match="raw values must be integers"):
        Fixed(8, 0).allowed(raw)


def test_numpy_integers_become_python_ints():
    form = Fixed(np.int64(16), np.int8(12), np.True_)
    assert form == Fixed(16, 12)
    assert [type(value) for value in (form.word_bits, form.fraction_bits, form.signed)] == [int, int, bool]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0), r"word_bits must be in 1\.\.63, got 0"),
        ((64, 0), "got 64"),
        ((8.0, 0), r"integer in 1\.\.63, got 8\.0"),
        ((8, True), "integer in -960..960, got True"),
        ((np.bool_(True), 0), "word_bits must be an integer"),
        (("8", 0), "got '8'"),
        ((8, 961), r"fraction_bits must be in -960\.\.960, got 961"),
        ((8, -961), "got -961"),
        ((8, 0, 1), "signed must be True or False, got 1"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(InputError, match=message):
        Fixed(*arguments)


# 2. Notations --------------------------------------------------------------------------------------------------------


def test_names():
    assert str(Fixed(16, 12)) == "fxp-s16/12"
    assert str(Fixed(8, -2)) == "fxp-s8/-2"
    assert str(Fixed(8, 0, signed=False)) == "fxp-u8/0"


@pytest.mark.parametrize(
    ("text", "convention"),
    [
        ("fxp-s16/12", None),
        (" fxp-s16/12 ", None),
        ("Q3.12", "ti"),
        ("Q4.12", "arm"),
        ("ap_fixed<16,4>", None),
        ("ap_fixed< 16, 4 >", None),
        ("fixdt(1,16,12)", None),
        ("numerictype(1, 16, 12)", None),
        ("quantized_bits(16,3)", None),
        ("quantized_bits(16, 3, alpha=1.0)", None),
        ("fxp-s16/12", "arm"),  # a convention is for Q alone
    ],
)
def test_one_word_in_every_notation(text, convention):
    assert Fixed.parse(text, convention) == parse_format(text, convention) == Fixed(16, 12)


@pytest.mark.parametrize("text", ["fxp-u8/0", "UQ8.0", "ap_ufixed<8,8>", "fixdt(0,8,0)", "quantized_bits(8,8,keep_negative=0)"])
def test_one_byte_in_every_notation(text):
    assert Fixed.parse(text) == Fixed(8, 0, signed=False)


@given(FIXED)
def test_names_that_every_format_has_come_back(form):
    names = [str(form), form.to_ap_fixed(), form.to_matlab(), form.to_matlab().replace("numerictype", "fixdt")]
    if not (form.signed and form.word_bits == 1):
        names.append(form.to_qkeras())
    assert [Fixed.parse(name) for name in names] == [form] * len(names)


@pytest.mark.parametrize("convention", ["ti", "arm"])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("word_bits", [1, 2, 8, 16, 63])
def test_q_names_come_back_or_are_refused(word_bits, signed, convention):
    for fraction_bits in range(-2, word_bits + 3):
        form = Fixed(word_bits, fraction_bits, signed)
        before = word_bits - fraction_bits - (signed and convention == "ti")
        if before < 0 or fraction_bits < 0:
            with pytest.raises(InputError, match="has no Q name"):
                form.to_q(convention)
        else:
            assert Fixed.parse(form.to_q(convention), convention) == form


@given(FIXED)
def test_arguments_of_other_tools(form):
    if not form.signed:
        for convert in (form.to_apytypes, form.to_qpytorch):
            with pytest.raises(InputError, match=rf"signed, got {form}; fxp-s{form.word_bits + 1}/"):
                convert()
        return
    theirs = apytypes.APyFixed(1, **form.to_apytypes())
    assert Fixed(theirs.bits, theirs.frac_bits) == form
    assert form.to_qpytorch() == {"wl": form.word_bits, "fl": form.fraction_bits}


@pytest.mark.parametrize("word_bits", [1, 4, 8])
@pytest.mark.parametrize("fraction_bits", [-3, 0, 4, 12])
def test_a_raw_value_stands_for_the_same_number_in_apytypes(word_bits, fraction_bits):
    form = Fixed(word_bits, fraction_bits)
    for raw in range(form.minimum, form.maximum + 1):
        assert float(apytypes.APyFixed(raw, **form.to_apytypes())) == raw * form.resolution


def test_a_signed_bit_has_no_qkeras_name():
    with pytest.raises(InputError, match="fxp-s1/0 has no QKeras name"):
        Fixed(1, 0).to_qkeras()


def test_a_bare_q_name_is_refused_with_both_readings():
    message = r"'Q3\.12' has two readings: fxp-s16/12 with convention='ti', fxp-s15/12 with convention='arm'"
    for parse in (Fixed.parse, parse_format):
        with pytest.raises(InputError, match=message):
            parse("Q3.12")


@pytest.mark.parametrize(
    ("text", "convention", "message"),
    [
        ("Q15", None, "does not say how long the word is"),
        ("Q3.12", "TI", "convention must be 'ti' .* or 'arm' .*, got 'TI'"),
        ("fxp-s16/12", 3, "convention must be"),
        ("Q0.0", "arm", r"word_bits must be in 1\.\.63, got 0"),
        ("fxp-s64/0", None, "got 64"),
        ("fxp-s999999/0", None, "got 999999"),
        ("fxp-16/12", None, "unknown format 'fxp-16/12'; write 'fxp-s16/12'"),
        ("fxp-s16/12x", None, "unknown format"),
        ("fxp-s１６/12", None, "unknown format"),  # noqa: RUF001  digits of another script
        ("fxp-s" + 5000 * "1" + "/0", None, "unknown format"),
        ("ap_fixed<16,4,AP_RND,AP_SAT>", None, "names modes too"),
        ("quantized_bits(16,3,alpha=2)", None, "unknown format"),
        ("fixdt(2,16,12)", None, "unknown format"),
        ("", None, "unknown format ''"),
        ("bfp-s8/tensor", None, "is a block format: use BlockFloat.parse"),
        (16, None, "a format must be a text such as 'fxp-s16/12', got 16"),
    ],
)
def test_unreadable_names(text, convention, message):
    with pytest.raises(InputError, match=message) as raised:
        Fixed.parse(text, convention)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("signed", [True, False])
def test_to_q_needs_a_convention_it_knows(signed):
    with pytest.raises(InputError, match="got 'xilinx'"):
        Fixed(8, 0, signed).to_q("xilinx")
