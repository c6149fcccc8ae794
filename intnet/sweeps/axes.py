"""What a sweep of trainings may vary: everything that a data set, a model, a recipe or an optimizer names.

A name is an entry of :class:`intnet.trainings.TrainingSpec` (``epochs``, ``rate``, ``width``, ``seed``, ...), of a recipe
(``accumulator_bits``, ...), or what a role's format has: ``weight.word_bits``, ``error.rounding``, ``activation.format``.
Without a role, ``word_bits`` and its like are of weights, activations, errors and gradients alike. With ``@PATTERN`` behind it,
a role's entry is of the layers whose name matches: ``weight.word_bits@dense1``. A role's entry wins over one
of all roles, a layer's over a role's; of patterns that match the same layer, the later wins.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from intnet import datasets
from intnet.errors import InputError
from intnet.formats import BlockFloat, Fixed, Overflow, Rounding
from intnet.models import MODELS
from intnet.optimizers import Factor, Schedule
from intnet.recipe import LOSSES, ROLES, UPDATES, Recipe, Role
from intnet.trainings import TrainingSpec

Label = int | float | str
"""How a value is written and stored: a list as ``100,50``, True as ``true``, None as ``none``."""

COMMON_ROLES = ROLES[:4]
"""The roles that every recipe has: what an entry without a role is of."""


@dataclass(frozen=True)
class Axis:
    """A name that a sweep may vary.

    Parameters
    ----------
    name : str
    kind : type
        Of its labels: int, float or str.
    description : str
    read : function of a value
        Gives its label, or raises InputError, ValueError or TypeError.
    value : function of a label
        Gives what a training takes.
    units : str
    """

    name: str
    kind: type
    description: str
    read: Callable[[Any], Label]
    value: Callable[[Any], Any]
    units: str = "1"


def _same(value: Any) -> Any:
    return value


def _integer(value: Any, low: int = -(2**63)) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or not low <= value.__index__() < 2**63:  # as SQLite has them
        raise TypeError("an integer" if low < 0 else f"an integer in {low}..2**63 - 1")
    return value.__index__()


_seed, _count = partial(_integer, low=0), partial(_integer, low=1)


def _width(value: Any) -> float:
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__") or not 0 < float(value) < math.inf:
        raise TypeError("a number above 0")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("a text")
    return value


def _loss(value: Any) -> str:
    if value not in LOSSES:
        raise TypeError(f"one of {', '.join(LOSSES)}")
    return str(value)


def _factor(value: Any) -> str:
    Factor.of(value)
    return value if isinstance(value, str) else str(value)


def _flag(value: Any) -> str:
    if not isinstance(value, bool) and not (isinstance(value, str) and value in ("true", "false")):
        raise TypeError("true or false")
    return str(value).lower()


def _sizes(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        value = ",".join(str(_integer(one)) for one in value) or "none"
    if not isinstance(value, str) or not re.fullmatch(r"none|[1-9]\d*(,[1-9]\d*)*", value):
        raise TypeError("a list of integers of at least 1, [100, 50], or none")
    return value


def _as_sizes(label: str) -> tuple[int, ...]:
    return () if label == "none" else tuple(int(one) for one in label.split(","))


def _one_of(choices: Iterable[str]) -> Callable[[Any], str]:
    """Return what reads one of some words: a slip is no impossible combination, and is refused as it is read."""
    known = tuple(choices)

    def read(value: Any) -> str:
        if value not in known or not isinstance(value, str):
            raise InputError(f"{value!r} is unknown; choose one of {', '.join(known)}")
        return value

    return read


def _dataset(value: Any) -> str:
    if _text(value) not in datasets.NAMES:
        raise InputError(f"there is no data set {value!r}; there are {', '.join(datasets.NAMES)}")
    return value


def _model(value: Any) -> str:
    if _text(value) not in MODELS:
        raise InputError(f"model {value!r} is unknown; choose one of {', '.join(MODELS)}")
    return value


def _rounding(value: Any) -> str:
    return Rounding.parse(value).value


def _overflow(value: Any) -> str:
    return Overflow.parse(value).value


def _schedule(value: Any) -> str:
    Schedule.parse(_text(value), "2^-3")
    return value


def _role_text(value: Any) -> str:
    return "none" if value in (None, "none") else str(Role.parse(value))


_TRAINING = (
    Axis("dataset", str, "data set", _dataset, _same),
    Axis("model", str, "model", _model, _same),
    Axis("recipe", str, "recipe", _text, _same),
    Axis("epochs", int, "epochs", _count, _same),
    Axis("batch", int, "samples a step", _count, _same),
    Axis("rate", str, "learning rate", _factor, _same),
    Axis("lr_shift", int, "learning-rate shift: the rate is 2**-lr_shift", _integer, lambda shift: f"2^{-shift}", "bit"),
    Axis("momentum", str, "momentum", _factor, _same),
    Axis("decay", str, "weight decay", _factor, _same),
    Axis("schedule", str, "how the rate falls", _schedule, _same),
    Axis("loss", str, "loss", _loss, _same),
    Axis("width", float, "factor on the units or channels of every layer but the last", _width, _same),
    Axis("hidden", str, "units of the hidden layers", _sizes, _as_sizes),
    Axis("augmentation", str, "random crops and flips", _flag, "true".__eq__),
    Axis("standardize", str, "inputs of zero mean and unit deviation", _flag, "true".__eq__),
    Axis("samples", int, "first training and test samples that are used", _count, _same),
    Axis("seed", int, "seed of weights, order, augmentation and rounding", _seed, _same),
)
_RECIPE = (
    Axis("accumulator_bits", int, "width of sums of products", _integer, _same, "bit"),
    Axis("accumulator_overflow", str, "what becomes of a sum that leaves the accumulator", _overflow, _same),
    Axis("alignment_bits", int, "width of words in which exponents meet", _integer, _same, "bit"),
    Axis("update", str, "how an update is scaled", _one_of(UPDATES), _same),
    Axis("biases", str, "whether layers have biases", _flag, "true".__eq__),
)
_OF_ROLES = (
    Axis("word_bits", int, "word length, the range kept", _integer, _same, "bit"),
    Axis("fraction_bits", int, "fraction bits", _integer, _same, "bit"),
    Axis("block", str, "what shares an exponent", _one_of(("tensor", "row", "sample")), _same),
    Axis("rounding", str, "rounding mode", _rounding, _same),
    Axis("overflow", str, "overflow mode", _overflow, _same),
    Axis("random_bits", int, "bits of stochastic rounding", _integer, _same, "bit"),
)
_FORMAT = Axis("format", str, "format, rounding and overflow", _role_text, _same)
_BY_NAME = {axis.name: axis for axis in (*_TRAINING, *_RECIPE, *_OF_ROLES)}
_BY_ENTRY = {axis.name: axis for axis in (*_OF_ROLES, _FORMAT)}

NAMES = (
    *_BY_NAME,
    *(f"{role}.{entry}" for role in ROLES for entry in _BY_ENTRY),
)
"""Every name, those of single layers left out."""


def axis_of(name: Any) -> Axis:
    """Return the axis of that name.

    Raises
    ------
    InputError
        If there is none, with the nearest name that there is.
    """
    if isinstance(name, str):
        if name in _BY_NAME:
            return _BY_NAME[name]
        plain, at, pattern = name.partition("@")
        role, _, entry = plain.partition(".")
        if role in ROLES and entry in _BY_ENTRY and at and not re.fullmatch(r"[\w/*?!.\[\]-]+", pattern):
            raise InputError(f"{name!r} names no layers; write, for example, '{plain}@dense1' or '{plain}@conv*'")
        if role in ROLES and entry in _BY_ENTRY:
            axis, of = _BY_ENTRY[entry], f" of layers {pattern}" if at else ""
            return replace(axis, name=name, description=f"{role}{of}: {axis.description}")
    raise InputError(f"there is no axis {name!r}; {nearest(str(name), NAMES)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return what to write instead of an unknown name."""
    known = list(known)
    close = difflib.get_close_matches(name, known, 1, 0.5) or [one for one in known if name and name in one][:1]
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known[:24])}{', ...' if len(known) > 24 else ''}"


