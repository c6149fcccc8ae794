"""Training one layer sample by sample: a block of threads a cell, a warp an output, all cells in one launch.

The outputs of a cell learn independently of one another: only whether a sample is a hit depends on all of them. So a warp
walks through the samples with the weights of its outputs, its lanes sharing the non-zero inputs, and waits for the other
warps only once in a window of samples, when these have their hits written.
"""

import numpy as np

from intnet.arithmetic import (
    add_leaves_int64,
    add_wrap,
    high_word,
    join_words,
    low_word,
    multiply_wide,
    product_leaves_int64,
    relu,
    shift_floor,
    words_leave_int64,
)
from intnet.kernels.cuda._driver import SIMULATED, cuda, empty, kernel, to_device, zeros
from intnet.kernels.plain import online as plain
from intnet.kernels.plain.online import ERROR_HIGH, FLOORED, LOST, TOTALS, UPDATE_HIGH, WRAPS

_LANE_BITS = 1 if SIMULATED else 5
LANES = 1 << _LANE_BITS
WARPS_MAX = 16  # of a block; further outputs are taken in turns
WEIGHTS_MAX = 10240  # of a cell, in shared memory: 40 KiB
LEVELS_MAX = 256
WINDOW = 32  # samples between two looks at the hits
_PLACES = WINDOW * WARPS_MAX
_THREADS = LANES * WARPS_MAX

_INT32_MAX = np.int64(2**31 - 1)
_INT64_MAX = np.int64(2**63 - 1)

# What a block finds out together, by place in an array of int32: whether the cell is given up, the largest magnitude of an
# input, and the largest number of non-zero inputs of a sample.
_GIVEN_UP, _LARGEST, _MOST = range(3)

# In the simulator, where arrays are no NumPy arrays, the interpreter runs it.
_add_to_total = getattr(plain.add_to_total, "py_func", plain.add_to_total) if SIMULATED else plain.add_to_total


# 1. Lanes and warps ------------------------------------------------------------------------------------------------------

if SIMULATED:  # which knows no warps

    @cuda.jit(device=True)
    def _sum_of_lanes(value):
        room = cuda.shared.array(_THREADS, np.int64)
        first = cuda.threadIdx.y * LANES
        room[first + cuda.threadIdx.x] = value
        cuda.syncthreads()
        total = room[first]
        for lane in range(1, LANES):
            total += room[first + lane]
        cuda.syncthreads()
        return total

    @cuda.jit(device=True)
    def _join_lanes():
        cuda.syncthreads()

else:

    @cuda.jit(device=True)
    def _sum_of_lanes(value):
        """Return the sum over the lanes of a warp to all of them."""
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, 16)
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, 8)
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, 4)
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, 2)
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, 1)
        return value

    @cuda.jit(device=True)
    def _join_lanes():
        """Wait until all lanes are here and see what the others have written."""
        cuda.syncwarp(0xFFFFFFFF)


@cuda.jit(device=True)
def _write_hits(bests, answers, labels, first_sample, count, hits, place):
    """Write whether the samples of a window are hits, from every warp's largest activation and the first output that has it."""
    warps, samples = cuda.blockDim.y, labels.shape[0]
    for i in range(cuda.threadIdx.y * LANES + cuda.threadIdx.x, count, LANES * warps):
        best, answer = bests[i * warps], answers[i * warps]
        for w in range(1, warps):
            other, output = bests[i * warps + w], answers[i * warps + w]
            if other > best or (other == best and output < answer):
                best, answer = other, output
        hits[place + i] = np.uint8(1) if answer == labels[(first_sample + i) % samples] else np.uint8(0)


