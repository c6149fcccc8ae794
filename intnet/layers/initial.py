"""Initial weights: drawn as real numbers, and quantized once. The only floats a layer sees."""

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from intnet.errors import InputError

SCHEMES = {
    "zeros": "0",
    "ones": "1",
    "he_normal": "normal, variance 2 / fan_in (He et al. 2015)",
    "he_uniform": "uniform, variance 2 / fan_in",
    "xavier_normal": "normal, variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010)",
    "xavier_uniform": "uniform, variance 2 / (fan_in + fan_out)",
    "lecun_uniform": "uniform in +-1 / sqrt(fan_in), PyTorch's for dense layers and biases",
}
"""The schemes, and what they draw."""


def draw(scheme: str, shape: tuple[int, ...], fan_in: int, fan_out: int, seed: int, stream: int) -> NDArray[np.float64]:
    """Return initial values.

    They come from NumPy's RandomState, whose numbers NumPy keeps the same from version to version.

    Parameters
    ----------
    scheme : str
        One of `SCHEMES`.
    shape : tuple of int
    fan_in, fan_out : int
        Inputs of one output, and outputs of one input.
    seed, stream : int
        Name the draw.

    Raises
    ------
    InputError
        If the scheme is unknown.
    """
    if scheme not in SCHEMES:
        raise InputError(f"initial weights {scheme!r} are unknown; choose one of {', '.join(SCHEMES)}")
    if scheme in ("zeros", "ones"):
        return np.full(shape, float(scheme == "ones"))
    random = np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32, stream])  # its numbers never change
    variance = {"he": 2 / fan_in, "xavier": 2 / (fan_in + fan_out), "lecun": 1 / (3 * fan_in)}[scheme.split("_")[0]]
    if scheme.endswith("normal"):
        return random.standard_normal(shape) * sqrt(variance)
    return (random.random_sample(shape) * 2 - 1) * sqrt(3 * variance)
