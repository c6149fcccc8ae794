"""Fashion-MNIST and CIFAR: both layouts, archives, what is passed over and what is refused."""

import gzip
import hashlib
import io
import os
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from test_datasets import message_of, to_idx

from intnet import datasets
from intnet.datasets import _cifar, _mnist, _tables
from intnet.errors import DataError, InputError

# 1. Stand-ins: small collections whose checksums replace the official ones


def digest(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def stand_in(collection, contents, shapes=None):
    """Return `collection` with the checksums, and the shapes, of `contents`."""

    def small(file):
        content = contents[file.name]
        shape = shapes[file.name.removesuffix(".bin")] if shapes else struct.unpack_from(f">{content[3]}I", content, 4)
        gz_sha256 = hashlib.sha256(gzip.compress(content, mtime=0)).hexdigest()
        return replace(file, shape=shape, md5=digest(content) if file.md5 else "", gz_sha256=gz_sha256)

    return replace(collection, parts={part: tuple(map(small, files)) for part, files in collection.parts.items()})


def write_files(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def idx_contents(seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.integers(0, 10, shape, np.uint8) for shape in ((6, 2, 3), (6,), (4, 2, 3), (4,))]
    return dict(zip((file.name for file in _tables.MNIST.files("all")), map(to_idx, arrays), strict=True))


MNIST_CONTENTS, FASHION_CONTENTS = idx_contents(1), idx_contents(2)

# Five batches of two images and a test batch of ten, so that each class has one image in each part.
SAMPLES = {f"data_batch_{k}": 2 for k in range(1, 6)} | {"test_batch": 10}
SAMPLES_100 = {"train": 5, "test": 3}


def random_batches(samples, labels_of):
    rng = np.random.default_rng(3)
    return {name: (rng.integers(0, 256, (n, 3, 32, 32), np.uint8), labels_of(rng, n)) for name, n in samples.items()}


CLASSES = iter([3, 1, 4, 0, 5, 9, 2, 6, 8, 7, *range(10)])
BATCHES = random_batches(SAMPLES, lambda _, n: {"labels": [next(CLASSES) for _ in range(n)]})
BATCHES_100 = random_batches(
    SAMPLES_100,
    lambda rng, n: {"coarse_labels": rng.integers(0, 20, n).tolist(), "fine_labels": rng.integers(0, 100, n).tolist()},
)


def to_records(pixels, labels):
    columns = [np.array(kind, np.uint8)[:, None] for kind in labels.values()]
    return np.hstack([*columns, pixels.reshape(len(pixels), -1)]).tobytes()


def to_pickle(pixels, labels, *, by_columns=False):
    """Return what Python 2 writes for a batch: protocol 2, bytes for text, NumPy's old names."""

    def text(content):
        return b"U" + bytes([len(content)]) + content

    flat = pixels.reshape(len(pixels), -1)
    stored = flat.tobytes(order="F" if by_columns else "C")
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\1\x87R(K\3" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text(b"b") + b"\x87R(K\1"
    array += struct.pack("<cici", b"J", flat.shape[0], b"J", flat.shape[1]) + b"\x86" + dtype
    array += (b"\x88" if by_columns else b"\x89") + b"T" + struct.pack("<i", len(stored)) + stored + b"tb"
    items = text(b"batch_label") + text(b"batch 1 of 5") + text(b"data") + array
    for kind, numbers in labels.items():
        items += text(kind.encode()) + b"](" + b"".join(b"K" + bytes([number]) for number in numbers) + b"e"
    return b"\x80\x02}(" + items + b"u."


def contents_of(batches, form, suffix=""):
    return {name + suffix: form(*batch) for name, batch in batches.items()}


BINARY, PICKLED = contents_of(BATCHES, to_records, ".bin"), contents_of(BATCHES, to_pickle)
BINARY_100, PICKLED_100 = contents_of(BATCHES_100, to_records, ".bin"), contents_of(BATCHES_100, to_pickle)
JPEG = {name: bytes([content[0]]) + bytes([content[1] ^ 1]) + content[2:] for name, content in BINARY.items()}


def patch_cifar10(monkeypatch, **changes):
    """Have the stand-ins pass for CIFAR-10; `changes` are other contents of a layout: binary=, pickled=."""
    shapes = {name: (n, 3, 32, 32) for name, n in SAMPLES.items()}
    for name, contents in {"binary": BINARY, "pickled": PICKLED, "jpeg": BINARY, **changes}.items():
        table = f"CIFAR10_{name.upper()}"
        monkeypatch.setattr(_cifar, table, stand_in(getattr(_tables, table), contents, shapes))


@pytest.fixture(autouse=True)
def small_collections(request, monkeypatch):
    if "real_pack" in request.fixturenames:
        return
    monkeypatch.delenv("INTNET_DATA", raising=False)
    monkeypatch.setattr(_mnist, "MNIST", stand_in(_tables.MNIST, MNIST_CONTENTS))
    monkeypatch.setattr(_mnist, "FASHION_MNIST", stand_in(_tables.FASHION_MNIST, FASHION_CONTENTS))
    patch_cifar10(monkeypatch)
    shapes = {name: (n, 3, 32, 32) for name, n in SAMPLES_100.items()}
    monkeypatch.setattr(_cifar, "CIFAR100_BINARY", stand_in(_tables.CIFAR100_BINARY, BINARY_100, shapes))
    monkeypatch.setattr(_cifar, "CIFAR100_PICKLED", stand_in(_tables.CIFAR100_PICKLED, PICKLED_100, shapes))


def to_archive(path, contents, folder):
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def stored_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_official_checksums_are_distinct():
    tables = [value for name, value in vars(_tables).items() if name.isupper() and not name.startswith("_")]
    sums = [file.md5 for table in tables for file in table.files("all") if file.md5]
    assert len(sums) == len(set(sums)) == 4 + 4 + 6 + 6 + 2 + 2
    assert {len(md5) for md5 in sums} == {32}


# 2. Fashion-MNIST beside MNIST

LOADERS = {"mnist": (datasets.load_mnist, MNIST_CONTENTS), "fashion-mnist": (datasets.load_fashion_mnist, FASHION_CONTENTS)}
OTHER = {"mnist": "fashion-mnist", "fashion-mnist": "mnist"}
TITLES = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}


@pytest.mark.parametrize("subset", ["all", "train", "test"])
def test_fashion_mnist(tmp_path, subset):
    write_files(tmp_path, FASHION_CONTENTS)
    comp = datasets.load_fashion_mnist(tmp_path, subset=subset)
    arrays = [np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]) for content in FASHION_CONTENTS.values()]
    first, last = {"all": (0, 4), "train": (0, 2), "test": (2, 4)}[subset]
    assert_array_equal(comp.codes, np.concatenate(arrays[first:last:2]).reshape(-1, 6), strict=True)
    assert_array_equal(comp.labels, np.concatenate(arrays[first + 1 : last : 2]), strict=True)
    assert (comp.name, comp.classes, comp.shape) == ("fashion-mnist", 10, (2, 3))


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("place", ["", "own"])
def test_namesakes_are_passed_over(tmp_path, name, place):
    load, contents = LOADERS[name]
    places = ["", name] if place else [name, ""]
    write_files(tmp_path / places[0], LOADERS[OTHER[name]][1])
    message = message_of(DataError, lambda: load(tmp_path))
    first = next(iter(contents))
    assert f"{str(tmp_path / places[0] / first)!r} holds the training images of {TITLES[OTHER[name]]};" in message
    write_files(tmp_path / places[1], contents)
    assert load(tmp_path).name == name


@pytest.mark.parametrize("name", LOADERS)
def test_namesakes_side_by_side(tmp_path, name):
    load, contents = LOADERS[name]
    write_files(tmp_path, LOADERS[OTHER[name]][1])
    write_files(tmp_path, {f"{file}.gz": gzip.compress(content) for file, content in contents.items()})
    assert load(tmp_path).name == name


def test_another_file_under_the_same_name(tmp_path):
    write_files(tmp_path, FASHION_CONTENTS | {"t10k-labels-idx1-ubyte": to_idx(np.zeros(4, np.uint8))})
    message = message_of(DataError, lambda: datasets.load_fashion_mnist(tmp_path))
    assert "is not Fashion-MNIST: its shape is right and its content is not" in message
    write_files(tmp_path, {"t10k-labels-idx1-ubyte": FASHION_CONTENTS["train-labels-idx1-ubyte"]})
    message = message_of(DataError, lambda: datasets.load_fashion_mnist(tmp_path))
    assert "holds the training labels of Fashion-MNIST, not the test labels" in message


# 3. CIFAR in each layout

FORMS = {
    "binary": (BINARY, "cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
    "pickled": (PICKLED, "cifar-10-batches-py", "cifar-10-python.tar.gz"),
}
FORMS_100 = {
    "binary": (BINARY_100, "cifar-100-binary", "cifar-100-binary.tar.gz"),
    "pickled": (PICKLED_100, "cifar-100-python", "cifar-100-python.tar.gz"),
}


def put(folder, form, store):
    contents, subfolder, archive = form
    if store == "archive":
        folder.mkdir(parents=True, exist_ok=True)
        to_archive(folder / archive, contents, subfolder)
    else:
        write_files(folder / subfolder if store == "unpacked" else folder, contents)


def channels_last(batches, names):
    images = [
        pixels[i, :, y, x] for name in names for pixels in [batches[name][0]] for i, y, x in np.ndindex(len(pixels), 32, 32)
    ]
    return np.array(images).reshape(-1, 3072)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["", "cifar10"])
@pytest.mark.parametrize("store", ["unpacked", "loose", "archive"])
def test_cifar10(tmp_path, form, place, store):
    put(tmp_path / place, FORMS[form], store)
    before = stored_files(tmp_path)
    comp = datasets.load_cifar10(tmp_path)
    assert stored_files(tmp_path) == before
    assert_array_equal(comp.codes, channels_last(BATCHES, SAMPLES), strict=True)
    assert comp.labels.tolist() == [label for _, labels in BATCHES.values() for label in labels["labels"]]
    assert (comp.name, comp.classes, comp.shape) == ("cifar10", 10, (32, 32, 3))
    assert_array_equal(comp.values, np.array([k / 255 for k in range(256)]), strict=True)
    assert (comp.labels.dtype, comp.codes.flags.writeable) == (np.uint8, False)


@pytest.mark.parametrize("form", FORMS_100)
@pytest.mark.parametrize("store", ["unpacked", "loose", "archive"])
@pytest.mark.parametrize(("labels", "classes"), [("fine", 100), ("coarse", 20)])
def test_cifar100(tmp_path, form, store, labels, classes):
    put(tmp_path, FORMS_100[form], store)
    comp = datasets.load_cifar100(tmp_path, labels=labels)
    assert_array_equal(comp.codes, channels_last(BATCHES_100, SAMPLES_100), strict=True)
    assert comp.labels.tolist() == [label for _, kinds in BATCHES_100.values() for label in kinds[f"{labels}_labels"]]
    assert (comp.name, comp.classes, comp.shape) == ("cifar100", classes, (32, 32, 3))


@pytest.mark.parametrize(("subset", "names"), [("train", list(SAMPLES)[:5]), ("test", ["test_batch"])])
def test_a_part_of_cifar10_needs_only_its_files(tmp_path, subset, names):
    write_files(tmp_path / "cifar-10-batches-bin", {f"{name}.bin": BINARY[f"{name}.bin"] for name in names})
    assert_array_equal(datasets.load_cifar10(tmp_path, subset=subset).codes, channels_last(BATCHES, names))
    message = message_of(DataError, lambda: datasets.load_cifar10(tmp_path))
    assert f"{str(tmp_path / 'cifar-10-batches-bin')!r} lacks " in message


def test_an_incomplete_layout_is_passed_over(tmp_path):
    write_files(tmp_path / "cifar-10-batches-bin", {"data_batch_1.bin": BINARY["data_batch_1.bin"]})
    put(tmp_path, FORMS["pickled"], "archive")
    assert len(datasets.load_cifar10(tmp_path).labels) == 20


def test_cifar_is_nowhere(tmp_path):
    message = message_of(DataError, lambda: datasets.load_cifar10(tmp_path))
    assert f"there is no folder {str(tmp_path / 'cifar10')!r}; {str(tmp_path)!r} has nothing of CIFAR-10" in message
    names = [name for _, *names in FORMS.values() for name in names]
    assert f"a folder with CIFAR-10's {' or '.join(names)}" in message


def test_cifar_from_the_environment(monkeypatch, tmp_path):
    put(tmp_path / "cifar10", FORMS["binary"], "unpacked")
    monkeypatch.setenv("INTNET_DATA", str(tmp_path))
    assert datasets.load_cifar10().name == "cifar10"


def test_download_of_an_archive(monkeypatch, tmp_path):
    pooch = pytest.importorskip("pooch")
    to_archive(tmp_path / "served", BINARY, "cifar-10-batches-bin")
    served = (tmp_path / "served").read_bytes()
    table = replace(_cifar.CIFAR10_BINARY, archive_sha256=hashlib.sha256(served).hexdigest())
    monkeypatch.setattr(_cifar, "CIFAR10_BINARY", table)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    asked = []

    def downloader(url, output_file, _pooch):
        asked.append(url)
        Path(output_file).write_bytes(b"<html>" if len(asked) == 1 else served)

    monkeypatch.setattr(pooch, "HTTPDownloader", lambda **_: downloader)
    first = datasets.load_cifar10()
    assert datasets.load_cifar10().checksum == first.checksum
    assert asked == [f"{mirror}cifar-10-binary.tar.gz" for mirror in table.mirrors]
    assert [path.name for path in stored_files(tmp_path / "intnet")] == ["cifar-10-binary.tar.gz"]


# 4. CIFAR files that are not what their name says

RECORDS = BINARY["data_batch_1.bin"]
WRONG_RECORDS = {
    "empty": (b"", "is empty"),
    "truncated": (RECORDS[:-1], "is cut short: it has 6145 bytes, and 2 images with their labels have 6146"),
    "too long": (RECORDS + b"\0", "is too long: it has 6147 bytes"),
    "label": (b"\x0a" + RECORDS[1:], "has the label 10, and the highest of 10 classes is 9"),
    "other batch": (BINARY["data_batch_2.bin"], "holds training batch 2 of CIFAR-10, not training batch 1"),
    "gz truncated": (gzip.compress(RECORDS)[:-20], "is cut short: its gzip stream has no end"),
    "pixels": (JPEG["data_batch_1.bin"], "or decoded from JPEG copies, which jpeg_decoded=True admits"),
}


@pytest.mark.parametrize("case", WRONG_RECORDS)
def test_wrong_records(tmp_path, case):
    stored, problem = WRONG_RECORDS[case]
    path = write_files(tmp_path, BINARY | {"data_batch_1.bin": stored}) / "data_batch_1.bin"
    message = message_of(DataError, lambda: datasets.load_cifar10(tmp_path))
    assert message.startswith(f"{str(path)!r} ")
    assert problem in message
    assert "put CIFAR-10's data_batch_1.bin (training batch 1) in its place" in message


def linked(path):
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)


