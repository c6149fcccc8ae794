"""Traces: every tensor of chosen training steps, or of an inference, in the order in which they are computed.

A trace is an ``.npz`` without pickles: arrays by a name such as ``step3/dense1/forward`` (mantissas) and
``step3/dense1/forward@exponent``, and under ``trace`` a JSON header: the network, the recipe, and for every tensor its format,
role, rounding, overflow and random bits. The names, where LAYER is a layer's name and P a parameter's (``dense1.weight``):

    stepN/P/before               the weight as products use it; before_master and before_momentum where there are
    stepN/input, stepN/labels    the batch
    stepN/LAYER/forward          what the layer gives; forward_exact the accumulator it was rounded from, where it rounds
    stepN/loss/backward          the gradient of the outputs; backward_exact before it was rounded
    stepN/LAYER/backward         the gradient of the layer's inputs; backward_exact likewise
    stepN/P/gradient_exact       of the sum over the batch; gradient and momentum (momentum_exact) as they are rounded
    stepN/P/after                the weight (after_master: its master copy); after_exact before it was rounded
    inference/...                input, and forward of every layer

Layers that only select or clamp round nothing and have no ``_exact``.
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from intnet._version import __version__
from intnet.errors import InputError
from intnet.files import write_atomically
from intnet.formats import parse_format
from intnet.tensor import QTensor

FORMAT = 1
_HEADER, _EXPONENT = "trace", "@exponent"


@dataclass(frozen=True)
class Record:
    """What is known of one tensor of a trace.

    Attributes
    ----------
    key : str
        Its name in the trace.
    step : int or None
        None: an inference.
    owner : str
        The layer, the parameter, "loss", or "" of a batch.
    tensor : str
        The last part of the key: "forward", "gradient_exact", ..
    role, format, rounding, overflow : str or None
        How it was rounded; None where it was not.
    word_bits, random_bits, stream, random_step : int or None
        Its word, and which random bits stochastic rounding takes.
    exact : str or None
        The key of what it was rounded from.
    shift : int or None
        By how much that was shifted, where the exponents do not say it (normalized updates).
    made_from : dict
        Of accumulators of dense layers: the keys of the operands, and the accumulator; of weights: the factor of the update.
    """

    key: str
    step: int | None
    owner: str
    tensor: str
    role: str | None = None
    format: str | None = None
    rounding: str | None = None
    overflow: str | None = None
    word_bits: int | None = None
    random_bits: int | None = None
    stream: int | None = None
    random_step: int | None = None
    exact: str | None = None
    shift: int | None = None
    made_from: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Trace:
    """Tensors in the order in which they were computed.

    Attributes
    ----------
    info : dict
        The network (sample_shape, layers, parameters), the recipe, the loss, the seed, and what trained.
    records : dict of str to Record
        In the order of computation.
    tensors : dict of str to QTensor
        Labels too: with exponent 0.
    """

    info: dict[str, Any] = field(repr=False)
    records: dict[str, Record] = field(repr=False)
    tensors: dict[str, QTensor] = field(repr=False)

    @property
    def steps(self) -> tuple[int, ...]:
        """The numbers of the training steps in it."""
        return tuple(dict.fromkeys(one.step for one in self.records.values() if one.step is not None))

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __getitem__(self, key: str) -> QTensor:
        if key not in self.tensors:
            raise InputError(f"the trace has no {key!r}; it has {', '.join(list(self.tensors)[:5])}, .. ({len(self)} tensors)")
        return self.tensors[key]

    def __repr__(self) -> str:
        return f"Trace({len(self)} tensors, {'steps ' + str(list(self.steps)) if self.steps else 'inference'})"

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """Return a trace in which some tensors have other mantissas, such as those that a device under test gave.

        Parameters
        ----------
        values : mapping of key to array of integers, of the tensor's shape, or QTensor

        Raises
        ------
        InputError
            If there is no such tensor, the shape differs, or a value leaves the tensor's word.
        """
        tensors = dict(self.tensors)
        for key, value in values.items():
            old = self[key]
            new = value if isinstance(value, QTensor) else QTensor(np.asarray(value), old.exponent, old.format)
            if new.shape != old.shape:
                raise InputError(f"{key} has shape {old.shape}, got values of shape {new.shape}")
            if old.format is not None and not np.all(old.format.allowed(new.mantissa)):
                raise InputError(
                    f"{key} is in {old.format}, and some of the values leave that word; give those that the word holds"
                )
            tensors[key] = new
        return replace(self, tensors=tensors)

    def without(self, *endings: str) -> Self:
        """Return a trace without the tensors whose keys end so, ``"_exact"`` for example."""
        kept = {key: one for key, one in self.records.items() if not key.endswith(endings)}
        return replace(self, records=kept, tensors={key: self.tensors[key] for key in kept})

    # Files

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as ``.npz``, whole or not at all; the same trace gives the same bytes.

        Raises
        ------
        StudyError
            If the file cannot be written.
        """
        header = {"format": FORMAT, "info": self.info, "records": [asdict(one) for one in self.records.values()]}
        arrays: dict[str, NDArray[Any]] = {_HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8)}
        for key, tensor in self.tensors.items():
            arrays[key], arrays[key + _EXPONENT] = tensor.mantissa, tensor.exponent
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        write_atomically(Path(path), lambda draft: draft.write_bytes(content.getbuffer()))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a trace.

        Raises
        ------
        InputError
            If there is none, or the file is damaged, no trace, or of another format.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"trace {path} cannot be read: {error.strerror or error}") from None
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(arrays.pop(_HEADER).tobytes())
            version = header["format"]
            if version == FORMAT:
                records = {one["key"]: Record(**one) for one in header["records"]}
                tensors = {
                    key: QTensor(arrays[key], arrays[key + _EXPONENT], None if one.format is None else parse_format(one.format))
                    for key, one in records.items()
                }
                return cls(header["info"], records, tensors)
        except Exception as error:  # zip and array readers have a dozen kinds for bytes that they cannot make sense of
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise InputError(f"{path} is damaged, or no trace of intnet ({why}); record it again (record_trace)") from None
        raise InputError(f"trace {path} has format {version}, and intnet {__version__} reads format {FORMAT}; record it again")


