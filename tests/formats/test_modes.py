"""Rounding and overflow names: what they mean in the tools they come from, and what is refused."""

import pickle
from fractions import Fraction

import apytypes
import numpy as np
import pytest

from intnet import arithmetic
from intnet.errors import InputError
from intnet.formats import OVERFLOW_NAMES, ROUNDING_NAMES, Overflow, Rounding

DETERMINISTIC = [mode for mode in Rounding if mode is not Rounding.STOCHASTIC]
INT8 = range(-128, 128)


def shifted(mode, value, shift):
    """Return ``value / 2**shift`` rounded by a mode without random bits, as `intnet.arithmetic` does it."""
    if mode is Rounding.PSEUDO_STOCHASTIC:
        return int(arithmetic.round_shift_pseudo_stochastic(value, shift))
    return int(arithmetic.round_shift(value, shift, *arithmetic.rounding_constants(mode.code, shift)))


# 1. Names of intnet's own ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modes", [Rounding, Overflow])
def test_names_codes_and_copies(modes):
    for code, mode in enumerate(modes):
        assert mode.value == mode.name.lower()
        assert mode.code == code
        assert modes.parse(mode.value) is modes.parse(mode) is modes(mode.value) is pickle.loads(pickle.dumps(mode)) is mode


@pytest.mark.parametrize("mode", Rounding)
def test_codes_are_those_of_arithmetic(mode):
    assert mode.code == getattr(arithmetic, mode.name)


def test_there_are_twelve_roundings_and_four_overflows():
    assert [len(Rounding), len(Overflow)] == [12, 4]


