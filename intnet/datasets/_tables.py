"""The names, shapes and checksums of the collections.

Where the checksums are published, besides the data sets' own pages: those of the .gz files of MNIST and Fashion-MNIST,
of the CIFAR archives and of the pickled batches in torchvision and in many other loaders; those of Fashion-MNIST's
uncompressed files and of CIFAR-10's .bin files in more than one project that checks them after unpacking; those of
CIFAR-100's .bin files in one (rai-project/dldataset), whose other checksums agree with all the rest.
"""

from dataclasses import replace

from intnet.datasets._collection import Collection, File

# 1. idx files: four files of the same names and shapes in both collections

MNIST = Collection(
    title="MNIST",
    folder="mnist",
    places=("", "mnist"),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    parts={
        "train": (
            File(
                name="train-images-idx3-ubyte",
                holds="the training images",
                shape=(60000, 28, 28),
                md5="6bbc9ace898e44ae57da46a324031adb",
                gz_sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            File(
                name="train-labels-idx1-ubyte",
                holds="the training labels",
                shape=(60000,),
                md5="a25bea736e30d166cdddb491f175f624",
                gz_sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
        ),
        "test": (
            File(
                name="t10k-images-idx3-ubyte",
                holds="the test images",
                shape=(10000, 28, 28),
                md5="2646ac647ad5339dbf082846283269ea",
                gz_sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            File(
                name="t10k-labels-idx1-ubyte",
                holds="the test labels",
                shape=(10000,),
                md5="27ae3e4e09519cfbb04c329615203637",
                gz_sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
    },
    lookalike="another data set under the same name, as Fashion-MNIST is",
)

_FASHION_CHECKSUMS = {
    "train-images-idx3-ubyte": (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    "train-labels-idx1-ubyte": (
        "9018921c3c673c538a1fc5bad174d6f9",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    "t10k-images-idx3-ubyte": (
        "8181f5470baa50b63fa0f6fddb340f0a",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    "t10k-labels-idx1-ubyte": (
        "15d484375f8d13e6eb1aabb0c3f46965",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
}


def _fashion_file(file: File) -> File:
    md5, gz_sha256 = _FASHION_CHECKSUMS[file.name]
    return replace(file, md5=md5, gz_sha256=gz_sha256)


FASHION_MNIST = Collection(
    title="Fashion-MNIST",
    folder="fashion-mnist",
    places=("fashion-mnist", ""),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    parts={part: tuple(map(_fashion_file, files)) for part, files in MNIST.parts.items()},
    lookalike="another data set under the same name, as Kuzushiji-MNIST is",
)

# 2. CIFAR: each in a binary layout and in one of pickles

_TORONTO = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")
_BATCH = (10000, 3, 32, 32)


def _cifar10_parts(suffix: str, train_md5: tuple[str, ...], test_md5: str) -> dict[str, tuple[File, ...]]:
    batches = tuple(
        File(f"data_batch_{number}{suffix}", f"training batch {number}", _BATCH, md5)
        for number, md5 in enumerate(train_md5, start=1)
    )
    return {"train": batches, "test": (File(f"test_batch{suffix}", "the test batch", _BATCH, test_md5),)}


def _cifar100_parts(suffix: str, train_md5: str, test_md5: str) -> dict[str, tuple[File, ...]]:
    return {
        "train": (File(f"train{suffix}", "the training part", (50000, *_BATCH[1:]), train_md5),),
        "test": (File(f"test{suffix}", "the test part", _BATCH, test_md5),),
    }


CIFAR10_BINARY = Collection(
    title="CIFAR-10",
    folder="cifar10",
    places=("cifar10", ""),
    mirrors=_TORONTO,
    parts=_cifar10_parts(
        ".bin",
        (
            "5dd7e06a14cb22eb9f671a540d1b7c25",
            "5ea93a67294ea407fff1d09f752e9692",
            "942cd6a4bcdd0dd3c604fbe906cb4421",
            "ae636b3ba5c66a11e91e8cb52e771fcb",
            "53f37980c15c3d472c316c40844f3f0d",
        ),
        "803d5f7f4d78ea53de84dbe85f74fb6d",
    ),
    lookalike="decoded from JPEG copies, which jpeg_decoded=True admits as the data set cifar10-jpeg",
    subfolder="cifar-10-batches-bin",
    archive="cifar-10-binary.tar.gz",
    archive_sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)

CIFAR10_PICKLED = replace(
    CIFAR10_BINARY,
    parts=_cifar10_parts(
        "",
        (
            "c99cafc152244af753f735de768cd75f",
            "d4bba439e000b95fd0a9bffe97cbabec",
            "54ebc095f3ab1f0389bbae665268c751",
            "634d18415352ddfa80567beed471001a",
            "482c414d41f54cd18b22e5b47cb7c3cb",
        ),
        "40351d587109b95175f43aff81a1287e",
    ),
    lookalike="another file under the same name",
    subfolder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    archive_sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    pickled=True,
)

CIFAR10_JPEG = replace(
    CIFAR10_BINARY,
    title="CIFAR-10 decoded from JPEG",
    folder="cifar10-jpeg",
    places=("cifar10-jpeg", "cifar10", ""),
    mirrors=(),
    parts=_cifar10_parts(".bin", ("",) * 5, ""),
    lookalike="",
    otherwise="or load the official files without jpeg_decoded",
    archive="",
    archive_sha256="",
)

CIFAR100_BINARY = replace(
    CIFAR10_BINARY,
    title="CIFAR-100",
    folder="cifar100",
    places=("cifar100", ""),
    parts=_cifar100_parts(".bin", "6172c7755cfe09b2fe270c85cebc1b15", "4499cfba6c016c1be1438163640a0898"),
    lookalike="another file under the same name",
    subfolder="cifar-100-binary",
    archive="cifar-100-binary.tar.gz",
    archive_sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
)

CIFAR100_PICKLED = replace(
    CIFAR100_BINARY,
    parts=_cifar100_parts("", "16019d7e3df5f24257cddd939b257f8d", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
    subfolder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    archive_sha256="",
    pickled=True,
)