def label_of(axis: Axis, value: Any) -> Label:
    """Return how a value is written.

    Raises
    ------
    InputError
        If it is none for this axis.
    """
    try:
        return axis.read(value)
    except InputError as error:
        raise type(error)(f"{axis.name}: {error}") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{axis.name} takes {error}, got {value!r}") from None


def order_of(axis: Axis, label: Label) -> tuple[Any, ...]:
    """Return what labels are sorted by: rates by their size, formats by their length, lists by their numbers."""
    if axis.kind is not str:
        return (label,)
    name, text = axis.name.partition("@")[0].rpartition(".")[2], str(label)
    if name in ("rate", "momentum", "decay"):
        return (float(Factor.of(text)),)
    if name == "format":
        return (0 if text == "none" else Role.parse(text).format.word_bits, text)
    if name == "hidden":
        return _as_sizes(text)
    return (text,)


def training_of(labels: Mapping[str, Label], recipes: Mapping[str, Recipe]) -> TrainingSpec:
    """Return the training that settings describe.

    Parameters
    ----------
    labels : mapping of names to labels
    recipes : mapping
        Every recipe by its label.

    Raises
    ------
    InputError
        If they do not fit together.
    """
    values = {name: axis_of(name).value(label) for name, label in labels.items()}
    entries = {axis.name: values[axis.name] for axis in _TRAINING if axis.name in values}
    if "lr_shift" in entries:
        if "rate" in entries:
            raise InputError("rate and lr_shift are two names of one thing, got both")
        entries["rate"] = entries.pop("lr_shift")
    if "recipe" in entries:
        entries["recipe"] = recipes[entries["recipe"]]
    spec = TrainingSpec(**entries)
    of_recipe = {name: value for name, value in values.items() if name not in {axis.name for axis in _TRAINING}}
    if not of_recipe:
        return spec
    # what depends on the recipe is chosen again for the changed one
    return TrainingSpec(**{**entries, "recipe": _changed(spec.recipe, tuple(of_recipe.items()))})


