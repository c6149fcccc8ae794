"""Networks of the studies, as layers to be built by :class:`intnet.network.Network`.

Every model takes the number of classes and a width: a factor on the number of units or channels of every layer but the last,
rounded to the nearest whole number, at least 1. Parameter counts are those of the sheets at width 1 and 10 classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from intnet.errors import InputError
from intnet.layers import (
    BatchNorm,
    BinaryConv2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sign,
)


def mlp(classes: int = 10, width: float = 1, *, hidden: Sequence[int] = (100, 50), bias: bool | None = None) -> Sequential:
    """Return a multi-layer perceptron with ReLU: by default 784-100-50-10 on MNIST, the network of NITRO-D and PocketNN.

    Parameters
    ----------
    classes : int
    width : float
    hidden : sequence of int
        Units of the hidden layers.
    bias : bool, optional
        By default as the recipe says.
    """
    units = _checked(classes, width)
    if isinstance(hidden, str) or any(
        isinstance(one, bool) or not isinstance(one, (int, np.integer)) or one < 1 for one in hidden
    ):
        raise InputError(f"hidden layers are integers of at least 1, got {hidden!r}")
    layers: list[Layer] = [Flatten()]
    for count in hidden:
        layers += [Dense(units(count), bias=bias), ReLU()]
    return Sequential(*layers, Dense(classes, bias=bias, initial="xavier_uniform"))


def lenet5(classes: int = 10, width: float = 1, *, bias: bool | None = None) -> Sequential:
    """Return the LeNet of NITI and Caffe: convolutions 5x5 of 20 and 50 channels, each max-pooled, dense 500, classes.

    28x28 images of one channel; 431,080 parameters with biases.
    """
    units = _checked(classes, width)
    return Sequential(
        Conv2D(units(20), 5, bias=bias), ReLU(), MaxPool2D(2),
        Conv2D(units(50), 5, bias=bias), ReLU(), MaxPool2D(2),
        Flatten(), Dense(units(500), bias=bias), ReLU(), Dense(classes, bias=bias, initial="xavier_uniform"),
    )  # fmt: skip


def _vgg(plan: Sequence[int | str], units: Callable[[int], int], bias: bool | None, batch_norm: bool) -> list[Layer]:
    """Return 3x3 convolutions of so many channels; "M" is a max-pool."""
    layers: list[Layer] = []
    for entry in plan:
        if isinstance(entry, str):
            layers.append(MaxPool2D(2))
        else:
            layers.append(Conv2D(units(entry), 3, padding=1, bias=False if batch_norm else bias))
            layers += [BatchNorm(), ReLU()] if batch_norm else [ReLU()]
    return layers


def vgg_small(
    classes: int = 10, width: float = 1, *, batch_norm: bool = True, dropout: float = 0, bias: bool | None = None
) -> Sequential:
    """Return NITI's VGG-small-7 (WAGE's VGG7): 128, 128, pool, 256, 256, pool, 512, 512, pool, dense.

    Parameters
    ----------
    classes, width : as above
    batch_norm : bool
        Neither NITI nor WAGE has batch normalization; with it a plain recipe trains faster.
    dropout : float
        Before the dense layer; NITI's is 1/2.
    bias : bool, optional
        By default as the recipe says; convolutions before batch normalization have none.
    """
    units = _checked(classes, width)
    layers = _vgg((128, 128, "M", 256, 256, "M", 512, 512, "M"), units, bias, batch_norm)
    layers.append(Flatten())
    if dropout:
        layers.append(Dropout(dropout))
    return Sequential(*layers, Dense(classes, bias=bias, initial="xavier_uniform"))


def vgg16(classes: int = 10, width: float = 1, *, dropout: float = 0.5) -> Sequential:
    """Return SWALP's VGG16 for 32x32 images, without batch normalization: 15,245,130 parameters."""
    units = _checked(classes, width)
    plan = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
    layers = [*_vgg(plan, units, True, False), Flatten()]
    for _ in range(2):
        layers += (
            [Dropout(dropout), Dense(units(512), bias=True), ReLU()] if dropout else [Dense(units(512), bias=True), ReLU()]
        )
    return Sequential(*layers, Dense(classes, bias=True, initial="xavier_uniform"))


