"""Convolutions: the plain kernels equal Python integers, the fast ones equal the plain ones, and backward is the transpose."""

import naive
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from intnet.kernels import _parallel, convolution
from intnet.kernels.plain import convolution as plain
from intnet.kernels.simd import convolution as simd
from intnet.kernels.simd import convolution_weights as simd_weights

compiled = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="tiles exist only in compiled code")
TYPES = [np.int8, np.int16, np.int32, np.int64]
FAST = {"conv2d": simd, "conv2d_backward_input": simd, "conv2d_backward_weights": simd_weights}
KINDS = [(np.int8, np.int32), (np.int16, np.int32), (np.int32, np.int32), (np.int32, np.int64), (np.int64, np.int64)]


class Case:
    """Operands of the three passes of one convolution."""

    def __init__(self, random, kind, *, limit=None, n=None, image=None, kernel=None, stride=None, padding=None, groups=None,
                 channels=None, out_channels=None):  # fmt: skip
        draw = lambda first, last: int(random.integers(first, last, endpoint=True))  # noqa: E731
        self.stride = stride or (draw(1, 3), draw(1, 3))
        kernel = kernel or (draw(1, 4), draw(1, 4))
        self.padding = padding or tuple(draw(0, 3) for _ in range(4))
        self.groups = groups or draw(1, 2)
        n = draw(1, 2) if n is None else n
        height, width = image or [
            max(size - before - after, 1) + draw(0, 3)
            for size, before, after in zip(kernel, self.padding[::2], self.padding[1::2], strict=True)
        ]
        channels, out_channels = channels or draw(1, 2), out_channels or draw(1, 2)
        self.kernel, self.size = kernel, (height, width)
        oh = convolution.output_size(height, kernel[0], self.stride[0], *self.padding[:2])
        ow = convolution.output_size(width, kernel[1], self.stride[1], *self.padding[2:])
        low, high = (np.iinfo(kind).min, np.iinfo(kind).max) if limit is None else (-limit, limit)

        def integers(*shape):
            return random.integers(low, high, shape, kind, endpoint=True)

        self.x = integers(n, height, width, channels * self.groups)
        self.weights = integers(out_channels * self.groups, *kernel, channels)
        self.dy = integers(n, oh, ow, out_channels * self.groups)

    @property
    def geometry(self):
        return self.stride, self.padding, self.groups

    def passes(self):
        """List name, operands and result shape of the three passes."""
        return [
            ("conv2d", self.x, self.weights, self.dy.shape),
            ("conv2d_backward_input", self.dy, self.weights, self.x.shape),
            ("conv2d_backward_weights", self.x, self.dy, self.weights.shape),
        ]

    def plain(self, bits, saturates):
        """Return the words and the count of the three plain kernels, for which all integers are int64 (one compilation)."""
        for name, a, b, shape in self.passes():
            out = np.full(shape, 7)
            left = getattr(plain, name)(a.astype(np.int64), b.astype(np.int64), *self.geometry, bits, saturates, out)
            yield out.astype(np.int32 if bits <= 32 else np.int64), left

    def exact(self, type_=object):
        """Return the naive result of the three passes."""
        x, weights, dy = (array.astype(type_) for array in (self.x, self.weights, self.dy))
        return naive.convolve(x, weights, *self.geometry), *naive.convolve_backward(x, weights, dy, *self.geometry)

    def fast(self, kind, result):
        results = []
        for name, a, b, shape in self.passes():
            results.append(np.full(shape, 7, result))
            getattr(FAST[name], name)(a, b, *self.geometry, kind, results[-1])
        return results

    def chosen(self, **options):
        keywords = {"stride": self.stride, "padding": self.padding, "groups": self.groups, **options}
        return (
            convolution.conv2d(self.x, self.weights, **keywords),
            convolution.conv2d_backward_input(self.dy, self.weights, self.size, **keywords),
            convolution.conv2d_backward_weights(self.x, self.dy, self.kernel, **keywords),
        )


def in_word(sums, bits, saturates):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    words = [min(max(int(s), low), high) if saturates else naive.wrap(int(s), bits) for s in sums.ravel()]
    left = sum(not low <= int(s) <= high for s in sums.ravel())
    return np.array(words, np.int32 if bits <= 32 else np.int64).reshape(sums.shape), left


