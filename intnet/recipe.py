"""Recipes: every numeric choice of a training run in one immutable object.

A recipe says for each role of a number (weight, activation, error, gradient, momentum, the wider master copy of a weight) its
format, rounding and overflow, how wide accumulators are, and how an update is scaled. Layers, losses and optimizers read it and
decide nothing themselves. :data:`RECIPES` holds ready-made ones.

Errors are those of the sum over a batch, not of the mean: dividing them by the batch would push them below the grid of a
fixed-point format. The division is part of the rate (see :class:`intnet.optimizers.SGD`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

from intnet.errors import InputError
from intnet.formats import BlockFloat, Fixed, Overflow, Rounding, parse_format
from intnet.formats._words import integer

ROLES = ("weight", "activation", "error", "gradient", "momentum", "master")
"""What a number can be; each role has a format of its own."""

UPDATES = ("sgd", "normalized")
LOSSES = ("cross_entropy", "niti_cross_entropy", "squared_error")
_OPTIONAL = ("momentum", "master")


@dataclass(frozen=True)
class Role:
    """How numbers of one role are kept.

    Parameters
    ----------
    format : Fixed, BlockFloat or their text
        Blocks are a tensor or a row ("row" and "sample" are one: a slice of the first axis).
    rounding, overflow : modes or their names
    random_bits : int, 1..62
        For stochastic rounding.

    Examples
    --------
    >>> Role.parse("fxp-s16/12 stochastic")
    Role('fxp-s16/12 stochastic saturate')
    """

    format: Fixed | BlockFloat
    rounding: Rounding = Rounding.TIES_EVEN
    overflow: Overflow = Overflow.SATURATE
    random_bits: int = 32

    def __post_init__(self) -> None:
        form = parse_format(self.format)
        if not form.signed:
            raise InputError(
                f"a role needs a signed format, got {form}; {form.word_bits + 1} signed bits hold the same numbers"
            )
        if isinstance(form, BlockFloat) and form.block not in ("tensor", "row"):
            raise InputError(
                f"a role's blocks are a tensor or a row, got {form}: others would meet within the sums of a product"
            )
        object.__setattr__(self, "format", form)
        object.__setattr__(self, "rounding", Rounding.parse(self.rounding))
        object.__setattr__(self, "overflow", Overflow.parse(self.overflow))
        object.__setattr__(self, "random_bits", integer("random_bits", self.random_bits, 1, 62))

    @classmethod
    def parse(cls, text: Any) -> Self:
        """Return the role that `text` describes: a format, then a rounding, an overflow mode, ``random:N``, in any order.

        Raises
        ------
        InputError
            If a word of it is none of these.
        """
        if isinstance(text, cls):
            return text
        if not isinstance(text, str) or not text.split():
            raise InputError(f"a role is written as 'fxp-s16/12 stochastic saturate' or 'bfp-s8/row ties_even', got {text!r}")
        head, *rest = text.split()
        found: dict[str, Any] = {}
        overflows = {mode.value for mode in Overflow}
        for word in rest:
            what: str = "rounding"
            value: Any = word
            if word.startswith("random:") and word[7:].isdecimal():
                what, value = "random_bits", int(word[7:9] if len(word) < 10 else 99)
            elif word in overflows or word.partition(":")[2] in overflows:
                what = "overflow"
            if what in found:
                raise InputError(f"a role has one {what.replace('_', ' ')}, got {found[what]} and {value} in {text!r}")
            found[what] = value
        return cls(parse_format(head), **found)

    def __str__(self) -> str:
        bits = f" random:{self.random_bits}" if self.random_bits != 32 else ""
        return f"{self.format} {self.rounding.value} {self.overflow.value}{bits}"

    def __repr__(self) -> str:
        return f"Role('{self}')"

    def for_axes(self, axes: int) -> Self:
        """Return this role for a tensor of so many axes: a row of a vector is one number, so there the block is the tensor."""
        if axes == 1 and isinstance(self.format, BlockFloat) and self.format.block == "row":
            return replace(self, format=BlockFloat(self.format.word_bits))
        return self


@dataclass(frozen=True)
class Recipe:
    """Every numeric choice of a training run.

    Parameters
    ----------
    name : str
        What results call it.
    weight, activation, error, gradient : Role or its text
        Stored weights and biases; outputs of layers, and the inputs; what flows backward; gradients of weights.
    momentum : Role or text, optional
        Needed by optimizers with momentum.
    master : Role or text, optional
        A wider copy of the weights that updates are added to; the weights are then rounded from it after every step.
    accumulator_bits : int, 2..64
        Width of the sums of products.
    accumulator_overflow : {"saturate", "wrap", "error"}
        What becomes of a sum that leaves the accumulator; counted in any case.
    alignment_bits : int, 2..64, optional
        Where numbers with different exponents meet within a sum (blocks of rows or samples), they are brought to one exponent
        in words of up to this width: exactly if it holds them, else the smaller ones are rounded to nearest, ties to even.
        By default 8 bits more than the longest word, or what the accumulator leaves; a longer one may fill the accumulator.
    update : {"sgd", "normalized"}
        "sgd": ``w - rate * v``, all exponents kept. "normalized": the exponent of a gradient is dropped, and its largest entry
        moves a weight (its master copy, if there is one) by about ``rate`` units of the last place (NITI: Wang et al. 2020,
        sec. III-D; WAGE).
    biases : bool
        Whether layers have biases unless they say otherwise.
    loss : {"cross_entropy", "niti_cross_entropy", "squared_error"}
        The loss unless the training says otherwise.
    overrides : sequence of (pattern, changes)
        For layers whose name matches the pattern (``fnmatch``: ``"dense*"``, ``"*/batch_norm*"``), other roles or accumulators;
        later ones win. Made by :meth:`override`.

    Raises
    ------
    InputError
        If something is unknown or cannot work: an accumulator narrower than one product, for example.

    Examples
    --------
    >>> recipe = RECIPES["fixed16"].override("dense3", activation="fxp-s16/8 ties_even")
    >>> recipe.at("dense3").activation, recipe.at("dense1").activation == recipe.activation
    (Role('fxp-s16/8 ties_even saturate'), True)
    >>> Recipe.from_dict(recipe.to_dict()) == recipe
    True
    """

    name: str
    weight: Role
    activation: Role
    error: Role
    gradient: Role
    momentum: Role | None = None
    master: Role | None = None
    accumulator_bits: int = 32
    accumulator_overflow: Overflow = Overflow.SATURATE
    alignment_bits: int | None = None
    update: str = "sgd"
    biases: bool = True
    loss: str = "cross_entropy"
    overrides: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = field(default=())

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"a recipe needs a name, got {self.name!r}")
        for role in ROLES:
            value = getattr(self, role)
            if value is None and role not in _OPTIONAL:
                raise InputError(f"recipe {self.name!r} needs a role {role!r}")
            object.__setattr__(self, role, None if value is None else _told(role, Role.parse, value))
        object.__setattr__(self, "accumulator_bits", integer("accumulator_bits", self.accumulator_bits, 2, 64))
        if self.alignment_bits is not None:
            object.__setattr__(self, "alignment_bits", integer("alignment_bits", self.alignment_bits, 2, 64))
        object.__setattr__(self, "accumulator_overflow", Overflow.parse(self.accumulator_overflow))
        _check_accumulator(self.accumulator_overflow)
        for name, choices in (("update", UPDATES), ("loss", LOSSES)):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if not isinstance(self.biases, bool):
            raise InputError(f"biases must be True or False, got {self.biases!r}")
        object.__setattr__(self, "overrides", tuple(_as_override(*entry) for entry in self.overrides))
        self._check()
        for pattern, _ in self.overrides:
            self._changed(lambda one, pattern=pattern: one == pattern)._check(f" for layers {pattern!r}", inner=True)

    @property
    def alignment(self) -> int:
        """The alignment bits in force."""
        longest = self._longest
        if self.alignment_bits is not None:
            return max(self.alignment_bits, longest)
        return max(longest, min(longest + 8, self.accumulator_bits - longest + 1))

    @property
    def _longest(self) -> int:
        """The longest word of a product's operands."""
        return max(role.format.word_bits for role in (self.weight, self.activation, self.error))

    # Per layer

    def at(self, layer: str) -> Self:
        """Return the recipe for the layer of that name, its overrides applied; together they must work too."""
        changed = self._changed(lambda pattern: fnmatchcase(layer, pattern))
        if len(self.overrides) > 1:  # each alone was checked when the recipe was made
            changed._check(f" for layer {layer!r}", inner=True)
        return changed

    def at_none(self, pattern: str, layers: Sequence[str]) -> bool:
        """Tell whether a pattern matches none of these layers."""
        return not any(fnmatchcase(layer, pattern) for layer in layers)

    def override(self, pattern: str, **changes: Any) -> Self:
        """Return a recipe in which layers whose name matches `pattern` have other roles or accumulators."""
        return replace(self, overrides=(*self.overrides, (pattern, tuple(changes.items()))))

    def _changed(self, applies: Any) -> Self:
        changes = {key: value for pattern, entries in self.overrides if applies(pattern) for key, value in entries}
        if not self.overrides:
            return self
        bare = object.__new__(type(self))
        for entry in fields(self):
            object.__setattr__(bare, entry.name, changes.get(entry.name, getattr(self, entry.name)))
        object.__setattr__(bare, "overrides", ())
        return bare

    # What cannot work

    def _check(self, where: str = "", inner: bool = False) -> None:
        """Refuse what cannot work whatever the numbers are; activations of `inner` layers may all be small, inputs are not."""
        first = self.name + where
        for left, right, what in (
            (self.activation, self.weight, "an activation times a weight"),
            (self.error, self.weight, "an error times a weight"),
            (self.activation, self.error, "an activation times an error"),
        ):
            product = left.format.word_bits + right.format.word_bits - 1
            if self.accumulator_bits < product:
                raise InputError(
                    f"recipe {first!r}: {what} takes {product} bits and the accumulator has {self.accumulator_bits}; "
                    f"give it at least {product} (accumulator_bits), or shorter words"
                )
        for role, why in (
            ("activation", "inputs reach 1"),
            ("error", "the errors of a wrong output reach 1"),
            ("gradient", "the gradients of a batch are sums of errors"),
            ("momentum", "the gradients of a batch are sums of errors"),
        ):
            form = None if getattr(self, role) is None else getattr(self, role).format
            if inner and role == "activation":
                continue
            if isinstance(form, Fixed) and form.fraction_bits > form.word_bits - 1:
                raise InputError(
                    f"recipe {first!r}: {role} {form} stays below {float(form.maximum_value):.3g} and {why}; "
                    f"use at most {form.word_bits - 1} fraction bits of {form.word_bits}"
                )
        forms = (self.activation.format, self.weight.format)
        if all(isinstance(form, Fixed) for form in forms):
            fraction = sum(form.fraction_bits for form in forms if isinstance(form, Fixed))
            if fraction > self.accumulator_bits - 1:
                raise InputError(
                    f"recipe {first!r}: sums of products have {fraction} fraction bits, so that an accumulator of "
                    f"{self.accumulator_bits} bits overflows below 1; use fewer fraction bits or a wider accumulator"
                )
        if self.master is not None and self.master.format.word_bits < self.weight.format.word_bits:
            raise InputError(
                f"recipe {first!r}: the master copy has {self.master.format.word_bits} bits and the weight "
                f"{self.weight.format.word_bits}; leave it out or make it wider"
            )
        finer, coarser = self.weight.format, None if self.master is None else self.master.format
        if isinstance(finer, Fixed) and isinstance(coarser, Fixed) and coarser.fraction_bits < finer.fraction_bits:
            raise InputError(
                f"recipe {first!r}: the master copy {coarser} has fewer fraction bits than the weight {finer}; give it more"
            )

    # In files

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as strings, numbers and lists, as `config.json` has it."""
        entries: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name == "overrides":
                value = [[pattern, {key: _plain(one) for key, one in changes}] for pattern, changes in value]
            entries[entry.name] = _plain(value)
        return entries

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
        """Return the recipe of :meth:`to_dict`.

        Raises
        ------
        InputError
            If it has unknown entries or lacks needed ones.
        """
        if not isinstance(entries, Mapping):
            raise InputError(f"a recipe is a table of entries, got {type(entries).__name__}")
        known = [entry.name for entry in fields(cls)]
        if unknown := sorted(set(entries) - set(known)):
            raise InputError(f"a recipe has no entry {unknown[0]!r}; it has {', '.join(known)}")
        if missing := [name for name in ("name", *ROLES[:4]) if name not in entries]:
            raise InputError(f"the recipe lacks {', '.join(missing)}")
        values = dict(entries)
        try:
            values["overrides"] = tuple((pattern, tuple(changes.items())) for pattern, changes in entries.get("overrides", ()))
        except (AttributeError, TypeError, ValueError):
            raise InputError("a recipe's overrides are a list of [pattern, {role: text}]") from None
        return cls(**values)

    @classmethod
    def load(cls, source: Any) -> Self:
        """Return a recipe, by its own, by the name of a ready-made one, or from a JSON file.

        Raises
        ------
        InputError
            If it is none of these, or the file cannot be read or does not hold a recipe.
        """
        if isinstance(source, cls):
            return source
        if isinstance(source, str) and source in RECIPES:
            return RECIPES[source]  # type: ignore[return-value]
        path = Path(str(source))
        if path.suffix != ".json":
            raise InputError(f"recipe {str(source)!r} is unknown; choose one of {', '.join(RECIPES)}, or name a .json file")
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"recipe {str(path)!r} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
            raise InputError(f"recipe {str(path)!r} is not JSON: {error}") from None
        if isinstance(entries, dict) and "recipe" in entries and "weight" not in entries:  # config.json of a run
            entries = entries["recipe"]
        try:
            return cls.from_dict(entries)
        except InputError as error:
            raise type(error)(f"recipe {str(path)!r}: {error}") from None

    def describe(self) -> Iterator[str]:
        """Yield one line a choice, for people."""
        for key, value in self.to_dict().items():
            if value not in (None, []):
                yield f"{key}: {value}"


def _told(role: str, parse: Any, value: Any) -> Any:
    try:
        return parse(value)
    except InputError as error:
        raise type(error)(f"{role}: {error}") from None


def _check_accumulator(overflow: Overflow) -> None:
    if overflow is Overflow.SATURATE_SYMMETRIC:
        raise InputError("accumulator_overflow is saturate, wrap or error, got saturate_symmetric")


def _plain(value: Any) -> Any:
    if isinstance(value, Role):
        return str(value)
    return value.value if isinstance(value, (Rounding, Overflow)) else value


_OVERRIDABLE = (*ROLES, "accumulator_bits", "accumulator_overflow", "alignment_bits", "biases")


def _as_override(pattern: Any, changes: Any) -> tuple[str, tuple[tuple[str, Any], ...]]:
    if not isinstance(pattern, str) or not pattern:
        raise InputError(f"an override needs a pattern of layer names, got {pattern!r}")
    parsed = []
    for key, value in changes:
        if key not in _OVERRIDABLE:
            raise InputError(f"layers {pattern!r} cannot override {key!r}; they can {', '.join(_OVERRIDABLE)}")
        if key in ROLES:
            value = None if value is None and key in _OPTIONAL else _told(key, Role.parse, value)
        elif key == "accumulator_overflow":
            value = Overflow.parse(value)
            _check_accumulator(value)
        elif key == "biases":
            if not isinstance(value, bool):
                raise InputError(f"layers {pattern!r}: biases must be True or False, got {value!r}")
        else:
            value = integer(key, value, 2, 64)
        parsed.append((key, value))
    return pattern, tuple(parsed)


def _ready(name: str, **entries: Any) -> Recipe:
    return Recipe(name, **entries)


def _bfp8(name: str, of_weights: str, of_activations: str) -> Recipe:
    """Return SWALP's 8-bit block floating point: everything stochastic, no wider copy of the weights."""
    weights, others = f"bfp-s8/{of_weights} stochastic", f"bfp-s8/{of_activations} stochastic"
    return Recipe(name, weight=weights, activation=others, error=others, gradient=weights, momentum=weights)  # type: ignore[arg-type]


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        # Gupta et al. 2015: every number a 16-bit word, stochastic rounding, no wider copy of the weights.
        _ready(
            "fixed16",
            weight="fxp-s16/14 stochastic random:16",
            activation="fxp-s16/9 ties_even",
            error="fxp-s16/13 stochastic random:16",
            gradient="fxp-s16/9 stochastic random:16",
            momentum="fxp-s16/7 stochastic random:16",
        ),
        # Wang et al. 2020 (NITI): one exponent a tensor, 8-bit words, no biases, no master copy; the rate is a number of bits.
        _ready(
            "niti8",
            weight="bfp-s8/tensor ties_away saturate_symmetric",
            activation="bfp-s8/tensor ties_away saturate_symmetric",
            error="bfp-s8/tensor ties_away saturate_symmetric",
            gradient="bfp-s8/tensor pseudo_stochastic saturate_symmetric",
            update="normalized",
            biases=False,
            loss="niti_cross_entropy",
        ),
        # Yang et al. 2019 (SWALP), small blocks: an exponent a row of weights, a sample of activations and errors ...
        _bfp8("bfp8", "row", "sample"),
        # ... big blocks: an exponent a tensor ...
        _bfp8("bfp8-big", "tensor", "tensor"),
        # ... and as in their released code: small blocks of weights, gradients and momentum, big ones of the others.
        _bfp8("bfp8-mixed", "row", "tensor"),
        # 8-bit words wherever numbers are multiplied or passed on, and one 16-bit copy of the weights.
        _ready(
            "int8",
            weight="bfp-s8/tensor ties_even",
            activation="bfp-s8/tensor ties_even",
            error="bfp-s8/tensor stochastic",
            gradient="bfp-s8/tensor stochastic",
            momentum="bfp-s16/tensor stochastic",
            master="fxp-s16/14 stochastic",
        ),
        # As good as float: 24-bit mantissas like float32's, a master copy of 40 bits.
        _ready(
            "wide",
            weight="bfp-s24/tensor ties_even",
            activation="bfp-s24/tensor ties_even",
            error="bfp-s24/tensor ties_even",
            gradient="bfp-s32/tensor ties_even",
            momentum="bfp-s32/tensor ties_even",
            master="fxp-s40/32 ties_even",
            accumulator_bits=64,
        ),
    )
}
"""The ready-made recipes by name."""
