"""The GPU's kernels against their definitions, bit for bit: sizes that fill a device, several launch shapes; and the tests.

The tests of `tests/kernels/test_cuda_*.py` hold every kernel's edge cases in small sizes, as the simulator needs them. The
cases here are few and large: many blocks, every tile shape, partial sums that meet in atomics.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from _gpu_report import ROOT, DiffersError, Rows, check_equal, one_line

from intnet.arithmetic import JAM, PSEUDO_STOCHASTIC, STOCHASTIC, TIES_EVEN
from intnet.kernels import plain
from intnet.kernels.cuda import (
    _driver,
    activation,
    combine,
    convolution,
    images,
    linear,
    loss,
    normalize,
    pooling,
    product,
    reduce,
    requantize,
    update,
)
from intnet.kernels.plain import activation as plain_activation
from intnet.kernels.plain import convolution as plain_convolution
from intnet.kernels.plain import images as plain_images
from intnet.kernels.plain import linear as plain_linear
from intnet.kernels.plain import loss as plain_loss
from intnet.kernels.plain import normalize as plain_normalize
from intnet.kernels.plain import pooling as plain_pooling
from intnet.kernels.plain import update as plain_update
from intnet.kernels.requantization import SATURATE, WRAP, new_counters, storage_of, word_of
from intnet.kernels.update import new_counters_of_roles
from intnet.random import sequence_words

SEQUENCE = sequence_words(2**40 + 9, 4, 11)
LAUNCHES = (None, (1, 256), (37, 96), (3000, 32))
"""Blocks and threads; None is the kernel's own choice."""

Case = tuple[str, Callable[[], None]]


def int64(*values: int) -> list[np.int64]:
    """Return numbers as the compiled definitions take them."""
    return [np.int64(value) for value in values]


def some(shape: Any, kind: Any, seed: int = 3) -> Any:
    """Return random integers of every magnitude, with both ends of their type."""
    info, draw = np.iinfo(kind), np.random.default_rng(seed)
    drawn = draw.integers(info.min, info.max, shape, kind, endpoint=True) >> draw.integers(0, info.bits, shape)
    drawn = drawn.astype(kind)
    drawn.flat[:2] = (info.min, info.max)[: drawn.size]
    return drawn


def as_bytes(array: Any) -> tuple[Any, np.int64]:
    """Return a tensor as the kernels that are compiled once take it."""
    return array.reshape(-1).view(np.uint8), np.int64(array.itemsize)


class OnHost:
    """An array that stays where it is."""

    def __init__(self, array: Any) -> None:
        self.array = array


def both(defined: Callable[..., Any], twin: Callable[..., Any], *arguments: Any) -> None:
    """Call the definition and its twin with copies of the same arguments; compare all arrays, and what they return."""

    def copies() -> list[Any]:
        return [
            one.copy() if isinstance(one, np.ndarray) else one.array if isinstance(one, OnHost) else one for one in arguments
        ]

    theirs, ours = copies(), copies()
    stays = [isinstance(one, OnHost) for one in arguments]
    there = [
        _driver.to_device(one) if isinstance(one, np.ndarray) and not stay else one
        for one, stay in zip(ours, stays, strict=True)
    ]
    want, have = defined(*theirs), twin(*there)
    for number, (a, b, stay) in enumerate(zip(there, theirs, stays, strict=True)):
        if isinstance(b, np.ndarray) and not stay:
            check_equal(_driver.to_host(a), b, f"argument {number}:")
    if want is not None:
        check_equal(np.array(have, np.int64), np.array(want, np.int64), "returned:")


# 1. Rounding, updates, maps ----------------------------------------------------------------------------------------------


