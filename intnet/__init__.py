"""Train neural networks in integers, bit for bit.

The names below are the public ones; each is imported when first used, so that ``import intnet`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from intnet._version import __version__

if TYPE_CHECKING:
    from intnet.advisor import Advice, advise
    from intnet.datasets import Dataset, load_cifar10, load_cifar100, load_digits, load_fashion_mnist, load_mnist
    from intnet.errors import DataError, InputError, InputTypeError, StudyError
    from intnet.export import compare_traces
    from intnet.formats import BlockFloat, Channel, Fixed, Overflow, Rounding, Tile, parse_format
    from intnet.inputs import Augmentation, Encoder, Inputs
    from intnet.models import make_model
    from intnet.network import Network
    from intnet.online import Cell, CellResult, OnlineProblem, train_cells
    from intnet.optimizers import HALP, SGD, SVRG, SWALP, Average, BitCentering, Factor, Schedule, SWALPSchedule
    from intnet.recipe import RECIPES, Recipe, Role
    from intnet.sklearn import IntegerMLPClassifier
    from intnet.sweeps import GridSpec, GridStore, SweepSpec, load_spec, open_grid, run_sweep
    from intnet.tensor import (
        Counters,
        QTensor,
        dequantize,
        matmul,
        multiply_by_quantized_multiplier,
        quantize,
        requantize,
        round_shift,
    )
    from intnet.training import Trainer, evaluate, pool_statistics

__all__ = [
    "HALP",
    "RECIPES",
    "SGD",
    "SVRG",
    "SWALP",
    "Advice",
    "Augmentation",
    "Average",
    "BitCentering",
    "BlockFloat",
    "Cell",
    "CellResult",
    "Channel",
    "Counters",
    "DataError",
    "Dataset",
    "Encoder",
    "Factor",
    "Fixed",
    "GridSpec",
    "GridStore",
    "InputError",
    "InputTypeError",
    "Inputs",
    "IntegerMLPClassifier",
    "Network",
    "OnlineProblem",
    "Overflow",
    "QTensor",
    "Recipe",
    "Role",
    "Rounding",
    "SWALPSchedule",
    "Schedule",
    "StudyError",
    "SweepSpec",
    "Tile",
    "Trainer",
    "__version__",
    "advise",
    "compare_traces",
    "dequantize",
    "evaluate",
    "load_cifar10",
    "load_cifar100",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "load_spec",
    "make_model",
    "matmul",
    "multiply_by_quantized_multiplier",
    "open_grid",
    "parse_format",
    "pool_statistics",
    "quantize",
    "requantize",
    "round_shift",
    "run_sweep",
    "train_cells",
]

_HOMES = {
    "advisor": ("Advice", "advise"),
    "datasets": ("Dataset", "load_cifar10", "load_cifar100", "load_digits", "load_fashion_mnist", "load_mnist"),
    "export": ("compare_traces",),
    "errors": ("DataError", "InputError", "InputTypeError", "StudyError"),
    "formats": ("BlockFloat", "Channel", "Fixed", "Overflow", "Rounding", "Tile", "parse_format"),
    "inputs": ("Augmentation", "Encoder", "Inputs"),
    "models": ("make_model",),
    "network": ("Network",),
    "online": ("Cell", "CellResult", "OnlineProblem", "train_cells"),
    "optimizers": (
        "HALP",
        "SGD",
        "SVRG",
        "SWALP",
        "Average",
        "BitCentering",
        "Factor",
        "SWALPSchedule",
        "Schedule",
    ),
    "recipe": ("RECIPES", "Recipe", "Role"),
    "sklearn": ("IntegerMLPClassifier",),
    "sweeps": ("GridSpec", "GridStore", "SweepSpec", "load_spec", "open_grid", "run_sweep"),
    "tensor": (
        "Counters",
        "QTensor",
        "dequantize",
        "matmul",
        "multiply_by_quantized_multiplier",
        "quantize",
        "requantize",
        "round_shift",
    ),
    "training": ("Trainer", "evaluate", "pool_statistics"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'intnet' has no attribute {name!r}")
    return getattr(import_module(f"intnet.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