@lru_cache(maxsize=4096)  # many cells of a sweep share their recipe
def _changed(recipe: Any, changed_entries: tuple[tuple[str, Any], ...]) -> Recipe:
    """Return the recipe with other entries: of all roles, then of one role, then of some layers."""
    values = dict(changed_entries)
    changes: dict[str, Any] = {axis.name: values[axis.name] for axis in _RECIPE if axis.name in values}
    roles: dict[str, Role | None] = {role: getattr(recipe, role) for role in ROLES}
    for role in ROLES:
        if (text := values.get(f"{role}.format")) is not None:
            roles[role] = None if text == "none" else Role.parse(text)
            if text == "none" and role in COMMON_ROLES:
                raise InputError(f"every recipe has a role {role}, so {role}.format is a format, got none")
    common = {axis.name: values[axis.name] for axis in _OF_ROLES if axis.name in values}
    for kind, entry in ((Fixed, "fraction_bits"), (BlockFloat, "block")):
        if entry in common and not any(isinstance(getattr(roles[role], "format", None), kind) for role in COMMON_ROLES):
            other = "block floating point" if kind is Fixed else "fixed point"
            raise InputError(
                f"recipe {recipe.name!r} is in {other}, so it has no {entry}; leave it out, or set each role's format"
            )
    for role in ROLES:
        one = {axis.name: values[f"{role}.{axis.name}"] for axis in _OF_ROLES if f"{role}.{axis.name}" in values}
        if role in COMMON_ROLES:
            form = roles[role].format  # type: ignore[union-attr]
            other = "block" if isinstance(form, Fixed) else "fraction_bits"
            one = {**{entry: value for entry, value in common.items() if entry != other}, **one}
        roles[role] = _role_with(role, roles[role], one)
    changed = replace(recipe, **changes, **roles)
    of_layers: dict[tuple[str, str], dict[str, Any]] = {}
    for name, value in values.items():
        plain, at, pattern = name.partition("@")
        if at:
            role, _, entry = plain.partition(".")
            of_layers.setdefault((pattern, role), {})[entry] = value
    for (pattern, role), one in of_layers.items():
        text = one.pop("format", None)
        base = roles[role] if text is None else None if text == "none" else Role.parse(text)
        changed = changed.override(pattern, **{role: _role_with(role, base, one)})
    return changed


def _role_with(name: str, role: Role | None, entries: Mapping[str, Any]) -> Role | None:
    """Return a role with other entries. A fixed-point word of another length keeps its range, if no fraction bits are given."""
    if not entries:
        return role
    if role is None:
        raise InputError(f"the recipe has no {name} role, so it has no {next(iter(entries))}; set {name}.format")
    form, changes = (
        role.format,
        {key: value for key, value in entries.items() if key in ("rounding", "overflow", "random_bits")},
    )
    word = entries.get("word_bits", form.word_bits)
    if isinstance(form, Fixed):
        if "block" in entries:
            raise InputError(f"{name} is {form}, which has no block; set {name}.format to one of block floating point")
        fraction = entries.get("fraction_bits", form.fraction_bits + word - form.word_bits)
        form = Fixed(word, fraction)
    else:
        if "fraction_bits" in entries:
            raise InputError(
                f"{name} is {form}, whose exponents move; set its word_bits, or {name}.format to one of fixed point"
            )
        block = entries.get("block", form.block)
        form = BlockFloat(word, "row" if block == "sample" else block)
    return replace(role, format=form, **changes)