def truncated(path):
    to_archive(path, BINARY, "cifar-10-batches-bin")
    path.write_bytes(path.read_bytes()[:20000])


WRONG_ARCHIVES = {
    "no archive": (lambda path: path.write_bytes(b"<html>"), "is cut short or damaged"),
    "truncated": (truncated, "is cut short or damaged"),
    "another folder": (lambda path: to_archive(path, BINARY, ".."), "lacks data_batch_1.bin, data_batch_2.bin"),
    "link": (linked, "has a data_batch_1.bin that is not a file"),
    "large": (
        lambda path: to_archive(path, BINARY | {"data_batch_2.bin": bytes(10**5)}, "cifar-10-batches-bin"),
        "has a data_batch_2.bin of 100000 bytes, which is more than training batch 2 takes",
    ),
    "another content": (lambda path: to_archive(path, JPEG, "cifar-10-batches-bin"), "is not CIFAR-10"),
}


@pytest.mark.parametrize("case", WRONG_ARCHIVES)
def test_wrong_archive(tmp_path, case):
    write, problem = WRONG_ARCHIVES[case]
    path = tmp_path / "cifar-10-binary.tar.gz"
    write(path)
    message = message_of(DataError, lambda: datasets.load_cifar10(tmp_path))
    assert repr(str(path)) in message
    assert problem in message
    assert "put CIFAR-10's cifar-10-binary.tar.gz in its place" in message


