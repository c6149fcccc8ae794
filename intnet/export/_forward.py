"""A network's layers on real numbers, in float64: for ranges of float weights, before there are integers."""

from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from intnet.errors import InputError
from intnet.export._arrays import Floats
from intnet.layers import (
    AvgPool2D,
    BatchNorm,
    BinaryConv2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    HardTanh,
    Layer,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Sign,
    Tanh,
)

Weights = Mapping[str, Mapping[str, Floats]]
_WINDOW_NUMBERS = 2**23  # of a convolution's windows that are copied at once

See = Callable[[Layer, Floats, Floats], None]


def forward(layer: Layer, x: Floats, weights: Weights, see: See) -> Floats:
    """Return what a layer gives for a batch, in evaluation.

    Parameters
    ----------
    layer : Layer
        Built.
    x : (n, *shape) float64
        Channels last.
    weights : mapping of layer to its arrays by name
        A batch normalization that has none is left out: it was folded.
    see : function
        Called with every layer, what it took and what it gave.

    Raises
    ------
    InputError
        If there is a layer of an unknown kind.
    """
    if isinstance(layer, Sequential):
        for one in layer.layers:
            x = forward(one, x, weights, see)
        return x
    if isinstance(layer, Residual):
        other = x if layer.shortcut is None else forward(layer.shortcut, x, weights, see)
        y = forward(layer.body, x, weights, see) + other
    elif isinstance(layer, BatchNorm) and layer.name not in weights:
        return x
    else:
        y = _apply(layer, x, weights.get(layer.name, {}))
    see(layer, x, y)
    return y


def _apply(layer: Layer, x: Floats, mine: Mapping[str, Floats]) -> Floats:
    match layer:
        case Dense():
            return x @ mine["weight"].T + mine.get("bias", 0.0)
        case Conv2D():
            weight = mine["weight"]
            if isinstance(layer, BinaryConv2D):
                weight = np.where(weight < 0, -1.0, 1.0)
            return _convolve(x, weight, layer) + mine.get("bias", 0.0)
        case BatchNorm():
            factor = mine["gamma"] / np.sqrt(mine["running_variance"] + 2.0**-layer.epsilon_shift)
            return factor * (x - mine["running_mean"]) + mine["beta"]
        case ReLU():
            return np.maximum(x, 0)
        case LeakyReLU():
            return np.where(x < 0, x * 2.0**-layer.shift, x)
        case HardTanh():
            return np.clip(x, -1, 1)
        case Sign():
            return np.where(x < 0, -1.0, 1.0)
        case Sigmoid() | Tanh():
            return np.asarray(layer.function(x))
        case Flatten():
            return x.reshape(len(x), -1)
        case Dropout():
            return x
        case MaxPool2D():
            return _windows(x, layer.window, layer.stride, layer.padding, -np.inf).max(axis=(-2, -1))
        case AvgPool2D():
            return _windows(x, layer.window, layer.stride, layer.padding, 0).sum(axis=(-2, -1)) / prod(layer.window)
        case GlobalAvgPool():
            return x.mean(axis=(1, 2))
    raise InputError(
        f"layer {layer.name!r} ({type(layer).__name__}) has no float pass to find ranges with; import without calibration"
    )


def _windows(
    x: Floats, window: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int], outside: float
) -> Floats:
    """Return every window: (n, height, width, channels, window height, window width), a view of the padded images."""
    top, bottom, left, right = padding
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=outside)
    every = np.lib.stride_tricks.sliding_window_view(padded, window, axis=(1, 2))
    return every[:, :: stride[0], :: stride[1]]


def _convolve(x: Floats, weight: Floats, layer: Conv2D) -> Floats:
    outputs, kh, kw, channels = weight.shape
    windows = _windows(x, (kh, kw), layer.stride, layer.padding, 0)
    n, height, width = windows.shape[:3]
    y = np.empty((n, height, width, outputs))
    of_group = outputs // layer.groups
    step = max(1, _WINDOW_NUMBERS // max(1, height * width * channels * kh * kw))
    for group in range(layer.groups):
        rows = slice(group * of_group, (group + 1) * of_group)
        taken = slice(group * channels, (group + 1) * channels)
        matrix = weight[rows].transpose(3, 1, 2, 0).reshape(-1, of_group)
        for first in range(0, n, step):
            part = windows[first : first + step, :, :, taken]
            y[first : first + step, :, :, rows] = part.reshape(*part.shape[:3], -1) @ matrix
    return y
