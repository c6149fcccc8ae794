"""Accumulator widths that are certain to suffice, whatever the data: from the formats and the lengths of the sums alone."""

from dataclasses import dataclass

from intnet import kernels
from intnet.formats import BlockFloat, Fixed
from intnet.layers.product import Conv2D, Product
from intnet.network import Network
from intnet.recipe import Role


@dataclass(frozen=True)
class AccumulatorBound:
    """The sums of one layer in one pass.

    Attributes
    ----------
    layer : str
    sums : {"forward", "backward", "gradient"}
        Outputs of the layer, gradients of its inputs, gradients of its weights.
    terms : int
        Products in a sum at most.
    word_bits : (int, int)
        Of the two factors.
    bias : bool or None
        Whether the bound holds with the bias added; None where there is none.
    bits : int
        The narrowest two's complement word that holds every such sum, and every part of it in any order.
    """

    layer: str
    sums: str
    terms: int
    word_bits: tuple[int, int]
    bias: bool | None
    bits: int


def accumulator_bounds(network: Network, batch: int) -> list[AccumulatorBound]:
    """Return a bound for every sum of products of a training step.

    A factor of W bits is at most ``2**(W - 1)`` in magnitude, so n products are at most ``n * 2**(Wa + Wb - 2)``; a bias is
    added at the exponent of the sums. In block floating point biases are brought to an exponent that moves with the data, so
    there the bound is of the products alone.

    Parameters
    ----------
    network : Network
    batch : int
        Samples a step.
    """
    bounds: list[AccumulatorBound] = []
    shape_of = {layer.name: layer for layer in network.layers.walk() if isinstance(layer, Product)}
    for layer in shape_of.values():
        recipe = layer.recipe
        forward, backward, positions = _lengths(layer)
        weight, activation, error = (_bits(role) for role in (recipe.weight, recipe.activation, recipe.error))
        aligned = recipe.alignment
        magnitude, with_bias = forward << (weight + activation - 2), None
        if layer.bias is not None:
            form = recipe.activation.format
            with_bias = isinstance(form, Fixed) and isinstance(recipe.weight.format, Fixed)
            if isinstance(form, Fixed) and with_bias:
                shift = form.fraction_bits  # a bias has the weight's point, a sum both
                magnitude += 1 << max(0, weight - 1 + shift)
        bounds.append(_bound(layer, "forward", forward, (activation, weight), with_bias, magnitude))
        if layer.gives_input_gradient:
            w = aligned if _by_row(recipe.weight) else weight
            bounds.append(_bound(layer, "backward", backward, (error, w), None, backward << (error + w - 2)))
        e = aligned if _by_row(recipe.error) or _by_row(recipe.activation) else error
        terms = batch * positions
        bounds.append(_bound(layer, "gradient", terms, (activation, e), None, terms << (activation + e - 2)))
    return bounds


def _lengths(layer: Product) -> tuple[int, int, int]:
    """Return how many products a sum has forwards and backwards, and how many positions of an image share a weight."""
    shape = layer.weight.value.mantissa.shape
    if not isinstance(layer, Conv2D):
        return shape[1], shape[0], 1
    (kh, kw), (top, bottom, left, right) = layer.kernel, layer.padding
    height = kernels.output_size(layer.size[0], kh, layer.stride[0], top, bottom)
    width = kernels.output_size(layer.size[1], kw, layer.stride[1], left, right)
    return kh * kw * shape[3], kh * kw * shape[0] // layer.groups, height * width


def _bits(role: Role) -> int:
    return role.format.word_bits


def _by_row(role: Role) -> bool:
    return isinstance(role.format, BlockFloat) and role.format.block == "row"


def _bound(
    layer: Product, sums: str, terms: int, word_bits: tuple[int, int], bias: bool | None, magnitude: int
) -> AccumulatorBound:
    # -2**(b - 1) .. 2**(b - 1) - 1, and both ends of -magnitude .. magnitude may be reached
    return AccumulatorBound(layer.name, sums, terms, word_bits, bias, magnitude.bit_length() + 1)
