"""The names of the rounding and overflow modes, ours and those of other tools.

"Round", "nearest" and "half up" mean different things in different tools. A mode therefore has either its intnet name
(``ties_even``) or another tool's name with the tool before it (``qonnx:ROUND``); a bare foreign name is refused. The
prefix may be written in any case, the name after it exactly as the tool spells it.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from intnet.errors import InputError


class Rounding(Enum):
    """How discarded fraction bits decide the result. The value is the name used on command lines and in files.

    The bias is the average error in units of the last place that is kept, where s bits are discarded and all their
    patterns, both signs, and odd and even results are equally frequent. A mode that favours a sign's own side grows or
    shrinks magnitudes instead, and averages to zero over both signs.

    Examples
    --------
    >>> Rounding.parse("ties_even"), Rounding.parse("qonnx:ROUND").value, Rounding.parse("matlab:Nearest").value
    (<Rounding.TIES_EVEN: 'ties_even'>, 'ties_even', 'ties_pos')
    """

    FLOOR = "floor"
    """To minus infinity: the plain arithmetic shift. Bias -1/2 + 2**-(s + 1)."""

    TO_ZERO = "to_zero"
    """To zero: C's integer division. Shrinks magnitudes by 1/2 - 2**-(s + 1)."""

    CEIL = "ceil"
    """To plus infinity. Bias 1/2 - 2**-(s + 1)."""

    TO_AWAY = "to_away"
    """Away from zero. Grows magnitudes by 1/2 - 2**-(s + 1)."""

    TIES_EVEN = "ties_even"
    """To nearest, a tie to the even neighbour: IEEE 754's default, "convergent" rounding. No bias."""

    TIES_POS = "ties_pos"
    """To nearest, a tie to plus infinity: add half, then shift. Bias 2**-(s + 1)."""

    TIES_NEG = "ties_neg"
    """To nearest, a tie to minus infinity. Bias -2**-(s + 1)."""

    TIES_AWAY = "ties_away"
    """To nearest, a tie away from zero: C's ``round``. Grows magnitudes by 2**-(s + 1)."""

    TIES_ZERO = "ties_zero"
    """To nearest, a tie to zero. Shrinks magnitudes by 2**-(s + 1)."""

    JAM = "jam"
    """Floor, then set the lowest bit: von Neumann's rounding, without a carry. It also changes exact values, and acts for
    s = 0 as well. Bias 2**-(s + 1), with errors of up to a whole unit."""

    STOCHASTIC = "stochastic"
    """Up with the probability of the discarded fraction, from random bits that belong to (seed, stream, step, element).
    No bias over the draws if the random bits are at least s; r < s of them lose on average 2**-(r + 1) - 2**-(s + 1)."""

    PSEUDO_STOCHASTIC = "pseudo_stochastic"
    """NITI's rounding without a random source: the lower half of the discarded bits plays the random number for the upper
    half, on the magnitude. The same value always rounds the same way. Shrinks magnitudes by 2**-(s/2 + 1) - 2**-(s + 1)
    for even s; grows them by 2**-(s + 1) for odd s."""

    @property
    def code(self) -> int:
        """The mode's number in `intnet.arithmetic`: its position in this list."""
        return _ROUNDING_CODES[self]

    @classmethod
    def parse(cls, name: Any) -> "Rounding":
        """Return the mode called `name`.

        Parameters
        ----------
        name : Rounding or str
            A member, an intnet name (``ties_even``), or a tool's name after the tool: ``qonnx:ROUND``, ``matlab:Nearest``,
            ``ap_fixed:AP_RND_CONV``, ``apytypes:TRN``; and what three studies call nearest or stochastic:
            ``halp:nearest``, ``swalp:nearest``, ``niti:nearest``.

        Raises
        ------
        InputError
            If the name is unknown, is another tool's without its prefix, or names a mode that intnet does not have.
        """
        return _parse(Rounding, name, ROUNDING_NAMES, _NO_SUCH_ROUNDING)


