"""The bytes of a collection's files, out of gzip or an archive, and the proof that they are the right ones."""

import gzip
import hashlib
import math
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from intnet.datasets._collection import Collection, File
from intnet.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """What was found under the name of `file`."""

    file: File
    where: str
    remedy: str
    content: bytes = field(repr=False)
    md5: str


def read_file(collection: Collection, file: File, path: Path) -> Found:
    """Return what `path` holds, which may be compressed."""
    remedy = f"delete it, or put {collection.title}'s {file.name} ({file.holds}) in its place"
    try:
        content = _decompressed(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise DataError(f"{str(path)!r} {error}; {remedy}") from error
    return Found(file, repr(str(path)), remedy, content, _md5(content))


def read_archive(collection: Collection, files: Sequence[File], path: Path) -> list[Found]:
    """Return `files` out of the archive at `path`; nothing is written to the disk."""
    remedy = f"delete it, or put {collection.title}'s {collection.archive} in its place"
    try:
        contents = _members(path, {f"{collection.subfolder}/{file.name}": file for file in files})
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{str(path)!r} is cut short or damaged: it cannot be unpacked; {remedy}") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise DataError(f"{str(path)!r} {error}; {remedy}") from error
    return [
        Found(file, f"{file.name} in {str(path)!r}", remedy, contents[file.name], _md5(contents[file.name])) for file in files
    ]


def verified(collection: Collection, found: Found, parse: Callable[[File, bytes], T]) -> T:
    """Return what `parse` makes of a file once it is known to be the right one, else say what it is.

    The content of a pickle is parsed only if its checksum is right; that of other files is, to say more of what is wrong.
    """
    try:
        return _verified(collection, found, parse)
    except ValueError as error:
        raise DataError(f"{found.where} {error}; {found.remedy}") from error


def _verified(collection: Collection, found: Found, parse: Callable[[File, bytes], T]) -> T:
    file = found.file
    if found.md5 == file.md5 or not file.md5:
        return parse(file, found.content)
    actual = collection.by_md5().get(found.md5)
    if actual is not None:
        raise ValueError(f"holds {actual.holds} of {collection.title}, not {file.holds}")
    if not found.content:
        raise ValueError("is empty")
    if not collection.pickled:
        parse(file, found.content)
    form = "its content is not the official one" if collection.pickled else "its shape is right and its content is not"
    raise ValueError(
        f"is not {collection.title}: {form} (MD5 {found.md5}, not {file.md5}), so it is damaged or {collection.lookalike}"
    )


def _decompressed(stored: bytes) -> bytes:
    if not stored.startswith(b"\x1f\x8b"):  # gzip's mark: a .gz name says little, some browsers unpack what they fetch
        return stored
    try:
        return gzip.decompress(stored)
    except EOFError as error:
        raise ValueError("is cut short: its gzip stream has no end") from error
    except (OSError, zlib.error) as error:
        raise ValueError("is damaged: its gzip stream cannot be decompressed") from error


def _members(path: Path, wanted: dict[str, File]) -> dict[str, bytes]:
    """Return the contents of the `wanted` members, which are read only if they are files of a plausible size."""
    contents: dict[str, bytes] = {}
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            file = wanted.get(member.name.removeprefix("./"))
            if file is None or file.name in contents:
                continue
            # A pickled batch also names its images: it is 1% larger than its pixels.
            if member.size > 2 * math.prod(file.shape) + 2**16:
                raise ValueError(f"has a {file.name} of {member.size} bytes, which is more than {file.holds} takes")
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is None:
                raise ValueError(f"has a {file.name} that is not a file")
            contents[file.name] = stream.read()
            if len(contents) == len(wanted):
                return contents
    missing = [file.name for file in wanted.values() if file.name not in contents]
    raise ValueError(f"lacks {', '.join(missing)}")


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{str(path)!r} cannot be read ({error.strerror}); make it readable, or give data_dir another folder")


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
