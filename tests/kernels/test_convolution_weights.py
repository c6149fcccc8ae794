"""The backward pass of the weights: every width, padding, stride and number of channels that its packing tells apart."""

import naive
import numba
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet.kernels import _parallel, convolution
from intnet.kernels.simd import convolution_weights as simd

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="tiles exist only in compiled code")
KINDS = [(np.int8, np.int32), (np.int16, np.int32), (np.int32, np.int32), (np.int32, np.int64), (np.int64, np.int64)]


def assert_exact(
    random, kind, result, *, n, image, channels, out_channels, kernel, stride=(1, 1), padding=(0, 0, 0, 0), groups=1
):
    """Compare with the sums of 64 bits, of operands of the whole range of their type."""
    (height, width), (kh, kw) = image, kernel
    oh = convolution.output_size(height, kh, stride[0], *padding[:2])
    ow = convolution.output_size(width, kw, stride[1], *padding[2:])
    if not oh or not ow:
        return
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    x = random.integers(low, high, (n, height, width, channels * groups), kind, endpoint=True)
    dy = random.integers(low, high, (n, oh, ow, out_channels * groups), kind, endpoint=True)
    out = np.full((out_channels * groups, kh, kw, channels), 7, result)
    simd.conv2d_backward_weights(x, dy, stride, padding, groups, kind, out)
    top, bottom, before, after = (max(0, -int(pad)) for pad in padding)  # negative padding cuts off
    seen = x[:, top : height - bottom, before : width - after].astype(np.int64)
    padding = tuple(max(0, int(pad)) for pad in padding)
    _, exact = naive.convolve_backward(seen, np.zeros(out.shape, np.int64), dy.astype(np.int64), stride, padding, groups)
    assert_array_equal(out, exact.astype(result), strict=True)


@pytest.fixture(params=[1, 2, 3])
def threads(request, monkeypatch):
    """Let the smallest work be cut for so many threads."""
    pieces_of = _parallel.pieces_of
    monkeypatch.setattr(_parallel, "_threads", request.param)
    monkeypatch.setattr(_parallel, "pieces_of", lambda count, multiple=1, minimum=1: pieces_of(count, multiple, 1))  # noqa: ARG005


@pytest.mark.parametrize("width", range(1, 10))
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("kind", "result"), KINDS)
def test_widths(kind, result, width, stride):
    random = np.random.default_rng([width, stride])
    for size in (1, 2, 3, 5):
        for channels, n in ((3, 1), (16, 4), (19, 5)):
            assert_exact(random, kind, result, n=n, image=(5, width), channels=channels, out_channels=9, kernel=(3, size),
                         stride=(2, stride), padding=(1, 1, size // 2, size // 2))  # fmt: skip


@pytest.mark.parametrize("padding", [(4, 0, 5, 0), (0, 6, 0, 7), (3, 3, 9, 9), (-1, 0, -2, 1), (2, -1, 3, -2)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3), (5, 4)])
@pytest.mark.parametrize(("kind", "result"), KINDS)
def test_paddings_beyond_the_kernel_and_negative_ones(kind, result, stride, padding):
    random = np.random.default_rng(1)
    for channels, kernel in ((2, (3, 2)), (32, (2, 3)), (16, (1, 1)), (5, (3, 1))):
        assert_exact(random, kind, result, n=3, image=(5, 6), channels=channels, out_channels=8, kernel=kernel, stride=stride,
                     padding=padding)  # fmt: skip


@pytest.mark.parametrize("channels", [1, 7, 8, 15, 16, 17, 24, 33, 64, 65, 130])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("kind", "result"), KINDS)
@pytest.mark.usefixtures("threads")
def test_channels(kind, result, channels, groups):
    random = np.random.default_rng(channels)
    for out_channels, kernel in ((1, (1, 1)), (16, (3, 3)), (21, (2, 2))):
        assert_exact(random, kind, result, n=5, image=(4, 5), channels=channels, out_channels=out_channels, kernel=kernel,
                     padding=(1, 1, 1, 1), groups=groups)  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("image", [(1, 13), (2, 7), (11, 1), (13, 4)])
@pytest.mark.parametrize(("kind", "result"), KINDS)
@pytest.mark.usefixtures("threads")
def test_few_images_of_few_rows(kind, result, image, n):
    random = np.random.default_rng(n)
    for kernel in ((1, 1), (1, 4), (3, 1), (2, 3)):
        for stride in ((1, 1), (2, 2)):
            assert_exact(random, kind, result, n=n, image=image, channels=6, out_channels=10, kernel=kernel, stride=stride,
                         padding=(kernel[0] // 2, kernel[0] // 2, 2, 1))  # fmt: skip


@pytest.mark.parametrize("block", [1, 2000, 30000])
@pytest.mark.parametrize(("kind", "result"), KINDS)
@pytest.mark.usefixtures("threads")
def test_blocks_of_rows_and_of_images(kind, result, block, monkeypatch):
    monkeypatch.setattr(simd, "_STEPS", 1)
    monkeypatch.setattr(simd, "_BLOCK", block)
    monkeypatch.setattr(simd, "_PLANES", block)
    random = np.random.default_rng(block)
    for n, stride, groups in ((1, 1, 1), (21, 2, 1), (10, 1, 3)):
        assert_exact(random, kind, result, n=n, image=(7, 6), channels=35, out_channels=12, kernel=(3, 3),
                     stride=(stride, stride), padding=(1, 1, 1, 1), groups=groups)  # fmt: skip


def test_strides_of_numpy_integers():
    assert_exact(np.random.default_rng(2), np.int8, np.int32, n=4, image=(6, 6), channels=16, out_channels=8, kernel=(3, 3),
                 stride=tuple(np.array([1, 2], np.int32)), padding=tuple(np.ones(4, np.int32)))  # fmt: skip
