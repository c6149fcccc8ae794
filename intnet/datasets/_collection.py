"""How a data set kept in files is described."""

from collections.abc import Mapping
from dataclasses import dataclass

DATA_VARIABLE = "INTNET_DATA"


@dataclass(frozen=True)
class File:
    """One file of a collection: its official name, what it holds, and its checksums."""

    name: str
    holds: str
    shape: tuple[int, ...]  # of the array in it; of an image file in planes, (samples, channels, rows, columns)
    md5: str  # of the uncompressed file, as anyone may have compressed it again; "" where nothing official is known
    gz_sha256: str = ""  # of the .gz file that the mirrors serve, where they serve each file by itself


@dataclass(frozen=True)
class Collection:
    """A data set in one of the layouts that it is published in."""

    title: str
    folder: str  # its place in the cache
    places: tuple[str, ...]  # the folders that are searched, in this order, under the one that the user names
    mirrors: tuple[str, ...]
    parts: Mapping[str, tuple[File, ...]]
    lookalike: str  # what a file of the right form and the wrong content may be
    subfolder: str = ""  # what the archive unpacks to
    archive: str = ""
    archive_sha256: str = ""
    pickled: bool = False
    otherwise: str = ""  # what else the user may do where nothing is found

    def files(self, subset: str) -> tuple[File, ...]:
        """Return the files of `subset`: "train", "test", or "all" for both."""
        return tuple(file for part in self.parts if subset in ("all", part) for file in self.parts[part])

    def by_md5(self) -> dict[str, File]:
        """Return every file whose official checksum is known, under that checksum."""
        return {file.md5: file for files in self.parts.values() for file in files if file.md5}
