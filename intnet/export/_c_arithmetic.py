"""The rules of :mod:`intnet.arithmetic` in C99: only what code asks for is written, and nothing of it is undefined or a float.

``int64_t`` is two's complement (C99 7.18.1.1). A negative number is never shifted, no sum or product leaves its type, and what
wraps does so as an unsigned number.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from intnet.errors import InputError
from intnet.export.operations import Accumulator, Pair, Requantize, rounded_range
from intnet.formats import Overflow, Rounding

WIDTH = 120
LONGEST_SHIFT = 62

_ROUNDED = {
    Rounding.CEIL: "(rest > 0)",
    Rounding.TO_ZERO: "(rest > 0 && value < 0)",
    Rounding.TO_AWAY: "(rest > 0 && value >= 0)",
    Rounding.TIES_EVEN: "(rest > half || (rest == half && (quotient & 1)))",
    Rounding.TIES_POS: "(rest >= half)",
    Rounding.TIES_NEG: "(rest > half)",
    Rounding.TIES_AWAY: "(rest > half || (rest == half && value >= 0))",
    Rounding.TIES_ZERO: "(rest > half || (rest == half && value < 0))",
}

_HELPERS: dict[str, tuple[tuple[str, ...], str]] = {
    "floor_shift": ((), """\
/* floor(value / 2**shift), shift 0..63: an arithmetic shift, of whose negative numbers C99 says nothing */
static int64_t floor_shift(int64_t value, int shift)
{
    return value < 0 ? ~(~value >> shift) : value >> shift;
}"""),
    "low_bits": ((), """\
/* value modulo 2**count, count 0..62 */
static int64_t low_bits(int64_t value, int count)
{
    return value & ((INT64_C(1) << count) - 1);
}"""),
    "round_jam": (("floor_shift",), """\
/* value / 2**shift, shift 0..62: floor, then the lowest bit is set */
static int64_t round_jam(int64_t value, int shift)
{
    return floor_shift(value, shift) | 1;
}"""),
    "round_pseudo_stochastic": (("low_bits",), """\
/* value / 2**shift, shift 0..62: on the magnitude, up where the upper half of the bits cut off is greater than the lower */
static int64_t round_pseudo_stochastic(int64_t value, int shift)
{
    const int64_t safe = value < -INT64_MAX ? -INT64_MAX : value, magnitude = safe < 0 ? -safe : safe;
    const int64_t rest = low_bits(magnitude, shift), upper = rest >> (shift / 2);
    const int64_t lower = low_bits(rest, shift / 2) << (shift % 2), rounded = (magnitude >> shift) + (upper > lower);
    if (value < -INT64_MAX) /* its magnitude is no int64_t; nothing but zeros is cut off */
        return -(INT64_C(1) << (62 - shift)) * 2;
    return value < 0 ? -rounded : rounded;
}"""),
    "round_stochastic": (("floor_shift", "low_bits"), """\
/* value / 2**shift, shift 0..62, up where its rest, cut to so many bits (1..62), and the random fraction reach one */
static int64_t round_stochastic(int64_t value, int shift, int64_t fraction, int bits)
{
    const int64_t rest = low_bits(value, shift);
    const int64_t aligned = shift > bits ? rest >> (shift - bits) : rest << (bits - shift);
    return floor_shift(value, shift) + ((aligned + fraction) >> bits);
}"""),
    "saturate": ((), """\
/* the nearest number in low..high */
static int64_t saturate(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}"""),
    "wrap": ((), """\
/* the two's complement word of so many bits, 1..64 */
static int64_t wrap(uint64_t value, int bits)
{
    const uint64_t sign = UINT64_C(1) << (bits - 1), word = ((value & (sign | (sign - 1))) ^ sign);
    return word >= sign ? (int64_t)(word - sign) : -(int64_t)(sign - 1 - word) - 1;
}"""),
    "philox": ((), """\
