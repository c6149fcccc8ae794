"""Checkpoints: all that a training needs to go on with the same bits, in one file.

The file is an ``.npz`` without pickles: the network's arrays, a JSON header, and a SHA-256 over the content of both. It is
whole or not there, and one that is damaged, or of another training, is refused before anything is changed.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intnet._version import __version__
from intnet.errors import InputError, StudyError
from intnet.files import write_atomically
from intnet.training import Trainer, read_progress

FORMAT = 1
"""Raised when the file's layout changes; other formats are refused."""

_ARRAY, _OPTIMIZER = "network/", "optimizer/"
_HEADER, _DIGEST = "header", "sha256"
_ZIP = b"PK\x03\x04"  # how an .npz file begins


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes
    ----------
    config : dict
        What is trained, see :func:`configuration`, and whatever the caller added to it.
    progress : dict
        See :meth:`intnet.training.Trainer.progress_state`.
    arrays : dict of str to array
        See :meth:`intnet.network.Network.state`.
    notes : dict
        What was given to :func:`save` to be kept, whatever it is.
    optimizer : dict of str to array
        See :meth:`intnet.optimizers.SGD.state`.
    version : str
        Of the package that wrote it.
    """

    config: dict[str, Any] = field(repr=False)
    progress: dict[str, Any] = field(repr=False)
    arrays: dict[str, NDArray[Any]] = field(repr=False)
    version: str
    notes: dict[str, Any] = field(default_factory=dict, repr=False)
    optimizer: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return int(self.progress["epoch"])


def configuration(trainer: Trainer) -> dict[str, Any]:
    """Return what decides the bits of a training, as strings, numbers and lists; of the training data a checksum.

    The number of epochs is not in it unless the rate depends on it: a constant rate may go on for longer.
    """
    network, augmentation = trainer.network, trainer.augmentation
    optimizer = {**trainer.optimizer.describe(), "schedule": trainer.optimizer.schedule.over(trainer.epochs)}
    return {
        "recipe": network.recipe.to_dict(),
        "loss": network.loss.name,
        "sample_shape": list(network.shape),
        "classes": int(network.output_shape[0]),
        "parameters": network.parameter_count,
        "layers": network.describe(),
        "samples": len(trainer.train),
        "inputs_sha256": trainer.train.checksum,
        "batch": trainer.batch,
        "seed": trainer.seed,
        "initial_seed": network.seed,
        "optimizer": optimizer,
        "augmentation": None if augmentation is None else {"padding": augmentation.padding, "flip": augmentation.flip},
    }


def save(
    path: str | os.PathLike[str], trainer: Trainer, config: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write where a training is.

    Parameters
    ----------
    path : path
        Replaced when the new file is whole.
    trainer : Trainer
        Between two epochs.
    config : mapping, optional
        What else was decided and the trainer does not know, for JSON: the model, the data set and its checksum, ...
    notes : mapping, optional
        What is to be kept beside, for JSON, and compared with nothing: results so far, ...

    Raises
    ------
    StudyError
        If the file cannot be written; an old one is then kept.
    """
    header = {
        "format": FORMAT,
        "intnet": __version__,
        "config": dict(config or {}) | configuration(trainer),
        "progress": trainer.progress_state(),
        "notes": dict(notes or {}),
    }
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    arrays = {_HEADER: text, **{_ARRAY + name: array for name, array in trainer.network.state().items()}}
    arrays |= {_OPTIMIZER + name: array for name, array in trainer.optimizer.state().items()}
    arrays[_DIGEST] = _digest(arrays)
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_atomically(Path(path), lambda draft: draft.write_bytes(content.getbuffer()))


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint and check that it is whole.

    Raises
    ------
    StudyError
        If there is none, or it is damaged, no checkpoint of this package, or of another format.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StudyError(f"checkpoint {path} cannot be read: {error.strerror or error}") from None
    advice = "put a good copy back, or set the folder aside (--fresh)"
    if not content.startswith(_ZIP[: len(content)]):
        raise StudyError(f"{path} is damaged, or no checkpoint of intnet: it does not begin like an .npz file; {advice}")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # the zip and array readers have a dozen kinds for bytes that they cannot make sense of
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        why = "it holds Python objects" if "allow_pickle" in why else why
        raise StudyError(f"checkpoint {path} is damaged ({why}); {advice}") from None
    ours = all(isinstance(arrays.get(name), np.ndarray) for name in (_HEADER, _DIGEST, *arrays))
    if not ours:
        raise StudyError(f"{path} is no checkpoint of intnet: its arrays are {', '.join(sorted(arrays)[:4]) or 'none'}")
    digest = arrays.pop(_DIGEST)
    if not np.array_equal(digest, _digest(arrays)):
        raise StudyError(f"checkpoint {path} is damaged: its content does not have the SHA-256 it was written with; {advice}")
    header = _header(path, arrays.pop(_HEADER).tobytes())
    optimizer = {name.removeprefix(_OPTIMIZER): arrays.pop(name) for name in list(arrays) if name.startswith(_OPTIMIZER)}
    state = {name.removeprefix(_ARRAY): array for name, array in arrays.items()}
    return Checkpoint(header["config"], header["progress"], state, header["intnet"], header.get("notes", {}), optimizer)