@cuda.jit(device=True)
def _add_totals(sums, update_high, update_low, error_high, error_low, lost, floored, wraps, totals, cell):
    """Add up the counts of all threads of a block, low words below 2**32, and add them to the totals of the cell."""
    thread = cuda.threadIdx.y * LANES + cuda.threadIdx.x
    for i in range(thread, sums.size, LANES * cuda.blockDim.y):
        sums[i] = 0
    cuda.syncthreads()
    update_high, update_low = _sum_of_lanes(update_high), _sum_of_lanes(update_low)
    error_high, error_low = _sum_of_lanes(error_high), _sum_of_lanes(error_low)
    lost, floored, wraps = _sum_of_lanes(lost), _sum_of_lanes(floored), _sum_of_lanes(wraps)
    if cuda.threadIdx.x == 0:
        cuda.atomic.add(sums, UPDATE_HIGH, update_high)
        cuda.atomic.add(sums, UPDATE_HIGH + 1, update_low)
        cuda.atomic.add(sums, ERROR_HIGH, error_high)
        cuda.atomic.add(sums, ERROR_HIGH + 1, error_low)
        cuda.atomic.add(sums, LOST, lost)
        cuda.atomic.add(sums, FLOORED, floored)
        cuda.atomic.add(sums, WRAPS, wraps)
    cuda.syncthreads()
    if thread == 0:
        _add_to_total(totals[cell], UPDATE_HIGH, sums[UPDATE_HIGH], sums[UPDATE_HIGH + 1])
        _add_to_total(totals[cell], ERROR_HIGH, sums[ERROR_HIGH], sums[ERROR_HIGH + 1])
        totals[cell, LOST] += sums[LOST]
        totals[cell, FLOORED] += sums[FLOORED]
        totals[cell, WRAPS] += sums[WRAPS]


# 2. Cells ----------------------------------------------------------------------------------------------------------------

_TYPES = (
    "int64[::1], uint32[::1], uint32[::1], int64[::1], int64[:, ::1], int64[::1], int64[::1], int64[::1], int64, "
    "int64[::1], int64, int64, uint8[::1], int64, int64[:, ::1], int8[::1]"
)