class Overflow(Enum):
    """What becomes of a number outside the word. Events are counted in every mode.

    Examples
    --------
    >>> Overflow.parse("wrap"), Overflow.parse("ap_fixed:AP_SAT_SYM").value
    (<Overflow.WRAP: 'wrap'>, 'saturate_symmetric')
    """

    WRAP = "wrap"
    """Modulo ``2**word_bits``, two's complement."""

    SATURATE = "saturate"
    """The nearest end of the word."""

    SATURATE_SYMMETRIC = "saturate_symmetric"
    """The nearest end of the word without its smallest number, -127..127 for 8 bits; unsigned words as ``saturate``."""

    ERROR = "error"
    """An error that says how many values left the word."""

    @property
    def code(self) -> int:
        """The mode's number: its position in this list."""
        return _OVERFLOW_CODES[self]

    @classmethod
    def parse(cls, name: Any) -> "Overflow":
        """Return the mode called `name`.

        Parameters
        ----------
        name : Overflow or str
            A member, an intnet name (``saturate``), or a tool's name after the tool: ``ap_fixed:AP_SAT_SYM``,
            ``matlab:Saturate``, ``apytypes:SAT``, ``qonnx:narrow=1`` (of a signed word; QONNX narrows an unsigned one at
            its upper end).

        Raises
        ------
        InputError
            If the name is unknown, is another tool's without its prefix, or names a mode that intnet does not have.
        """
        return _parse(Overflow, name, OVERFLOW_NAMES, _NO_SUCH_OVERFLOW)


_ROUNDING_CODES = {member: code for code, member in enumerate(Rounding)}
_OVERFLOW_CODES = {member: code for code, member in enumerate(Overflow)}

ROUNDING_NAMES: Mapping[str, Mapping[str, Rounding]] = {
    "apytypes": {
        "TRN": Rounding.FLOOR,
        "TO_NEG": Rounding.FLOOR,
        "TRN_ZERO": Rounding.TO_ZERO,
        "TO_ZERO": Rounding.TO_ZERO,
        "TRN_INF": Rounding.CEIL,
        "TO_POS": Rounding.CEIL,
        "TRN_AWAY": Rounding.TO_AWAY,
        "TO_AWAY": Rounding.TO_AWAY,
        "RND_CONV": Rounding.TIES_EVEN,
        "TIES_EVEN": Rounding.TIES_EVEN,
        "RND": Rounding.TIES_POS,
        "TIES_POS": Rounding.TIES_POS,
        "RND_MIN_INF": Rounding.TIES_NEG,
        "TIES_NEG": Rounding.TIES_NEG,
        "RND_INF": Rounding.TIES_AWAY,
        "TIES_AWAY": Rounding.TIES_AWAY,
        "RND_ZERO": Rounding.TIES_ZERO,
        "TIES_ZERO": Rounding.TIES_ZERO,
        "JAM": Rounding.JAM,
        "STOCH_WEIGHTED": Rounding.STOCHASTIC,
    },
    "ap_fixed": {
        "AP_TRN": Rounding.FLOOR,
        "AP_TRN_ZERO": Rounding.TO_ZERO,
        "AP_RND_CONV": Rounding.TIES_EVEN,
        "AP_RND": Rounding.TIES_POS,
        "AP_RND_MIN_INF": Rounding.TIES_NEG,
        "AP_RND_INF": Rounding.TIES_AWAY,
        "AP_RND_ZERO": Rounding.TIES_ZERO,
    },
    "qonnx": {
        "FLOOR": Rounding.FLOOR,
        "DOWN": Rounding.TO_ZERO,
        "CEIL": Rounding.CEIL,
        "UP": Rounding.TO_AWAY,
        "ROUND": Rounding.TIES_EVEN,
        "HALF_EVEN": Rounding.TIES_EVEN,
        "HALF_UP": Rounding.TIES_AWAY,
        "HALF_DOWN": Rounding.TIES_ZERO,
    },
    "matlab": {
        "Floor": Rounding.FLOOR,
        "Zero": Rounding.TO_ZERO,
        "Ceiling": Rounding.CEIL,
        "Convergent": Rounding.TIES_EVEN,
        "Nearest": Rounding.TIES_POS,
        "Round": Rounding.TIES_AWAY,
    },
    "halp": {"nearest": Rounding.TIES_POS, "stochastic": Rounding.STOCHASTIC},
    "swalp": {"nearest": Rounding.TIES_EVEN, "stochastic": Rounding.STOCHASTIC},
    "niti": {
        "nearest": Rounding.TIES_AWAY,
        "stochastic": Rounding.STOCHASTIC,
        "pseudo_stochastic": Rounding.PSEUDO_STOCHASTIC,
    },
}
"""Other tools' and studies' names: tool -> its spelling -> our mode."""