def _header(path: Path, text: bytes) -> dict[str, Any]:
    """Return the header, checked."""
    try:
        header = json.loads(text)
    except ValueError:
        header = None
    if not isinstance(header, dict) or not {"format", "intnet"} <= header.keys():
        raise StudyError(f"{path} is no checkpoint of intnet: its header does not say which format it has")
    if header["format"] != FORMAT:
        raise StudyError(
            f"checkpoint {path} has format {_short(header['format'])} (written by intnet {_short(header['intnet'])}), and "
            f"intnet {__version__} reads format {FORMAT}; use the version that wrote it"
        )
    if not isinstance(header.get("config"), dict):
        raise StudyError(f"{path} is no checkpoint of intnet: its header has no configuration")
    try:
        read_progress(header.get("progress"))
    except InputError as error:
        raise StudyError(f"{path} is no checkpoint of intnet: in its header, {error}") from None
    return header


def restore(trainer: Trainer, checkpoint: Checkpoint, config: Mapping[str, Any] | None = None) -> None:
    """Bring a trainer to where a checkpoint is: it then goes on with the bits of a training that was never stopped.

    Parameters
    ----------
    trainer : Trainer
        Made as the first one was. Only `epochs` may differ, unless the schedule depends on it.
    checkpoint : Checkpoint
    config : mapping, optional
        What was given to :func:`save`; compared with that if given.

    Raises
    ------
    InputError
        If the checkpoint is of another training; the line names what differs, and the trainer is unchanged.
    """
    here = dict(config or {}) | configuration(trainer)
    there = checkpoint.config if config is not None else {name: checkpoint.config.get(name) for name in here}
    if found := next(differences(there, json.loads(json.dumps(here))), None):
        raise InputError(f"the checkpoint is of another training: {found}")
    if checkpoint.epoch > trainer.epochs:
        raise InputError(
            f"the checkpoint has {checkpoint.epoch} epochs behind it, and the training ends after {trainer.epochs}"
        )
    read_progress(checkpoint.progress)  # before anything is changed
    before = trainer.network.state()
    trainer.network.load_state(checkpoint.arrays)
    try:
        trainer.optimizer.load_state(checkpoint.optimizer, trainer.network.parameters)
    except InputError:
        trainer.network.load_state(before)
        raise
    trainer.load_progress(checkpoint.progress)


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Yield what differs between two contents of a JSON file, each as ``"name there-value there, here-value here"``."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys((*here, *there)):
            yield from differences(there.get(key), here.get(key), f"{name}.{key}" if name else str(key))
    elif isinstance(there, list) and isinstance(here, list) and all(isinstance(one, str) for one in (*there, *here)):
        for number, (one, other) in enumerate(zip_longest(there, here), 1):
            yield from differences(one, other, f"{name}[{number}]")
    elif there != here:
        yield f"{name} {_short(there)} there, {_short(here)} here"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 48 else f"{text[:45]}..."


def _digest(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Return the SHA-256 of arrays by name: of each its name, type and shape, and its content, little-endian in C order."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str[1:]} {array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
