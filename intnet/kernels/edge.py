"""Where floats become integers: the only kernels that may see a float."""

import numpy as np
from numpy.typing import NDArray

from intnet.errors import InputError


def quantize_nearest(values: NDArray[np.floating], fraction_bits: int) -> NDArray[np.int64]:
    """Return ``rint(values * 2**fraction_bits)``: the nearest integers, ties to even.

    Parameters
    ----------
    values : array of floats, any shape
        Real numbers, finite.
    fraction_bits : int
        Fraction bits of the result.

    Returns
    -------
    array of int64, shape of `values`

    Raises
    ------
    InputError
        If a value is not finite or its integer does not fit in int64.

    Examples
    --------
    >>> quantize_nearest(np.array([0.5, -0.375]), 2)
    array([ 2, -2])
    """
    scaled = np.rint(np.asarray(values, np.float64) * 2.0**fraction_bits)
    if not (np.abs(scaled) < 2.0**63).all():  # also false for NaN
        raise InputError(
            f"values to quantize must be finite and below 2**{63 - fraction_bits} in magnitude "
            f"for {fraction_bits} fraction bits, got {scaled.min() / 2.0**fraction_bits} to "
            f"{scaled.max() / 2.0**fraction_bits}"
        )
    return scaled.astype(np.int64)
