"""Float weights into a model: quantized by a recipe, batch normalization folded, the points of words chosen from data.

It stands beside the exporters, the same edge seen from the other side: here floats become integers, once; there integers leave.

Examples
--------
>>> from intnet import layers
>>> weights = {"dense1.weight": [[0.5, -3.0]], "dense1.bias": [0.25]}
>>> made = import_floats(weights, [layers.Dense(1)], (2,), "fixed16", calibration=[[0.5, 1.0], [1.0, 0.0]])
>>> print(made.network.recipe.at("dense1").weight.format, made.network.recipe.at("dense1").activation.format)
fxp-s16/13 fxp-s16/13
>>> for line in made.describe():
...     print(line)
input activation 0..1 in fxp-s16/14, error 0, 0 saturated
dense1 weight -3..0.5 in fxp-s16/13, error 0, 0 saturated
dense1 bias 0.25..0.25 in fxp-s16/13, error 0, 0 saturated
dense1 activation -2.5..0.75 in fxp-s16/13, error 0, 0 saturated
"""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from glob import escape
from math import frexp, ldexp
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from intnet import kernels
from intnet.errors import InputError
from intnet.export._arrays import Floats, collect, expected, read
from intnet.export._forward import forward
from intnet.formats import BlockFloat, Fixed, Overflow
from intnet.formats.fixed import MAX_FRACTION_BITS
from intnet.layers import (
    AvgPool2D,
    BatchNorm,
    BinaryConv2D,
    GlobalAvgPool,
    HardTanh,
    Layer,
    Parameter,
    Residual,
    Sequential,
    Sigmoid,
    Sign,
    Tanh,
)
from intnet.layers.product import Product
from intnet.network import Network
from intnet.recipe import RECIPES, Recipe, Role
from intnet.tensor import Counters, quantize

EPSILON_OF_PYTORCH = 1e-5
_ROUNDED = (Product, BatchNorm, AvgPool2D, GlobalAvgPool, Residual, Sigmoid, Tanh)
"""The layers that bring numbers into an activation's format of their own; the others keep the format they get."""

_STATISTICS_END = 2.0**29  # running means and variances of intnet saturate there

COARSE = 0.1
"""An error of this share of the largest magnitude is pointed out: few bits of the word are left for the numbers."""

Arrays = dict[str, dict[str, Floats]]


@dataclass(frozen=True)
class Chosen:
    """What became of one tensor of real numbers.

    Attributes
    ----------
    layer : str
        Or "input".
    tensor : str
        "weight", "bias", "gamma", "beta", or "activation" for what the layer gives.
    least, greatest : float
        Of the real numbers; of activations, of all calibration samples.
    format : str
    error : float
        The largest distance between a real number and what it became, those that saturated included.
    saturated : int
        How many did not fit.
    """

    layer: str
    tensor: str
    least: float
    greatest: float
    format: str
    error: float
    saturated: int

    def __str__(self) -> str:
        reach = max(abs(self.least), abs(self.greatest))
        return (
            f"{self.layer} {self.tensor} {self.least:.4g}..{self.greatest:.4g} in {self.format}, error {self.error:.3g}, "
            f"{self.saturated} saturated"
            + (
                f"; COARSE: the error is {self.error / reach:.0%} of the largest magnitude"
                if self.error >= COARSE * reach > 0
                else ""
            )
        )


@dataclass(frozen=True, eq=False)
class Imported:
    """A network with the weights that were given.

    Attributes
    ----------
    network : Network
        Its recipe has the formats that were chosen, as overrides by layer; `network.recipe.activation` is the inputs'.
    chosen : tuple of Chosen
        The input, then layer by layer.
    folded : tuple of str
        The batch normalizations that went into the layer before them.
    """

    network: Network
    chosen: tuple[Chosen, ...]
    folded: tuple[str, ...]

    def describe(self) -> Iterator[str]:
        """Yield a line a tensor."""
        yield from map(str, self.chosen)


