"""Fast kernels on vectors, bit for bit equal to those of ``plain.py``, for arguments within stated bounds.

The bounds are checked, not assumed: while a kernel runs it keeps an upper bound of every quantity that it holds in a
narrower word, and hands a cell back to the plain kernel before anything could leave that word.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import high_word, low_word
from intnet.kernels.plain import ERROR_HIGH, FLOORED, LOST, TOTALS, UPDATE_HIGH, add_to_total
from intnet.kernels.vectors import (
    LANES,
    add_i32,
    add_i64,
    and_i64,
    count_below,
    load_i32,
    load_i64,
    multiply_i64,
    narrow,
    shift_floor_i64,
    splat_i64,
    store_i32,
    store_i64,
    widen,
)

_INT32_MAX = np.int64(2**31 - 1)
_INT64_MAX = np.int64(2**63 - 1)


# The weights of a strip of LANES outputs (an output: one class of one cell) lie side by side, a row an input, so that one
# input multiplies a whole row. `base` is where the strip begins.


@jit
def _forward_strip(rows, base, places, x, count, accumulators, lane):
    """Write the strip's weighted sums of one sample into ``accumulators[lane:lane + LANES]``."""
    total = splat_i64(np.int64(0))
    for k in range(np.uint64(count)):
        row = load_i32(rows, base + np.uint64(places[k]))
        total = add_i64(total, multiply_i64(widen(row), splat_i64(x[k])))
    store_i64(accumulators, lane, total)


@jit
def _update_strip(rows, base, places, x, first, last, sign, lane, fraction_bits, constants, delta, sums):
    """Add the updates of the inputs `first` to `last`, all of one `sign`, to the strip's weights; add counts to `sums`.

    In a lane all products then have the sign of ``delta * sign``, so that ``|U|`` is summed by summing U, and a product
    below one unit in magnitude is either always lost (positive) or always floored to minus one (negative).
    """
    narrow_delta = load_i32(delta, lane)
    deltas = widen(narrow_delta)
    f = splat_i64(fraction_bits)
    lr_shift = load_i64(constants[0], lane)
    residue = load_i64(constants[1], lane)  # 2**lr_shift - 1
    below_unit = load_i64(constants[2], lane)  # 2**(f + lr_shift) - 1
    # Shifted by -1 where products are positive and by below_unit where they are negative, the products that count
    # are those in 0..below_unit - 1.
    signs = shift_floor_i64(multiply_i64(deltas, splat_i64(sign)), splat_i64(np.int64(63)))  # 0 or -1
    offset = add_i64(and_i64(signs, add_i64(below_unit, splat_i64(np.int64(1)))), splat_i64(np.int64(-1)))
    updates = splat_i64(np.int64(0))
    errors = splat_i64(np.int64(0))
    small = splat_i64(np.int64(0))
    for k in range(np.uint64(first), np.uint64(last)):
        product = multiply_i64(deltas, splat_i64(x[k]))
        update = shift_floor_i64(product, f)
        updates = add_i64(updates, update)
        errors = add_i64(errors, and_i64(update, residue))
        small = count_below(small, add_i64(product, offset), below_unit)
        place = base + np.uint64(places[k])
        step = narrow(shift_floor_i64(update, lr_shift))
        store_i32(rows, place, add_i32(load_i32(rows, place), step))
    store_i64(sums[0], lane, updates)
    store_i64(sums[1], lane, errors)
    store_i64(sums[2], lane, small)


@jit
def _lay_out_sample(starts, columns, codes, levels, sample, places, x):
    """List the non-zero inputs of a sample, the positive ones first: where their row begins, and their value.

    Returns how many are positive, and how many there are.
    """
    count = 0
    for k in range(starts[sample], starts[sample + 1]):
        if levels[codes[k]] > 0:
            places[count] = np.int64(columns[k]) * LANES
            x[count] = levels[codes[k]]
            count += 1
    positive = count
    if positive < starts[sample + 1] - starts[sample]:
        for k in range(starts[sample], starts[sample + 1]):
            if levels[codes[k]] < 0:
                places[count] = np.int64(columns[k]) * LANES
                x[count] = levels[codes[k]]
                count += 1
    return positive, count


