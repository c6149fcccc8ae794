"""Activations, batches of images, losses, pooling and normalization on a GPU equal the plain kernels."""

import cuda_simulator
import numpy as np
import pytest
from cuda_twins import run
from numpy.testing import assert_array_equal

from intnet.arithmetic import JAM
from intnet.kernels.cuda import _driver, activation, images, loss, normalize, pooling
from intnet.kernels.plain import activation as plain_activation
from intnet.kernels.plain import images as plain_images
from intnet.kernels.plain import loss as plain_loss
from intnet.kernels.plain import normalize as plain_normalize
from intnet.kernels.plain import pooling as plain_pooling
from intnet.random import sequence_words

pytestmark = pytest.mark.skipif(_driver.problem() is not None, reason=str(_driver.problem()))
if _driver.SIMULATED:
    cuda_simulator.mend()

TYPES = [np.int8, np.int16, np.int32, np.int64]
SHAPES = [(1, 1), (2, 3), (3, 2)]
SEQUENCE = sequence_words(2**40 + 3, 5, 7)


@pytest.fixture(params=SHAPES)
def shape(request):
    with _driver.launches(*request.param):
        yield


def numbers(kind, size, seed=0, limit=None):
    """Return random integers of a type, the least and the greatest among them."""
    bounds = np.iinfo(kind)
    low, high = (bounds.min, bounds.max) if limit is None else (-limit, limit)
    values = np.random.default_rng(seed).integers(low, high, size, kind, endpoint=True)
    values.flat[: min(3, values.size)] = (low, high, 0)[: min(3, values.size)]
    return values


def check(twin, plain, *arguments):
    """Call both with the same arguments, and compare all arrays and what they return."""
    ours, theirs = ([one.copy() if isinstance(one, np.ndarray) else one for one in arguments] for _ in range(2))
    assert run(twin, *ours) == plain(*theirs)
    for a, b in zip(ours, theirs, strict=True):
        if isinstance(a, np.ndarray):
            assert_array_equal(a, b, strict=True)


# Activations ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 9])
@pytest.mark.parametrize("kind", TYPES)
def test_activations(kind, size):
    x, out = numbers(kind, size), np.zeros(size, kind)
    check(activation.relu, plain_activation.relu, x, out)
    check(activation.hard_tanh, plain_activation.hard_tanh, x, kind(-5), kind(9), out)
    check(activation.sign, plain_activation.sign, x, np.int64(64), out)


@pytest.mark.parametrize("x_kind", TYPES)
@pytest.mark.parametrize("kind", [np.int8, np.int64])
def test_gradients_of_activations(kind, x_kind):
    dy, out = numbers(kind, 9), np.zeros(9, kind)
    x = numbers(x_kind, 9, 1, limit=12)
    check(activation.relu_backward, plain_activation.relu_backward, dy, x, out)
    for name in ("hard_tanh_backward", "sign_backward_clip"):
        for limit in (0, 5, 2**62):
            check(getattr(activation, name), getattr(plain_activation, name), dy, x, np.int64(limit), out)
    dy, out = numbers(kind, 9, limit=100), np.zeros(9, np.int64)
    for name in ("sign_backward_polynomial", "logistic_backward", "tanh_backward"):
        check(getattr(activation, name), getattr(plain_activation, name), dy, x, np.int64(8), out)


@pytest.mark.parametrize("mode", range(JAM + 1))
def test_leaky_relu(mode):
    for kind, shift in ((np.int8, 1), (np.int16, 3), (np.int64, 62)):
        x, dy, out = numbers(kind, 9), numbers(kind, 9, 1), np.zeros(9, kind)
        check(activation.leaky_relu, plain_activation.leaky_relu, x, np.int64(shift), np.int64(mode), out)
        arguments = dy, x, np.int64(shift), np.int64(mode), out
        check(activation.leaky_relu_backward, plain_activation.leaky_relu_backward, *arguments)


