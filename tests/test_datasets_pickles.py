"""Pickled batches: read without running anything, whatever is in them."""

import os
import pickle
import struct

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from test_datasets import message_of
from test_datasets_images import (
    BATCHES,
    PICKLED,
    digest,
    patch_cifar10,
    small_collections,  # noqa: F401, a fixture of every test here too
    to_pickle,
    write_files,
)

from intnet import datasets
from intnet.datasets import _cifar, _pickles
from intnet.errors import DataError


def test_pickle_with_a_wrong_checksum_is_not_unpickled(monkeypatch, tmp_path):
    write_files(tmp_path, PICKLED | {"data_batch_3": PICKLED["data_batch_3"][:-1] + b"0."})

    def refuse(content):
        assert digest(content) in {digest(content) for content in PICKLED.values()}
        return original(content)

    original = _cifar.read_pickle
    monkeypatch.setattr(_cifar, "read_pickle", refuse)
    message = message_of(DataError, lambda: datasets.load_cifar10(tmp_path))
    assert "is not CIFAR-10: its content is not the official one" in message


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("official", [False, True])
def test_malicious_pickle_is_not_run(monkeypatch, tmp_path, official, protocol):
    target = tmp_path / "made"
    evil = pickle.dumps({b"data": Call(os.system, f"touch {target}")}, protocol)
    if official:  # were such a file to have the official checksum, its names would still be refused
        patch_cifar10(monkeypatch, pickled=PICKLED | {"data_batch_1": evil})
    write_files(tmp_path, PICKLED | {"data_batch_1": evil})
    message = message_of(DataError, lambda: datasets.load_cifar10(tmp_path))
    expected = f"names '{os.system.__module__}.system'" if official else "its content is not the official one"
    assert expected in message
    assert not target.exists()


def with_labels(**labels):
    return to_pickle(BATCHES["data_batch_1"][0], labels)


GOOD = PICKLED["data_batch_1"]
WRONG_PICKLES = {
    "empty": (b"", "cannot be unpickled"),
    "text": (b"<html>", "cannot be unpickled"),
    "truncated": (GOOD[:-9], "cannot be unpickled"),
    "list": (pickle.dumps([1], 2), "does not hold a dictionary"),
    "array function": (pickle.dumps({b"data": Call(np.zeros, 10**9)}, 2), "names 'numpy.zeros'"),
    "attribute": (b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93.", "names 'numpy.ndarray.__reduce__'"),
    "array without content": (pickle.dumps({b"data": 1}, 2).replace(b"K\x01", b"cnumpy\nndarray\n)R"), "no content"),
    "another dtype": (GOOD.replace(b"U\x02u1", b"U\x02f8"), "does not hold unsigned bytes"),
    "huge array": (GOOD.replace(struct.pack("<i", 3072), struct.pack("<i", 2**30)), "whose size is not that of its content"),
    "negative size": (GOOD.replace(struct.pack("<i", 3072), struct.pack("<i", -1)), "whose size is not that of its content"),
    "fewer images": (to_pickle(BATCHES["data_batch_1"][0][:1], {"labels": [1]}), "without the pixels of 2 images"),
    "no labels": (with_labels(), "without 2 labels under 'labels'"),
    "few labels": (with_labels(labels=[1]), "without 2 labels under 'labels'"),
    "label": (with_labels(labels=[1, 10]), "has the label 10, and the highest of 10 classes is 9"),
    "large label": (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, -1]}, 2), "labels outside 0..9"),
}


@pytest.mark.parametrize("case", WRONG_PICKLES)
def test_wrong_pickle_with_the_right_checksum(monkeypatch, tmp_path, case):
    stored, problem = WRONG_PICKLES[case]
    contents = PICKLED | {"data_batch_1": stored}
    patch_cifar10(monkeypatch, pickled=contents)
    write_files(tmp_path, contents)
    assert problem in message_of(DataError, lambda: datasets.load_cifar10(tmp_path))


def test_no_cut_pickle_escapes():
    cuts = [*range(300), *range(len(GOOD) - 60, len(GOOD))]
    for k in cuts:
        with pytest.raises(ValueError, match="cannot be unpickled"):
            _pickles.read_pickle(GOOD[:k])


@pytest.mark.parametrize("by_columns", [False, True])
def test_pickles_of_python_2_and_3(by_columns):
    pixels, labels = BATCHES["data_batch_1"]
    flat = pixels.reshape(2, -1)
    stored = {b"data": np.asfortranarray(flat) if by_columns else flat, b"labels": labels["labels"]}
    for content in (to_pickle(pixels, labels, by_columns=by_columns), pickle.dumps(stored, 2)):
        comp = _pickles.read_pickle(content)
        assert_array_equal(comp["data"], flat, strict=True)
        assert comp["labels"] == labels["labels"]