def import_floats(
    source: Any,
    layers: Layer | Iterable[Layer],
    shape: Iterable[int],
    recipe: Recipe | str = "fixed16",
    *,
    layout: str = "intnet",
    names: Mapping[str, str] | None = None,
    calibration: ArrayLike | None = None,
    percentile: float = 100,
    weight_points: bool = True,
    fold_batch_norm: bool = False,
    epsilon: float | None = None,
    loss: str | None = None,
) -> Imported:
    """Make a network whose weights are given real numbers, each rounded once, to nearest, ties to even.

    Parameters
    ----------
    source : mapping of arrays, or path of an ``.npz`` or ``.safetensors`` file
        By name: ``"dense1.weight"`` (outputs, inputs), ``"conv1.weight"`` (outputs, height, width, inputs / groups),
        ``"dense1.bias"`` (outputs,), ``"batch_norm1.gamma"``, ``.beta``, ``.running_mean``, ``.running_variance`` (channels,).
    layers : Layer or sequence of Layer
        New ones, or a model's. They are copied; the copies keep the names they have here, also where one is folded away.
    shape : tuple of int
        Of a sample, channels last.
    recipe : Recipe or str
        Gives every role's word, rounding and overflow.
    layout : {"intnet", "pytorch"}
        "pytorch" takes a state dict: convolutions (out, in, height, width), ``weight``, ``bias``, ``running_mean`` and
        ``running_var`` of batch normalization; the inputs of a dense layer after `Flatten` are put into the order row, column,
        channel. Modules with arrays are the layers with weights, in their order, unless `names` says otherwise.
    names : mapping of layer name to prefix, optional
        What a layer is called in the source: ``{"conv1": "features.0"}`` for ``features.0.weight``. A layer that it leaves out
        has its own name there.
    calibration : (n, *shape) real numbers, optional
        Samples as the network will get them. They are run through the float weights, and every fixed-point activation gets
        as many fraction bits as hold what is seen; so do the inputs. Without, the recipe's are kept.
    percentile : float, above 50 and up to 100
        Of the activations seen, from either end, what must fit; what is beyond saturates.
    weight_points : bool
        Whether weights in fixed point get as many fraction bits as hold the largest weight or bias of the layer (which share
        a format), and leave the accumulator room for all that the activation's format holds. Else the recipe's are kept.
    fold_batch_norm : bool
        Whether a batch normalization right after a dense or convolutional layer becomes part of it:
        ``factor = gamma / sqrt(variance + epsilon)``, ``weight * factor``, ``(bias - mean) * factor + beta``.
    epsilon : float, optional
        Of the batch normalizations the weights were trained with: by default PyTorch's 1e-5 in its layout, else the layers'.
    loss : str, optional
        By default the recipe's.

    Returns
    -------
    Imported

    Raises
    ------
    InputError
        If an array is missing, unused, of another shape or not finite (it is named), or the network cannot be built.
    """
    recipe = Recipe.load(recipe)
    template = layers if isinstance(layers, Sequential) else Sequential(layers)
    network_shape = tuple(shape)
    probe = Network(deepcopy(template), network_shape, _probing(recipe))
    arrays = collect(read(source), probe.layers, layout, names)
    _use_epsilon(probe, arrays, EPSILON_OF_PYTORCH if epsilon is None and layout == "pytorch" else epsilon)
    copies = deepcopy(template)
    _name_alike(copies, probe.layers)
    folded = tuple(_fold(copies, probe.layers, arrays)) if fold_batch_norm else ()
    samples = None if calibration is None else _as_samples(calibration, probe.shape)
    ranges: dict[str, tuple[float, float]] = {}
    if samples is not None:
        ranges = _ranges(probe, arrays, samples, percentile)
        recipe = _with_activations(recipe, ranges)
    if weight_points:
        recipe = _with_weights(recipe, probe, arrays)
    network = Network(copies, network_shape, recipe, loss=loss)
    for copied in copies.walk():  # they were built from zeros, as what is drawn might not fit the formats
        if isinstance(copied, Product):
            copied.initial = next(one.initial for one in probe.layers.walk() if one.name == copied.name)  # type: ignore[attr-defined]
    chosen = [] if samples is None else _seen_input(recipe, samples)
    of_activations = {} if samples is None else _seen_activations(probe, arrays, samples, recipe)
    for layer in network.layers.walk():
        if isinstance(layer, (Product, BatchNorm)):
            chosen += _take(layer, arrays[layer.name])
        if layer.name in of_activations:
            chosen.append(of_activations[layer.name])
    return Imported(network, tuple(chosen), folded)


