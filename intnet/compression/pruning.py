"""Magnitude pruning: weights whose magnitude is below a percentile of a layer, or of all layers, become zero.

The percentile is that of ``numpy.percentile`` with linear interpolation, and the comparison is strict, both exact, where NumPy
may be a last place beside: of n magnitudes in rising order, the q-th percentile lies between numbers k and k + 1,
``k + f = q (n - 1) / 100``. What is pruned may grow again when it is trained; a mask, once enforced, holds it at zero after
every step.

References
----------
Han et al. 2015, Learning both Weights and Connections for Efficient Neural Networks, arXiv:1506.02626.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intnet.compression._layers import choose
from intnet.errors import InputError
from intnet.layers import BinaryConv2D, Conv2D, Parameter
from intnet.layers.product import Product
from intnet.network import Network
from intnet.tensor import QTensor

Magnitudes = NDArray[np.int64]


@dataclass(frozen=True)
class Sparsity:
    """How many of a layer's weights are zero, of those that are stored: in the wider copy, where there is one.

    Attributes
    ----------
    layer : str
        "total" for all of them.
    weights, zeros : int
    """

    layer: str
    weights: int
    zeros: int

    @property
    def sparsity(self) -> float:
        """Zeros as a fraction of 1."""
        return self.zeros / self.weights


def prunable(network: Network) -> list[str]:
    """Return the layers that are pruned unless others are named: all that multiply by weights, but 1x1 shortcuts and signs."""
    kinds = [layer for layer in network.layers.walk() if isinstance(layer, Product)]
    layers = [layer for layer in kinds if not isinstance(layer, BinaryConv2D)]
    return [layer.name for layer in layers if not _is_projection(layer)]


def _is_projection(layer: Product) -> bool:
    return "/shortcut/" in layer.name and isinstance(layer, Conv2D) and layer.kernel == (1, 1)


def prune_layers(
    network: Network, percentile: Any, layers: str | Iterable[str] | None = None, *, masked: bool = True
) -> list[Sparsity]:
    """Set to zero, in each layer, the weights whose magnitudes are below a percentile of that layer's magnitudes.

    Parameters
    ----------
    network : Network
        On the CPU. Of weights with a master copy, the copy is looked at and pruned, and the weight with it.
    percentile : number or text, 0..100
        Exact: 0.1 is a tenth.
    layers : str or sequence of str, optional
        Names, or patterns of them (``fnmatch``); by default `prunable`.
    masked : bool
        Whether a mask holds what is zero at zero from now on; else it may grow again.

    Returns
    -------
    list of Sparsity
        See `sparsity`.

    Raises
    ------
    InputError
        If the percentile is outside 0..100, or a layer is unknown or has no weights.

    Examples
    --------
    >>> from intnet import Network, layers
    >>> network = Network([layers.Dense(10), layers.ReLU(), layers.Dense(10)], (20,), "fixed16")
    >>> [(one.layer, one.zeros) for one in prune_layers(network, 80)]
    [('dense1', 160), ('dense2', 80), ('total', 240)]
    """
    share, chosen = _share(percentile), _weights(network, layers)
    for parameter in chosen.values():
        _zero_below(parameter, magnitudes(parameter)[0], share, None)
    return _finish(network, chosen, masked)


def prune_globally(
    network: Network, percentile: Any, layers: str | Iterable[str] | None = None, *, masked: bool = True
) -> list[Sparsity]:
    """Set to zero the weights whose magnitudes are below a percentile of the magnitudes of all these layers together.

    Parameters, returns and errors are those of `prune_layers`; where weights have different exponents they are compared as the
    numbers they stand for.
    """
    share, chosen = _share(percentile), _weights(network, layers)
    found = {name: magnitudes(parameter) for name, parameter in chosen.items()}
    least = min((exponent for values, exponent in found.values() if values.any()), default=0)
    found = {name: (values, exponent if values.any() else least) for name, (values, exponent) in found.items()}
    room = max(int(values.max(initial=0)).bit_length() + exponent - least for values, exponent in found.values())
    if room > _ROOM:
        raise InputError(f"weights of these layers span {room} bits and may span {_ROOM}; prune them by layers")
    common = {name: values << np.int64(exponent - least) for name, (values, exponent) in found.items()}
    together = np.concatenate([values.reshape(-1) for values in common.values()])
    for name, parameter in chosen.items():
        _zero_below(parameter, common[name], share, together)
    return _finish(network, chosen, masked)


def enforce(network: Network, layers: str | Iterable[str] | None = None) -> None:
    """Hold at zero, from now on, what is zero in these layers: a mask is set to what is not."""
    for parameter in _weights(network, layers).values():
        parameter.mask = parameter.stored.mantissa != 0
        parameter.enforce()


def release(network: Network, layers: str | Iterable[str] | None = None) -> None:
    """Take the masks of these layers away: their zeros stay, and may grow again."""
    for parameter in _weights(network, layers).values():
        parameter.mask = None


def set_mask(network: Network, layer: str, mask: ArrayLike) -> None:
    """Set a layer's mask, and hold at zero what it has at 0 or False.

    Raises
    ------
    InputError
        If there is no such layer, or the mask is of another shape or holds something else.
    """
    chosen = _weights(network, [layer])
    if len(chosen) > 1:
        raise InputError(f"a mask is for one layer, and {layer!r} stands for {', '.join(chosen)}")
    (parameter,) = chosen.values()
    try:
        given = np.asarray(mask)
    except ValueError:
        raise InputError(f"a mask of layer {layer!r} has shape {parameter.shape}, got rows of different lengths") from None
    if given.shape != parameter.shape:
        raise InputError(f"the weights of layer {layer!r} have shape {parameter.shape}, got a mask of shape {given.shape}")
    if given.dtype != np.bool_ and not (given.dtype.kind in "iu" and np.isin(given, (0, 1)).all()):
        raise InputError(f"a mask holds True and False, or 1 and 0, got {given.dtype}")
    parameter.mask = given.astype(np.bool_)
    parameter.enforce()


def sparsity(network: Network, layers: str | Iterable[str] | None = None) -> list[Sparsity]:
    """Return the zeros of each of these layers, and of all of them ("total"), by default `prunable`."""
    return _counted(_weights(network, layers))


# The rule ---------------------------------------------------------------------------------------------------------------

_ROOM = 61


def magnitudes(parameter: Parameter) -> tuple[Magnitudes, int]:
    """Return the magnitudes of what is stored of a parameter, in units of ``2**exponent``, and that exponent."""
    tensor: QTensor = parameter.stored
    exponents = tensor.exponents()
    filled = tensor.mantissa != 0
    least = int(exponents[filled].min()) if filled.any() else int(exponents.min())
    ups = np.where(filled, exponents - least, 0)
    if (word := int(np.abs(tensor.mantissa.astype(np.int64)).max(initial=0)).bit_length() + int(ups.max(initial=0))) > _ROOM:
        raise InputError(f"the blocks of {parameter.name} span {word} bits and may span {_ROOM}; give it one exponent")
    return np.left_shift(np.abs(tensor.mantissa.astype(np.int64)), ups.astype(np.int64)), least


def below_percentile(values: Magnitudes, share: Fraction, among: Magnitudes | None = None) -> NDArray[np.bool_]:
    """Tell which magnitudes are below the percentile `share`, 0..1, of themselves, or of others.

    >>> below_percentile(np.array([1, 2, 3, 4]), Fraction(1, 2)).tolist()
    [True, True, False, False]
    """
    every = np.sort((values if among is None else among).reshape(-1))
    place = share * (len(every) - 1)
    at = int(place)  # the floor: it is not negative
    low, high = int(every[at]), int(every[min(at + 1, len(every) - 1)])
    threshold = low + (place - at) * (high - low)
    return values < np.int64(-(-threshold.numerator // threshold.denominator))  # integers below x are those below its ceiling


def _zero_below(parameter: Parameter, values: Magnitudes, share: Fraction, among: Magnitudes | None) -> None:
    keeps, before = ~below_percentile(values, share, among), parameter.mask
    parameter.mask = keeps if before is None else keeps & before
    parameter.enforce()
    parameter.mask = before


def _finish(network: Network, chosen: dict[str, Parameter], masked: bool) -> list[Sparsity]:
    if masked:
        enforce(network, list(chosen))
    return _counted(chosen)


def _counted(chosen: dict[str, Parameter]) -> list[Sparsity]:
    rows = [Sparsity(name, one.size, int(np.count_nonzero(one.stored.mantissa == 0))) for name, one in chosen.items()]
    return [*rows, Sparsity("total", sum(one.weights for one in rows), sum(one.zeros for one in rows))]


def _share(percentile: Any) -> Fraction:
    try:
        if isinstance(percentile, (bool, np.ndarray)):
            raise ValueError
        exact = Fraction(str(percentile))  # 0.1 is a tenth
    except (TypeError, ValueError, ZeroDivisionError):
        raise InputError(f"a percentile is a number in 0..100, got {percentile!r}") from None
    if not 0 <= exact <= 100:
        raise InputError(f"a percentile is a number in 0..100, got {percentile!r}")
    return exact / 100


def _weights(network: Network, layers: str | Iterable[str] | None) -> dict[str, Parameter]:
    if network.device != "cpu":
        raise InputError("this network lives on a GPU; move it back with network.to('cpu')")
    chosen = choose(network, prunable(network) if layers is None else layers)
    if signs := [layer.name for layer in chosen if isinstance(layer, BinaryConv2D)]:
        raise InputError(f"layer {signs[0]!r} multiplies by signs, which are never zero; name other layers")
    return {layer.name: layer.weight for layer in chosen}