/* Philox-4x32-10 (Salmon et al. 2011): words of a sequence (seed, stream, step), four a block, the last block kept */
typedef struct {
    uint32_t stream, step, words[4];
    uint64_t block;
} random_source;

static random_source random_of(uint32_t stream, uint32_t step)
{
    random_source source = {0, 0, {0, 0, 0, 0}, UINT64_MAX};
    source.stream = stream;
    source.step = step;
    return source;
}

static uint32_t random_word(random_source *source, uint64_t position)
{
    if (source->block != position >> 2) {
        uint32_t key_0 = SEED_LOW, key_1 = SEED_HIGH, *word = source->words;
        source->block = position >> 2;
        word[0] = (uint32_t)(source->block & UINT32_MAX);
        word[1] = (uint32_t)(source->block >> 32);
        word[2] = source->step;
        word[3] = source->stream;
        for (int i = 0; i < 10; i++) {
            const uint64_t a = UINT64_C(0xD2511F53) * word[0], b = UINT64_C(0xCD9E8D57) * word[2];
            word[0] = (uint32_t)(b >> 32) ^ word[1] ^ key_0;
            word[1] = (uint32_t)(b & UINT32_MAX);
            word[2] = (uint32_t)(a >> 32) ^ word[3] ^ key_1;
            word[3] = (uint32_t)(a & UINT32_MAX);
            key_0 = (uint32_t)((key_0 + UINT64_C(0x9E3779B9)) & UINT32_MAX);
            key_1 = (uint32_t)((key_1 + UINT64_C(0xBB67AE85)) & UINT32_MAX);
        }
    }
    return source->words[position & 3];
}"""),
    "random_fraction": (("philox",), """\
/* the random bits of an element: the top ones of its word, 1..32 */
static int64_t random_fraction(random_source *source, uint64_t element, int bits)
{
    return (int64_t)(random_word(source, element) >> (32 - bits));
}"""),
    "random_long_fraction": (("philox",), """\
/* the random bits of an element: the top ones of its two words, 33..62 */
static int64_t random_long_fraction(random_source *source, uint64_t element, int bits)
{
    const uint64_t high = random_word(source, 2 * element), low = random_word(source, 2 * element + 1);
    return (int64_t)(((high << 32) | low) >> (64 - bits));
}"""),
    "exp_negative": (("floor_shift",), """\
/* 2**-(fraction / 2**30) with 30 fraction bits: a polynomial of degree 7 with 33 */
static int64_t exp2_fraction(int64_t fraction)
{
    static const int64_t coefficients[7] = {
        1266429, -11407801, 82598673, -476771745, 2063529419, -5954088922, 8589934592,
    };
    int64_t total = -93350;
    for (int i = 0; i < 7; i++)
        total = coefficients[i] + floor_shift(total * fraction + (INT64_C(1) << 29), 30);
    return (total + 4) >> 3;
}

/* exp(-distance * 2**exponent) with 30 fraction bits, distance >= 0 */
static int64_t exp_negative(int64_t distance, int exponent)
{
    const int64_t limit = (INT64_C(1) << 36) - 1, log2_e = INT64_C(3098164009);
    const int shift = exponent + 31;
    int64_t x, octaves, whole;
    if (shift >= 0)
        x = shift > 36 || distance > limit >> shift ? (distance ? limit : 0) : distance * (INT64_C(1) << shift);
    else
        x = ((shift < -64 ? 0 : distance >> (-shift - 1)) + 1) >> 1;
    if (x > limit)
        x = limit;
    octaves = (x >> 16) * log2_e + (((x & 65535) * log2_e) >> 16) + (INT64_C(1) << 15);
    whole = octaves >> 46;
    return (exp2_fraction((octaves >> 16) & ((INT64_C(1) << 30) - 1)) + ((INT64_C(1) << whole) >> 1)) >> whole;
}"""),
}  # fmt: skip

for _mode, _condition in _ROUNDED.items():
    _HELPERS[f"round_{_mode.value}"] = (("floor_shift", "low_bits"), f"""\
