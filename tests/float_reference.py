"""Every layer and loss in float64, by the real formulas, slowly. It imports nothing of intnet.

A built network comes as an argument: its parameters are read as the real numbers they stand for, and its layers are told
apart by the names of their classes. Nothing is rounded here, so what an integer network differs by is its rounding.
"""

import naive
import numpy as np


class Reference:
    """A network, or one layer, in float64.

    Attributes
    ----------
    gradients : dict of arrays
        After :meth:`backward`, of every parameter by its name.
    """

    def __init__(self, layer, step):
        self.layer, self.step, self.gradients = layer, step, {}

    def forward(self, x):
        y, self._back = self.run(self.layer, x)
        return y

    def backward(self, dy):
        return self._back(dy)

    def run(self, layer, x):
        return RULES[type(layer).__name__](self, layer, x)

    def value(self, layer, name):
        parameter = getattr(layer, name)
        return None if parameter is None else parameter.value.to_float()

    def keep(self, layer, **gradients):
        for name, gradient in gradients.items():
            if getattr(layer, name) is not None:
                self.gradients[getattr(layer, name).name] = gradient


# Containers


def sequential(net, layer, x):
    backs = []
    for one in layer.layers:
        x, back = net.run(one, x)
        backs.append(back)

    def backward(dy):
        for back in reversed(backs):
            dy = back(dy)
        return dy

    return x, backward


def residual(net, layer, x):
    y, back = net.run(layer.body, x)
    other, other_back = net.run(layer.shortcut, x) if layer.shortcut is not None else (x, lambda dy: dy)
    return y + other, lambda dy: back(dy) + other_back(dy)


# Products


def dense(net, layer, x):
    weight, bias = net.value(layer, "weight"), net.value(layer, "bias")

    def backward(dy):
        net.keep(layer, weight=dy.T @ x, bias=dy.sum(0))
        return dy @ weight

    return x @ weight.T + (0 if bias is None else bias), backward


def convolution(net, layer, x):
    weight, bias = net.value(layer, "weight"), net.value(layer, "bias")
    geometry = layer.stride, layer.padding, layer.groups

    def backward(dy):
        dx, dw = naive.convolve_backward(x, weight, dy, *geometry)
        net.keep(layer, weight=dw, bias=dy.sum((0, 1, 2)))
        return dx

    return naive.convolve(x, weight, *geometry) + (0 if bias is None else bias), backward


def batch_norm(net, layer, x):
    gamma, beta = net.value(layer, "gamma"), net.value(layer, "beta")
    axes = tuple(range(x.ndim - 1))
    if net.step.training:
        mean, variance = x.mean(axes), x.var(axes)
    else:
        mean, variance = layer.running_mean * 2.0**-32, layer.running_variance * 2.0**-32
    root = np.sqrt(variance + 2.0**-layer.epsilon_shift)
    normal = (x - mean) / root

    def backward(dy):
        net.keep(layer, gamma=(dy * normal).sum(axes), beta=dy.sum(axes))
        return gamma / root * (dy - dy.mean(axes) - normal * (dy * normal).mean(axes))

    return gamma * normal + beta, backward


# What moves numbers


def flatten(_net, _layer, x):
    return x.reshape(len(x), -1), lambda dy: dy.reshape(x.shape)


def pool(layer, x, fill, reduce, share):
    """Pool windows (n, i, j, window, channels); `share` gives every place its part of the error."""
    (kh, kw), (sh, sw), padding = layer.window, layer.stride, layer.padding
    seen = naive.windows(x, layer.window, layer.stride, padding, fill)
    n, height, width, _, _, channels = seen.shape
    seen = seen.reshape(n, height, width, kh * kw, channels)

    def backward(dy):
        wide = np.zeros_like(naive.pad(x, padding))
        parts = share(seen) * dy[:, :, :, None]
        for i, j, k in np.ndindex(height, width, kh * kw):
            wide[:, i * sh + k // kw, j * sw + k % kw] += parts[:, i, j, k]
        return wide[:, padding[0] : padding[0] + x.shape[1], padding[2] : padding[2] + x.shape[2]]

    return reduce(seen), backward


def max_pool(_net, layer, x):
    def first_of_largest(seen):
        return np.arange(seen.shape[3])[:, None] == seen.argmax(3)[:, :, :, None]

    return pool(layer, x, -np.inf, lambda seen: seen.max(3), first_of_largest)


def mean_pool(_net, layer, x):
    return pool(layer, x, 0, lambda seen: seen.mean(3), lambda seen: np.full(seen.shape, 1 / seen.shape[3]))


def global_mean(_net, _layer, x):
    pixels = x.shape[1] * x.shape[2]
    return x.mean((1, 2)), lambda dy: np.broadcast_to(dy[:, None, None] / pixels, x.shape)


def dropout(net, layer, x):
    if not net.step.training or layer.keep == 2**16:
        return x, lambda dy: dy
    words = [naive.random_word(net.step.seed, layer.stream, net.step.number, i) for i in range(x.size)]
    scale = np.reshape([(word >> 16 < layer.keep) * 2**16 / layer.keep for word in words], x.shape)
    return x * scale, lambda dy: dy * scale


# Activations


def relu(_net, _layer, x):
    return np.maximum(x, 0), lambda dy: dy * (x > 0)


def leaky_relu(_net, layer, x):
    slope = np.where(x < 0, 2.0**-layer.shift, 1)
    return x * slope, lambda dy: dy * slope


def hard_tanh(_net, _layer, x):
    return np.clip(x, -1, 1), lambda dy: dy * (np.abs(x) < 1)


def sigmoid(_net, _layer, x):
    y = 1 / (1 + np.exp(-x))
    return y, lambda dy: dy * y * (1 - y)


def tanh(_net, _layer, x):
    y = np.tanh(x)
    return y, lambda dy: dy * (1 - y * y)


def sign(_net, layer, x):
    window = {"identity": np.ones_like(x), "clip": np.abs(x) <= 1, "polynomial": np.maximum(2 - 2 * np.abs(x), 0)}
    return np.where(x < 0, -1.0, 1.0), lambda dy: dy * window[layer.window]


RULES = {
    "Sequential": sequential,
    "Residual": residual,
    "Dense": dense,
    "Conv2D": convolution,
    "BatchNorm": batch_norm,
    "Flatten": flatten,
    "MaxPool2D": max_pool,
    "AvgPool2D": mean_pool,
    "GlobalAvgPool": global_mean,
    "Dropout": dropout,
    "ReLU": relu,
    "LeakyReLU": leaky_relu,
    "HardTanh": hard_tanh,
    "Sigmoid": sigmoid,
    "Tanh": tanh,
    "Sign": sign,
}


# Losses -----------------------------------------------------------------------------------------------------------------


def onehot(labels, classes):
    return (np.arange(classes) == np.asarray(labels)[:, None]).astype(float)


def cross_entropy(y, labels):
    """Return the gradient of the summed cross-entropy, and the sum."""
    p = np.exp(y - y.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return p - onehot(labels, y.shape[1]), float(-np.log(p[np.arange(len(p)), labels]).sum())


def squared_error(y, labels):
    """Return the gradient of half the summed squared error, and the whole of it."""
    difference = y - onehot(labels, y.shape[1])
    return difference, float((difference**2).sum())
