"""Philox-4x32-10: the published vectors, a plain Python twin, and the mapping from element to bits."""

import naive
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intnet import random
from intnet.errors import InputError

SLOW = numba.config.DISABLE_JIT
SEQUENCES = [(0, 0, 0), (2**64 - 1, 2**32 - 1, 2**32 - 1), (5 * 2**32 + 7, 3, 2), (2**32, 0, 1)]
WORD = st.integers(0, 2**32 - 1)

# (counter, key, block), of the authors' kat_vectors
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def uint64(*values):
    return [np.uint64(value) for value in values]


@pytest.mark.parametrize(("counter", "key", "block"), VECTORS)
def test_published_vectors(counter, key, block):
    assert tuple(int(word) for word in random.philox_4x32_10(*uint64(*counter, *key))) == block
    assert tuple(naive.philox(counter, key)) == block


@pytest.mark.parametrize(("counter", "key", "block"), VECTORS)
def test_published_vectors_through_the_public_function(counter, key, block):
    if counter[1] >= 2**29:  # the block index of a word below 2**63
        counter, block = (counter[0], 7, *counter[2:]), tuple(naive.philox((counter[0], 7, *counter[2:]), key))
    start = 4 * (counter[0] + 2**32 * counter[1])
    words = random.random_words(key[0] + 2**32 * key[1], stream=counter[3], step=counter[2], start=start, count=4)
    np.testing.assert_array_equal(words, np.array(block, np.uint32), strict=True)


@given(st.tuples(WORD, WORD, WORD, WORD), st.tuples(WORD, WORD))
@settings(max_examples=30)
def test_philox_equals_its_twin(counter, key):
    assert [int(word) for word in random.philox_4x32_10(*uint64(*counter, *key))] == naive.philox(counter, key)


@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("start", [0, 1, 6, 2**34 - 3, 2**34 + 5, 2**63 - 20])
def test_words_wherever_one_begins(sequence, start):
    words = random.random_words(*sequence, start=start, count=11)
    assert words.dtype == np.uint32
    assert words.tolist() == [naive.random_word(*sequence, start + i) for i in range(11)]


@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("random_bits", [1, 8, 31, 32, 33, 48, 62])
@pytest.mark.parametrize("first", [0, 1, 2, 3, 2**33 - 2])
def test_fractions_of_elements(sequence, random_bits, first):
    count = 9 if SLOW else 50
    room = np.empty(random.room_for(np.int64(count), np.int64(random_bits)), np.int64)
    key = random.sequence_words(*sequence)
    skip = random.fill_fractions(*key, np.int64(first), np.int64(count), np.int64(random_bits), room)
    ref = [naive.random_fraction(*sequence, first + i, random_bits) for i in range(count)]
    assert room[skip : skip + count].tolist() == ref
    assert int(random.random_fraction(*key, np.int64(first), np.int64(random_bits))) == ref[0]


def test_none():
    assert random.random_words(0, count=0).shape == (0,)


def test_words_are_uniform():
    """Each of the 32 bits is set in half of the words: six standard deviations, false alarm below 32 * 2e-9."""
    count = 400 if SLOW else 100_000
    words = random.random_words(7, stream=1, step=2, count=count)
    for bit in range(32):
        ones = int((words >> np.uint32(bit) & np.uint32(1)).sum())
        assert abs(ones - count / 2) <= 6 * (count / 4) ** 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, r"seed must be in 0\.\.2\*\*64 - 1, got -1"),
        ({"seed": 2**64}, r"seed must be in 0\.\.2\*\*64 - 1"),
        ({"seed": 1.0}, "seed must be an integer, got 1.0"),
        ({"seed": True}, "seed must be an integer, got True"),
        ({"seed": 0, "stream": 2**32}, r"stream must be in 0\.\.2\*\*32 - 1"),
        ({"seed": 0, "step": -1}, r"step must be in 0\.\.2\*\*32 - 1"),
        ({"seed": 0, "start": -1}, r"start must be in 0\.\.2\*\*63 - 1"),
        ({"seed": 0, "start": 2**63 - 1, "count": 2}, r"start \+ count must be at most 2\*\*63"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        random.random_words(**arguments)


@pytest.mark.skipif(SLOW, reason="nothing is compiled")
def test_words_stay_unsigned():
    random.philox_4x32_10(*uint64(1, 2, 3, 4, 5, 6))
    returned = {str(overload.signature.return_type) for overload in random.philox_4x32_10.overloads.values()}
    assert returned == {"UniTuple(uint64, 4)"} or returned == {"UniTuple(uint64 x 4)"}