def _probing(recipe: Recipe) -> Recipe:
    """Return a recipe that builds any network, with the biases of another one."""
    biases = ((pattern, tuple(one for one in changes if one[0] == "biases")) for pattern, changes in recipe.overrides)
    return replace(RECIPES["wide"], biases=recipe.biases, overrides=tuple(one for one in biases if one[1]))


def _as_samples(calibration: ArrayLike, shape: tuple[int, ...]) -> Floats:
    samples = np.asarray(calibration)
    if samples.dtype.kind not in "fiu" or samples.shape[1:] != shape or not len(samples):
        raise InputError(
            f"calibration samples are real numbers of shape (n, {', '.join(map(str, shape))}), n at least 1, got "
            f"{samples.dtype} of shape {samples.shape}"
        )
    samples = samples.astype(np.float64)
    if not np.isfinite(samples).all():
        raise InputError("calibration samples hold numbers that are not finite")
    return samples


# Batch normalization


def _use_epsilon(probe: Network, arrays: Arrays, epsilon: float | None) -> None:
    """Bring variances to the layers' own epsilon, so that the sum of both is that of the training."""
    if epsilon is not None and not (isinstance(epsilon, (int, float)) and 0 <= epsilon < 1):
        raise InputError(f"epsilon of batch normalization must be at least 0 and below 1, got {epsilon!r}")
    for layer in probe.layers.walk():
        if isinstance(layer, BatchNorm):
            mine = arrays[layer.name]
            if mine["running_variance"].min() < 0:
                raise InputError(f"layer {layer.name!r}: a running variance is negative, {mine['running_variance'].min():.4g}")
            if epsilon is not None:
                mine["running_variance"] = mine["running_variance"] + (epsilon - 2.0**-layer.epsilon_shift)
            if (mine["running_variance"] + 2.0**-layer.epsilon_shift).min() <= 0:
                raise InputError(f"layer {layer.name!r}: a running variance is 0 and so is epsilon; give epsilon, such as 1e-5")


def _name_alike(copies: Sequential, probe: Sequential) -> None:
    """Give layers that are not built the names they have in the probe."""
    for mine, built in zip(copies.walk(), probe.walk(), strict=True):
        if built.name:
            mine.given_name = built.name.rpartition("/")[2]
            if isinstance(mine, Product):
                mine.initial = "zeros"


def _fold(copies: Layer, probe: Layer, arrays: Arrays) -> Iterator[str]:
    """Take batch normalizations that follow a product out of layers that are not built, and into the product's arrays."""
    if isinstance(copies, Residual) and isinstance(probe, Residual):
        yield from _fold(copies.body, probe.body, arrays)
        if copies.shortcut is not None and probe.shortcut is not None:
            yield from _fold(copies.shortcut, probe.shortcut, arrays)
    if not isinstance(copies, Sequential) or not isinstance(probe, Sequential):
        return
    kept: list[Layer] = []
    before: Layer | None = None
    for mine, built in zip(copies.layers, probe.layers, strict=True):
        yield from _fold(mine, built, arrays)
        signs = isinstance(before, BinaryConv2D)  # they have no factor
        if isinstance(built, BatchNorm) and isinstance(before, Product) and not signs:
            norm, product = arrays.pop(built.name), arrays[before.name]
            factor = norm["gamma"] / np.sqrt(norm["running_variance"] + 2.0**-built.epsilon_shift)
            product["weight"] = product["weight"] * factor.reshape((-1,) + (1,) * (product["weight"].ndim - 1))
            product["bias"] = (product.get("bias", 0.0) - norm["running_mean"]) * factor + norm["beta"]
            kept[-1].wants_bias = True  # type: ignore[attr-defined]
            yield built.name
        else:
            kept.append(mine)
        before = built
    copies.layers = tuple(kept)


# What is seen


def _ranges(probe: Network, arrays: Arrays, samples: Floats, percentile: float) -> dict[str, tuple[float, float]]:
    """Return what must fit into the activations of the layers that round, and into the inputs."""
    if isinstance(percentile, bool) or not isinstance(percentile, (int, float)) or not 50 < percentile <= 100:
        raise InputError(f"percentile must be above 50 and up to 100, got {percentile!r}")

    def ends(values: Floats) -> tuple[float, float]:
        if percentile == 100:
            return float(values.min()), float(values.max())
        low, high = np.percentile(values, [100 - percentile, percentile])
        return float(low), float(high)

    ranges = {"": (float(samples.min()), float(samples.max()))}

    def see(layer: Layer, x: Floats, y: Floats) -> None:
        if isinstance(layer, _ROUNDED):
            low, high = ends(y)
            if isinstance(layer, (Sigmoid, Tanh)):  # the format is also that of the arguments
                low, high = min(low, ends(x)[0]), max(high, ends(x)[1])
            if not np.isfinite([low, high]).all():
                raise InputError(f"layer {layer.name!r} gives numbers that are not finite for the calibration samples")
            ranges[layer.name] = (low, high)

    with np.errstate(over="ignore", invalid="ignore"):
        forward(probe.layers, samples, arrays, see)
    return ranges