def rounding_cases(size: int) -> Iterator[Case]:
    """Requantize by one shift and by blocks, in 32 and in 64 bits, counted."""
    modes = {"ties_even": TIES_EVEN, "stochastic": STOCHASTIC, "pseudo_stochastic": PSEUDO_STOCHASTIC, "jam": JAM}
    for kind, shift, bits in ((np.int32, 15, 8), (np.int8, 3, 5), (np.int64, 37, 16)):
        for name, mode in modes.items():
            word, values = word_of(bits, True, WRAP if mode == JAM else SATURATE), some(size, kind)
            out = np.full(size, 99, storage_of(bits, True))
            rest = *int64(1, mode), *word, SEQUENCE, *int64(5, 32), new_counters()
            arguments = *as_bytes(values), *as_bytes(out), *int64(3, size - 2), OnHost(np.full((1, 1, 1), shift)), *rest

            def run(arguments: Any = arguments) -> None:
                both(plain.requantize, requantize.requantize, *arguments)

            yield f"requantize {np.dtype(kind)} -> {bits} bits, {name}", run
    blocks, length = max(size // 512, 2), min(size // 2, 512)
    values = some(blocks * length, np.int32)
    shifts = np.random.default_rng(1).integers(-3, 40, (1, blocks, 1))
    rest = *int64(length, STOCHASTIC), *word_of(8, True, SATURATE), SEQUENCE, *int64(3, 32), new_counters()
    arguments = *as_bytes(values), *as_bytes(values.astype(np.int8)), *int64(0, values.size), shifts, *rest
    yield "requantize int32 in blocks", lambda: both(plain.requantize, requantize.requantize, *arguments)
    rows = values.reshape(1, blocks, length).transpose(1, 2, 0).copy()
    extents = rows, *int64(0, blocks), *np.zeros((2, blocks, 1), np.int64)
    yield "extents of rows", lambda: both(plain.extents, requantize.extents, *extents)


def update_roles(modes: tuple[int, int, int]) -> Any:
    """Return what an update does to gradient, momentum and weight: words of 8, 10 and 8 bits."""
    shifts, words = (22, 3, 4), ((8, SATURATE), (10, WRAP), (8, SATURATE))
    lines = [
        (shift, mode, *word_of(bits, True, overflow), 32, stream)
        for stream, (shift, mode, (bits, overflow)) in enumerate(zip(shifts, modes, words, strict=True), 1)
    ]
    return np.array(lines, np.int64)


def update_cases(size: int) -> Iterator[Case]:
    """One step of descent, with and without momentum, by the kernel in 32 bits and by that in 64."""
    factors = np.array([3, 5, 2, 16, 4], np.int64)
    sums, weights, velocity = (some(size, kind, seed) for seed, kind in enumerate((np.int32, np.int8, np.int16)))
    for momentum in (True, False):
        moved = as_bytes(velocity) if momentum else (np.zeros(1, np.uint8), np.int64(0))
        for narrow in (True, False):
            roles = update_roles((STOCHASTIC, STOCHASTIC, PSEUDO_STOCHASTIC))
            arguments = *as_bytes(sums), *as_bytes(weights), *moved, *int64(0, size), roles, factors, *SEQUENCE[:2]
            arguments = *arguments, np.uint64(5), new_counters_of_roles()

            def run(arguments: Any = arguments, narrow: bool = narrow) -> None:
                both(plain_update.update, lambda *all_: update.update(*all_, narrow), *arguments)

            yield f"update {'with' if momentum else 'without'} momentum in {32 if narrow else 64} bits", run


def map_cases(size: int) -> Iterator[Case]:
    """Linear maps of channels, rounded and not, of one tensor and of two."""
    channels = 3 if size < 1000 else 48
    size -= size % channels
    for kind, with_b, narrow in ((np.int8, False, True), (np.int8, True, True), (np.int16, True, False)):
        limit = 2**20 if narrow else 2**30
        factors = np.random.default_rng(2).integers(-limit, limit, (3 if with_b else 2, channels))
        spread = factors.astype(np.int32 if narrow else np.int64)
        a, b = some(size, kind, 5), some(size, kind, 6) if with_b else None
        name = f"linear map of {'two tensors' if with_b else 'a tensor'} of {np.dtype(kind)}"

        def exact(a: Any = a, b: Any = b, spread: Any = spread) -> None:
            both(plain_linear.multiply_add, linear.multiply_add, a, b, spread, np.zeros(a.size, spread.dtype))

        def rounded(a: Any = a, b: Any = b, spread: Any = spread) -> None:
            how = *int64(0, a.size, 19, STOCHASTIC), *word_of(8, True, SATURATE), SEQUENCE, np.int64(32)
            products, out = OnHost(np.empty(spread.shape[1] * 64, spread.dtype)), np.zeros(a.size, np.int8)

            def defined(a: Any, b: Any, by: Any, out: Any, counters: Any) -> None:
                views = products.array, products.array.view(np.uint8), out, out.view(np.uint8)
                plain_linear.multiply_add_requantize(a, b, by, *how, *views, counters)

            def twin(a: Any, b: Any, by: Any, out: Any, counters: Any) -> None:
                linear.multiply_add_requantize(a, b, by, *how, None, None, out, None, counters)

            both(defined, twin, a, b, spread, out, new_counters())

        yield name, exact
        yield f"{name}, rounded", rounded


# 2. Products and convolutions --------------------------------------------------------------------------------------------

KINDS = ((np.int8, np.int32), (np.int16, np.int32), (np.int32, np.int32), (np.int32, np.int64), (np.int64, np.int64))


def product_modulo(a: Any, b: Any, result: Any) -> Any:
    """Return a product modulo the width of `result`; of up to 16 bits by BLAS, whose float64 sums are then exact."""
    if a.itemsize <= 2:
        return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64).astype(result)
    return (a.astype(np.int64) @ b.astype(np.int64)).astype(result)