@kernel(_TYPES)
def _train_narrow(
    starts, columns, codes, labels, levels, fraction_bits, kinds, lr_shifts, first_iteration,
    weights, classes, inputs, hits, iterations, totals, finished,
):  # fmt: skip
    """Train a cell a block with its weights as int32 in shared memory, and set its ``finished`` to 1.

    Or to 0, where a number might leave its bound: then the cell is given up, its hits mean nothing, its weights and totals
    stay as they came. The bounds: |input| < 2**31, and |weight|, |delta| <= limit, where limit times the number of non-zero
    inputs of a sample times the largest of them fits in int64. So do then every accumulator and every product.
    """
    rows = cuda.shared.array(WEIGHTS_MAX, np.int32)
    table = cuda.shared.array(LEVELS_MAX, np.int32)
    bests = cuda.shared.array(_PLACES, np.int64)
    answers = cuda.shared.array(_PLACES, np.int32)
    sums = cuda.shared.array(TOTALS, np.int64)
    found = cuda.shared.array(3, np.int32)
    cell, lane, warp, warps = cuda.blockIdx.x, cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockDim.y
    thread, threads, samples = warp * LANES + lane, warps * LANES, labels.shape[0]
    kind, lr_shift = kinds[cell], lr_shifts[cell]
    f = fraction_bits[kind]
    one, one_unit = np.int64(1) << f, np.int64(1) << (f + lr_shift)

    # 1. Bounds, and what is kept in shared memory.
    if thread == 0:
        found[_GIVEN_UP] = found[_LARGEST] = found[_MOST] = 0
    cuda.syncthreads()
    largest, most = np.int64(0), np.int64(0)
    for i in range(thread, levels.shape[1], threads):
        level = levels[kind, i]
        if -_INT32_MAX <= level <= _INT32_MAX:
            table[i] = np.int32(level)
            largest = max(largest, abs(level))
        else:
            found[_GIVEN_UP] = 1
    for i in range(thread, samples, threads):
        most = max(most, starts[i + 1] - starts[i])
    cuda.atomic.max(found, _LARGEST, np.int32(largest))
    cuda.atomic.max(found, _MOST, np.int32(most))
    cuda.syncthreads()
    limit = min(_INT32_MAX, _INT64_MAX // max(np.int64(found[_LARGEST]) * np.int64(found[_MOST]), np.int64(1)))
    first_weight = np.int64(cell) * classes * inputs
    for i in range(thread, classes * inputs, threads):
        weight = weights[first_weight + i]
        if -limit <= weight <= limit:
            rows[i] = np.int32(weight)
        else:
            found[_GIVEN_UP] = 1
    cuda.syncthreads()
    given_up = found[_GIVEN_UP] != 0
    cuda.syncthreads()  # before a warp that is ahead gives the cell up: all must leave the loop below together

    # 2. Train.
    update_high, update_low = np.int64(0), np.int64(0)
    error_high, error_low = np.int64(0), np.int64(0)
    lost, floored = np.int64(0), np.int64(0)
    sample, begin = first_iteration % samples, np.int64(0)
    while begin < iterations and not given_up:
        first_sample, count = sample, min(np.int64(WINDOW), iterations - begin)
        for i in range(count):
            place = np.uint64(sample)
            mine, last, label = starts[place] + lane, starts[place + np.uint64(1)], labels[place]
            best, answer = np.int64(-1), np.int64(0)
            c = np.int64(warp)
            while c < classes + warp:  # as often in every warp
                base = c * inputs
                turns = (last - mine + (LANES - 1)) >> _LANE_BITS if c < classes else np.int64(0)
                total = np.int64(0)
                for j in range(turns):
                    k = np.uint64(mine + j * LANES)
                    weight = rows[np.uint64(base + columns[k])]
                    total += np.int64(weight) * np.int64(table[codes[k]])
                total = _sum_of_lanes(total)
                activation = shift_floor(relu(total), f)
                if activation > best:  # never beyond the last output: the warp's first one is at least 0
                    best, answer = activation, c
                target = one if c == label else np.int64(0)
                delta = target - activation if activation > 0 else np.int64(0)
                if delta < -limit or delta > limit:
                    found[_GIVEN_UP] = 1
                    delta = np.int64(0)
                if delta != 0:
                    delta = np.int64(np.int32(delta))  # so that a product is one of 32 bits
                    for j in range(turns):
                        k = np.uint64(mine + j * LANES)
                        place = np.uint64(base + columns[k])
                        product = delta * np.int64(table[codes[k]])
                        update, step = shift_floor(product, f), shift_floor(product, f + lr_shift)
                        magnitude = -update if update < 0 else update
                        update_high += high_word(magnitude)
                        update_low += low_word(magnitude)
                        error = update - (step << lr_shift)  # 0..2**lr_shift - 1
                        error_high += high_word(error)
                        error_low += low_word(error)
                        if product != 0 and step == 0:
                            lost += np.int64(1)
                        if -one_unit < product < 0:
                            floored += np.int64(1)
                        weight = np.int64(rows[place]) + step
                        if -limit <= weight <= limit:
                            rows[place] = np.int32(weight)
                        else:
                            found[_GIVEN_UP] = 1
                    # carry, so that the low words never leave int64 however long the run
                    update_high += high_word(update_low)
                    update_low = low_word(update_low)
                    error_high += high_word(error_low)
                    error_low = low_word(error_low)
                _join_lanes()  # the next sample's inputs fall to other lanes
                c += warps
            if lane == 0:
                bests[np.uint64(i * warps + warp)], answers[np.uint64(i * warps + warp)] = best, np.int32(answer)
            sample += np.int64(1)
            if sample == samples:
                sample = np.int64(0)
        cuda.syncthreads()
        given_up = found[_GIVEN_UP] != 0
        _write_hits(bests, answers, labels, first_sample, count, hits, np.int64(cell) * iterations + begin)
        cuda.syncthreads()
        begin += count

    # 3. Hand the results over. Nothing wrapped: that was proven on the way.
    if thread == 0:
        finished[cell] = 0 if given_up else 1
    if not given_up:
        for i in range(thread, classes * inputs, threads):
            weights[first_weight + i] = np.int64(rows[i])
        zero = np.int64(0)
        _add_totals(sums, update_high, update_low, error_high, error_low, lost, floored, zero, totals, cell)


@kernel(_TYPES)
def _train_wide(
    starts, columns, codes, labels, levels, fraction_bits, kinds, lr_shifts, first_iteration,
    weights, classes, inputs, hits, iterations, totals, finished,
):  # fmt: skip
    """Train a cell a block, where it is not finished, with everything that ``plain.train_online`` defines."""
    bests = cuda.shared.array(_PLACES, np.int64)
    answers = cuda.shared.array(_PLACES, np.int32)
    sums = cuda.shared.array(TOTALS, np.int64)
    cell, lane, warp, warps = cuda.blockIdx.x, cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockDim.y
    if finished[cell] != 0:
        return
    kind, lr_shift, samples = kinds[cell], lr_shifts[cell], labels.shape[0]
    f = fraction_bits[kind]
    one, one_unit = np.int64(1) << f, np.int64(1) << (f + lr_shift)
    update_high, update_low = np.int64(0), np.int64(0)
    error_high, error_low = np.int64(0), np.int64(0)
    lost, floored, wraps = np.int64(0), np.int64(0), np.int64(0)
    sample, begin = first_iteration % samples, np.int64(0)
    while begin < iterations:
        first_sample, count = sample, min(np.int64(WINDOW), iterations - begin)
        for i in range(count):
            place = np.uint64(sample)
            mine, last, label = starts[place] + lane, starts[place + np.uint64(1)], labels[place]
            best, answer = np.int64(-1), np.int64(0)
            c = np.int64(warp)
            while c < classes + warp:  # as often in every warp
                base = (np.int64(cell) * classes + c) * inputs
                turns = (last - mine + (LANES - 1)) >> _LANE_BITS if c < classes else np.int64(0)
                high, low = np.int64(0), np.int64(0)
                for j in range(turns):
                    k = np.uint64(mine + j * LANES)
                    product_high, product = multiply_wide(weights[np.uint64(base + columns[k])], levels[kind, codes[k]])
                    if product_leaves_int64(product_high, product):
                        wraps += np.int64(1)
                    high += high_word(product)
                    low += low_word(product)
                high, low = _sum_of_lanes(high), _sum_of_lanes(low)
                if lane == 0 and words_leave_int64(high, low):
                    wraps += np.int64(1)
                accumulator = join_words(high, low)
                activation = shift_floor(relu(accumulator), f)
                if activation > best:
                    best, answer = activation, c
                target = one if c == label else np.int64(0)
                delta = target - activation if shift_floor(accumulator, f) > 0 else np.int64(0)
                if delta != 0:
                    for j in range(turns):
                        k = np.uint64(mine + j * LANES)
                        product_high, product = multiply_wide(delta, levels[kind, codes[k]])
                        if product_leaves_int64(product_high, product):
                            wraps += np.int64(1)
                        update, step = shift_floor(product, f), shift_floor(product, f + lr_shift)
                        if update >= 0:
                            update_high += high_word(update)
                            update_low += low_word(update)
                        else:  # minus word by word: -update itself may leave int64
                            update_high -= high_word(update)
                            update_low -= low_word(update)
                        error = update - (step << lr_shift)  # 0..2**lr_shift - 1
                        error_high += high_word(error)
                        error_low += low_word(error)
                        if product != 0 and step == 0:
                            lost += np.int64(1)
                        if -one_unit < product < 0:
                            floored += np.int64(1)
                        place = np.uint64(base + columns[k])
                        weight = weights[place]
                        if add_leaves_int64(weight, step):
                            wraps += np.int64(1)
                        weights[place] = add_wrap(weight, step)
                    update_high += high_word(update_low)
                    update_low = low_word(update_low)
                    error_high += high_word(error_low)
                    error_low = low_word(error_low)
                _join_lanes()
                c += warps
            if lane == 0:
                bests[np.uint64(i * warps + warp)], answers[np.uint64(i * warps + warp)] = best, np.int32(answer)
            sample += np.int64(1)
            if sample == samples:
                sample = np.int64(0)
        cuda.syncthreads()
        _write_hits(bests, answers, labels, first_sample, count, hits, np.int64(cell) * iterations + begin)
        cuda.syncthreads()
        begin += count
    _add_totals(sums, update_high, update_low, error_high, error_low, lost, floored, wraps, totals, cell)


def train_online(starts, columns, codes, labels, levels, fraction_bits, lr_shifts, first_iteration, weights, hits, totals):
    """Train every cell of a group, in one launch or two; nothing is copied back.

    A column stands once in a sample at most, and the arrays are on the device: the samples need to go there only once.
    """
    if not lr_shifts.size:
        return
    kinds = zeros(lr_shifts.size, np.int64)
    fraction_bits = to_device(np.array([fraction_bits], np.int64))
    levels = levels.reshape(1, levels.size)
    data = starts, columns, codes, labels, levels, fraction_bits
    train_online_kinds(*data, kinds, lr_shifts, first_iteration, weights, hits, totals)


def train_online_kinds(
    starts, columns, codes, labels, levels, fraction_bits, kinds, lr_shifts, first_iteration, weights, hits, totals
):
    """Train cells of different fraction bits together, as :func:`train_online` does those of one.

    Parameters
    ----------
    levels : (number of kinds, number of codes) int64
        The integers that the codes stand for, for each kind of cell.
    fraction_bits : (number of kinds,) int64
    kinds : (cells,) int64
        Which kind each cell is of.
    starts, columns, codes, labels, lr_shifts, first_iteration, weights, hits, totals : as in `train_online`
    """
    cells, classes, inputs = weights.shape
    iterations = hits.shape[1]
    if not cells or not iterations:
        return
    sizes = classes, inputs, hits.reshape(-1), iterations, totals
    data = starts, columns, codes, labels, levels, fraction_bits, kinds, lr_shifts, np.int64(first_iteration)
    shape = LANES, min(classes, WARPS_MAX)
    if classes * inputs <= WEIGHTS_MAX and levels.shape[1] <= LEVELS_MAX:
        finished = empty(cells, np.int8)
        _train_narrow.at(cells, shape, *data, weights.reshape(-1), *sizes, finished)
    else:
        finished = zeros(cells, np.int8)
    _train_wide.at(cells, shape, *data, weights.reshape(-1), *sizes, finished)


# 3. Samples --------------------------------------------------------------------------------------------------------------

_UNSIGNED = ("uint8", "uint16", "uint32", "uint64")


@kernel(*(f"{kind}[:, ::1], int64, int64[::1]" for kind in _UNSIGNED))
def _count_nonzero(codes, zero_code, counts):
    for i in range(cuda.grid(1), counts.size, cuda.gridsize(1)):
        count = np.int64(0)
        for j in range(codes.shape[1]):
            if np.int64(codes[i, j]) != zero_code:
                count += np.int64(1)
        counts[i] = count


@kernel(*(f"{kind}[:, ::1], int64, int64[::1], uint32[::1], uint32[::1]" for kind in _UNSIGNED))
def _pack_nonzero(codes, zero_code, starts, columns, packed):
    for i in range(cuda.grid(1), codes.shape[0], cuda.gridsize(1)):
        k = starts[i]
        for j in range(codes.shape[1]):
            if np.int64(codes[i, j]) != zero_code:
                columns[k] = np.uint32(j)
                packed[k] = np.uint32(codes[i, j])
                k += np.int64(1)


def count_nonzero(codes, zero_code):
    """Return, for each sample, the number of inputs whose code is not `zero_code`: an array on the device."""
    counts = empty(codes.shape[0], np.int64)
    _count_nonzero(codes.shape[0], codes, np.int64(zero_code), counts)
    return counts


def pack_nonzero(codes, zero_code, starts, columns, packed):
    """Write the non-zero inputs of every sample one behind the other: `columns` gets their place, `packed` their code."""
    _pack_nonzero(codes.shape[0], codes, np.int64(zero_code), starts, columns, packed)