@pytest.fixture(params=[1, 2, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr(_parallel, "_threads", request.param)
    return request.param


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("bits", "saturates"), [(8, False), (8, True), (31, True), (33, False), (64, False), (64, True)])
def test_plain_equals_python_integers(kind, bits, saturates):
    for seed in range(3):
        case = Case(np.random.default_rng([bits, saturates, seed]), kind)
        assert_plain_is_exact(case, bits, saturates)


def assert_plain_is_exact(case, bits, saturates):
    for (words, left), exact in zip(case.plain(bits, saturates), case.exact(), strict=True):
        expected, expected_left = in_word(exact, bits, saturates)
        assert_array_equal(words, expected, strict=True)
        assert left == expected_left


@given(seed=st.integers(0, 2**32), limit=st.integers(1, 63).map(lambda bits: 2**bits - 1), saturates=st.booleans())
@settings(max_examples=15)
def test_chosen_equals_python_integers(seed, limit, saturates):
    random = np.random.default_rng(seed)
    bits = int(random.integers(2, 64, endpoint=True))
    case = Case(random, np.int64, limit=limit)
    for (words, left), exact in zip(case.chosen(accumulator_bits=bits, saturates=saturates), case.exact(), strict=True):
        expected, expected_left = in_word(exact, bits, saturates)
        assert_array_equal(words, expected, strict=True)
        assert left == expected_left


@pytest.mark.parametrize("kind", TYPES)
def test_the_accumulator_by_default_holds_every_sum_of_small_types(kind):
    case = Case(np.random.default_rng(1), kind, n=1, limit=100)
    for (words, left), exact in zip(case.chosen(), case.exact(), strict=True):
        assert_array_equal(words, exact.astype(np.int32 if kind == np.int8 else np.int64), strict=True)
        assert left == 0


@compiled
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_sums_of_magnitudes_prove_32_bits(groups, monkeypatch):
    """Operands with few large elements: as all were large, sums of 16-bit products would need 64 bits."""
    seen = []
    for name, module in FAST.items():
        kernel = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, kernel=kernel: (seen.append(args[-1].dtype), kernel(*args)))
    random = np.random.default_rng(groups)
    case = Case(random, np.int16, n=2, groups=groups, image=(5, 5), kernel=(3, 3), stride=(1, 2), padding=(1, 1, 1, 1))
    for array in (case.weights, case.dy):
        array[random.random(array.shape) < 0.9] //= 2**10
        array[...] //= 2**5
    for (words, left), exact in zip(case.chosen(accumulator_bits=32), case.exact(), strict=True):
        assert_array_equal(words, exact.astype(np.int32), strict=True)
        assert left == 0
    assert set(seen) == {np.dtype(np.int32)}


def test_bounds_of_the_caller_are_used_and_change_no_bit():
    case = Case(np.random.default_rng(2), np.int16, limit=50)
    for (words, left), (bounded, bounded_left) in zip(case.chosen(), case.chosen(largest=(50, 50)), strict=True):
        assert_array_equal(words, bounded, strict=True)
        assert left == bounded_left == 0


def test_backward_is_the_transpose():
    for seed in range(6):
        case = Case(np.random.default_rng(seed), np.int16)
        (y, _), (dx, _), (dw, _) = case.chosen()

        def dot(a, b):
            return (a.astype(object) * b.astype(object)).sum()

        assert dot(y, case.dy) == dot(case.x, dx) == dot(case.weights, dw)


@pytest.mark.parametrize("empty", ["images", "outputs"])
def test_nothing_in_nothing_out(empty):
    random = np.random.default_rng(3)
    if empty == "images":
        case = Case(random, np.int8, n=0)
    else:
        case = Case(random, np.int8, image=(2, 2), kernel=(3, 3), padding=(0, 0, 0, 0), stride=(1, 1))
    (y, _), (dx, _), (dw, _) = case.chosen()
    assert y.size == 0
    assert dx.shape == case.x.shape
    assert not dx.any()
    assert dw.shape == case.weights.shape
    assert not dw.any()


