"""Where the files of a collection are searched, and how they are fetched."""

import os
from collections.abc import Sequence
from pathlib import Path

from intnet.datasets._collection import DATA_VARIABLE, Collection, File
from intnet.datasets._content import Found, read_archive, read_file
from intnet.errors import DataError

Hit = tuple[Collection, list[Found]]


def locate(
    layouts: Sequence[Collection],
    subset: str,
    data_dir: str | os.PathLike[str] | None,
    namesakes: Sequence[Collection] = (),
) -> Hit:
    """Find the files of `subset` in one of `layouts`, all in one folder or archive, by the rule that the loaders state.

    Files that belong to one of `namesakes`, which use the same names, are passed over.
    """
    root = os.environ.get(DATA_VARIABLE, "") if data_dir is None else os.fspath(data_dir)
    root = os.path.expanduser(root)
    advice = _advice(layouts, subset)
    if data_dir is not None and not os.path.isdir(root):
        problem = "is not a folder" if os.path.exists(root) else "does not exist"
        raise DataError(f"the data folder {root!r} {problem}; {advice}")
    notes = []
    for place in layouts[0].places if root else ():
        hit = _search(Path(root, place), layouts, subset, namesakes)
        if not isinstance(hit, str):
            return hit
        notes.append(hit)
    unavailable = f"{layouts[0].title} is not at hand"
    if data_dir is not None or not layouts[0].mirrors:
        raise DataError("; ".join([": ".join([unavailable, *notes[:1]]), *notes[1:], advice]))
    return _download(layouts[0], subset, unavailable + (f" ({'; '.join(notes)})" if notes else ""), advice)


def _search(folder: Path, layouts: Sequence[Collection], subset: str, namesakes: Sequence[Collection]) -> Hit | str:
    """Return what was found in `folder`, or the reason why nothing was."""
    if not os.path.isdir(folder):
        return f"there is no folder {str(folder)!r}"
    reasons = []
    for layout in layouts:
        files = layout.files(subset)
        for place in dict.fromkeys((folder / layout.subfolder, folder)):
            found = _in_folder(layout, files, place, namesakes)
            if not isinstance(found, str):
                return layout, found
            reasons.append(found)
        archive = folder / layout.archive
        if layout.archive and os.path.isfile(archive):
            return layout, read_archive(layout, files, archive)
    return "; ".join(filter(None, reasons)) or f"{str(folder)!r} has nothing of {layouts[0].title}"


def _in_folder(
    collection: Collection, files: Sequence[File], folder: Path, namesakes: Sequence[Collection]
) -> list[Found] | str:
    paths = [_stored(folder, file.name) for file in files]
    if not all(paths):
        missing = [file.name for file, candidates in zip(files, paths, strict=True) if not candidates]
        return f"{str(folder)!r} lacks {', '.join(missing)}" if any(paths) or not collection.subfolder else ""
    others = {md5: (file, other.title) for other in namesakes for md5, file in other.by_md5().items()}
    result = []
    for file, candidates in zip(files, paths, strict=True):
        for path in candidates:
            found = read_file(collection, file, path)
            if found.md5 not in others:
                result.append(found)
                break
        else:
            other, title = others[found.md5]
            return f"{str(path)!r} holds {other.holds} of {title}"
    return result


def _stored(folder: Path, name: str) -> list[Path]:
    """Return the files in `folder` that may be the one called `name`, plain before compressed."""
    dotted = name.replace("-idx", ".idx")  # as some mirrors write it
    names = dict.fromkeys((name, dotted, f"{name}.gz", f"{dotted}.gz"))
    # unlike Path.is_file, os.path.isfile also answers where the folder may not be entered
    return [folder / candidate for candidate in names if os.path.isfile(folder / candidate)]


def _advice(layouts: Sequence[Collection], subset: str) -> str:
    collection = layouts[0]
    if collection.subfolder:
        names = [name for layout in layouts for name in (layout.subfolder, layout.archive) if name]
        wanted = " or ".join(names)
    else:
        wanted = ", ".join(file.name for file in collection.files(subset)) + " (plain or .gz)"
    otherwise = f", {collection.otherwise}" if collection.otherwise else ""
    return f"give data_dir, --data-dir or {DATA_VARIABLE} a folder with {collection.title}'s {wanted}{otherwise}"


def _download(collection: Collection, subset: str, unavailable: str, advice: str) -> Hit:
    """Return the files of `subset` from the cache; what is not there is fetched first."""
    try:
        import pooch
    except ImportError as error:
        raise DataError(
            f'{unavailable} and pooch, which fetches it, is not installed; pip install "intnet[data]", or {advice}'
        ) from error
    cache = pooch.os_cache("intnet") / collection.folder
    if collection.archive:
        wanted = {collection.archive: collection.archive_sha256} if not os.path.isfile(cache / collection.archive) else {}
    else:
        wanted = {f"{file.name}.gz": file.gz_sha256 for file in collection.files(subset) if not _stored(cache, file.name)}
    try:
        for name, sha256 in wanted.items():
            _fetch(collection, name, sha256, cache)
    except ConnectionError as error:
        raise DataError(f"{unavailable} and {error}; connect to the network, or {advice}") from error
    hit = _search(cache, (collection,), subset, ())
    if isinstance(hit, str):
        raise DataError(f"{unavailable}: {hit}; {advice}")
    return hit


def _fetch(collection: Collection, name: str, sha256: str, cache: Path) -> None:
    """Download a file from the first mirror that serves it unaltered, else raise ConnectionError."""
    import pooch

    failures = []
    pooch.get_logger().setLevel("WARNING")  # an error is one line, without the tale of each attempt
    for mirror in collection.mirrors:
        try:
            # The time limit, in seconds, is for each address of a host, and a mirror may have eight.
            downloader = pooch.HTTPDownloader(timeout=10)
            pooch.retrieve(mirror + name, f"sha256:{sha256}", fname=name, path=cache, downloader=downloader)
            return
        except ValueError:  # pooch's, after it has deleted the download
            failures.append(f"{mirror} serves another file: its checksum is wrong")
        except OSError as error:  # also the base of every error of requests
            failures.append(f"{mirror} fails with {type(error).__name__}")
    raise ConnectionError(f"{name} cannot be fetched into {str(cache)!r}: {'; '.join(failures)}")