/* value / 2**shift to an integer, shift 1..62: {_mode.value} */
static int64_t round_{_mode.value}(int64_t value, int shift)
{{
    const int64_t quotient = floor_shift(value, shift), rest = low_bits(value, shift);
{"    const int64_t half = INT64_C(1) << (shift - 1);" + chr(10) if "half" in _condition else ""}\
    return quotient + {_condition};
}}""")  # fmt: skip


class Helpers:
    """The functions that code needs, collected while it is written."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def __call__(self, name: str) -> str:
        """Note that a function is needed; return its name."""
        for other in _HELPERS[name][0]:
            self(other)
        self.used.add(name)
        return name

    def text(self) -> str:
        """Return the functions, each after those it calls."""
        return "\n\n".join(source for name, (_, source) in _HELPERS.items() if name in self.used)


def integer(value: int) -> str:
    """Return a constant that C reads as that integer, of a type that holds it."""
    if value == -(2**63):
        return "(-INT64_C(9223372036854775807) - 1)"
    text = str(value) if -(2**31) < value < 2**31 else f"INT64_C({value})" if value > 0 else f"-INT64_C({-value})"
    return f"({text})" if value < 0 else text


def c_type(dtype: Any, bits: int = 0) -> str:
    """Return the C type of a NumPy type."""
    return f"int{bits or 8 * np.dtype(dtype).itemsize}_t"


def type_of(low: int, high: int) -> str:
    """Return the narrowest signed type for a range within int64."""
    return next(f"int{bits}_t" for bits in (8, 16, 32, 64) if -(1 << (bits - 1)) <= low and high < 1 << (bits - 1))