def test_repacked_archive(tmp_path):
    names = reversed(BINARY)
    to_archive(tmp_path / "cifar-10-binary.tar.gz", {name: BINARY[name] for name in names}, "./cifar-10-batches-bin")
    assert datasets.load_cifar10(tmp_path).labels.tolist()[:2] == BATCHES["data_batch_1"][1]["labels"]


# 5. CIFAR-10 decoded from JPEG


@pytest.mark.parametrize("place", ["", "cifar10", "cifar10-jpeg"])
def test_jpeg_decoded(tmp_path, place):
    write_files(tmp_path / place / "cifar-10-batches-bin", JPEG)
    comp = datasets.load_cifar10(tmp_path, jpeg_decoded=True)
    assert comp.name == "cifar10-jpeg"
    assert comp.codes[0, 0] == BATCHES["data_batch_1"][0][0, 0, 0, 0] ^ 1
    assert comp.checksum == datasets.load("cifar10-jpeg", tmp_path).checksum
    message = message_of(DataError, lambda: datasets.load_cifar10(tmp_path))
    assert ("jpeg_decoded=True" in message) == (place != "cifar10-jpeg")


def test_jpeg_decoded_refuses_the_official_files(tmp_path):
    write_files(tmp_path, BINARY)
    message = message_of(DataError, lambda: datasets.load_cifar10(tmp_path, jpeg_decoded=True))
    assert f"{str(tmp_path / 'data_batch_1.bin')!r} holds training batch 1 of CIFAR-10;" in message
    assert "or load the official files without jpeg_decoded" in message
    write_files(tmp_path / "cifar10-jpeg", JPEG)
    assert datasets.load_cifar10(tmp_path, jpeg_decoded=True).name == "cifar10-jpeg"
    assert datasets.load_cifar10(tmp_path).name == "cifar10"


