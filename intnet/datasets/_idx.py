"""Reading a file of idx format once it is known to be the right one."""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intnet.datasets._files import Collection, File
from intnet.errors import DataError


def read_idx(collection: Collection, file: File, path: Path) -> NDArray[np.uint8]:
    """Return the array in `path` once it is known to be `file`, else say what `path` holds."""
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{str(path)!r} cannot be read ({error.strerror}); make it readable, or give data_dir another folder"
        ) from error
    try:
        return _verified(collection, file, _decompressed(stored))
    except ValueError as error:
        raise DataError(
            f"{str(path)!r} {error}; delete it, or put {collection.title}'s {file.name} ({file.holds}) in its place"
        ) from error


def _decompressed(stored: bytes) -> bytes:
    if not stored.startswith(b"\x1f\x8b"):  # gzip's mark: a .gz name says little, some browsers unpack what they fetch
        return stored
    try:
        return gzip.decompress(stored)
    except EOFError as error:
        raise ValueError("is cut short: its gzip stream has no end") from error
    except (OSError, zlib.error) as error:
        raise ValueError("is damaged: its gzip stream cannot be decompressed") from error


def _verified(collection: Collection, file: File, content: bytes) -> NDArray[np.uint8]:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    by_md5 = {known.md5: known for part in collection.parts.values() for known in part}
    actual = by_md5.get(md5)
    if actual is not None and actual is not file:
        raise ValueError(f"holds {actual.holds} of {collection.title}, not {file.holds}")
    array = _idx(content)
    if array.shape != file.shape:
        raise ValueError(f"holds an array of shape {array.shape}, not {file.shape}")
    if actual is None:
        raise ValueError(
            f"is not {collection.title}: its shape is right and its content is not (MD5 {md5}, not {file.md5}), "
            "so it is damaged or another data set under the same name, as Fashion-MNIST is"
        )
    return array


def _idx(content: bytes) -> NDArray[np.uint8]:
    """Read an idx array: two zero bytes, type 8 (uint8), rank, sizes as big-endian uint32, items in C order."""
    if not content:
        raise ValueError("is empty")
    if len(content) < 4 or content[:3] != b"\0\0\x08" or not 1 <= content[3] <= 4:
        raise ValueError(f"is not an idx file of unsigned bytes: it starts with {content[:4].hex(' ')}")
    rank = content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise ValueError(f"is cut short: it has {len(content)} bytes and its idx header alone has {start}")
    shape = struct.unpack(f">{rank}I", content[4:start])
    announced = start + math.prod(shape)
    if len(content) != announced:
        problem = "is cut short" if len(content) < announced else "is too long"
        raise ValueError(f"{problem}: it has {len(content)} bytes and its idx header announces {announced}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
