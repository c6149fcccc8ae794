"""Float weights as other tools keep them: where they are read from, what they are called, and which way their axes go."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from intnet.errors import InputError, InputTypeError
from intnet.layers import BatchNorm, Flatten, Layer, Residual, Sequential
from intnet.layers.product import Conv2D, Product

Floats = NDArray[np.float64]
LAYOUTS = ("intnet", "pytorch")
_UNUSED = "num_batches_tracked"  # PyTorch counts batches; nothing is computed from it


@dataclass(frozen=True)
class Source:
    """Arrays by name, in the order in which they were given, if that is known."""

    arrays: Mapping[str, Any]
    where: str
    ordered: bool = True


def read(source: Any) -> Source:
    """Return the arrays of a mapping, an ``.npz`` file or a ``.safetensors`` file.

    Raises
    ------
    InputError
        If it is none of these or cannot be read, or the package safetensors is not there.
    """
    if isinstance(source, Mapping):
        return Source(source, "the weights")
    if not isinstance(source, (str, os.PathLike)):
        raise InputTypeError(
            f"float weights come from a mapping of arrays, an .npz or a .safetensors file, got {type(source).__name__}"
        )
    path = Path(source)
    if path.suffix not in (".npz", ".safetensors"):
        raise InputError(f"float weights come from an .npz or a .safetensors file, got {str(path)!r}; numpy.savez writes one")
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}")
    if path.suffix == ".npz":
        try:
            with path.open("rb") as file:
                loaded = np.load(file, allow_pickle=False)
                if not isinstance(loaded, np.lib.npyio.NpzFile):
                    raise ValueError("it holds one array without a name")
                return Source({name: loaded[name] for name in loaded.files}, str(path))
        except (OSError, ValueError, BadZipFile, EOFError, NotImplementedError, KeyError) as error:
            raise InputError(f"{str(path)!r} cannot be read as .npz without pickles: {error}") from None
    try:
        from safetensors.numpy import load_file
    except ImportError:
        raise InputError(
            f"{str(path)!r} needs the package safetensors, which is not installed; run: pip install 'intnet[safetensors]'"
        ) from None
    try:
        return Source(load_file(path), str(path), ordered=False)
    except Exception as error:  # SafetensorError is an Exception and nothing else
        raise InputError(f"{str(path)!r} cannot be read as .safetensors: {error}") from None


def expected(layer: Layer) -> dict[str, tuple[int, ...]]:
    """Return what a built layer's arrays are called in intnet, and their shapes."""
    if isinstance(layer, Product):
        shapes = {"weight": layer.weight.shape}
        return shapes if layer.bias is None else {**shapes, "bias": layer.bias.shape}
    if isinstance(layer, BatchNorm):
        return dict.fromkeys(("gamma", "beta", "running_mean", "running_variance"), layer.gamma.shape)
    return {}


_OF_PYTORCH = {"gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_variance": "running_var"}


def collect(source: Source, network: Sequential, layout: str, names: Mapping[str, str] | None) -> dict[str, dict[str, Floats]]:
    """Return every layer's arrays by intnet's names and axes, checked.

    Parameters
    ----------
    source : Source
    network : Sequential
        Built.
    layout : {"intnet", "pytorch"}
    names : mapping of layer to prefix, optional
        What layers are called in the source.

    Raises
    ------
    InputError
        If an array is missing, of another shape, not finite, no array of numbers, or belongs to no layer; it is named.
    """
    if layout not in LAYOUTS:
        raise InputError(f"a layout of weights is one of {', '.join(LAYOUTS)}, got {layout!r}")
    layers = {layer.name: layer for layer in network.walk() if layer.parameters_here}
    if names is not None and (foreign := sorted(set(names) - set(layers))):
        raise InputError(f"names has {foreign[0]!r}, and the layers with weights are {', '.join(layers)}")
    torch = layout == "pytorch"
    if names is not None:
        prefixes = {name: names.get(name, name) for name in layers}
    elif torch:
        prefixes = _in_order(source, layers)
    else:
        prefixes = {name: name for name in layers}
    flattened = _flattened(network, None, {})[1] if torch else {}
    found, used = {}, set()
    for name, layer in layers.items():
        mine: dict[str, Floats] = {}
        for part, shape in expected(layer).items():
            called = _OF_PYTORCH[part] if torch and isinstance(layer, BatchNorm) else part
            key = f"{prefixes[name]}.{called}"
            if key not in source.arrays:
                without = " (bias=False makes a layer without)" if part == "bias" else ""
                raise InputError(
                    f"{source.where}: there is no array {key!r} for {part} of layer {name!r}{without}; there are "
                    f"{_few(source.arrays)}"
                )
            used.add(key)
            image = None if part == "bias" else flattened.get(name)
            mine[part] = _as_floats(key, source.arrays[key], shape, layer, torch, image)
        found[name] = mine
    spare = [key for key in source.arrays if key not in used and not (torch and key.rpartition(".")[2] == _UNUSED)]
    if spare:
        owner = next((name for name, prefix in prefixes.items() if spare[0].rpartition(".")[0] == prefix), None)
        why = f"layer {owner!r} has none such (a bias?)" if owner else "it belongs to no layer of this network"
        raise InputError(f"{source.where}: array {spare[0]!r} is not used, {why}; take it out, or change the layers")
    return found


