"""DIGITS, from scikit-learn."""

from dataclasses import replace

import numpy as np

from intnet.datasets._dataset import SUBSETS, Dataset, check_choice
from intnet.errors import DataError

TRAINING_DIGITS = 1500


def load_digits() -> Dataset:
    """Load DIGITS, the 1797 handwritten digits that scikit-learn carries; nothing is downloaded.

    Returns
    -------
    Dataset
        8x8 images with codes 0..16, each standing for code / 16, in scikit-learn's order.

    Raises
    ------
    DataError
        If scikit-learn is not installed.

    References
    ----------
    ``sklearn.datasets.load_digits``, which is the test part of E. Alpaydin and C. Kaynak, "Optical Recognition of
    Handwritten Digits", UCI Machine Learning Repository, 1998, doi:10.24432/C50P49.
    """
    try:
        from sklearn.datasets import load_digits as sklearn_digits
    except ImportError as error:
        raise DataError('DIGITS comes with scikit-learn, which is not installed: pip install "intnet[sklearn]"') from error
    digits = sklearn_digits()
    return Dataset(
        name="digits",
        codes=digits.data.astype(np.uint8),
        values=np.arange(17) / 16,
        labels=digits.target.astype(np.uint8),
        classes=10,
        shape=digits.images.shape[1:],
    )


def digits_part(subset: str) -> Dataset:
    """Return DIGITS, or the part of it that intnet calls its training or test digits: the first 1500, the other 297."""
    check_choice("subset", subset, SUBSETS)
    rows = {"all": slice(None), "train": slice(TRAINING_DIGITS), "test": slice(TRAINING_DIGITS, None)}[subset]
    digits = load_digits()
    return replace(digits, codes=digits.codes[rows], labels=digits.labels[rows])
