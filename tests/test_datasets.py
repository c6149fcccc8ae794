"""Data sets: the right content in the right order, and one line of advice for each thing that can be wrong."""

import gzip
import hashlib
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet.datasets import Dataset, _mnist, load_digits, load_mnist
from intnet.errors import DataError, InputError

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
NAMES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


# 1. Stand-ins: a small MNIST of 6 + 4 images of 2x3 pixels, whose checksums replace the official ones


def to_idx(array):
    return b"\0\0\x08" + struct.pack(f">B{array.ndim}I", array.ndim, *array.shape) + array.tobytes()


def stand_in_arrays():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (samples, 2, 3), dtype=np.uint8) for samples in (6, 4)]
    train_labels, test_labels = np.array([3, 1, 3, 0, 1, 3], np.uint8), np.array([2, 0, 2, 1], np.uint8)
    return dict(zip(NAMES, (images[0], train_labels, images[1], test_labels), strict=True))


ARRAYS = stand_in_arrays()
CONTENTS = {name: to_idx(array) for name, array in ARRAYS.items()}


def write_files(folder, contents=CONTENTS, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / (name + suffix)).write_bytes(gzip.compress(content) if suffix else content)
    return folder


@pytest.fixture(autouse=True)
def small_mnist(request, monkeypatch):
    """Have the stand-in pass for MNIST, unless the test is about the real one."""
    if "real_data" in request.fixturenames:
        return
    monkeypatch.delenv("INTNET_DATA", raising=False)

    def stand_in(file):
        content = CONTENTS[file.name]
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        sha256 = hashlib.sha256(gzip.compress(content, mtime=0)).hexdigest()
        return replace(file, shape=ARRAYS[file.name].shape, md5=md5, gz_sha256=sha256)

    parts = {part: tuple(map(stand_in, files)) for part, files in _mnist.MNIST.parts.items()}
    monkeypatch.setattr(_mnist, "MNIST", replace(_mnist.MNIST, parts=parts))


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Name the folder that downloads are kept in; it does not exist at first."""
    pooch = pytest.importorskip("pooch")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "intnet" / "mnist"


@pytest.fixture
def serve(monkeypatch):
    """Replace the network: ``serve(answer)`` lets ``answer(url)`` give the bytes of each download, or raise."""
    pooch = pytest.importorskip("pooch")
    asked = []

    class Downloader:
        def __init__(self, answer):
            self.answer = answer

        def __call__(self, url, output_file, _pooch):
            asked.append(url)
            Path(output_file).write_bytes(self.answer(url))

    def install(answer):
        monkeypatch.setattr(pooch, "HTTPDownloader", lambda **_: Downloader(answer))
        return asked

    return install


def no_network(url):
    raise pytest.importorskip("requests").exceptions.ConnectionError(f"no route\nto {url}")


def message_of(error_type, call):
    with pytest.raises(error_type) as caught:
        call()
    assert type(caught.value) is error_type
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


# 2. DIGITS


def test_digits():
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    digits, ref = load_digits(), sklearn_datasets.load_digits()
    assert (digits.name, digits.classes, digits.shape) == ("digits", 10, (8, 8))
    assert_array_equal(digits.codes, ref.data.astype(np.uint8), strict=True)
    assert_array_equal(digits.labels, ref.target.astype(np.uint8), strict=True)
    assert_array_equal(digits.values, np.array([k / 16 for k in range(17)]), strict=True)
    assert_array_equal(digits.values[digits.codes], ref.data / 16)
    assert digits.codes.shape == (1797, 64)
    assert np.unique(digits.codes).tolist() == list(range(17))
    assert digits.checksum == "e997c8ba2de10ab3689ad7a3b79fc53be2e8e843eeb30e6b9444364ec0f7819a"


def test_digits_without_sklearn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert 'pip install "intnet[sklearn]"' in message_of(DataError, load_digits)


def test_import_is_light():
    code = "import sys, intnet.datasets; assert not {'sklearn', 'pooch', 'requests', 'numba'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# 3. Dataset


def make_dataset(**changes):
    arguments = {
        "name": "two",
        "codes": np.array([[0, 1], [1, 1]], np.uint8),
        "values": np.array([0.0, 1.0]),
        "labels": np.array([0, 1], np.uint8),
        "classes": 2,
        "shape": (2,),
    }
    return Dataset(**(arguments | changes))


def test_arrays_are_read_only():
    dataset = make_dataset()
    for array in (dataset.codes, dataset.values, dataset.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_checksum_is_that_of_the_content():
    sizes = struct.pack("<4q", 2, 2, 2, 2)
    content = sizes + bytes([0, 1, 1, 1]) + bytes([0, 1]) + struct.pack("<2d", 0, 1)
    assert make_dataset().checksum == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "changes",
    [
        {"codes": np.array([[1, 1], [0, 1]], np.uint8)},
        {"labels": np.array([1, 0], np.uint8)},
        {"values": np.array([0.0, 0.5])},
        {"shape": (2, 1)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_checksum_depends_on(changes):
    assert make_dataset(**changes).checksum != make_dataset().checksum


def test_checksum_does_not_depend_on_layout():
    codes, values = np.array([[0, 1], [1, 1]], np.uint8), np.array([0.0, 1.0])
    other = make_dataset(codes=np.asfortranarray(codes), values=values.astype(">f8"))
    assert other.checksum == make_dataset().checksum


# 4. The real MNIST


@pytest.fixture(scope="module")
def real_data():
    folder = os.environ.get("INTNET_DATA")
    if not folder:
        pytest.skip("INTNET_DATA names no folder with MNIST")
    places = (Path(folder), Path(folder, "mnist"))
    if not all(any(list(place.glob(name.replace("-idx", "?idx") + "*")) for place in places) for name in NAMES):
        pytest.skip("the folder that INTNET_DATA names lacks MNIST")
    return folder


CHECKSUMS = {
    ("all", "official"): "ad1b245d3a4038dc607422ee5ebf7beb3efb85f8d6ffb2500b8e9a2ca20376fc",
    ("all", "mldata"): "b1c8c0ab23ed25685e266c8664a52eea0bf9ad29b827a4ac90e209b0677be1ce",
    ("test", "official"): "2e48610dc354d1431186b17c5d86cfb7158aff08d417eb3ec627de5f26e576a0",
}


@pytest.mark.parametrize(("subset", "order"), CHECKSUMS)
def test_mnist_checksum(real_data, subset, order):
    assert load_mnist(real_data, subset=subset, order=order).checksum == CHECKSUMS[subset, order]


def test_mnist_content(real_data):
    mnist = load_mnist(real_data)
    assert (mnist.name, mnist.classes, mnist.shape) == ("mnist", 10, (28, 28))
    assert (mnist.codes.shape, mnist.codes.dtype) == ((70000, 784), np.uint8)
    assert_array_equal(mnist.values, np.array([k / 255 for k in range(256)]), strict=True)
    assert mnist.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.labels[60000:60005].tolist() == [7, 2, 1, 0, 4]
    train_counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test_counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(mnist.labels[:60000]).tolist() == train_counts
    assert np.bincount(mnist.labels[60000:]).tolist() == test_counts
    # the mean and deviation of the training pixels that are quoted everywhere
    train = mnist.codes[:60000] / 255
    assert round(float(train.mean()), 4) == 0.1307
    assert round(float(train.std()), 4) == 0.3081


# 5. Order and parts, on the stand-in


def in_mldata_order(images, labels):
    pairs = sorted(zip(images.tolist(), labels.tolist(), strict=True), key=lambda pair: pair[1])  # sorted is stable
    return [image for image, _ in pairs], [label for _, label in pairs]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("order", ["official", "mldata"])
@pytest.mark.parametrize("subset", ["all", "train", "test"])
def test_parts_and_order(tmp_path, subset, order, suffix):
    ref_images, ref_labels = [], []
    for part, image_name, label_name in (("train", TRAIN_IMAGES, TRAIN_LABELS), ("test", TEST_IMAGES, TEST_LABELS)):
        if subset in ("all", part):
            images, labels = ARRAYS[image_name].reshape(-1, 6), ARRAYS[label_name]
            images, labels = in_mldata_order(images, labels) if order == "mldata" else (images, labels)
            ref_images.extend(images)
            ref_labels.extend(labels)
    comp = load_mnist(write_files(tmp_path, suffix=suffix), subset=subset, order=order)
    assert_array_equal(comp.codes, np.array(ref_images, np.uint8), strict=True)
    assert_array_equal(comp.labels, np.array(ref_labels, np.uint8), strict=True)
    assert comp.shape == (2, 3)
    assert not comp.codes.flags.writeable


def test_a_part_needs_only_its_files(tmp_path):
    write_files(tmp_path, {name: CONTENTS[name] for name in (TEST_IMAGES, TEST_LABELS)})
    assert len(load_mnist(tmp_path, subset="test").labels) == 4
    message = message_of(DataError, lambda: load_mnist(tmp_path))
    assert f"{str(tmp_path)!r} lacks {TRAIN_IMAGES}, {TRAIN_LABELS};" in message


@pytest.mark.parametrize(("name", "allowed"), [("subset", "'all', 'train', 'test'"), ("order", "'official', 'mldata'")])
def test_unknown_choice(name, allowed):
    message = message_of(InputError, lambda: load_mnist(**{name: "both"}))
    assert message == f"{name} must be one of {allowed}, got 'both'"


# 6. Where files are searched

BROKEN = dict.fromkeys(NAMES, b"not MNIST")


def test_folder_comes_before_its_subfolder(tmp_path):
    write_files(tmp_path / "mnist")
    assert len(load_mnist(tmp_path).labels) == 10
    write_files(tmp_path, BROKEN)
    assert str(tmp_path / TRAIN_IMAGES) in message_of(DataError, lambda: load_mnist(tmp_path))


def test_plain_file_comes_before_gz(tmp_path):
    write_files(tmp_path, BROKEN, suffix=".gz")
    write_files(tmp_path)
    assert len(load_mnist(tmp_path).labels) == 10


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_dotted_names(tmp_path, suffix):
    write_files(tmp_path, {name.replace("-idx", ".idx"): content for name, content in CONTENTS.items()}, suffix)
    assert len(load_mnist(str(tmp_path)).labels) == 10


def test_gz_name_on_plain_content(tmp_path):
    write_files(tmp_path, {f"{name}.gz": content for name, content in CONTENTS.items()})
    assert len(load_mnist(tmp_path).labels) == 10


def test_environment_variable(monkeypatch, tmp_path):
    write_files(tmp_path / "mnist")
    monkeypatch.setenv("INTNET_DATA", str(tmp_path))
    assert len(load_mnist().labels) == 10


def test_explicit_folder_does_not_fall_back(monkeypatch, tmp_path):
    write_files(tmp_path / "complete")
    monkeypatch.setenv("INTNET_DATA", str(tmp_path / "complete"))
    (tmp_path / "empty").mkdir()
    message = message_of(DataError, lambda: load_mnist(tmp_path / "empty"))
    assert all(name in message for name in NAMES)
    assert f"there is no folder {str(tmp_path / 'empty' / 'mnist')!r}" in message


@pytest.mark.parametrize(
    ("is_file", "problem"),
    [
        (False, "does not exist"),
        (True, "is not a folder"),
    ],
)
def test_explicit_folder_is_no_folder(tmp_path, is_file, problem):
    path = tmp_path / "two\nlines"
    if is_file:
        path.write_bytes(b"")
    message = message_of(DataError, lambda: load_mnist(path))
    assert f"the data folder {str(path)!r} {problem}" in message
    assert "--data-dir" in message


def test_explicit_folder_is_the_empty_string():
    assert "the data folder '' does not exist" in message_of(DataError, lambda: load_mnist(""))


# 7. Download


@pytest.mark.parametrize("folder", [None, "", "missing"])
@pytest.mark.usefixtures("cache")
def test_no_network(serve, monkeypatch, folder):
    asked = serve(no_network)
    if folder is not None:
        monkeypatch.setenv("INTNET_DATA", folder)
    message = message_of(DataError, load_mnist)
    assert "--data-dir" in message
    assert "INTNET_DATA" in message
    assert message.count("fails with ConnectionError") == 2
    assert ("there is no folder 'missing'" in message) == (folder == "missing")
    assert asked == [f"{mirror}{TRAIN_IMAGES}.gz" for mirror in _mnist.MNIST.mirrors]


def test_download_from_the_second_mirror_fills_the_cache(cache, serve):
    first, second = _mnist.MNIST.mirrors

    def answer(url):
        if url.startswith(first):
            no_network(url)
        return gzip.compress(CONTENTS[url.removeprefix(second).removesuffix(".gz")], mtime=0)

    serve(answer)
    downloaded = load_mnist()
    assert sorted(path.name for path in cache.iterdir()) == sorted(f"{name}.gz" for name in NAMES)
    serve(no_network)
    assert load_mnist().checksum == downloaded.checksum


def test_mirrors_serve_something_else(cache, serve):
    serve(lambda _: b"<html>moved</html>")
    assert message_of(DataError, load_mnist).count("its checksum is wrong") == 2
    assert not list(cache.iterdir())


def test_damaged_file_in_the_cache(cache, serve):
    serve(no_network)
    write_files(cache, suffix=".gz")
    path = cache / f"{TEST_IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-9])
    message = message_of(DataError, load_mnist)
    assert str(path) in message
    assert "delete it" in message


def test_cache_cannot_be_made(cache, serve):
    serve(no_network)
    cache.parent.parent.write_bytes(b"a file where a folder should be")
    assert str(cache) in message_of(DataError, load_mnist)


def test_without_pooch(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    message = message_of(DataError, load_mnist)
    assert 'pip install "intnet[data]"' in message
    assert "--data-dir" in message


# 8. Files that are not what their name says

IMAGES = CONTENTS[TRAIN_IMAGES]
OTHER_IMAGES = to_idx(255 - ARRAYS[TRAIN_IMAGES])
GZ = gzip.compress(IMAGES, mtime=0)
WRONG_IMAGES = {
    "empty": (b"", "is empty"),
    "empty, compressed": (gzip.compress(b""), "is empty"),
    "garbage": (b"<html>", "is not an idx file of unsigned bytes: it starts with 3c 68 74 6d"),
    "one byte": (b"\0", "is not an idx file"),
    "idx of floats": (b"\0\0\x0d" + IMAGES[3:], "is not an idx file of unsigned bytes"),
    "idx of rank 255": (b"\0\0\x08\xff" + bytes(1020), "is not an idx file"),
    "no header": (IMAGES[:10], "is cut short: it has 10 bytes and its idx header alone has 16"),
    "truncated": (IMAGES[:-1], "is cut short: it has 51 bytes and its idx header announces 52"),
    "too long": (IMAGES + b"\0", "is too long: it has 53 bytes and its idx header announces 52"),
    "gz truncated": (GZ[:-20], "is cut short: its gzip stream has no end"),
    "gz header only": (GZ[:5], "is cut short: its gzip stream has no end"),
    "gz damaged": (GZ[:20] + b"\xff" * 8 + GZ[28:], "is damaged: its gzip stream cannot be decompressed"),
    "gz with a wrong CRC": (GZ[:-8] + bytes(4) + GZ[-4:], "is damaged: its gzip stream cannot be decompressed"),
    "test images": (CONTENTS[TEST_IMAGES], "holds the test images of MNIST, not the training images"),
    "training labels": (CONTENTS[TRAIN_LABELS], "holds the training labels of MNIST, not the training images"),
    "images of another set's test part": (to_idx(np.zeros((4, 2, 3), np.uint8)), "array of shape (4, 2, 3), not (6, 2"),
    "another set": (OTHER_IMAGES, "is not MNIST: its shape is right and its content is not"),
    "another set, compressed": (gzip.compress(OTHER_IMAGES), "or another data set under the same name, as Fashion"),
}


@pytest.mark.parametrize("case", WRONG_IMAGES)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_wrong_file(tmp_path, case, suffix):
    stored, problem = WRONG_IMAGES[case]
    write_files(tmp_path)
    (tmp_path / TRAIN_IMAGES).unlink()
    path = tmp_path / (TRAIN_IMAGES + suffix)
    path.write_bytes(stored)
    message = message_of(DataError, lambda: load_mnist(tmp_path))
    assert message.startswith(f"{str(path)!r} ")
    assert problem in message
    assert f"MNIST's {TRAIN_IMAGES} (the training images)" in message


def test_no_cut_or_flipped_byte_escapes(tmp_path):
    write_files(tmp_path)
    path = tmp_path / TRAIN_IMAGES
    for stored in (IMAGES, GZ):
        for k in range(len(stored)):
            path.write_bytes(stored[:k])
            message_of(DataError, lambda: load_mnist(tmp_path))
            path.write_bytes(stored[:k] + bytes([stored[k] ^ 0x55]) + stored[k + 1 :])
            if stored is IMAGES or k >= 10:  # a gzip header holds fields that say nothing of the content
                message_of(DataError, lambda: load_mnist(tmp_path))


def test_file_cannot_be_read(monkeypatch, tmp_path):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    write_files(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    message = message_of(DataError, lambda: load_mnist(tmp_path))
    assert message.startswith(f"{str(tmp_path / TRAIN_IMAGES)!r} cannot be read (Permission denied)")