@jit
def _largest_weight(rows, inputs, first_lane, classes):
    """Return the largest magnitude among the weights of one cell."""
    largest = np.int64(0)
    for lane in range(first_lane, first_lane + classes):
        base = (lane // LANES) * inputs * LANES + lane % LANES
        for j in range(inputs):
            largest = max(largest, abs(np.int64(rows[base + j * LANES])))
    return largest


@jit
def train_online(
    starts, columns, codes, labels, levels, fraction_bits, lr_shifts, first_iteration, weights, hits, totals, finished
):
    """Train as ``plain.train_online`` does, same arguments and same bits, with weights in 32-bit words.

    Every number held in 32 bits, and every sum in 64, is bounded while training goes on; a cell that might leave its
    bound is given up: its ``finished[cell]`` becomes 0, its hits mean nothing, its weights and totals stay as they came.

    Parameters
    ----------
    finished : (cells,) uint8
        Written: 1 where the outputs are those of the plain kernel.
    """
    f = np.int64(fraction_bits)
    samples = labels.shape[0]
    cells, classes, inputs = weights.shape
    iterations = hits.shape[1]
    finished[:] = 0

    # 1. Bounds: |input| < 2**31, and |weight|, |delta| <= limit, where limit * (the sum of a sample's |inputs|) * classes
    # fits in int64. So do then every accumulator, every product, and a sample's sum of |U| over a cell.
    widest = np.int64(0)  # the largest number of non-zero inputs
    largest_input = np.int64(0)
    largest_sum = np.int64(0)
    for iteration in range(min(samples, iterations)):
        i = (first_iteration + iteration) % samples
        total = np.int64(0)
        for k in range(starts[i], starts[i + 1]):
            size = np.int64(levels[codes[k]])
            if size < -_INT32_MAX or size > _INT32_MAX:
                return
            size = abs(size)
            largest_input = max(largest_input, size)
            total += size
        largest_sum = max(largest_sum, total)
        widest = max(widest, starts[i + 1] - starts[i])
    largest_total = _INT64_MAX // classes
    limit = min(_INT32_MAX, largest_total // max(largest_sum, np.int64(1)))

    # 2. Lay the weights out in strips.
    strips = (cells * classes + LANES - 1) // LANES
    lanes = strips * LANES
    rows = np.zeros(lanes * inputs, np.int32)
    constants = np.zeros((3, lanes), np.int64)
    bound = np.zeros(cells, np.int64)  # of the magnitude of a cell's weights
    alive = np.zeros(cells, np.uint8)
    for cell in range(cells):
        lr_shift = np.int64(lr_shifts[cell])
        # The sum of a sample's remainders, each below 2**lr_shift, over a cell.
        if widest > (largest_total >> lr_shift):
            continue
        fits = True
        for c in range(classes):
            for j in range(inputs):
                weight = weights[cell, c, j]
                if weight < -limit or weight > limit:
                    fits = False
                else:
                    bound[cell] = max(bound[cell], abs(weight))
        if not fits:
            continue
        alive[cell] = 1
        for c in range(classes):
            lane = cell * classes + c
            constants[0, lane] = lr_shift
            constants[1, lane] = (np.int64(1) << lr_shift) - 1
            constants[2, lane] = (np.int64(1) << (f + lr_shift)) - 1
            base = (lane // LANES) * inputs * LANES + lane % LANES
            for j in range(inputs):
                rows[base + j * LANES] = np.int32(weights[cell, c, j])

    # 3. Train.
    one = np.int64(1) << f
    accumulators = np.zeros(lanes, np.int64)
    delta = np.zeros(lanes, np.int32)
    sums = np.zeros((3, lanes), np.int64)
    active = np.zeros(strips, np.uint8)
    x = np.zeros(max(widest, 1), np.int64)
    places = np.zeros(max(widest, 1), np.int64)
    run_totals = np.zeros((cells, TOTALS), np.int64)
    for iteration in range(iterations):
        sample = (first_iteration + iteration) % samples
        label = labels[sample]
        positive, count = _lay_out_sample(starts, columns, codes, levels, sample, places, x)
        for strip in range(strips):
            base = np.uint64(strip * inputs * LANES)
            _forward_strip(rows, base, places, x, count, accumulators, np.uint64(strip * LANES))
            active[strip] = 0

        for cell in range(cells):
            best, answer = np.int64(-1), np.int64(0)
            largest_delta = np.int64(0)
            for c in range(classes):
                lane = cell * classes + c
                activation = max(accumulators[lane], np.int64(0)) >> f
                if activation > best:
                    best, answer = activation, np.int64(c)
                target = one if c == label else np.int64(0)
                difference = target - activation if activation > 0 else np.int64(0)
                largest_delta = max(largest_delta, abs(difference))
                delta[lane] = np.int32(difference)  # cut where too large: then the cell is given up below
            hits[cell, iteration] = np.uint8(1) if answer == label else np.uint8(0)
            if alive[cell] and largest_delta > 0:
                if largest_delta > limit:
                    alive[cell] = 0
                else:
                    growth = ((largest_delta * largest_input) >> (f + lr_shifts[cell])) + 1
                    if growth > limit - bound[cell]:
                        bound[cell] = _largest_weight(rows, inputs, cell * classes, classes)
                        if growth > limit - bound[cell]:
                            alive[cell] = 0
                    bound[cell] += growth
            for lane in range(cell * classes, (cell + 1) * classes):
                if not alive[cell]:
                    delta[lane] = 0
                elif delta[lane] != 0:
                    active[lane // LANES] = 1

        for sign, first, last in ((1, 0, positive), (-1, positive, count)):
            if first == last:
                continue
            for strip in range(strips):
                if active[strip]:
                    base, lane = np.uint64(strip * inputs * LANES), np.uint64(strip * LANES)
                    _update_strip(rows, base, places, x, first, last, sign, lane, f, constants, delta, sums)
            for cell in range(cells):
                updates, errors = np.int64(0), np.int64(0)
                for lane in range(cell * classes, (cell + 1) * classes):
                    if delta[lane] != 0:
                        updates += abs(sums[0, lane])
                        errors += sums[1, lane]
                        run_totals[cell, LOST if delta[lane] * sign > 0 else FLOORED] += sums[2, lane]
                add_to_total(run_totals[cell], UPDATE_HIGH, high_word(updates), low_word(updates))
                add_to_total(run_totals[cell], ERROR_HIGH, high_word(errors), low_word(errors))

    # 4. Hand the results over. Nothing wrapped: that was proven on the way.
    for cell in range(cells):
        if not alive[cell]:
            continue
        finished[cell] = 1
        for high in (UPDATE_HIGH, ERROR_HIGH):
            add_to_total(totals[cell], high, run_totals[cell, high], run_totals[cell, high + 1])
        totals[cell, LOST] += run_totals[cell, LOST]
        totals[cell, FLOORED] += run_totals[cell, FLOORED]
        for c in range(classes):
            lane = cell * classes + c
            base = (lane // LANES) * inputs * LANES + lane % LANES
            for j in range(inputs):
                weights[cell, c, j] = rows[base + j * LANES]
