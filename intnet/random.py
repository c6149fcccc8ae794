"""Random bits as a pure function of where they are used: Philox-4x32-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405).

There is no state to advance, so the bits are the same for any thread count, slice, process or device. Philox turns a
counter of four 32-bit words, under a key of two, into a block of four random words. The mapping is a promise::

    key     = (seed mod 2**32, seed div 2**32)                                  seed    0..2**64 - 1
    counter = (block mod 2**32, block div 2**32, step, stream)                  step, stream 0..2**32 - 1
    word j of the sequence (seed, stream, step) is word j mod 4 of block j div 4

Element i of a tensor, counted in C order, takes r random bits:

- r = 1..32: the top r bits of word i;
- r = 33..62: the top r bits of the 64-bit number ``word(2 i) * 2**32 + word(2 i + 1)``.

Worked example. Seed 5 * 2**32 + 7, stream 3, step 2, element 9, r = 8. Word 9 is word 1 of block 2: the key is (7, 5), the
counter (2, 0, 2, 3). Philox gives the block 21323f77 7d385685 52e823dc 9a7226b9, so word 9 is 7d385685. Its top 8 bits are
7d = 125, and the element rounds up if its discarded fraction, cut to 8 bits, is at least 131/256: together they reach one.

>>> [f"{word:08x}" for word in random_words(5 * 2**32 + 7, stream=3, step=2, start=8, count=4)]
['21323f77', '7d385685', '52e823dc', '9a7226b9']
>>> int(random_fraction(*seed_words(5 * 2**32 + 7), np.uint64(3), np.uint64(2), 9, 8))
125
"""

import numpy as np
from numpy.typing import NDArray

from intnet._compile import jit
from intnet.errors import InputError

# Words are uint64 that hold 32 bits. uint64 never meets int64, which would make a float: every literal says its type.
_MASK = np.uint64(0xFFFFFFFF)
_1, _2, _3, _32 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(32)
_MULTIPLY_0, _MULTIPLY_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_WORDS_MAX = 2**63  # positions of words are int64


# 1. Rules ----------------------------------------------------------------------------------------------------------------


@jit
def philox_round(counter_0, counter_1, counter_2, counter_3, key_0, key_1):
    """Return the counter after one round, and the key of the next: words are uint64 below 2**32."""
    product_0 = _MULTIPLY_0 * counter_0
    product_1 = _MULTIPLY_1 * counter_2
    return (
        (product_1 >> _32) ^ counter_1 ^ key_0,
        product_1 & _MASK,
        (product_0 >> _32) ^ counter_3 ^ key_1,
        product_0 & _MASK,
        (key_0 + _WEYL_0) & _MASK,
        (key_1 + _WEYL_1) & _MASK,
    )