class Builder:
    """Collects the tensors of a trace.

    Parameters
    ----------
    info : mapping
    """

    def __init__(self, info: Mapping[str, Any]) -> None:
        self.info = {"intnet": __version__, **info}
        self.records: dict[str, Record] = {}
        self.tensors: dict[str, QTensor] = {}
        self.step: int | None = None
        self._keys: dict[int, str] = {}  # of mantissas in the step, by identity
        self._alive: list[NDArray[Any]] = []

    def begin(self, step: int | None) -> None:
        """Begin a step, or with None an inference."""
        self.step = step
        self._keys.clear()
        self._alive.clear()

    def key(self, owner: str, tensor: str) -> str:
        """Return the name of a tensor in this step."""
        head = "inference" if self.step is None else f"step{self.step}"
        return "/".join(filter(None, (head, owner, tensor)))

    def key_of(self, tensor: QTensor) -> str | None:
        """Return the name of a tensor that was added in this step."""
        return self._keys.get(id(tensor.mantissa))

    def add(self, owner: str, name: str, tensor: QTensor, **known: Any) -> str:
        """Add a tensor, copied, and return its name."""
        key = self.key(owner, name)
        form = None if tensor.format is None else str(tensor.format)
        known.setdefault("word_bits", None if tensor.format is None else tensor.format.word_bits)
        self.records[key] = Record(key, self.step, owner, name, format=form, **known)
        self.tensors[key] = QTensor.trusted(tensor.mantissa.copy(), tensor.exponent.copy(), tensor.format)
        self._keys[id(tensor.mantissa)] = key
        self._alive.append(tensor.mantissa)
        return key

    def add_rounded(self, owner: str, name: str, exact: QTensor, rounded: QTensor, made_from: Any = None, **how: Any) -> str:
        """Add an exact tensor and what it was rounded to."""
        source = self.add(owner, f"{name}_exact", exact, made_from=made_from or {})
        return self.add(owner, name, rounded, exact=source, **how)

    def trace(self) -> Trace:
        """Return what was collected."""
        return Trace(self.info, dict(self.records), dict(self.tensors))
