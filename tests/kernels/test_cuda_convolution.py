"""Convolutions on the GPU: the same bits as the plain kernels, for any types, any geometry and any launch."""

import numpy as np
import pytest
from cuda_twins import run
from numpy.testing import assert_array_equal

from intnet.kernels import convolution as chooser
from intnet.kernels.cuda import _driver, convolution, tiles
from intnet.kernels.plain import convolution as plain

pytestmark = pytest.mark.skipif(_driver.problem() is not None, reason=str(_driver.problem()))
KINDS = [(np.int8, np.int32), (np.int16, np.int32), (np.int32, np.int32), (np.int32, np.int64), (np.int64, np.int64)]
PASSES = ["conv2d", "conv2d_backward_input", "conv2d_backward_weights"]


class Case:
    """Operands of the three passes of one convolution."""

    def __init__(self, kind, n, image, channels, out_channels, kernel, stride=(1, 1), padding=(0, 0, 0, 0), groups=1, seed=1):
        random, limits = np.random.default_rng(seed), np.iinfo(kind)
        oh = chooser.output_size(image[0], kernel[0], stride[0], *padding[:2])
        ow = chooser.output_size(image[1], kernel[1], stride[1], *padding[2:])
        self.geometry = stride, padding, groups

        def integers(*shape):
            return random.integers(limits.min, limits.max, shape, kind, endpoint=True)

        self.x = integers(n, *image, channels * groups)
        self.weights = integers(out_channels * groups, *kernel, channels)
        self.dy = integers(n, oh, ow, out_channels * groups)

    def operands(self, name):
        """Return both operands of a pass, and the shape of its result."""
        return {
            "conv2d": (self.x, self.weights, self.dy.shape),
            "conv2d_backward_input": (self.dy, self.weights, self.x.shape),
            "conv2d_backward_weights": (self.x, self.dy, self.weights.shape),
        }[name]

    def plain(self, name, bits, saturates, result):
        a, b, shape = self.operands(name)
        want = np.full(shape, 7, result)
        left = getattr(plain, name)(a.astype(np.int64), b.astype(np.int64), *self.geometry, bits, saturates, want)
        return want, left

    def check_fast(self, name, kind, result):
        a, b, shape = self.operands(name)
        have = np.full(shape, 7, result)
        run(getattr(convolution, name + "_fast"), a, b, *self.geometry, kind, have)
        assert_array_equal(have, self.plain(name, 8 * have.itemsize, False, result)[0])


def cases(kind):
    yield Case(kind, 2, (4, 3), 3, 2, (3, 2), (1, 2), (1, 0, 2, 1))
    yield Case(kind, 1, (3, 4), 1, 2, (2, 3), (3, 1), (0, 3, 4, 0), groups=2)
    yield Case(kind, 2, (1, 1), 2, 1, (1, 1), (2, 2))


@pytest.mark.parametrize("launch", [(1, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64])
def test_exact(kind, name, launch):
    for number, case in enumerate(cases(kind)):
        for bits, saturates in [(8, True), (32, False), (33, True), (64, False), (64, True)][number % 2 :: 2]:
            a, b, shape = case.operands(name)
            result = np.int32 if bits <= 32 else np.int64
            have = np.full(shape, 7, result)
            with _driver.launches(*launch):
                left = run(getattr(convolution, name), a, b, *case.geometry, bits, saturates, have)
            want, plain_left = case.plain(name, bits, saturates, result)
            assert_array_equal(have, want)
            assert left == plain_left


# Names say what is special; a sum of many taps is split over blocks.
GEOMETRY = {
    "padded": {"n": 2, "image": (3, 4), "channels": 4, "out_channels": 3, "kernel": (3, 2), "padding": (1, 1, 0, 1)},
    "three channels, strides": {
        "n": 1,
        "image": (7, 6),
        "channels": 3,
        "out_channels": 4,
        "kernel": (3, 3),
        "stride": (2, 3),
        "padding": (1, 1, 2, 1),
    },
    "padding beyond the kernel": {
        "n": 1,
        "image": (2, 2),
        "channels": 5,
        "out_channels": 2,
        "kernel": (1, 2),
        "padding": (3, 2, 2, 4),
    },
    "stride beyond the kernel": {"n": 1, "image": (5, 4), "channels": 4, "out_channels": 5, "kernel": (1, 2), "stride": (3, 3)},
    "many channels": {"n": 1, "image": (2, 3), "channels": 16, "out_channels": 20, "kernel": (2, 1), "padding": (1, 0, 0, 0)},
    "many taps": {"n": 1, "image": (2, 2), "channels": 16, "out_channels": 16, "kernel": (3, 3), "padding": (1, 1, 1, 1)},
    "many taps, strides": {"n": 1, "image": (4, 5), "channels": 4, "out_channels": 32, "kernel": (4, 2), "stride": (1, 2)},
    "groups": {
        "n": 1,
        "image": (3, 3),
        "channels": 5,
        "out_channels": 6,
        "kernel": (2, 2),
        "padding": (1, 1, 1, 1),
        "groups": 2,
    },
    "narrow groups": {
        "n": 2,
        "image": (4, 3),
        "channels": 1,
        "out_channels": 2,
        "kernel": (3, 2),
        "stride": (2, 1),
        "padding": (1, 1, 0, 1),
        "groups": 3,
    },
    "whole groups": {"n": 1, "image": (2, 3), "channels": 16, "out_channels": 4, "kernel": (1, 2), "groups": 2},
}


@pytest.mark.parametrize("geometry", GEOMETRY)
@pytest.mark.parametrize("name", PASSES)
def test_fast(name, geometry):
    number = list(GEOMETRY).index(geometry)
    for kind, result in [KINDS[0], KINDS[1 + number % 4], KINDS[1 + (number + 2) % 4]]:
        Case(kind, **GEOMETRY[geometry]).check_fast(name, kind, result)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize(("kind", "result"), KINDS[:2])
def test_broad_tiles(kind, result, name, monkeypatch):
    monkeypatch.setattr(convolution, "shape_for", lambda *_: tiles.BROAD)
    Case(kind, 1, (3, 2), 4, 3, (2, 2), padding=(0, 1, 1, 0)).check_fast(name, kind, result)


@pytest.mark.parametrize("kind", [np.int8, np.int32])
def test_many_pixels_are_split(kind):
    Case(kind, 3, (12, 9), 4, 5, (1, 1)).check_fast("conv2d_backward_weights", kind, np.int32)


@pytest.mark.parametrize("name", PASSES)
def test_operands_of_other_types(name):
    case = Case(np.int8, 1, (3, 3), 3, 2, (2, 2))
    case.x, case.dy = case.x.astype(np.int16), case.dy.astype(np.int64)
    for kind, result in [(np.int8, np.int32), (np.int32, np.int32), (np.int64, np.int64)]:
        case.check_fast(name, kind, result)


@pytest.mark.parametrize("name", PASSES)
def test_nothing(name):
    for sizes in [
        {"n": 0, "image": (3, 3), "channels": 4, "out_channels": 4, "kernel": (2, 2)},
        {"n": 1, "image": (2, 2), "channels": 4, "out_channels": 4, "kernel": (3, 3)},
    ]:
        Case(np.int8, **sizes).check_fast(name, np.int8, np.int32)