def _seen_input(recipe: Recipe, samples: Floats) -> list[Chosen]:
    return [_chosen("input", "activation", samples, recipe.activation)]


def _seen_activations(probe: Network, arrays: Arrays, samples: Floats, recipe: Recipe) -> dict[str, Chosen]:
    """Return what rounding does to the real activations."""
    found: dict[str, Chosen] = {}

    def see(layer: Layer, _: Floats, y: Floats) -> None:
        if isinstance(layer, _ROUNDED):
            found[layer.name] = _chosen(layer.name, "activation", y, recipe.at(layer.name).activation)

    forward(probe.layers, samples, arrays, see)
    return found


def _chosen(layer: str, tensor: str, values: Floats, role: Role, exact: Floats | None = None) -> Chosen:
    """Return what became of real numbers in a role's format; `exact` is what they became, where that is known."""
    form, counters = role.format, Counters()
    blocks = BlockFloat(form.word_bits, "row") if isinstance(form, BlockFloat) and tensor == "activation" else form
    overflow = Overflow.SATURATE_SYMMETRIC if role.overflow is Overflow.SATURATE_SYMMETRIC else Overflow.SATURATE
    rounded = quantize(values, blocks, "ties_even", overflow, counters=counters).to_float()
    error = float(np.abs((rounded if exact is None else exact) - values).max())
    return Chosen(layer, tensor, float(values.min()), float(values.max()), str(form), error, counters.saturated)


# What is chosen


def fraction_bits_for(low: float, high: float, role: Role, most: int) -> int:
    """Return the most fraction bits, up to `most`, with which a role's word holds all numbers from `low` to `high`, rounded.

    >>> fraction_bits_for(-1.0, 0.99, Role("fxp-s8/0"), 7), fraction_bits_for(0.0, 1.0, Role("fxp-s8/0"), 7)
    (7, 6)
    """
    least, greatest = role.format.limits(role.overflow)
    largest = max(abs(low), abs(high))
    if largest == 0:
        return most
    bits = min(most, role.format.word_bits - frexp(largest)[1] + 1)
    while not least <= round(ldexp(low, bits)) <= round(ldexp(high, bits)) <= greatest:
        bits -= 1
    return bits


def _moved(role: Role, bits: int) -> Role:
    """Return a role with other fraction bits."""
    limited = max(-MAX_FRACTION_BITS, min(bits, MAX_FRACTION_BITS))
    return replace(role, format=Fixed(role.format.word_bits, limited))


def _with_activations(recipe: Recipe, ranges: Mapping[str, tuple[float, float]]) -> Recipe:
    """Return a recipe whose activations hold these ranges; of the inputs, "", the recipe's own."""

    def fitting(role: Role, ends: tuple[float, float], most: int) -> Role:
        return _moved(role, fraction_bits_for(*ends, role, most))

    wanted = {name: recipe.at(name).activation for name in ranges}
    if isinstance(recipe.activation.format, Fixed):
        recipe = replace(recipe, activation=fitting(recipe.activation, ranges[""], recipe.activation.format.word_bits - 1))
    for name, role in wanted.items():
        if name and isinstance(role.format, Fixed):
            at = recipe.at(name)  # all but the fraction bits of weights fits into the accumulator beside these
            role = fitting(role, ranges[name], max(role.format.word_bits - 1, at.accumulator_bits - at.weight.format.word_bits))
        if name and role != recipe.at(name).activation:
            recipe = recipe.override(escape(name), activation=role)
    return recipe


