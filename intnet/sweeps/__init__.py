"""Grids of trainings: what to run, and where the results are kept."""

from intnet.files import write_atomically
from intnet.sweeps.specification import ACCURACY_WINDOW, FIRST_SEED, PROTOCOL, GridSpec
from intnet.sweeps.storage import GridStore, Row, open_grid, set_aside

__all__ = [
    "ACCURACY_WINDOW",
    "FIRST_SEED",
    "PROTOCOL",
    "GridSpec",
    "GridStore",
    "Row",
    "open_grid",
    "set_aside",
    "write_atomically",
]