@pytest.mark.parametrize("kind", [np.int8, np.int32])
def test_look_up(kind):
    x, table = np.array([-128, -3, -2, 0, 2, 3, 127], np.int8), numbers(kind, 5)
    check(activation.look_up, plain_activation.look_up, x, table, np.int64(-2), np.zeros(7, kind))
    wide = np.array([-(2**63), 2**63 - 1, 2**62], np.int64)
    check(activation.look_up, plain_activation.look_up, wide, table, np.int64(2**62), np.zeros(3, kind))


@pytest.mark.parametrize(("start", "stop"), [(0, 11), (3, 9), (5, 6), (4, 4)])
@pytest.mark.usefixtures("shape")
def test_dropout(start, stop):
    for kind, keep in ((np.int8, 2**15), (np.int64, 2**16), (np.int16, 0)):
        x, out = numbers(kind, 11), np.ones(11, kind)
        check(activation.dropout, plain_activation.dropout, x, start, stop, keep, *SEQUENCE, out)


# Images -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.usefixtures("shape")
def test_gather(channels):
    codes = np.random.default_rng(0).integers(0, 256, (4, 12), np.uint8)
    for kind, rows in ((np.int8, [3, 0, 3]), (np.int32, [1]), (np.int16, [])):
        rows, table = np.array(rows, np.int64), numbers(kind, channels * 256)
        check(images.gather, plain_images.gather, codes, rows, table, channels, np.zeros((len(rows), 12), kind))


@pytest.mark.parametrize("table_channels", [1, 3])
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.usefixtures("shape")
def test_gather_augmented(table_channels, padding):
    codes = np.random.default_rng(0).integers(0, 256, (3, 2 * 5 * 3), np.uint8)
    rows, tops = np.array([2, 0, 2, 1]), np.array([0, 2 * padding, padding, 0])
    moved = tops, np.array([2 * padding, 0, padding, 0]), np.array([0, 1, 1, 0], np.uint8)
    table = numbers(np.int16, table_channels * 256)
    arguments = codes, rows, (2, 5, 3), table, table_channels, *moved, padding, 7, np.zeros((4, 30), np.int16)
    check(images.gather_augmented, plain_images.gather_augmented, *arguments)
    none = [one[:0] for one in (rows, *moved)]
    arguments = codes, none[0], (2, 5, 3), table, table_channels, *none[1:], padding, 7, np.zeros((0, 30), np.int16)
    check(images.gather_augmented, plain_images.gather_augmented, *arguments)


@pytest.mark.parametrize("padding", [0, 4, 2**29 - 1])
@pytest.mark.usefixtures("shape")
def test_draw_augmentation(padding):
    for count in (0, 7):
        drawn = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.uint8)
        check(images.draw_augmentation, plain_images.draw_augmentation, *SEQUENCE, np.int64(padding), *drawn)


# Losses -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.usefixtures("shape")
def test_gradients_of_losses(classes):
    samples = 3
    labels = np.random.default_rng(1).integers(0, classes, samples)
    out = np.zeros((samples, classes), np.int32)
    for limit, exponents in ((128, [-4]), (128, [-40, -7, 70]), (2**62 - 1, [-61, -6, 2**20])):
        logits = numbers(np.int64, (samples, classes), limit=limit)
        arguments = logits, np.array(exponents), labels, out
        check(loss.softmax_gradient, plain_loss.softmax_gradient, *arguments)
        check(loss.niti_gradient, plain_loss.niti_gradient, *arguments)
    check(loss.niti_gradient, plain_loss.niti_gradient, numbers(np.int64, (samples, classes)), np.array([-9]), labels, out)
    nothing = np.zeros((0, classes), np.int64), np.array([3]), labels[:0], out[:0]
    check(loss.softmax_gradient, plain_loss.softmax_gradient, *nothing)


def test_gradients_of_many_classes():
    logits, labels = numbers(np.int64, (2, 1000), limit=100), np.array([999, 0])
    for exponent in (-5, -7):
        arguments = logits, np.array([exponent]), labels, np.zeros((2, 1000), np.int32)
        check(loss.softmax_gradient, plain_loss.softmax_gradient, *arguments)
        check(loss.niti_gradient, plain_loss.niti_gradient, *arguments)