def test_jpeg_decoded_is_checked(tmp_path):
    names = "data_batch_1.bin", "test_batch.bin"
    write_files(tmp_path, JPEG | {names[0]: b"\x0a" + JPEG[names[0]][1:]})
    assert "has the label 10" in message_of(DataError, lambda: datasets.load_cifar10(tmp_path, jpeg_decoded=True))
    write_files(tmp_path, JPEG | {names[1]: b"\x01" + JPEG[names[1]][1:]})
    message = message_of(DataError, lambda: datasets.load_cifar10(tmp_path, jpeg_decoded=True))
    assert "their classes have [1, 3, 2, 2, 2, 2, 2, 2, 2, 2] images" in message


def test_jpeg_decoded_is_never_downloaded():
    message = message_of(DataError, lambda: datasets.load_cifar10(jpeg_decoded=True))
    assert message.startswith("CIFAR-10 decoded from JPEG is not at hand; give data_dir, --data-dir or INTNET_DATA a folder")


@pytest.fixture
def real_pack():
    folder = os.environ.get("INTNET_DATA", "")
    places = [Path(folder, place, "cifar-10-batches-bin", "test_batch.bin") for place in ("cifar10-jpeg", "cifar10", "")]
    present = [path for path in places if folder and path.is_file()]
    if not present or digest(present[0].read_bytes()) == _tables.CIFAR10_BINARY.parts["test"][0].md5:
        pytest.skip("INTNET_DATA names no folder with CIFAR-10 decoded from JPEG")
    return folder


