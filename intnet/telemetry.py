"""What became of the numbers of a training run, tensor by tensor and epoch by epoch.

Counted is every rounding into the format of a role. Not counted is what is rounded on the way to a sum: biases brought to the
exponent of the products they are added to, numbers with exponents of their own brought to one in `alignment_bits` (batch
normalization, gradients of weights), and errors of more than 32 bits brought to 32 before the slope of an activation. ReLU,
hard tanh, sign, flatten and max pooling round nothing and have no rows, but for errors where those are rounded.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Self


@dataclass(frozen=True)
class Reading:
    """One tensor in one role over one epoch: a row of ``telemetry.csv``.

    Attributes
    ----------
    epoch : int
        From 1, as in ``train.csv``.
    tensor, role : str
        "dense1" writes activations and errors, "dense1.weight" weights, gradients and momentum.
    word_bits : int
    fraction_bits : int or None
        For block formats that of the epoch's largest exponent; None for accumulators, whose point moves.
    minimum, maximum : int or None
        The least and the greatest mantissa written; None for accumulators, which are not looked at.
    bits_used : int or None
        The shortest word, sign included, that holds them.
    saturated, wrapped : int
        Results that did not fit into the word. Of sigmoid and tanh: arguments beyond the table.
    lost : int
        Numbers that were not zero and became zero by rounding: of sigmoid and tanh, results whose real value is not zero. Of
        weights (of master copies, where there are): updates that were not zero and changed nothing.
    count : int
        Numbers written.
    """

    epoch: int
    tensor: str
    role: str
    word_bits: int
    fraction_bits: int | None
    minimum: int | None
    maximum: int | None
    bits_used: int | None
    saturated: int
    wrapped: int
    lost: int
    count: int

    @classmethod
    def of(cls, epoch: int, seen: Any) -> Self:
        """Return the row of what a quantizer has :class:`intnet.layers.Seen`."""
        bits = None
        if seen.minimum is not None and seen.maximum is not None:
            bits = (
                max((~seen.minimum if seen.minimum < 0 else seen.minimum).bit_length(), max(seen.maximum, 0).bit_length()) + 1
            )
        return cls(epoch=epoch, bits_used=bits, **asdict(seen))


COLUMNS = tuple(entry.name for entry in fields(Reading))
"""The columns of ``telemetry.csv``."""


def to_csv(readings: Iterable[Reading]) -> str:
    """Return the rows as CSV with a head."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for reading in readings:
        writer.writerow(["" if value is None else value for value in asdict(reading).values()])
    return text.getvalue()