def product_cases(quick: bool) -> Iterator[Case]:
    """Products of every kind, transposed or not, narrow and broad tiles, sums that are split over blocks."""
    small, large, deep = (
        ((17, 9, 18), (33, 18, 20), (5, 70, 3)) if quick else ((257, 131, 190), (2050, 515, 2047), (65, 40_003, 33))
    )
    for kind, result in KINDS:
        for m, k, n in (small, deep if kind is not np.int64 else small, *([large] if np.dtype(kind).itemsize <= 2 else [])):
            for ta, tb in ((False, False), (True, True)):
                limits = np.iinfo(kind)
                draw = np.random.default_rng(m)
                a, b = (draw.integers(limits.min, limits.max, shape, kind, endpoint=True) for shape in ((m, k), (k, n)))

                def run(a: Any = a, b: Any = b, ta: bool = ta, tb: bool = tb, kind: Any = kind, result: Any = result) -> None:
                    out = _driver.empty((len(a), b.shape[1]), result)
                    sides = (np.ascontiguousarray(one.T) if flag else one for one, flag in ((a, ta), (b, tb)))
                    product.multiply_fast(*(_driver.to_device(side) for side in sides), ta, tb, kind, out)
                    check_equal(_driver.to_host(out), product_modulo(a, b, result))

                flags = ", both transposed" if ta else ""
                yield f"product {m} x {k} x {n}, {np.dtype(kind)} -> {np.dtype(result)}{flags}", run


# images, height and width, channels, channels of outputs, kernel, stride, padding (top, bottom, left, right), groups
GEOMETRIES = (
    (3, (17, 13), 3, 16, (3, 3), (1, 1), (1, 1, 1, 1), 1),
    (2, (16, 16), 64, 64, (3, 3), (1, 1), (1, 1, 1, 1), 1),
    (5, (9, 8), 33, 70, (3, 3), (2, 2), (1, 1, 1, 1), 1),
    (2, (8, 8), 128, 256, (1, 1), (2, 2), (0, 0, 0, 0), 1),
    (9, (4, 4), 256, 128, (3, 3), (1, 1), (1, 1, 1, 1), 1),
    (3, (11, 12), 8, 12, (5, 2), (2, 3), (3, 1, 0, 2), 4),
    (3, (12, 12), 1, 1, (3, 3), (1, 1), (1, 1, 1, 1), 24),
)
QUICK_GEOMETRIES = ((1, (4, 3), 3, 2, (3, 2), (1, 2), (1, 0, 1, 1), 1), (1, (3, 4), 1, 2, (2, 2), (1, 1), (0, 1, 0, 0), 2))