@pytest.mark.parametrize("kind", TYPES)
def test_targets_and_hits(kind):
    wider = TYPES[min(3, TYPES.index(kind) + 1)]
    for samples, classes in ((4, 3), (5, 1), (1, 7), (0, 2)):
        y, labels = numbers(kind, (samples, classes), limit=3), np.arange(samples) % classes
        for shape in SHAPES:
            with _driver.launches(*shape):
                check(loss.subtract_target, plain_loss.subtract_target, y, labels, np.int64(100), np.zeros(y.shape, wider))
                check(loss.count_correct, plain_loss.count_correct, y, labels)


# Pooling ----------------------------------------------------------------------------------------------------------------

GEOMETRIES = [  # window, stride, padding
    ((2, 2), (2, 2), (0, 0, 0, 0)),
    ((3, 2), (2, 3), (2, 0, 1, 0)),
    ((3, 3), (1, 1), (1, 1, 1, 1)),
]


def pooled(x, window, stride, padding):
    sizes = [(size + padding[2 * a] + padding[2 * a + 1] - window[a]) // stride[a] + 1 for a, size in enumerate(x.shape[1:3])]
    return len(x), *sizes, x.shape[3]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_pooling(kind, geometry):
    window, stride, _ = geometry
    for n, limit in ((2, None), (1, 2), (0, None)):  # all values, and many equal ones
        x = numbers(kind, (n, 4, 5, 3), limit=limit)
        out = np.zeros(pooled(x, *geometry), kind)
        places = np.zeros(out.shape, np.int32)
        check(pooling.max_pool, plain_pooling.max_pool, x, *geometry, out, places)

        plain_pooling.max_pool(x, *geometry, out, places)
        dy = numbers(kind, out.shape, 1, limit=min(np.iinfo(kind).max, 2**20))
        wide = np.int32 if kind in (np.int8, np.int16) else np.int64
        check(pooling.max_pool_backward, plain_pooling.max_pool_backward, dy, places, np.zeros((n, 20, 3), wide))
        if window[0] <= stride[0] and window[1] <= stride[1]:
            start = np.zeros((n, 20, 3), kind)
            check(lambda *all_: pooling.max_pool_backward(*all_, False), plain_pooling.max_pool_backward, dy, places, start)

        x, out = np.clip(x, -(2**20), 2**20), out.astype(wide)
        check(pooling.sum_pool, plain_pooling.sum_pool, x.astype(kind), *geometry, np.ones_like(out))
        check(pooling.sum_pool_backward, plain_pooling.sum_pool_backward, dy, *geometry, np.ones((n, 4, 5, 3), wide))


def test_gradients_of_narrow_overlapping_windows_wrap_as_plain_ones():
    random = np.random.default_rng(0)
    dy, places = random.integers(-100, 101, (2, 3, 2, 2), np.int8), random.integers(0, 4, (2, 3, 2, 2), np.int32)
    check(pooling.max_pool_backward, plain_pooling.max_pool_backward, dy, places, np.zeros((2, 5, 2), np.int8))


@pytest.mark.usefixtures("shape")
def test_pooling_in_any_grid():
    x = numbers(np.int8, (2, 4, 3, 3))
    geometry = (2, 2), (1, 2), (1, 0, 0, 1)
    out = np.zeros(pooled(x, *geometry), np.int8)
    places, wide = np.zeros(out.shape, np.int32), np.zeros(out.shape, np.int32)
    check(pooling.max_pool, plain_pooling.max_pool, x, *geometry, out, places)
    plain_pooling.max_pool(x, *geometry, out, places)
    check(pooling.max_pool_backward, plain_pooling.max_pool_backward, out, places, np.zeros((2, 12, 3), np.int32))
    check(pooling.max_pool_backward, plain_pooling.max_pool_backward, out, places, np.zeros((2, 12, 3), np.int16))
    check(pooling.sum_pool, plain_pooling.sum_pool, x, *geometry, wide)
    check(pooling.sum_pool_backward, plain_pooling.sum_pool_backward, out, *geometry, np.zeros(x.shape, np.int32))


def test_sums_of_windows_far_from_the_image():
    x = numbers(np.int8, (1, 2, 3, 1))
    for geometry in (((2, 2), (3, 3), (3, 3, 4, 4)), ((1, 1), (2, 2), (0, 0, 0, 0))):
        out = np.zeros(pooled(x, *geometry), np.int32)
        check(pooling.sum_pool, plain_pooling.sum_pool, x, *geometry, out)
        dy = numbers(np.int16, out.shape)
        check(pooling.sum_pool_backward, plain_pooling.sum_pool_backward, dy, *geometry, np.zeros(x.shape, np.int64))


# Normalization ----------------------------------------------------------------------------------------------------------


def table_of(x, other):
    table = np.zeros((plain_normalize.TABLE_ROWS, x.shape[1]), np.int64)
    lanes = x.shape[1]
    rooms = [np.zeros(lanes, np.int64) for _ in range(2)], [np.zeros(lanes, x.dtype) for _ in range(2)]
    plain_normalize.channel_sums(x.reshape(-1), other.reshape(-1), np.int64(2**62), *rooms[0], *rooms[1], table)
    return table


@pytest.mark.parametrize("channels", [1, 2, 7])
@pytest.mark.usefixtures("shape")
def test_channel_sums(channels):
    for a_kind, b_kind, rows in (
        (np.int8, np.int8, 37),
        (np.int8, np.int16, 5),
        (np.int32, np.int32, 6),
        (np.int64, np.int8, 1),
    ):
        a, b = (
            numbers(kind, (rows, channels), seed, min(np.iinfo(kind).max, 2**25)) for seed, kind in enumerate((a_kind, b_kind))
        )
        expected = table_of(a, b)
        for kind, run_rows in ((np.int32, 16), (np.int64, 2**40)) if a_kind == b_kind == np.int8 else ((np.int64, 2**40),):
            sums, products = np.zeros((2, 2 * channels), kind)
            least, greatest = np.zeros((2, 2 * channels), a.dtype)
            table = np.full_like(expected, 77)
            run_ = np.int64(run_rows * sums.size)
            run(normalize.channel_sums, a.reshape(-1), b.reshape(-1), run_, sums, products, least, greatest, table)
            assert_array_equal(table[: plain_normalize.GREATEST + 1], expected[: plain_normalize.GREATEST + 1])
            assert (table[plain_normalize.GREATEST + 1 :] == 77).all()


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.usefixtures("shape")
def test_factors(narrow):
    rows, channels, random = np.int64(6), 5, np.random.default_rng(0)
    kind = np.int8 if narrow else np.int32
    x, dy = (numbers(kind, (rows, channels), seed, min(np.iinfo(kind).max, 2**20)) for seed in range(2))
    x[:, 3] = 4  # no variance
    table, errors = table_of(x, x), table_of(dy, x)
    for epsilon_bits in (3, -2, 70):
        check(normalize.inverse_roots, plain_normalize.inverse_roots, rows, table, np.int64(epsilon_bits))
    plain_normalize.inverse_roots(rows, table, np.int64(7))
    gamma, beta = random.integers(-(2**20), 2**20, (2, channels))
    gamma[0] = 0
    gammas, betas = (gamma, np.arange(channels)), (beta, np.full(channels, -4))
    factors = np.zeros((2, channels), np.int64)
    check(normalize.forward_factors, plain_normalize.forward_factors, rows, table, *gammas, *betas, narrow, factors)
    dgamma, factors = np.zeros(channels, np.int64), np.zeros((3, channels), np.int64)
    arguments = rows, table, errors, *gammas, narrow, factors, dgamma
    check(normalize.backward_factors, plain_normalize.backward_factors, *arguments)

    mean, variance = random.integers(0, 2**40, (2, channels))
    for exponent, shift in ((-3, 4), (20, 0), (60, 1)):  # the last saturates
        arguments = rows, table, np.int64(exponent), np.int64(shift), mean, variance
        check(normalize.update_running, plain_normalize.update_running, *arguments)
    limits = np.int64(10), np.int64(-3), np.int64(np.iinfo(kind).max)
    factors = np.zeros((2, channels), np.int64)
    arguments = mean, variance, *gammas, *betas, *limits, narrow, factors
    check(normalize.running_factors, plain_normalize.running_factors, *arguments)