def test_real_pack(real_pack):
    comp = datasets.load("cifar10-jpeg", real_pack, subset="test")
    assert (comp.name, comp.codes.shape, comp.shape) == ("cifar10-jpeg", (10000, 3072), (32, 32, 3))
    assert np.bincount(comp.labels).tolist() == [1000] * 10
    # the mean of each official channel, which JPEG leaves nearly as it is
    means = comp.values[comp.codes[:2000]].reshape(-1, 3).mean(axis=0)
    assert np.abs(means - [0.491, 0.482, 0.447]).max() < 0.02


# 6. By name


def test_names():
    assert datasets.NAMES == ("digits", "mnist", "fashion-mnist", "cifar10", "cifar10-jpeg", "cifar100")


@pytest.mark.parametrize("name", datasets.NAMES[1:])
@pytest.mark.parametrize("subset", ["all", "train", "test"])
def test_load_equals_the_loader(tmp_path, name, subset):
    write_files(tmp_path / "mnist", MNIST_CONTENTS)
    write_files(tmp_path / "fashion-mnist", FASHION_CONTENTS)
    write_files(tmp_path / "cifar10", BINARY)
    write_files(tmp_path / "cifar10-jpeg", JPEG)
    write_files(tmp_path / "cifar100", BINARY_100)
    comp = datasets.load(name, tmp_path, subset=subset)
    options = {"jpeg_decoded": True} if name == "cifar10-jpeg" else {}
    loader = getattr(datasets, f"load_{name.removesuffix('-jpeg').replace('-', '_')}")
    assert comp.name == name
    assert comp.checksum == loader(tmp_path, subset=subset, **options).checksum