def convolution_cases(quick: bool) -> Iterator[Case]:
    """All three passes of several convolutions, in int8 and int32."""
    for n, image, channels, outputs, kernel, stride, padding, groups in QUICK_GEOMETRIES if quick else GEOMETRIES:
        for kind in (np.int8, np.int32):
            oh, ow = ((image[a] + sum(padding[2 * a : 2 * a + 2]) - kernel[a]) // stride[a] + 1 for a in range(2))
            x, weights = some((n, *image, channels * groups), kind, 1), some((outputs * groups, *kernel, channels), kind, 2)
            dy, geometry = some((n, oh, ow, outputs * groups), kind, 3), (stride, padding, groups)
            for name, a, b, shape in (
                ("conv2d", x, weights, dy.shape),
                ("conv2d_backward_input", dy, weights, x.shape),
                ("conv2d_backward_weights", x, dy, weights.shape),
            ):

                def run(
                    name: str = name, a: Any = a, b: Any = b, shape: Any = shape, geometry: Any = geometry, kind: Any = kind
                ) -> None:
                    def defined(a: Any, b: Any, out: Any) -> None:
                        whole = a.astype(np.int64), b.astype(np.int64)
                        getattr(plain_convolution, name)(*whole, *geometry, np.int64(32), False, out)

                    def twin(a: Any, b: Any, out: Any) -> None:
                        getattr(convolution, name + "_fast")(a, b, *geometry, kind, out)

                    both(defined, twin, a, b, np.full(shape, 7, np.int32))

                sizes = f"{n} x {image[0]} x {image[1]} x {x.shape[3]} -> {len(weights)}, {kernel[0]} x {kernel[1]}"
                yield f"{name} {sizes}, stride {stride[0]}, groups {groups}, {np.dtype(kind)}", run


# 3. The other layers -----------------------------------------------------------------------------------------------------


def layer_cases(size: int) -> Iterator[Case]:
    """Activations, pooling, normalization, losses, sums, batches."""
    x8, x32, dy8 = some(size, np.int8, 1), some(size, np.int32, 2) >> 2, some(size, np.int8, 3)
    yield "relu", lambda: both(plain_activation.relu, activation.relu, x8, np.zeros_like(x8))
    yield "relu_backward", lambda: both(plain_activation.relu_backward, activation.relu_backward, dy8, x8, np.zeros_like(x8))
    dropped = x8, *int64(3, size - 1, 2**15), *SEQUENCE, np.zeros_like(x8)
    yield "dropout", lambda: both(plain_activation.dropout, activation.dropout, *dropped)
    side = 4 if size < 1000 else 32
    n = max(size // (side * side * 8), 1)
    image = some((n, side, side, 8), np.int8)
    for geometry in (((2, 2), (2, 2), (0, 0, 0, 0)), ((3, 3), (2, 2), (1, 1, 1, 1))):
        half = (side + 2 * geometry[2][0] - geometry[0][0]) // 2 + 1
        out = np.zeros((n, half, half, 8), np.int8)
        places, dx = np.zeros(out.shape, np.int32), np.zeros((n, side * side, 8), np.int32)
        pooled = image, *geometry, out, places
        plain_pooling.max_pool(*pooled[:4], out_ := out.copy(), places_ := places.copy())
        errors = some(out_.shape, np.int8, 7), places_, dx
        text = f"of {geometry[0][0]} x {geometry[0][1]}"
        yield f"max_pool {text}", lambda pooled=pooled: both(plain_pooling.max_pool, pooling.max_pool, *pooled)
        yield (
            f"max_pool_backward {text}",
            lambda errors=errors: both(plain_pooling.max_pool_backward, pooling.max_pool_backward, *errors),
        )
        sums = image, *geometry, out.astype(np.int32)
        yield f"sum_pool {text}", lambda sums=sums: both(plain_pooling.sum_pool, pooling.sum_pool, *sums)
    channels = 5 if size < 1000 else 64
    x = some((size // channels, channels), np.int8)
    dy = some(x.shape, np.int8, 9)

    def channel_sums() -> None:
        tables = np.zeros((2, plain_normalize.TABLE_ROWS, channels), np.int64)
        rooms = *np.zeros((2, channels), np.int64), *np.zeros((2, channels), np.int8)
        plain_normalize.channel_sums(x.reshape(-1), dy.reshape(-1), np.int64(2**62), *rooms, tables[0])
        there = [_driver.to_device(one) for one in (x.reshape(-1), dy.reshape(-1), *rooms, tables[1])]
        normalize.channel_sums(*there[:2], np.int64(2**62), *there[2:])
        rows = plain_normalize.GREATEST + 1
        check_equal(_driver.to_host(there[-1])[:rows], tables[0, :rows])

    yield "channel_sums", channel_sums
    for name in ("moments", "argmax_rows"):
        outs = [np.zeros(channels, np.int64)] * 2 if name == "moments" else [np.zeros(len(x), np.int64)]
        yield name, lambda name=name, outs=outs: both(getattr(plain, name), getattr(reduce, name), x, *outs)
    yield "extremes", lambda: both(lambda a: tuple(plain.extremes(a)), reduce.extremes, x32)
    rows = size // 100
    summed = x32[: rows * 100], np.int64(rows), np.zeros((1, 100), np.int64)
    yield "sum_axis", lambda: both(plain.sum_axis, reduce.sum_axis, *summed)
    terms = (
        np.int64(2),
        *int64(0, size),
        *as_bytes(x8),
        np.int64(3),
        np.array([2]),
        *as_bytes(dy8),
        np.int64(-5),
        np.array([-1]),
    )
    none = np.zeros(1, np.uint8), *int64(1, 0), np.zeros(1, np.int64)
    combined = *terms, *none, np.int64(size), np.zeros(size, np.int32)
    yield "linear_combination", lambda: both(plain.linear_combination, combine.linear_combination, *combined)
    biased = x32[: x.size].copy(), some(channels, np.int32, 8).astype(np.int64) >> 2, *word_of(32, True, WRAP), np.int64(1)
    yield "add_bias", lambda: both(plain.add_bias, combine.add_bias, *biased)
    samples = max(size // 1000, 3)
    draw = np.random.default_rng(4)
    logits, labels = draw.integers(-128, 128, (samples, 10)), draw.integers(0, 10, samples)
    given = logits, np.array([-4]), labels, np.zeros(logits.shape, np.int32)
    yield "softmax_gradient", lambda: both(plain_loss.softmax_gradient, loss.softmax_gradient, *given)
    yield "niti_gradient", lambda: both(plain_loss.niti_gradient, loss.niti_gradient, *given)
    side, count = (5, 7) if size < 1000 else (32, 300)
    codes, table = draw.integers(0, 256, (count, side * side * 3), np.uint8), some(768, np.int8, 5)
    drawn = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.uint8)
    yield (
        "draw_augmentation",
        lambda: both(plain_images.draw_augmentation, images.draw_augmentation, *SEQUENCE, np.int64(4), *drawn),
    )
    plain_images.draw_augmentation(*SEQUENCE, np.int64(4), *drawn)
    batch = codes, draw.permutation(count), (side, side, 3), table, 3, *drawn, 4, 7, np.zeros(codes.shape, np.int8)
    yield "gather_augmented", lambda: both(plain_images.gather_augmented, images.gather_augmented, *batch)


def kernels(rows: Rows, options: argparse.Namespace) -> None:
    """Check all cases, each in every launch shape that its kernels take."""
    size = 205 if options.quick else 500_005
    launches = (None, (2, 3)) if options.quick else LAUNCHES
    groups = rounding_cases(size), update_cases(size), map_cases(size), layer_cases(size)
    for cases, shapes in (*((group, launches) for group in groups), *((one(options.quick), (None,)) for one in TILED_CASES)):
        for name, run in cases:

            def in_all_shapes(run: Callable[[], None] = run, shapes: Any = shapes) -> dict[str, Any]:
                for shape in shapes:
                    try:
                        with nullcontext() if shape is None else _driver.launches(*shape):
                            run()
                    except DiffersError as error:
                        raise DiffersError(f"{shape or 'own'} launch: {error}") from None
                return {"detail": f"{len(shapes)} launch shapes"} if len(shapes) > 1 else {}

            rows.piece(name, in_all_shapes)


TILED_CASES = (product_cases, convolution_cases)  # their launches follow from their tiles


# 4. The tests ------------------------------------------------------------------------------------------------------------


def run_tests(rows: Rows, options: argparse.Namespace, path: Path) -> None:
    """Run a file of tests on the device: a row for the file, and one for each of the first failures."""
    if importlib.util.find_spec("pytest") is None:
        rows.add(path.name, "left out", detail="pytest is not installed")
        return
    import pytest

    seen = {"passed": 0, "failed": 0, "skipped": 0}

    class Watch:
        def pytest_collection_modifyitems(self, items: list[Any]) -> None:
            if options.quick:
                items[:] = items[:: max(1, len(items) // 3)]

        def pytest_runtest_setup(self) -> None:
            if rows.left() < 2:
                pytest.skip("no time left")

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call" or report.outcome != "passed":
                seen[report.outcome] += 1
            if report.failed and seen["failed"] <= 10:
                crash = getattr(report.longrepr, "reprcrash", None)
                message = crash.message if crash else str(report.longrepr)
                status = "differs" if message.startswith(("AssertionError", "assert")) else "failed"
                rows.add(report.nodeid.split("::", 1)[1], status, detail=one_line(message))

    sys.path.insert(0, str(ROOT / "tests"))
    flags = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "filterwarnings=default", "--tb=short"]
    flags += [] if importlib.util.find_spec("hypothesis") else ["--noconftest"]
    code = int(pytest.main([str(path), *flags], plugins=[Watch()]))
    detail = f"{seen['passed']} passed, {seen['failed']} failed, {seen['skipped']} left out"
    if seen["failed"]:
        status = "differs"
    elif code or not seen["passed"]:
        status, detail = "failed" if code not in (0, 5) else "left out", f"{detail}; pytest ended with {code}"
    else:
        status = "same"
    rows.add(path.name, status, detail=detail)