def table(kind: str, name: str, values: Iterable[int], comment: str = "") -> str:
    """Return the definition of a constant array."""
    written = [integer(value) for value in values]
    numbers = [text[1:-1] if text.startswith("(") else text for text in written]
    each = max(1, WIDTH // (2 + max(map(len, numbers))))
    lines = "\n".join(f"    {', '.join(numbers[first : first + each])}," for first in range(0, len(numbers), each))
    return f"{f'/* {comment} */{chr(10)}' if comment else ''}static const {kind} {name}[{len(numbers)}] = {{\n{lines}\n}};"


class Rounder:
    """Writes how exact numbers come into words."""

    def __init__(self, helpers: Helpers) -> None:
        self.helpers = helpers

    def expression(self, value: str, sums: Pair, to: Requantize, name: str, random: tuple[str, int] | None = None) -> str:
        """Return `value`, an int64_t within `sums`, rounded and brought into the word, as an expression.

        Parameters
        ----------
        value : str
            A name: it may be read more than once.
        sums : (int, int)
        to : Requantize
        name : str
            The layer's, for what is refused.
        random : (str, int), optional
            Of stochastic rounding: the element's fraction, and its bits.
        """
        low, high = to.limits
        least, greatest = rounded_range(sums, to)
        inside = low <= least and greatest <= high
        if to.overflow is Overflow.ERROR and not inside:
            raise InputError(
                f"layer {name!r}: overflow of a word is an error there, which C code cannot raise; let it saturate or "
                "wrap, or use a longer word"
            )
        if abs(to.shift) > LONGEST_SHIFT:
            raise InputError(
                f"layer {name!r} shifts by {to.shift} bits and C code by up to {LONGEST_SHIFT}; use fraction bits nearer to "
                "each other"
            )
        if to.shift < 0:
            return self._left(value, to, inside)
        if to.rounding is Rounding.STOCHASTIC:
            assert random is not None
            drawn, bits = random
            text = f"{self.helpers('round_stochastic')}({value}, {to.shift}, {drawn}, {bits})" if to.shift else value
        elif to.shift or to.rounding is Rounding.JAM:
            mode = "floor_shift" if to.rounding is Rounding.FLOOR else f"round_{to.rounding.value}"
            text = f"{self.helpers(mode)}({value}, {to.shift})"
        else:
            text = value
        return text if inside else self.fit(text, to.word_bits, to.overflow)

    def _left(self, value: str, to: Requantize, inside: bool) -> str:
        low, high = to.limits
        jam = int(to.rounding is Rounding.JAM)
        product = f"({value} * {integer(1 << -to.shift)}) | 1" if jam else f"{value} * {integer(1 << -to.shift)}"
        if inside:
            return product
        if to.overflow is Overflow.WRAP:
            return f"{self.helpers('wrap')}(((uint64_t){value} << {-to.shift}){' | 1' if jam else ''}, {to.word_bits})"
        least, most = -((low & jam) - low >> -to.shift), (high - jam) >> -to.shift  # within them the product fits
        return f"{value} < {integer(least)} ? {integer(low)} : {value} > {integer(most)} ? {integer(high)} : {product}"

    def fit(self, text: str, bits: int, overflow: Overflow) -> str:
        """Return an int64_t expression brought into a word."""
        if overflow is Overflow.WRAP:
            return f"{self.helpers('wrap')}((uint64_t)({text}), {bits})"
        high = (1 << (bits - 1)) - 1
        low = -high if overflow is Overflow.SATURATE_SYMMETRIC else -high - 1
        return f"{self.helpers('saturate')}({text}, {integer(low)}, {integer(high)})"


class Sums:
    """How a sum of products is held: the type it is added up in, and what brings it into the accumulator.

    Parameters
    ----------
    sums : (int, int)
        What the exact sum, any part of it, and these with a bias lie within.
    word : Accumulator
    name : str
        The layer's, for what is refused.

    Attributes
    ----------
    kind : str
        The C type that it is added up in.
    proven : bool
        Whether the sum is certain to stay within the accumulator.
    held : (int, int)
        What it lies within once it is in the accumulator.
    """

    def __init__(self, sums: Pair, word: Accumulator, name: str) -> None:
        self.word, half = word, 1 << (word.bits - 1)
        self.proven = -half <= sums[0] and sums[1] < half
        self.wraps = not self.proven and word.overflow is Overflow.WRAP
        if word.overflow is Overflow.ERROR and not self.proven:
            raise InputError(
                f"layer {name!r}: its sums may leave the accumulator of {word.bits} bits, which is an error there, and C code "
                "cannot raise one; let the accumulator saturate or wrap, or give it more bits"
            )
        bits = next((bits for bits in (32, 64) if -(1 << (bits - 1)) <= sums[0] and sums[1] < 1 << (bits - 1)), 0)
        if self.wraps and (not bits or word.bits <= 32 < bits):
            self.kind = "uint32_t" if word.bits <= 32 else "uint64_t"
        elif not bits:
            raise InputError(
                f"layer {name!r}: its sums may take {max(-sums[0], sums[1]).bit_length() + 1} bits before they saturate, and "
                "C99 has 64; use shorter words, or let the accumulator wrap"
            )
        else:
            self.kind = f"int{bits}_t"
        self.held = sums if self.proven else (-half, half - 1)

    def product(self, a: str, b: str) -> str:
        """Return a product in that type."""
        return f"({self.kind}){a} * ({self.kind}){b}" if self.kind[0] == "u" else f"({self.kind}){a} * {b}"

    def converted(self, bias: str) -> str:
        """Return a bias, to be added, in that type."""
        return f"({self.kind}){bias}" if self.kind[0] == "u" else bias

    def finished(self, sum_name: str, bias: str | None, rounder: Rounder) -> tuple[str, str]:
        """Return what a sum begins with, and the int64_t expression of it in the accumulator, bias included."""
        if self.proven:
            return bias or "0", sum_name
        if self.wraps:  # added modulo a power of two, in any order
            return self.converted(bias) if bias else "0", rounder.fit(sum_name, self.word.bits, self.word.overflow)
        text = rounder.fit(sum_name, self.word.bits, self.word.overflow)
        if bias:
            text = rounder.fit(f"{text} + {bias}", self.word.bits, self.word.overflow)
        return "0", text
