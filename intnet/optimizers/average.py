"""Averages of weights: exact sums in integers, or running averages of few bits.

The weights of a step are integers m with an exponent e, which in block formats is another from step to step. Their sum is
exact: it is kept in int64 at the least exponent that any of them had, of each block apart; a smaller one shifts the sum up,
and what would leave 62 bits is refused, never cut. Divided by their number, it is rounded once, into whatever format it is
wanted in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intnet import kernels
from intnet.errors import InputError
from intnet.formats import BlockFloat, Rounding
from intnet.layers import Parameter, Quantizer, Step
from intnet.layers.container import combine
from intnet.recipe import Role
from intnet.tensor import QTensor
from intnet.tensor.qtensor import EXPONENT_MAX

SUM_BITS = 62
"""Magnitude bits of a sum."""


@dataclass(frozen=True, eq=False)
class ExactSum:
    """The sum of tensors of one shape, without any rounding.

    Attributes
    ----------
    name : str
        Whose, for errors.
    mantissa : int64 array
    exponent : int64 array with as many axes
        One, or one for each slice of the first axis.
    """

    name: str
    mantissa: NDArray[np.int64]
    exponent: NDArray[np.int64]

    @classmethod
    def nothing(cls, name: str, like: QTensor) -> "ExactSum":
        """Return the sum of no tensor, of the shape of one."""
        return cls(name, np.zeros(like.shape, np.int64), np.full(like.exponent.shape, EXPONENT_MAX, np.int64))

    def plus(self, tensor: QTensor) -> "ExactSum":
        """Return the sum with one tensor more.

        Raises
        ------
        InputError
            If the sum could leave 62 bits.
        """
        values, given = kernels.to_host(tensor.mantissa), tensor.exponent
        rows = given.size
        have, come = self.exponent.reshape(-1), given.reshape(-1)
        if have.size != rows:
            raise InputError(f"the average of {self.name} is of {have.size} blocks and the weights have {rows}")
        held, added = _bits(self.mantissa, rows), _bits(values, rows)
        common = np.where(added >= 0, np.minimum(have, come), have)  # zeros have no exponent of their own
        up, shift = np.where(held >= 0, have - common, 0), np.where(added >= 0, come - common, 0)
        needed = int(np.maximum(held + up, added + shift).max()) + 1
        if needed > SUM_BITS:
            raise InputError(
                f"the average of {self.name} would take {needed} bits of {SUM_BITS}: the exponents of its blocks differ by up "
                f"to {int(np.maximum(up, shift).max())} from step to step; begin to average later or less often, or keep the "
                "average in 8 to 16 bits"
            )
        summed = kernels.linear_combination([(self.mantissa, 1, up), (np.ascontiguousarray(values), 1, shift)], rows)
        return ExactSum(self.name, summed, common.reshape(given.shape))

    def divided(self, count: int) -> QTensor:
        """Return the sum divided by a number, as an accumulator of 63 bits: see :func:`intnet.kernels.divide_rows`."""
        rows = self.exponent.size
        quotients, ups = kernels.divide_rows(self.mantissa.reshape(rows, -1), count)
        exponent = self.exponent - ups.reshape(self.exponent.shape)
        return QTensor.trusted(quotients.reshape(self.mantissa.shape), np.where(exponent > EXPONENT_MAX // 2, 0, exponent))

    def fractions(self, count: int) -> list[Fraction]:
        """Return the exact mean of so many tensors, in C order: for small ones, as it is slow."""
        exponents = np.broadcast_to(self.exponent, self.mantissa.shape).reshape(-1)
        return [
            Fraction(int(value)) * Fraction(2) ** int(exponent) / count if value else Fraction(0)
            for value, exponent in zip(self.mantissa.reshape(-1), exponents, strict=True)
        ]


def _bits(values: NDArray[Any], rows: int) -> NDArray[np.int64]:
    """Return the magnitude bits of every slice of the first axis, -1 for one of zeros."""
    if rows == 1:
        largest = kernels.max_magnitude(np.ascontiguousarray(values))
        return np.array([largest.bit_length() if largest else -1])
    flat = values.reshape(rows, -1)
    most = np.maximum(flat.max(axis=1).astype(np.int64), -flat.min(axis=1).astype(np.int64))
    return np.array([int(one).bit_length() if one else -1 for one in most])


class Average:
    """The average of a network's weights over moments of its training.

    Parameters
    ----------
    bits : int, 8..16, optional
        Words of a running average, in block floating point with the blocks of the weights, rounded at every moment:
        ``Q(average + (w - average) / n)``. By default exact sums are kept instead.
    seed : int
        Of the rounding of a running average, which is stochastic.

    Attributes
    ----------
    count : int
        Moments so far.

    References
    ----------
    Yang et al. 2019, arXiv:1904.11943, sec. 3 and 5: averages in full precision, and in few bits.
    """

    def __init__(self, bits: int | None = None, seed: int = 0) -> None:
        if bits is not None and (isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not 8 <= bits <= 16):
            raise InputError(f"an average has 8 to 16 bits, or is exact (None), got {bits!r}")
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
            raise InputError(f"the seed of an average must be an integer in 0..2**64 - 1, got {seed!r}")
        self.bits, self.seed = None if bits is None else int(bits), int(seed)
        self.count = 0
        self.sums: dict[str, ExactSum] = {}
        self.running: dict[str, QTensor] = {}

    def add(self, parameters: Sequence[Parameter]) -> None:
        """Take in the weights of this moment.

        Raises
        ------
        InputError
            If a sum could leave its word; the moment is then not counted.
        """
        if self.bits is None:
            self.sums = {one.name: self._sum(one.name, one.value).plus(one.value) for one in parameters}
        else:
            for one in parameters:
                self.running[one.name] = self._moved(one)
        self.count += 1

    def _sum(self, name: str, like: QTensor) -> ExactSum:
        return self.sums[name] if self.count else ExactSum.nothing(name, like)

    def _moved(self, parameter: Parameter) -> QTensor:
        """Return the running average with one tensor more."""
        value = parameter.value.moved("cpu")
        total = value if not self.count else combine([(self.count, self.running[parameter.name]), (1, value)])
        sums = ExactSum(parameter.name, total.mantissa.astype(np.int64), total.exponent)
        role = Role(self._format(parameter), Rounding.STOCHASTIC)
        stream = parameter.quantizers["weight"].stream
        quantizer = Quantizer(parameter.name, "average", role, stream)
        return quantizer(sums.divided(self.count + 1), Step(self.count, _mixed(self.seed), True))

    def _format(self, parameter: Parameter) -> BlockFloat:
        """Return the format of a running average."""
        assert self.bits is not None
        form = parameter.value.format
        return BlockFloat(self.bits, form.block if isinstance(form, BlockFloat) else "tensor")

    def mean(self, parameter: Parameter) -> QTensor:
        """Return the average of a parameter: what is kept, or the exact sum divided, as an accumulator.

        Raises
        ------
        InputError
            If there is none: averaging has not begun, or the parameter is another network's.
        """
        if not self.count:
            raise InputError("there is no average yet: averaging has not begun")
        found = (self.sums if self.bits is None else self.running).get(parameter.name)
        if found is None:
            raise InputError(f"{parameter.name} has no average; there are those of {', '.join(self.sums or self.running)}")
        mean = found if isinstance(found, QTensor) else found.divided(self.count)
        if mean.shape != parameter.shape:
            raise InputError(f"the average of {parameter.name} has shape {mean.shape}, and the parameter {parameter.shape}")
        return mean

    def write(self, parameters: Sequence[Parameter]) -> None:
        """Put the averages into parameters of the same names, of any formats: each is rounded once, to nearest, ties to even.

        The exact mean itself is rounded where that cuts off two bits or more of its quotient, which has
        ``62 - log2(count)``: so into words of up to 40 bits for averages of up to a million moments.
        """
        means = [self.mean(one) for one in parameters]
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.assign(mean)

    # For checkpoints

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what must be saved."""
        arrays: dict[str, NDArray[Any]] = {"average/count": np.array(self.count, np.int64)}
        for name, kept in (self.sums if self.bits is None else self.running).items():
            arrays[f"average/{name}/mantissa"], arrays[f"average/{name}/exponent"] = kept.mantissa, kept.exponent
        return arrays

    def load_state(self, arrays: Mapping[str, NDArray[Any]], parameters: Sequence[Parameter]) -> None:
        """Take back what :meth:`state` gave, checked.

        Raises
        ------
        InputError
            If it is the average of other parameters; then nothing is changed.
        """
        count = arrays.get("average/count")
        if count is None or count.shape != () or count.dtype != np.int64 or count < 0:
            raise InputError("there is no average/count; it is the state of another optimizer")
        expected = {"average/count"}
        sums, running = {}, {}
        for one in parameters if count else ():
            keys = f"average/{one.name}/mantissa", f"average/{one.name}/exponent"
            mantissa, exponent = (arrays.get(key) for key in keys)
            rows = one.value.exponent.shape
            if mantissa is None or exponent is None or mantissa.shape != one.shape or exponent.dtype != np.int64:
                raise InputError(f"there is no {keys[0]} of shape {one.shape}; it is the average of another network")
            if self.bits is None:
                if mantissa.dtype != np.int64 or exponent.shape != rows:
                    raise InputError(f"{keys[0]} holds no sums ({mantissa.dtype}, exponents of shape {exponent.shape})")
                sums[one.name] = ExactSum(one.name, mantissa.copy(), exponent.copy())
            else:
                block = one.value.format.block if isinstance(one.value.format, BlockFloat) else "tensor"
                form = BlockFloat(self.bits, block)
                if (
                    mantissa.dtype != form.storage
                    or mantissa.min(initial=0) < form.minimum
                    or mantissa.max(initial=0) > form.maximum
                ):
                    raise InputError(f"{keys[0]} leaves its format {form}")
                running[one.name] = QTensor(mantissa.copy(), exponent.copy(), form)
            expected |= set(keys)
        if foreign := sorted(set(arrays) - expected):
            raise InputError(f"{foreign[0]} belongs to no parameter of this network")
        self.count, self.sums, self.running = int(count), sums, running


def _mixed(seed: int) -> int:
    """Return another seed: the weights of a step were rounded with the bits of the same stream."""
    return (seed ^ 0x9E3779B97F4A7C15) % 2**64
