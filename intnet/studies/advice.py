"""An advice as files: see :mod:`intnet.advisor`, which writes the tables, and this the picture."""

from functools import partial
from pathlib import Path

from intnet import files
from intnet.advisor import Advice
from intnet.trainings import TrainingSpec

PICTURE = "advice.png"


def title(dataset: str, model: str | None) -> str:
    """Return what pictures and reports call it."""
    return f"{dataset}, {TrainingSpec(dataset=dataset, model=model).model}"


def export(advice: Advice, folder: Path | str, title: str, *, plots: bool = True) -> None:
    """Draw the picture, unless it is there and the advice was as it is.

    Raises
    ------
    StudyError
        If it cannot be written.
    """
    path, source = Path(folder) / PICTURE, Path(folder) / "advice.json"
    if not plots or (path.is_file() and path.stat().st_mtime_ns >= source.stat().st_mtime_ns):
        return
    from intnet import plotting

    picture = plotting.plot_advice(advice, title=title)
    files.write_atomically(path, partial(picture.savefig, dpi=150))
