"""Sweeps: what to run, who runs it, and where the results are kept.

Each name is imported when it is first used: the grid of the cliff study needs no layers and no optimizers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from intnet.files import write_atomically
    from intnet.sweeps.execution import Here, VersionError, loader, run_sweep
    from intnet.sweeps.grid import GridStore, Row, open_grid, set_aside
    from intnet.sweeps.merging import check_shards, merge, shard_folder
    from intnet.sweeps.planning import Plan, plan
    from intnet.sweeps.protocol import ACCURACY_WINDOW, FIRST_SEED
    from intnet.sweeps.specification import PROTOCOL, GridSpec
    from intnet.sweeps.storage import Store
    from intnet.sweeps.toml import load_spec, parse_spec
    from intnet.sweeps.trainings import SweepSpec
    from intnet.sweeps.workers import Dask, Pool, workers_of

__all__ = [
    "ACCURACY_WINDOW",
    "FIRST_SEED",
    "PROTOCOL",
    "Dask",
    "GridSpec",
    "GridStore",
    "Here",
    "Plan",
    "Pool",
    "Row",
    "Store",
    "SweepSpec",
    "VersionError",
    "check_shards",
    "load_spec",
    "loader",
    "merge",
    "open_grid",
    "parse_spec",
    "plan",
    "run_sweep",
    "set_aside",
    "shard_folder",
    "workers_of",
    "write_atomically",
]

_HOMES = {
    "files": ("write_atomically",),
    "sweeps.execution": ("Here", "VersionError", "loader", "run_sweep"),
    "sweeps.grid": ("GridStore", "Row", "open_grid", "set_aside"),
    "sweeps.merging": ("check_shards", "merge", "shard_folder"),
    "sweeps.planning": ("Plan", "plan"),
    "sweeps.protocol": ("ACCURACY_WINDOW", "FIRST_SEED"),
    "sweeps.specification": ("PROTOCOL", "GridSpec"),
    "sweeps.storage": ("Store",),
    "sweeps.toml": ("load_spec", "parse_spec"),
    "sweeps.trainings": ("SweepSpec",),
    "sweeps.workers": ("Dask", "Pool", "workers_of"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'intnet.sweeps' has no attribute {name!r}")
    return getattr(import_module(f"intnet.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
