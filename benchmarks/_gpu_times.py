"""What the GPU can do, measured, and what its kernels make of it.

Floors are rates of this very device: bytes a second of a copy, multiplications a second of dp4a (four each) and of 32-bit
multiply-adds, whose operands never leave the registers.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _gpu_checks import SEQUENCE, some, update_roles
from _gpu_report import Rows

from intnet.arithmetic import STOCHASTIC, TIES_EVEN
from intnet.kernels.cuda import _driver, convolution, linear, product, requantize, update
from intnet.kernels.cuda._driver import SIMULATED, cuda, kernel
from intnet.kernels.cuda.tiles import processors
from intnet.kernels.cuda.words import dot4, load4, multiply_add, store4
from intnet.kernels.requantization import SATURATE, new_counters, word_of
from intnet.kernels.update import new_counters_of_roles

REPEATS = 11
COPY, DP4A, MULTIPLY_ADD = "copy", "dp4a", "multiply-add"
"""What bounds a kernel, by the name of its floor."""


# 1. Floors ---------------------------------------------------------------------------------------------------------------


@kernel()
def _copy(source, target):
    for quad in range(cuda.grid(1), source.size >> 2, cuda.gridsize(1)):
        store4(target, np.int64(quad) << 2, load4(source, np.int64(quad) << 2))


@kernel()
def _dots(out, b, count):  # eight chains of dp4a that wait for nothing but themselves
    at = cuda.grid(1)
    s0, s1, s2, s3 = np.int32(at), np.int32(at + 1), np.int32(at + 2), np.int32(at + 3)
    s4, s5, s6, s7 = np.int32(at + 4), np.int32(at + 5), np.int32(at + 6), np.int32(at + 7)
    for _ in range(count):
        for _ in range(8):
            s0, s1, s2, s3 = dot4(s0, b, s0), dot4(s1, b, s1), dot4(s2, b, s2), dot4(s3, b, s3)
            s4, s5, s6, s7 = dot4(s4, b, s4), dot4(s5, b, s5), dot4(s6, b, s6), dot4(s7, b, s7)
    out[at] = s0 ^ s1 ^ s2 ^ s3 ^ s4 ^ s5 ^ s6 ^ s7


@kernel()
def _multiply_adds(out, b, count):
    at = cuda.grid(1)
    s0, s1, s2, s3 = np.int32(at), np.int32(at + 1), np.int32(at + 2), np.int32(at + 3)
    s4, s5, s6, s7 = np.int32(at + 4), np.int32(at + 5), np.int32(at + 6), np.int32(at + 7)
    for _ in range(count):
        for _ in range(8):
            s0, s1, s2, s3 = multiply_add(s0, b, b), multiply_add(s1, b, b), multiply_add(s2, b, b), multiply_add(s3, b, b)
            s4, s5, s6, s7 = multiply_add(s4, b, b), multiply_add(s5, b, b), multiply_add(s6, b, b), multiply_add(s7, b, b)
    out[at] = s0 ^ s1 ^ s2 ^ s3 ^ s4 ^ s5 ^ s6 ^ s7


_held: list[Any] = []


def _hold() -> None:
    """Keep the device busy for some milliseconds, while the host queues what is timed."""
    if not _held:
        _held.append(_driver.empty(32, np.int32))
    _multiply_adds.at(1, 32, _held[0], np.int32(3), np.int64(2 if SIMULATED else 32_000))


def measure(call: Callable[[], Any], repeats: int = REPEATS) -> dict[str, float]:
    """Return seconds: of the first call, from call to end on the host, and between two events on the device; medians."""
    _hold()
    cuda.synchronize()
    start = time.perf_counter()
    call()
    cuda.synchronize()
    first, walls, seconds = time.perf_counter() - start, [], []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        cuda.synchronize()
        walls.append(time.perf_counter() - start)
    for _ in range(repeats):
        begin, end = cuda.event(), cuda.event()
        _hold()
        begin.record()
        call()
        end.record()
        end.synchronize()
        seconds.append(begin.elapsed_time(end) / 1e3)
    wall = statistics.median(walls)
    return {"first": first, "wall": wall, "seconds": statistics.median(seconds) or wall}  # the simulator's events know no time


def floor_of(options: argparse.Namespace, bytes_moved: float = 0, **multiplications: float) -> dict[str, Any]:
    """Return the longest time that a rate of the device demands: bytes, and multiplications by name, ``dp4a=...``."""
    amounts = {COPY: bytes_moved} | {name.replace("_", "-"): count for name, count in multiplications.items()}
    times = {name: amount / options.floors[name] for name, amount in amounts.items() if amount and name in options.floors}
    if not times:
        return {}
    bound = max(times, key=lambda name: times[name])
    return {"floor": times[bound], "bound": bound}


def timed(
    options: argparse.Namespace, call: Callable[[], Any], bytes_moved: float = 0, **multiplications: float
) -> dict[str, Any]:
    """Measure a call, beside its floor."""
    columns: dict[str, Any] = measure(call, 1 if options.quick else REPEATS)
    columns |= floor_of(options, bytes_moved, **multiplications)
    if "floor" in columns:
        columns["share"] = columns["floor"] / columns["seconds"]
    return columns


def floors(rows: Rows, options: argparse.Namespace) -> None:
    """Measure the rates of the device."""
    size = 64 if options.quick else 2**26
    blocks, threads, count = (1, 2, 3) if options.quick else (16 * processors(), 256, 1024)

    def copied() -> dict[str, Any]:
        source, target = _driver.zeros(size, np.int32), _driver.empty(size, np.int32)
        found = measure(lambda: _copy.at(blocks, threads, source, target), 1 if options.quick else REPEATS)
        rate = 8 * size / found["seconds"]
        return {**found, "rate": rate, "floor_of": COPY, "detail": f"{rate / 1e9:.0f} GB/s, reading and writing both counted"}

    def looped(body: Any, name: str, each: int) -> dict[str, Any]:
        out = _driver.empty(blocks * threads, np.int32)
        found = measure(
            lambda: body.at(blocks, threads, out, np.int32(0x01020304), np.int64(count)), 1 if options.quick else REPEATS
        )
        rate = blocks * threads * count * 64 * each / found["seconds"]
        detail = f"{rate / 1e12:.2f} T multiplications/s, {2 * rate / 1e12:.2f} T operations/s with the additions"
        return {**found, "rate": rate, "floor_of": name, "detail": detail}

    rows.piece(f"copy of {size} int32, 16 bytes at a time", copied, status="timed")
    rows.piece("dp4a in registers, products of int8", lambda: looped(_dots, DP4A, 4), status="timed")
    rows.piece("multiply-add in registers, int32", lambda: looped(_multiply_adds, MULTIPLY_ADD, 1), status="timed")


# 2. Elementwise ----------------------------------------------------------------------------------------------------------


def elementwise(rows: Rows, options: argparse.Namespace) -> None:
    """Time what is bound by memory, but for the random bits of stochastic rounding, which are no part of the floor."""
    size, weights_size, channels = (60, 40, 3) if options.quick else (10_000_000, 1_000_000, 64)
    word, counters = word_of(8, True, SATURATE), _driver.to_device(new_counters())
    values = (np.random.default_rng(0).standard_normal(size) * 2**20).astype(np.int32)
    values, out = _driver.to_device(values), _driver.empty(size, np.int8)
    modes = {"ties_even": TIES_EVEN, "stochastic": STOCHASTIC}
    for name, mode in modes.items():

        def rounding(mode: int = mode) -> dict[str, Any]:
            how = 0, size, 15, 1, mode, *word, SEQUENCE, 0, 32, counters
            return timed(options, lambda: requantize.requantize(values, 4, out, 1, *how), 5 * size)

        rows.piece(f"requantize {size} int32 to int8, {name}, counted", rounding, status="timed")

    factors = np.random.default_rng(2).integers(-(2**20), 2**20, (2, channels)).astype(np.int32)
    size -= size % channels
    a, factors, target = _driver.to_device(some(size, np.int8)), _driver.to_device(factors), _driver.empty(size, np.int8)
    for name, mode in modes.items():

        def mapping(mode: int = mode) -> dict[str, Any]:
            how = 0, size, 19, mode, *word, SEQUENCE, 32, None, None, target, None, counters
            return timed(options, lambda: linear.multiply_add_requantize(a, None, factors, *how), 2 * size)

        rows.piece(f"linear map of {size} int8 to int8, {channels} channels, {name}", mapping, status="timed")

    state = [_driver.to_device(some(weights_size, kind, seed)) for seed, kind in enumerate((np.int32, np.int8, np.int16))]
    of_roles = _driver.to_device(new_counters_of_roles())
    steps = _driver.to_device(np.array([3, 5, 2, 16, 4], np.int64))
    for name, mode in modes.items():
        roles = _driver.to_device(update_roles((mode,) * 3))

        def updating(roles: Any = roles) -> dict[str, Any]:
            tensors = state[0], 4, state[1], 1, state[2], 2
            how = 0, weights_size, roles, steps, *SEQUENCE[:2], 5, of_roles, True
            return timed(options, lambda: update.update(*tensors, *how), 10 * weights_size)

        rows.piece(f"update {weights_size} int8 weights with int16 momentum, {name}", updating, status="timed")


# 3. Products and convolutions --------------------------------------------------------------------------------------------


def products(rows: Rows, options: argparse.Namespace) -> None:
    """Time square products; they include packing both operands."""
    for kind, side in ((np.int8, 1024), (np.int8, 4096), (np.int16, 1024), (np.int32, 1024)):
        side = 20 if options.quick else side

        def squaring(kind: Any = kind, side: int = side) -> dict[str, Any]:
            draw, limit = np.random.default_rng(1), np.iinfo(kind).max
            a, b = (_driver.to_device(draw.integers(-limit, limit, (side, side), kind)) for _ in range(2))
            out, width = _driver.empty((side, side), np.int32), np.dtype(kind).itemsize
            rate = DP4A if kind is np.int8 else "multiply_add"
            moved = side * side * (2 * width + 4)
            found = timed(options, lambda: product.multiply_fast(a, b, False, False, kind, out), moved, **{rate: side**3})
            return {**found, "detail": f"{side**3 / found['seconds'] / 1e12:.3g} T multiplications/s"}

        rows.piece(f"{side} x {side} x {side}, {np.dtype(kind)} -> int32", squaring, status="timed")


SHAPES = ((32, 64), (16, 128), (8, 256), (4, 512))
"""Height and width, channels: the stages of ResNet-18."""


def convolutions(rows: Rows, options: argparse.Namespace) -> None:
    """Time the convolutions of ResNet-18 in int8; products with the padding's zeros count."""
    n = 1 if options.quick else 128
    for side, channels in ((3, 4),) if options.quick else SHAPES:
        operands: dict[str, Any] = {}
        count, geometry = n * side * side * 9 * channels * channels, ((1, 1), (1, 1, 1, 1), 1, np.int8)

        def operand(name: str, operands: Any = operands, side: int = side, channels: int = channels) -> Any:
            if name not in operands:  # here, so that a lack of memory is a row
                shape = (channels, 3, 3, channels) if name == "weights" else (n, side, side, channels)
                operands[name] = _driver.to_device(some(shape, np.int8))
            return operands[name]

        for name, a, b in (
            ("conv2d", "x", "weights"),
            ("conv2d_backward_input", "dy", "weights"),
            ("conv2d_backward_weights", "x", "dy"),
        ):

            def convolving(
                name: str = name, a: str = a, b: str = b, operand: Any = operand, count: int = count, geometry: Any = geometry
            ) -> dict[str, Any]:
                left, right = operand(a), operand(b)
                out = _driver.empty(operand("weights" if b == "dy" else "x").shape, np.int32)
                call = getattr(convolution, name + "_fast")
                moved = left.size + right.size + 4 * out.size
                found = timed(options, lambda: call(left, right, *geometry, out), moved, dp4a=count)
                return {**found, "detail": f"{count / found['seconds'] / 1e12:.3g} T multiplications/s"}

            rows.piece(f"{name} {n} x {side} x {side} x {channels}, 3 x 3, int8", convolving, status="timed")
