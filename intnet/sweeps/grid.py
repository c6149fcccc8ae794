"""The grid of the cliff study as it is stored: a row a cell."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from intnet import files
from intnet.sweeps import storage
from intnet.sweeps.storage import Column, Schema, Store

if TYPE_CHECKING:
    import xarray


class Row(NamedTuple):
    """The stored result of one cell."""

    seed: int
    lr_shift: int
    fraction_bits: int
    accuracy: float
    mean_abs_update: float
    mean_abs_error_scaled: float
    lost_updates: int
    floored_to_minus_one: int
    wraps: int


SCHEMA: Schema[Row] = Schema(
    axes=(
        Column("seed", int, "seed, 0 is the published draw"),
        Column("lr_shift", int, "learning-rate shift: the rate is 2**-lr_shift", "bit"),
        Column("fraction_bits", int, "fraction bits of every number", "bit"),
    ),
    measured=(
        Column("accuracy", float, "smoothed share of samples classified rightly, at the last iteration"),
        Column("mean_abs_update", float, "mean magnitude of delta * x >> fraction_bits", "raw unit"),
        Column(
            "mean_abs_error_scaled",
            float,
            "mean magnitude of what the learning-rate shift cuts off, * 2**fraction_bits",
            "raw unit",
        ),
        Column("lost_updates", int, "products delta * x that moved no weight", "count"),
        Column("floored_to_minus_one", int, "negative products below one unit that moved a weight by -1", "count"),
        Column("wraps", int, "products, sums and weights that left int64, a sum once by its exact value", "count"),
    ),
    row=Row,
    database="grid.sqlite",
    table="grid.csv",
    exports=("config.json", "grid.csv", "grid.nc", "cliffs.json", "surface.png", "cliffs.png", files.REPORT),
    program="experiments/grid.py",
    constants=("dataset",),
)


class GridStore(Store[Row]):
    """The stored cells of one cliff study: see :class:`intnet.sweeps.storage.Store`.

    Parameters
    ----------
    folder : path
    study : dict
        What the folder is about (:meth:`intnet.sweeps.GridSpec.study`).
    """

    def __init__(self, folder: Path | str, study: dict[str, Any]) -> None:
        super().__init__(folder, study, SCHEMA)


def set_aside(folder: Path | str, schema: Schema = SCHEMA) -> Path | None:
    """Rename a study's folder to a dated name: see :func:`intnet.files.set_aside`."""
    return storage.set_aside(folder, schema)


def open_grid(folder: Path | str) -> "xarray.Dataset":
    """Read a study's folder as a labelled grid; also while a run is filling it.

    Returns
    -------
    xarray.Dataset
        Dimensions ``seed``, ``lr_shift``, ``fraction_bits``; variables ``accuracy`` (a fraction of 1),
        ``mean_abs_update``, ``mean_abs_error_scaled`` (raw units), ``lost_updates``, ``floored_to_minus_one`` and ``wraps``
        (counts). Cells not stored are NaN, and the counts then floats. Attributes: the study, and ``chance_accuracy``.

    Raises
    ------
    StudyError
        If there is no study in the folder or its database is damaged.
    """
    stored = storage.read(folder, SCHEMA)
    return storage.to_xarray(stored.rows, stored.study, stored.data, SCHEMA)
