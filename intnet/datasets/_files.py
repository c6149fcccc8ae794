"""Collections of files: where they are searched, and how they are fetched."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from intnet.errors import DataError

DATA_VARIABLE = "INTNET_DATA"


@dataclass(frozen=True)
class File:
    """One file of a collection: its official name, what it holds, and its checksums."""

    name: str
    holds: str
    shape: tuple[int, ...]
    md5: str  # of the uncompressed file: anyone may have compressed it again
    gz_sha256: str  # of the .gz file that the mirrors serve


@dataclass(frozen=True)
class Collection:
    """A data set kept in idx files: for each part, the images and the labels."""

    title: str
    folder: str
    mirrors: tuple[str, ...]
    parts: Mapping[str, tuple[File, File]]


def locate(collection: Collection, files: Sequence[File], data_dir: str | os.PathLike[str] | None) -> list[Path]:
    """Find `files`, all in one folder, by the rule that `load_mnist` states."""
    root = os.environ.get(DATA_VARIABLE, "") if data_dir is None else os.fspath(data_dir)
    root = os.path.expanduser(root)
    if data_dir is not None and not os.path.isdir(root):
        problem = "is not a folder" if os.path.exists(root) else "does not exist"
        raise DataError(f"the data folder {root!r} {problem}; {_advice(collection, files)}")
    folders = [Path(root), Path(root, collection.folder)] if root else []
    for folder in folders:
        paths = [path for file in files if (path := _find(folder, file.name))]
        if len(paths) == len(files):
            return paths
    searched = "; ".join(_what_is_missing(folder, files) for folder in folders)
    if data_dir is not None:
        raise DataError(f"{collection.title} is not at hand: {searched}; {_advice(collection, files)}")
    return _download(collection, files, searched)


def _find(folder: Path, name: str) -> Path | None:
    """Return the file called `name` in `folder`, plain rather than compressed, or None."""
    dotted = name.replace("-idx", ".idx")  # as some mirrors write it
    for candidate in (name, dotted, f"{name}.gz", f"{dotted}.gz"):
        path = folder / candidate
        if os.path.isfile(path):  # unlike Path.is_file, also answers where the folder may not be entered
            return path
    return None


def _what_is_missing(folder: Path, files: Iterable[File]) -> str:
    if not os.path.isdir(folder):
        return f"there is no folder {str(folder)!r}"
    return f"{str(folder)!r} lacks " + ", ".join(file.name for file in files if not _find(folder, file.name))


def _advice(collection: Collection, files: Iterable[File]) -> str:
    names = ", ".join(file.name for file in files)
    return f"give data_dir, --data-dir or {DATA_VARIABLE} a folder with {collection.title}'s {names} (plain or .gz)"


def _download(collection: Collection, files: Sequence[File], searched: str) -> list[Path]:
    """Return `files` from the cache; those that are not there are fetched first."""
    unavailable = f"{collection.title} is not at hand" + (f" ({searched})" if searched else "")
    advice = _advice(collection, files)
    try:
        import pooch
    except ImportError as error:
        raise DataError(
            f'{unavailable} and pooch, which fetches it, is not installed; pip install "intnet[data]", or {advice}'
        ) from error
    cache = pooch.os_cache("intnet") / collection.folder
    try:
        return [_find(cache, file.name) or _fetch(collection, file, cache) for file in files]
    except ConnectionError as error:
        raise DataError(f"{unavailable} and {error}; connect to the network, or {advice}") from error


def _fetch(collection: Collection, file: File, cache: Path) -> Path:
    """Download `file` from the first mirror that serves it unaltered, else raise ConnectionError."""
    import pooch

    name = f"{file.name}.gz"
    failures = []
    pooch.get_logger().setLevel("WARNING")  # an error is one line, without the tale of each attempt
    for mirror in collection.mirrors:
        try:
            # The time limit, in seconds, is for each address of a host, and a mirror may have eight.
            downloader = pooch.HTTPDownloader(timeout=10)
            known_hash = f"sha256:{file.gz_sha256}"
            return Path(pooch.retrieve(mirror + name, known_hash, fname=name, path=cache, downloader=downloader))
        except ValueError:  # pooch's, after it has deleted the download
            failures.append(f"{mirror} serves another file: its checksum is wrong")
        except OSError as error:  # also the base of every error of requests
            failures.append(f"{mirror} fails with {type(error).__name__}")
    raise ConnectionError(f"{name} cannot be fetched into {str(cache)!r}: {'; '.join(failures)}")
