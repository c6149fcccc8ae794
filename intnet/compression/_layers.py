"""Which layers are meant."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from intnet.errors import InputError
from intnet.layers.product import Product
from intnet.network import Network


def choose(network: Network, layers: str | Iterable[str]) -> list[Product]:
    """Return the layers with weights to multiply by whose names are given, or match patterns, in the network's order.

    Raises
    ------
    InputError
        If a name or pattern matches none.
    """
    if not isinstance(layers, Iterable):
        raise InputError(f"layers are names or patterns of names, got {layers!r}")
    patterns = [layers] if isinstance(layers, str) else list(layers)
    every = [layer for layer in network.layers.walk() if isinstance(layer, Product)]
    names = {layer.name for layer in every}

    def matches(name: str, pattern: str) -> bool:
        return name == pattern if pattern in names else fnmatchcase(name, pattern)  # a name stands for itself alone

    if not patterns or not every:
        raise InputError("there is no layer with weights" + (" among those asked for" if every else " in this network"))
    for pattern in patterns:
        if not isinstance(pattern, str) or not any(matches(name, pattern) for name in names):
            raise InputError(
                f"no layer with weights is called {pattern!r}; there are {', '.join(layer.name for layer in every)}"
            )
    return [layer for layer in every if any(matches(layer.name, pattern) for pattern in patterns)]