@jit
def philox_4x32_10(counter_0, counter_1, counter_2, counter_3, key_0, key_1):
    """Return the four random words of a counter under a key: words are uint64 below 2**32.

    >>> [f"{word:08x}" for word in philox_4x32_10(*np.zeros(6, np.uint64))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    for _ in range(10):
        counter_0, counter_1, counter_2, counter_3, key_0, key_1 = philox_round(
            counter_0, counter_1, counter_2, counter_3, key_0, key_1
        )
    return counter_0, counter_1, counter_2, counter_3


@jit
def random_word(key_0, key_1, stream, step, position):
    """Return word `position` (int64, not negative) of a sequence, as uint64."""
    block = np.uint64(np.int64(position) >> np.int64(2))
    words = philox_4x32_10(block & _MASK, block >> _32, step, stream, key_0, key_1)
    return words[np.int64(position) & np.int64(3)]


@jit
def random_fraction(key_0, key_1, stream, step, index, random_bits):
    """Return the random bits of element `index` (int64, not negative): an int64 in 0..2**random_bits - 1.

    This defines them; :func:`fill_fractions` is faster.
    """
    index, random_bits = np.int64(index), np.int64(random_bits)
    if random_bits <= 32:
        return np.int64(random_word(key_0, key_1, stream, step, index)) >> (np.int64(32) - random_bits)
    high = random_word(key_0, key_1, stream, step, index << np.int64(1))
    low = random_word(key_0, key_1, stream, step, (index << np.int64(1)) + np.int64(1))
    return np.int64(((high << _32) | low) >> np.uint64(np.int64(64) - random_bits))


# 2. Kernels --------------------------------------------------------------------------------------------------------------


@jit
def fill_words(key_0, key_1, stream, step, first_block, drop, words):
    """Write the blocks from `first_block` on into `words`, four words each, shifted right by `drop`; both are uint64.

    `words` is a multiple of four long, uint32 or int64. The rounds stand here once more, as LLVM takes eight blocks at a time
    only of a loop without calls; and the index is unsigned, as it need not be asked whether it is negative.
    """
    for i in range(np.uint64(words.size >> 2)):
        block = first_block + np.uint64(i)
        counter_0, counter_1, counter_2, counter_3 = block & _MASK, block >> _32, step, stream
        round_key_0, round_key_1 = key_0, key_1
        for _ in range(10):
            counter_0, counter_1, counter_2, counter_3, round_key_0, round_key_1 = philox_round(
                counter_0, counter_1, counter_2, counter_3, round_key_0, round_key_1
            )
        place = np.uint64(i) << _2
        words[place] = counter_0 >> drop
        words[place | _1] = counter_1 >> drop
        words[place | _2] = counter_2 >> drop
        words[place | _3] = counter_3 >> drop


@jit
def fill_fractions(key_0, key_1, stream, step, first_index, count, random_bits, room):
    """Write the random bits of `count` elements from `first_index` on into `room`, int64, and return where they stand.

    `room` has :func:`room_for` places; the first up to three of what is written may belong to elements before.
    """
    first_index, count, random_bits = np.int64(first_index), np.int64(count), np.int64(random_bits)
    if random_bits <= 32:
        skip = first_index & np.int64(3)
        whole = (skip + count + np.int64(3)) & np.int64(-4)
        drop = np.uint64(np.int64(32) - random_bits)
        fill_words(key_0, key_1, stream, step, np.uint64(first_index >> np.int64(2)), drop, room[:whole])
        return skip
    skip = (first_index & np.int64(1)) << np.int64(1)
    whole = (skip + count + count + np.int64(3)) & np.int64(-4)
    fractions, words = room[:count], room[count : count + whole]
    fill_words(key_0, key_1, stream, step, np.uint64(first_index >> np.int64(1)), np.uint64(0), words)
    taken, drop = words[skip:], np.uint64(np.int64(64) - random_bits)
    for i in range(np.uint64(fractions.size)):
        place = np.uint64(i) << _1
        fractions[np.uint64(i)] = np.int64(((np.uint64(taken[place]) << _32) | np.uint64(taken[place | _1])) >> drop)
    return np.int64(0)


@jit
def room_for(count, random_bits):
    """Return how many places :func:`fill_fractions` needs for `count` elements."""
    return np.int64(count) * (np.int64(1) if random_bits <= 32 else np.int64(3)) + np.int64(8)


# 3. Public ---------------------------------------------------------------------------------------------------------------


def _checked(name: str, value: int, limit: int) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InputError(f"{name} must be an integer, got {value!r}")
    if not 0 <= value < limit:
        raise InputError(f"{name} must be in 0..2**{limit.bit_length() - 1} - 1, got {value}")
    return int(value)


def seed_words(seed: int) -> tuple[np.uint64, np.uint64]:
    """Return the key of a seed in 0..2**64 - 1: its low and its high 32 bits."""
    seed = _checked("seed", seed, 2**64)
    return np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)


def sequence_words(seed: int, stream: int, step: int) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Return what the rules and kernels take to name a sequence: ``(key_0, key_1, stream, step)``, checked."""
    return *seed_words(seed), np.uint64(_checked("stream", stream, 2**32)), np.uint64(_checked("step", step, 2**32))


def random_words(seed: int, stream: int = 0, step: int = 0, start: int = 0, count: int = 1) -> NDArray[np.uint32]:
    """Return `count` words, from word `start` on, of the sequence of a seed, a stream and a step.

    Parameters
    ----------
    seed : int, 0..2**64 - 1
    stream, step : int, 0..2**32 - 1
    start, count : int
        Not negative, with ``start + count <= 2**63``.

    Returns
    -------
    (count,) uint32

    Raises
    ------
    InputError
        If an argument is not an integer or out of its range.

    Examples
    --------
    The same words wherever one begins:

    >>> random_words(1, count=6)[4:].tolist() == random_words(1, start=4, count=2).tolist()
    True
    """
    sequence = sequence_words(seed, stream, step)
    start, count = _checked("start", start, _WORDS_MAX), _checked("count", count, _WORDS_MAX)
    if start + count > _WORDS_MAX:
        raise InputError(f"start + count must be at most 2**63, got {start} + {count}")
    skip = start % 4
    words = np.empty((skip + count + 3) // 4 * 4, np.uint32)
    fill_words(*sequence, np.uint64(start // 4), np.uint64(0), words)
    return words[skip : skip + count]
