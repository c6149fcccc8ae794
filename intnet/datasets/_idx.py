"""Files of idx format, as MNIST has them."""

import math
import struct

import numpy as np
from numpy.typing import NDArray

from intnet.datasets._collection import File


def parse_idx(file: File, content: bytes) -> NDArray[np.uint8]:
    """Return the array in `content`, which has the shape that `file` should have, else raise ValueError."""
    array = _idx(content)
    if array.shape != file.shape:
        raise ValueError(f"holds an array of shape {array.shape}, not {file.shape}")
    return array


def _idx(content: bytes) -> NDArray[np.uint8]:
    """Read an idx array: two zero bytes, type 8 (uint8), rank, sizes as big-endian uint32, items in C order."""
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