def _conv(outputs: int, kernel: int, stride: int = 1) -> Conv2D:
    return Conv2D(outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


def _basic(inputs: int, outputs: int, stride: int) -> list[Layer]:
    """Return a basic block of He et al. 2016: two 3x3 convolutions, and a ReLU after the sum."""
    body = [_conv(outputs, 3, stride), BatchNorm(), ReLU(), _conv(outputs, 3), BatchNorm()]
    changed = stride != 1 or inputs != outputs
    return [Residual(body, [_conv(outputs, 1, stride), BatchNorm()] if changed else None), ReLU()]


def _resnet(classes: int, widths: Sequence[int], blocks: int) -> Sequential:
    layers: list[Layer] = [_conv(widths[0], 3), BatchNorm(), ReLU()]
    channels = widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            layers += _basic(channels, width, 2 if stage and not block else 1)
            channels = width
    return Sequential(*layers, GlobalAvgPool(), Dense(classes, bias=True, initial="xavier_uniform"))


def resnet18(classes: int = 10, width: float = 1) -> Sequential:
    """Return ResNet-18 for 32x32 images: stages of 64, 128, 256, 512 channels, two basic blocks each; 11,173,962 parameters."""
    units = _checked(classes, width)
    return _resnet(classes, [units(count) for count in (64, 128, 256, 512)], 2)


def resnet20(classes: int = 10, width: float = 1) -> Sequential:
    """Return ResNet-20 for 32x32 images: stages of 16, 32, 64 channels, three basic blocks each; 272,474 parameters.

    Where the shape changes, the shortcut is a 1x1 convolution with batch normalization.
    """
    units = _checked(classes, width)
    return _resnet(classes, [units(count) for count in (16, 32, 64)], 3)


def binary_resnet18(classes: int = 10, width: float = 1, *, weights: str = "binary", window: str = "clip") -> Sequential:
    """Return ResNet-18 for 32x32 images whose inner convolutions see signs: sign, convolution, batch normalization.

    The first convolution, the shortcuts' and the last layer are as in `resnet18`. The sums of the blocks are not binary; after
    the last block's convolutions no sign follows.

    Parameters
    ----------
    classes, width : as above
        At width 1/8 the stages have 8, 16, 32 and 64 channels.
    weights : {"binary", "full"}
        Of the inner convolutions: signs (:class:`intnet.layers.BinaryConv2D`), or as the recipe has them.
    window : str
        Of :class:`intnet.layers.Sign`.
    """
    units = _checked(classes, width)
    if weights not in ("binary", "full"):
        raise InputError(f"weights are binary or full, got {weights!r}")
    conv = BinaryConv2D if weights == "binary" else Conv2D
    channels = units(64)
    layers: list[Layer] = [_conv(channels, 3), BatchNorm()]
    for stage, outputs in enumerate(units(count) for count in (64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            body: list[Layer] = []
            for of_conv in (stride, 1):
                body += [Sign(window), conv(outputs, 3, stride=of_conv, padding=1, bias=False), BatchNorm()]
            changed = stride != 1 or channels != outputs
            layers.append(Residual(body, [_conv(outputs, 1, stride), BatchNorm()] if changed else None))
            channels = outputs
    return Sequential(*layers, GlobalAvgPool(), Dense(classes, bias=True, initial="xavier_uniform"))


def preresnet164(classes: int = 10, width: float = 1, *, depth: int = 164) -> Sequential:
    """Return SWALP's PreResNet-164: three stages of 18 bottlenecks, normalized before each convolution; 1,703,258 parameters.

    Parameters
    ----------
    classes, width : as above
    depth : int
        9 n + 2 for bottlenecks from 56 on (164: n = 18 a stage), else 6 n + 2 for basic blocks (20: n = 3).

    Notes
    -----
    As released, the projection of a stage's first block stands on the block's input and has no normalization.
    """
    units = _checked(classes, width)
    if isinstance(depth, bool) or not isinstance(depth, (int, np.integer)):
        raise InputError(f"depth must be an integer, got {depth!r}")
    bottleneck = depth >= 56
    layers_a_block, growth = (9, 4) if bottleneck else (6, 1)
    if (depth - 2) % layers_a_block or depth < 8:
        raise InputError(f"depth must be 9 n + 2 from 56 on or 6 n + 2 below, got {depth}")
    channels = units(16)
    layers: list[Layer] = [_conv(channels, 3)]
    for stage, planes in enumerate(units(count) for count in (16, 32, 64)):
        for block in range((depth - 2) // layers_a_block):
            stride = 2 if stage and not block else 1
            if bottleneck:
                body = [
                    BatchNorm(), ReLU(), _conv(planes, 1), BatchNorm(), ReLU(), _conv(planes, 3, stride),
                    BatchNorm(), ReLU(), _conv(4 * planes, 1),
                ]  # fmt: skip
            else:
                body = [BatchNorm(), ReLU(), _conv(planes, 3, stride), BatchNorm(), ReLU(), _conv(planes, 3)]
            outputs = growth * planes
            changed = stride != 1 or channels != outputs
            layers.append(Residual(body, [_conv(outputs, 1, stride)] if changed else None))
            channels = outputs
    return Sequential(*layers, BatchNorm(), ReLU(), GlobalAvgPool(), Dense(classes, bias=True, initial="xavier_uniform"))


@dataclass(frozen=True)
class Model:
    """A model by name: how it is made, and the shape of the images it was made for (None: any)."""

    make: Callable[..., Sequential]
    shape: tuple[int, ...] | None
    parameters: int | None


MODELS: dict[str, Model] = {
    "mlp": Model(mlp, None, None),
    "lenet5": Model(lenet5, (28, 28, 1), 431_080),
    "vgg_small": Model(vgg_small, (32, 32, 3), None),
    "vgg16": Model(vgg16, (32, 32, 3), 15_245_130),
    "resnet18": Model(resnet18, (32, 32, 3), 11_173_962),
    "binary_resnet18": Model(binary_resnet18, (32, 32, 3), 11_173_962),
    "resnet20": Model(resnet20, (32, 32, 3), 272_474),
    "preresnet164": Model(preresnet164, (32, 32, 3), 1_703_258),
}
"""The models by name."""


def make_model(name: str, classes: int = 10, width: float = 1, **options: Any) -> Sequential:
    """Return the layers of the model of that name.

    Raises
    ------
    InputError
        If there is none, or an option is not its own.
    """
    if name not in MODELS:
        raise InputError(f"model {name!r} is unknown; choose one of {', '.join(MODELS)}")
    try:
        return MODELS[name].make(classes, width, **options)
    except TypeError as error:
        raise InputError(f"model {name!r}: {error}") from None


def _checked(classes: Any, width: Any) -> Callable[[int], int]:
    if isinstance(classes, bool) or not isinstance(classes, (int, np.integer)) or classes < 2:
        raise InputError(f"a model needs at least 2 classes, got {classes!r}")
    if isinstance(width, bool) or not isinstance(width, (int, float, np.number)) or not 0 < width <= 64:
        raise InputError(f"width is a factor above 0 and up to 64, got {width!r}")
    return lambda count: max(1, round(count * width))