def _few(names: Iterable[str], most: int = 8) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _in_order(source: Source, layers: Mapping[str, Layer]) -> dict[str, str]:
    """Return the prefix of each layer: PyTorch's modules with arrays, in their order, are the layers with arrays in theirs."""
    prefixes = list(dict.fromkeys(str(key).rpartition(".")[0] for key in source.arrays))
    if not source.ordered:
        if not all(re.fullmatch(r"(\w*\.)*\d+", prefix) for prefix in prefixes) and len(prefixes) > 1:
            raise InputError(
                f"{source.where} keeps no order of its arrays; tell with names which of {_few(prefixes)} is which of "
                f"{_few(layers)}"
            )
        prefixes.sort(key=lambda prefix: [(one.isdecimal(), int(one) if one.isdecimal() else one) for one in prefix.split(".")])
    if len(prefixes) != len(layers):
        raise InputError(
            f"{source.where} has {len(prefixes)} modules with arrays ({_few(prefixes)}), and the network {len(layers)} layers "
            f"with weights ({_few(layers)}); tell with names which is which"
        )
    return dict(zip(layers, prefixes, strict=True))


def _as_floats(
    key: str, value: Any, shape: tuple[int, ...], layer: Layer, torch: bool, image: tuple[int, ...] | None
) -> Floats:
    """Return an array in intnet's axes; `image` is the shape of what was flattened before it comes here."""
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype.kind not in "fiu":
        raise InputTypeError(f"array {key!r} must hold real numbers, got {array.dtype}")
    floats = array.astype(np.float64)
    if not np.isfinite(floats).all():
        raise InputError(f"array {key!r} holds numbers that are not finite")
    wanted = shape
    if torch and isinstance(layer, Conv2D) and len(shape) == 4:
        wanted = (shape[0], shape[3], shape[1], shape[2])
    if floats.shape != wanted:
        raise InputError(
            f"array {key!r} has shape {floats.shape}, and layer {layer.name!r} needs {wanted}"
            + (f" ({'out, in, height, width' if torch else 'out, height, width, in'})" if len(wanted) == 4 else "")
        )
    if wanted != shape:
        return np.ascontiguousarray(floats.transpose(0, 2, 3, 1))
    if image is not None:
        height, width, channels = image  # PyTorch flattens channel, row, column
        apart = floats.reshape(*floats.shape[:-1], channels, height, width)
        return np.ascontiguousarray(np.moveaxis(apart, -3, -1).reshape(floats.shape))
    return floats


def _flattened(
    layer: Layer, image: tuple[int, ...] | None, found: dict[str, tuple[int, ...]]
) -> tuple[tuple[int, ...] | None, dict[str, tuple[int, ...]]]:
    """Find the layers that take a flattened image: what runs between it and them works on every number by itself."""
    if isinstance(layer, Residual):
        outside = image
        image, _ = _flattened(layer.body, outside, found)
        if layer.shortcut is not None:
            _flattened(layer.shortcut, outside, found)
    elif isinstance(layer, Sequential):
        for one in layer.layers:
            image, _ = _flattened(one, image, found)
    elif isinstance(layer, Flatten):
        image = layer.shape if len(layer.shape) == 3 else image
    elif layer.parameters_here:
        if image is not None:
            found[layer.name] = image
        image = image if isinstance(layer, BatchNorm) else None
    return image, found
