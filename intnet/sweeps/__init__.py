"""Sweeps: what to run, who runs it, and where the results are kept."""

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
from intnet.sweeps.workers import Dask, Pool

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
    "write_atomically",
]