@pytest.mark.parametrize("shift", range(1, 7))
@pytest.mark.parametrize("mode", DETERMINISTIC)
def test_bias_is_the_documented_one(mode, shift):
    half, lowest = Fraction(1, 2), Fraction(1, 2 ** (shift + 1))
    pseudo = lowest if shift % 2 else lowest - Fraction(1, 2 ** (shift // 2 + 1))
    of_values, of_magnitudes = {
        Rounding.FLOOR: (lowest - half, 0),
        Rounding.TO_ZERO: (0, lowest - half),
        Rounding.CEIL: (half - lowest, 0),
        Rounding.TO_AWAY: (0, half - lowest),
        Rounding.TIES_EVEN: (0, 0),
        Rounding.TIES_POS: (lowest, 0),
        Rounding.TIES_NEG: (-lowest, 0),
        Rounding.TIES_AWAY: (0, lowest),
        Rounding.TIES_ZERO: (0, -lowest),
        Rounding.JAM: (lowest, 0),
        Rounding.PSEUDO_STOCHASTIC: (0, pseudo),
    }[mode]
    period = 2 ** (shift + 1)  # even and odd results
    up = sum(shifted(mode, r, shift) - Fraction(r, 2**shift) for r in range(period)) / period
    down = sum(shifted(mode, r, shift) - Fraction(r, 2**shift) for r in range(1 - period, 1)) / period
    assert (up + down) / 2 == of_values
    assert (up - down) / 2 == of_magnitudes


@pytest.mark.parametrize("random_bits", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("shift", [1, 3, 5])
def test_stochastic_bias_is_the_documented_one(shift, random_bits):
    draws, rests = range(2**random_bits), range(2**shift)
    total = sum(int(arithmetic.round_shift_stochastic(r, shift, u, random_bits)) for r in rests for u in draws)
    bias = Fraction(total, len(draws) * len(rests)) - Fraction(sum(rests), len(rests) * 2**shift)
    lost = Fraction(1, 2 ** (random_bits + 1)) - Fraction(1, 2 ** (shift + 1))
    assert bias == -max(lost, 0)


# 2. Names of other tools -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("modes", "names"), [(Rounding, ROUNDING_NAMES), (Overflow, OVERFLOW_NAMES)])
def test_every_foreign_name_is_read(modes, names):
    for tool, table in names.items():
        for name, mode in table.items():
            assert modes.parse(f"{tool}:{name}") is modes.parse(f"{tool.upper()}:{name}") is mode


def test_apytypes_names_are_complete():
    known = set(ROUNDING_NAMES["apytypes"])
    refused = {"TIES_ODD", "RND_CONV_ODD", "TRN_MAG", "JAM_UNBIASED", "STOCH_EQUAL"}
    assert known | refused == set(apytypes.QuantizationMode.__members__)
    assert set(OVERFLOW_NAMES["apytypes"]) | {"NUMERIC_STD"} == set(apytypes.OverflowMode.__members__)
    for name in refused:
        with pytest.raises(InputError, match=f"'apytypes:{name}' means .*, which intnet does not have; choose one of floor"):
            Rounding.parse(f"apytypes:{name}")


@pytest.mark.parametrize("name", [name for name in ROUNDING_NAMES["apytypes"] if name != "STOCH_WEIGHTED"])
@pytest.mark.parametrize("shift", range(1, 7))
def test_apytypes_names_round_as_apytypes_does(name, shift):
    mode, theirs = Rounding.parse(f"apytypes:{name}"), getattr(apytypes.QuantizationMode, name)
    numbers = apytypes.APyFixedArray(list(INT8), int_bits=8 - shift, frac_bits=shift)
    ref = numbers.cast(int_bits=12, frac_bits=0, quantization=theirs).to_numpy()
    assert [shifted(mode, r, shift) for r in INT8] == ref.tolist()


QONNX = {  # what QONNX's definition of IntQuant takes for its names (resolve_rounding_mode)
    "ROUND": np.round,
    "HALF_EVEN": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "DOWN": np.fix,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5),
}


@pytest.mark.parametrize("name", ROUNDING_NAMES["qonnx"])
def test_qonnx_names_round_as_qonnx_does(name):
    ref = QONNX[name](np.array(INT8) / 8).astype(int)
    assert [shifted(Rounding.parse(f"qonnx:{name}"), r, 3) for r in INT8] == ref.tolist()


@pytest.mark.parametrize(
    ("name", "quarters", "halves"),
    [  # AMD UG1399, "Quantization Modes": numbers with two fraction bits become numbers with one
        ("ap_fixed:AP_RND", (5, -5), (3, -2)),
        ("ap_fixed:AP_RND_ZERO", (5, -5), (2, -2)),
        ("ap_fixed:AP_RND_MIN_INF", (5, -5), (2, -3)),
        ("ap_fixed:AP_RND_INF", (5, -5), (3, -3)),
        ("ap_fixed:AP_RND_CONV", (3, -5), (2, -2)),
        ("ap_fixed:AP_TRN", (5, -5), (2, -3)),
        ("ap_fixed:AP_TRN_ZERO", (5, -5), (2, -2)),
        # MATLAB's fimath, RoundingMethod: Nearest sends ties up, Round away from zero, Convergent to even
        ("matlab:Nearest", (5, -5), (3, -2)),
        ("matlab:Round", (5, -5), (3, -3)),
        ("matlab:Convergent", (3, -5), (2, -2)),
        ("matlab:Ceiling", (5, -5), (3, -2)),
        ("matlab:Floor", (5, -5), (2, -3)),
        ("matlab:Zero", (5, -5), (2, -2)),
    ],
)
def test_vendor_examples(name, quarters, halves):
    assert tuple(shifted(Rounding.parse(name), r, 1) for r in quarters) == halves


@pytest.mark.parametrize(("study", "halves"), [("halp", (1, 2, 0, -1)), ("swalp", (0, 2, 0, -2)), ("niti", (1, 2, -1, -2))])
def test_nearest_in_the_studies(study, halves):
    assert tuple(shifted(Rounding.parse(f"{study}:nearest"), r, 1) for r in (1, 3, -1, -3)) == halves


# 3. Refusals ----------------------------------------------------------------------------------------------------------------

CHOICES = "choose one of floor, to_zero, ceil, to_away, ties_even, .*, jam, stochastic, pseudo_stochastic"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("round", r"write qonnx:ROUND \(ties_even\) or matlab:Round \(ties_away\); or " + CHOICES),
        ("nearest", r"matlab:Nearest \(ties_pos\) or halp:nearest .* or swalp:nearest .* or niti:nearest \(ties_away\)"),
        ("half_up", r"tools differ: write qonnx:HALF_UP \(ties_away\)"),
        ("Nearest", r"matlab:Nearest \(ties_pos\)"),
        ("FLOOR", r"qonnx:FLOOR \(floor\) or matlab:Floor"),
        ("TIES_EVEN", r"apytypes:TIES_EVEN \(ties_even\)"),
        ("AP_RND", r"ap_fixed:AP_RND \(ties_pos\)"),
        ("half up", "'half up' is unknown: a tool's name needs the tool before it, as in apytypes:TRN; or " + CHOICES),
        ("", "'' is unknown"),
        (" floor", "' floor' is unknown"),
        ("matlab:nearest", "of matlab, intnet knows Floor, Zero, .*, spelled so; or " + CHOICES),
        ("ap_fixed:AP_RND_ODD", "of ap_fixed, intnet knows AP_TRN,"),
        ("qonnx:", "of qonnx, intnet knows"),
        ("tflite:ROUND", "no tool 'tflite' is known, only apytypes, ap_fixed, qonnx, matlab, halp, swalp, niti; or " + CHOICES),
        (":floor", "no tool '' is known"),
        (0, "rounding must be a name or a member of Rounding, got 0; " + CHOICES),
        (None, "got None"),
        (Overflow.WRAP, "got <Overflow.WRAP"),
    ],
)
def test_rounding_refusals(name, message):
    with pytest.raises(InputError, match=message) as raised:
        Rounding.parse(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip", "overflow 'clip' is unknown: .* choose one of wrap, saturate, saturate_symmetric, error"),
        ("Saturate", r"write matlab:Saturate \(saturate\)"),
        ("SAT", r"write apytypes:SAT \(saturate\)"),
        ("ap_fixed:AP_SAT_ZERO", "means zero instead of the end of the word, which intnet does not have"),
        ("ap_fixed:AP_WRAP_SM", "means a sign-magnitude wrap, unlike wrap"),
        ("apytypes:NUMERIC_STD", "a cut that keeps the sign bit"),
        ("qonnx:narrow", "of qonnx, intnet knows narrow=0, narrow=1"),
        (True, "overflow must be a name or a member of Overflow, got True"),
    ],
)
def test_overflow_refusals(name, message):
    with pytest.raises(InputError, match=message):
        Overflow.parse(name)