def test_pixels_that_no_window_touches_get_zero():
    case = Case(np.random.default_rng(4), np.int8, n=2, image=(9, 8), kernel=(2, 1), stride=(4, 3), padding=(0, 0, 0, 0))
    _, (dx, _), _ = case.chosen()
    assert_array_equal(dx, case.exact()[1].astype(np.int32), strict=True)
    assert not dx[:, 2:4].any()
    assert not dx[:, :, 1:3].any()


@compiled
@pytest.mark.parametrize(("kind", "result"), KINDS)
def test_fast_equals_naive_on_odd_shapes(kind, result):
    for seed in range(12):
        random = np.random.default_rng(seed)
        case = Case(random, kind, limit=127, channels=int(random.integers(1, 40)), out_channels=int(random.integers(1, 70)))
        for fast, exact in zip(case.fast(kind, result), case.exact(np.int64), strict=True):
            assert_array_equal(fast, exact.astype(result), strict=True)


@compiled
@pytest.mark.parametrize(("kind", "result"), KINDS)
def test_fast_equals_plain_where_sums_wrap(kind, result):
    bits = 32 if result == np.int32 else 64
    for seed in range(3):
        case = Case(np.random.default_rng(seed), kind, channels=3, out_channels=5)
        for (words, _), fast in zip(case.plain(bits, False), case.fast(kind, result), strict=True):
            assert_array_equal(fast, words, strict=True)


@compiled
@pytest.mark.parametrize(("kind", "result"), KINDS)
@pytest.mark.usefixtures("threads")
def test_fast_in_many_small_blocks(kind, result, monkeypatch):
    """Blocks so small that every loop over them runs more than once."""
    for name, size in {"_DEPTH": 64, "_LINES": 4096, "_WINDOWS": 30}.items():
        monkeypatch.setattr(simd, name, size)
    for name, size in {"_BLOCK": 4096, "_STEPS": 1, "_PLANES": 4096}.items():
        monkeypatch.setattr(simd_weights, name, size)
    pieces_of = _parallel.pieces_of
    monkeypatch.setattr(_parallel, "pieces_of", lambda count, multiple=1, minimum=1: pieces_of(count, multiple, 1))  # noqa: ARG005
    sizes = [(40, 3, 1), (3, 5, 2), (150, 70, 1), (1, 1, 24), (17, 1, 3)]
    for seed, (channels, out_channels, groups) in enumerate(sizes):
        random = np.random.default_rng(seed)
        case = Case(random, kind, limit=127, channels=channels, out_channels=out_channels, groups=groups, n=3, image=(9, 11))
        for fast, exact in zip(case.fast(kind, result), case.exact(np.int64), strict=True):
            assert_array_equal(fast, exact.astype(result), strict=True)


@compiled
@pytest.mark.parametrize("shape", [(8, 30, 16, 16), (40, 4, 256, 128)], ids=["many pixels", "many channels"])
@pytest.mark.usefixtures("threads")
def test_fast_in_threads(shape):
    n, size, channels, out_channels = shape
    case = Case(np.random.default_rng(5), np.int8, n=n, image=(size, size), kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1),
                groups=1, channels=channels, out_channels=out_channels)  # fmt: skip
    columns = naive.windows(case.x, (3, 3), (1, 1), case.padding).reshape(n * size * size, -1).astype(np.float64)
    dy = case.dy.reshape(n * size * size, -1).astype(np.float64)  # sums far below 2**53
    y, _, dw = case.fast(np.int8, np.int32)
    weights = case.weights.reshape(out_channels, -1).T.astype(np.float64)
    assert_array_equal(y.reshape(n * size * size, -1), (columns @ weights).astype(np.int32))
    assert_array_equal(dw.reshape(out_channels, -1), (dy.T @ columns).astype(np.int32))


@compiled
def test_wider_storage_is_narrowed_and_the_same_bits():
    narrow = Case(np.random.default_rng(6), np.int8, channels=5, out_channels=7)
    expected = narrow.fast(np.int8, np.int32)
    for name in ("x", "weights", "dy"):
        setattr(narrow, name, getattr(narrow, name).astype(np.int64))
    for fast, same in zip(narrow.fast(np.int8, np.int32), expected, strict=True):
        assert_array_equal(fast, same, strict=True)
