"""How other tools write a fixed-point format, read into the three numbers that define it.

Notations differ in what they count: the whole word or the integer part, the integer part with or without its sign bit.

    notation           word        fraction bits      signed
    ---------------------------------------------------------------
    fxp-sW/F, fxp-uW/F W           F                  by the letter
    fixdt(S,W,F)       W           F                  S
    ap_fixed<W,I>      W           W - I              ap_ufixed: no
    quantized_bits(n,m) n          n - m - 1          keep_negative=0: no, and n - m
    Qm.n, ti           1 + m + n   n                  yes
    Qm.n, arm          m + n       n                  yes
    UQm.n, both        m + n       n                  no
"""

import re
from typing import Any

from intnet.errors import InputError

CONVENTIONS = ("ti", "arm")
_N = r"\s*(-?[0-9]{1,6})\s*"
_CANONICAL = re.compile(rf"fxp-([su]){_N}/{_N}")
_AP_FIXED = re.compile(rf"ap_(u?)fixed<{_N},{_N}(,.*)?>")
_MATLAB = re.compile(rf"(?:fixdt|numerictype)\(\s*([01])\s*,{_N},{_N}\)")
_QKERAS = re.compile(rf"quantized_bits\({_N},{_N}(,\s*keep_negative\s*=\s*0\s*)?(?:,\s*alpha\s*=\s*1(?:\.0?)?\s*)?\)")
_Q = re.compile(r"(U?)Q([0-9]{1,6})(?:\.([0-9]{1,6}))?")

Triple = tuple[int, int, bool]


def read(text: Any, convention: str | None = None) -> Triple:
    """Return ``(word_bits, fraction_bits, signed)`` of a format's name; the ranges are for the caller to check.

    >>> read("fxp-s16/12"), read("ap_fixed<16,4>"), read("Q3.12", "ti")
    ((16, 12, True), (16, 12, True), (16, 12, True))
    """
    if not isinstance(text, str):
        raise InputError(f"a format must be a text such as 'fxp-s16/12', got {text!r}")
    if convention is not None:
        check_convention(convention)
    text = text.strip()
    if match := _CANONICAL.fullmatch(text):
        return int(match[2]), int(match[3]), match[1] == "s"
    if match := _AP_FIXED.fullmatch(text):
        if match[4]:
            raise InputError(f"{text!r} names modes too: give 'ap_fixed<W,I>' alone, and the modes as rounding and overflow")
        return int(match[2]), int(match[2]) - int(match[3]), not match[1]
    if match := _MATLAB.fullmatch(text):
        return int(match[2]), int(match[3]), match[1] == "1"
    if match := _QKERAS.fullmatch(text):
        signed = not match[3]
        return int(match[1]), int(match[1]) - int(match[2]) - signed, signed
    if match := _Q.fullmatch(text):
        return _read_q(text, match, convention)
    if text.startswith("bfp-"):
        raise InputError(f"{text!r} is a block format: use BlockFloat.parse, or parse_format for either kind")
    raise InputError(
        f"unknown format {text!r}; write 'fxp-s16/12' (s or u, word bits, fraction bits), 'ap_fixed<16,4>', 'fixdt(1,16,12)',"
        " 'quantized_bits(16,3)', or 'Q3.12' with a convention"
    )


def _read_q(text: str, match: re.Match[str], convention: str | None) -> Triple:
    if match[3] is None:
        raise InputError(f"{text!r} does not say how long the word is: write 'fxp-s16/12' (s or u, word bits, fraction bits)")
    signed, before, after = not match[1], int(match[2]), int(match[3])
    if signed and convention is None:
        ti, arm = (f"fxp-s{before + after + sign}/{after}" for sign in (1, 0))
        raise InputError(
            f"{text!r} has two readings: {ti} with convention='ti', {arm} with convention='arm'; give the convention,"
            " or write the format you mean"
        )
    return before + after + (signed and convention == "ti"), after, signed


def check_convention(convention: Any) -> str:
    """Return `convention` if it is one of the two readings of Qm.n.

    >>> check_convention("ti")
    'ti'
    """
    if not isinstance(convention, str) or convention not in CONVENTIONS:
        raise InputError(f"convention must be 'ti' (word = 1 + m + n) or 'arm' (word = m + n), got {convention!r}")
    return convention