OVERFLOW_NAMES: Mapping[str, Mapping[str, Overflow]] = {
    "ap_fixed": {"AP_WRAP": Overflow.WRAP, "AP_SAT": Overflow.SATURATE, "AP_SAT_SYM": Overflow.SATURATE_SYMMETRIC},
    "matlab": {"Wrap": Overflow.WRAP, "Saturate": Overflow.SATURATE},
    "apytypes": {"WRAP": Overflow.WRAP, "SAT": Overflow.SATURATE},
    "qonnx": {"narrow=0": Overflow.SATURATE, "narrow=1": Overflow.SATURATE_SYMMETRIC},
}
"""Other tools' names: tool -> its spelling -> our mode."""

# What a tool has and intnet does not: tool -> name -> what it does there.
_NO_SUCH_ROUNDING = {
    "apytypes": {
        "TIES_ODD": "to nearest, ties to odd",
        "RND_CONV_ODD": "to nearest, ties to odd",
        "TRN_MAG": "a shift plus the sign bit, which is not to_zero for exact values",
        "JAM_UNBIASED": "jamming of inexact values only, unlike jam",
        "STOCH_EQUAL": "up or down with equal probability, unlike stochastic",
    }
}
_NO_SUCH_OVERFLOW = {
    "ap_fixed": {"AP_SAT_ZERO": "zero instead of the end of the word", "AP_WRAP_SM": "a sign-magnitude wrap, unlike wrap"},
    "apytypes": {"NUMERIC_STD": "a cut that keeps the sign bit, unlike wrap"},
}

_Mode = TypeVar("_Mode", bound=Enum)
_Names = Mapping[str, Mapping[str, _Mode]]
_Missing = Mapping[str, Mapping[str, str]]


def _parse(modes: type[_Mode], name: Any, names: _Names[_Mode], missing: _Missing) -> _Mode:
    """Return the member of `modes` that `name` stands for, or explain what to write instead."""
    if isinstance(name, modes):
        return name
    kind, own = modes.__name__.lower(), {mode.value: mode for mode in modes}
    choices = f"choose one of {', '.join(own)}"
    if not isinstance(name, str):
        raise InputError(f"{kind} must be a name or a member of {modes.__name__}, got {name!r}; {choices}")
    if name in own:
        return own[name]
    prefix, colon, spelling = name.partition(":")
    if not colon:
        raise InputError(f"{kind} {name!r} {_other_meanings(name, names)}; or {choices}")
    tool = prefix.lower()
    if tool not in names:
        raise InputError(f"{kind} {name!r}: no tool {prefix!r} is known, only {', '.join(names)}; or {choices}")
    if spelling in names[tool]:
        return names[tool][spelling]
    if spelling in missing.get(tool, {}):
        raise InputError(f"{kind} {name!r} means {missing[tool][spelling]}, which intnet does not have; {choices}")
    raise InputError(f"{kind} {name!r}: of {tool}, intnet knows {', '.join(names[tool])}, spelled so; or {choices}")


def _other_meanings(name: str, names: _Names[_Mode]) -> str:
    """Tell what a bare foreign name means in each tool that has it."""
    known = [(key, f"{tool}:{key}", mode.value) for tool, table in names.items() for key, mode in table.items()]
    meanings = [f"{full} ({ours})" for key, full, ours in known if key.lower() == name.lower()]
    if meanings:
        return f"is not a name of intnet's, and tools differ: write {' or '.join(meanings)}"
    return f"is unknown: a tool's name needs the tool before it, as in {known[0][1]}"