def _with_weights(recipe: Recipe, probe: Network, arrays: Arrays) -> Recipe:
    """Return a recipe whose weights hold these arrays, layer by layer."""
    incoming: dict[str, int | None] = {}
    _points(probe.layers, _point(recipe.activation), recipe, arrays, incoming)
    for layer in probe.layers.walk():
        mine = arrays.get(layer.name)
        if mine is None or isinstance(layer, BinaryConv2D):
            continue
        at = recipe.at(layer.name)
        trained = [mine[name] for name in ("weight", "bias", "gamma", "beta") if name in mine]
        low, high = min(float(one.min()) for one in trained), max(float(one.max()) for one in trained)
        changes: dict[str, Role] = {}
        finest = -MAX_FRACTION_BITS
        if isinstance(at.weight.format, Fixed):
            most = min(
                at.weight.format.word_bits - 1 if isinstance(layer, BatchNorm) else MAX_FRACTION_BITS,
                _room(at, incoming.get(layer.name)),
            )
            if low == high == 0:
                most = min(most, at.weight.format.fraction_bits)
            finest = fraction_bits_for(low, high, at.weight, most)
            changes["weight"] = _moved(at.weight, finest)
        if at.master is not None and isinstance(at.master.format, Fixed):  # it moves for what would not fit alone
            holds = fraction_bits_for(low, high, at.master, max(at.master.format.fraction_bits, finest))
            changes["master"] = _moved(at.master, holds)
        changes = {name: role for name, role in changes.items() if role != getattr(at, name)}
        if changes:
            recipe = recipe.override(escape(layer.name), **changes)
    return recipe


def _point(role: Role) -> int | None:
    return role.format.fraction_bits if isinstance(role.format, Fixed) else None


def _room(recipe: Recipe, incoming: int | None) -> int:
    """Return how many fraction bits weights may have so that an accumulator holds all that the activation's word does."""
    form = recipe.activation.format
    if not isinstance(form, Fixed):
        return MAX_FRACTION_BITS
    most = recipe.accumulator_bits - 1 - form.fraction_bits
    if incoming is None:
        return most
    return min(most, recipe.accumulator_bits - incoming - (form.word_bits - form.fraction_bits))


def _points(layer: Layer, point: int | None, recipe: Recipe, arrays: Arrays, found: dict[str, int | None]) -> int | None:
    """Note with how many fraction bits numbers come to every layer; return with how many they leave it."""
    found[layer.name] = point
    if isinstance(layer, Sequential):
        for one in layer.layers:
            point = _points(one, point, recipe, arrays, found)
        return point
    if isinstance(layer, Residual):
        _points(layer.body, point, recipe, arrays, found)
        if layer.shortcut is not None:
            _points(layer.shortcut, point, recipe, arrays, found)
    if isinstance(layer, BatchNorm) and layer.name not in arrays:
        return point
    if isinstance(layer, (Sigmoid, Tanh)):
        form = recipe.at(layer.name).activation.format
        return min(form.fraction_bits, 15) if isinstance(form, Fixed) else min(form.word_bits, 16) - 1
    if isinstance(layer, _ROUNDED):
        return _point(recipe.at(layer.name).activation)
    if isinstance(layer, Sign):
        return 0
    return None if point is None else max(point, 0) if isinstance(layer, HardTanh) else point


# The numbers


def _take(layer: Product | BatchNorm, mine: Mapping[str, Floats]) -> Iterator[Chosen]:
    """Give a built layer its numbers; yield what became of them."""
    for name in expected(layer):
        if not name.startswith("running"):
            yield _assign(layer, getattr(layer, name), name, mine[name])
    if isinstance(layer, BatchNorm):
        for name in ("running_mean", "running_variance"):
            if np.abs(mine[name]).max() >= _STATISTICS_END:
                raise InputError(f"{name} of layer {layer.name!r} reaches {np.abs(mine[name]).max():.4g}; the end is 2**29")
            setattr(layer, name, np.rint(np.maximum(mine[name], _LEAST[name]) * 2.0**kernels.RUNNING_BITS).astype(np.int64))


_LEAST = {"running_mean": -np.inf, "running_variance": 0.0}


def _assign(layer: Layer, parameter: Parameter, name: str, values: Floats) -> Chosen:
    stored = parameter.quantizers[parameter.stored_role].role
    if values.any() or not isinstance(stored.format, BlockFloat):  # no exponent can be read from zeros
        parameter.assign(quantize(values, stored.format, "ties_even", "saturate"))
    used = parameter.quantizers["weight"].role
    return _chosen(layer.name, name, values, used, parameter.value.to_float())