def test_load_digits():
    pytest.importorskip("sklearn")
    whole, train, test = (datasets.load("digits", subset=subset) for subset in ("all", "train", "test"))
    assert whole.checksum == datasets.load_digits().checksum
    assert (len(train.labels), len(test.labels)) == (1500, 297)
    assert_array_equal(np.concatenate([train.codes, test.codes]), whole.codes, strict=True)
    assert_array_equal(np.concatenate([train.labels, test.labels]), whole.labels, strict=True)
    assert not train.codes.flags.writeable


def test_load_passes_options_on(tmp_path):
    write_files(tmp_path, BINARY_100)
    assert datasets.load("cifar100", tmp_path, labels="coarse").classes == 20


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: datasets.load("cifar"), f"there is no data set 'cifar'; there are {', '.join(datasets.NAMES)}"),
        (
            lambda: datasets.load("mnist", labels="fine"),
            "the data set 'mnist' has no option 'labels'; besides subset it has order",
        ),
        (lambda: datasets.load("digits", order="mldata"), "has no option 'order'; besides subset it has none"),
        (lambda: datasets.load("digits", subset="rest"), "subset must be one of 'all', 'train', 'test', got 'rest'"),
        (lambda: datasets.load_fashion_mnist(subset="rest"), "subset must be one of"),
        (lambda: datasets.load_cifar10(subset="rest"), "subset must be one of"),
        (lambda: datasets.load_cifar10(jpeg_decoded="yes"), "jpeg_decoded must be one of False, True, got 'yes'"),
        (lambda: datasets.load_cifar100(labels="all"), "labels must be one of 'fine', 'coarse', got 'all'"),
    ],
)
def test_unknown_choice(call, problem):
    assert problem in message_of(InputError, call)
