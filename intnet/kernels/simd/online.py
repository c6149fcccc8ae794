"""Training one layer sample by sample, sixteen outputs at a time.

The bounds are checked, not assumed: while the kernel runs it keeps an upper bound of every quantity that it holds in a
narrower word, and hands a cell back to the plain kernel before anything could leave that word.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import high_word, low_word, multiply_wide, relu, shift_floor
from intnet.kernels.plain.online import ERROR_HIGH, FLOORED, LOST, TOTALS, UPDATE_HIGH, add_to_total
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
_LOW_32 = np.int64(0xFFFFFFFF)


# The weights of a strip of LANES outputs (an output: one class of one cell) lie side by side, a row an input, so that one
# input multiplies a whole row: the weight of output o for input j stands at `_place(o, inputs) + j * LANES`.


@jit
def _place(output, inputs):
    return (output // LANES) * inputs * LANES + output % LANES


@jit
def _forward_strip(rows, strip, inputs, columns, first, x, count, accumulators):
    """Write the strip's weighted sums of one sample into its lanes of `accumulators`."""
    base = np.uint64(strip * inputs * LANES)
    total = splat_i64(np.int64(0))
    for k in range(np.uint64(count)):
        row = load_i32(rows, base + np.uint64(columns[np.uint64(first) + k]) * np.uint64(LANES))
        total = add_i64(total, multiply_i64(widen(row), splat_i64(x[k])))
    store_i64(accumulators, np.uint64(strip * LANES), total)


@jit
def _update_strip(rows, strip, inputs, columns, first, x, begin, end, sign, fraction_bits, shifts, delta, updates, small):
    """Add the updates of a sample's inputs `begin` to `end`, all of one `sign`, to the strip's weights.

    In a lane all products have the sign of ``delta * sign``. Written, by lane: `updates` gets the sum of U, `small` the
    number of products below one unit in magnitude, which are all lost (positive) or all floored to minus one (negative).
    """
    base, lane = np.uint64(strip * inputs * LANES), np.uint64(strip * LANES)
    deltas = widen(load_i32(delta, lane))
    f = splat_i64(fraction_bits)
    lr_shift = load_i64(shifts[0], lane)
    below_unit = load_i64(shifts[1], lane)  # 2**(f + lr_shift) - 1
    # Moved by -1 where products are positive, by below_unit where they are negative, the small ones are those in
    # 0..below_unit - 1.
    negative = shift_floor_i64(multiply_i64(deltas, splat_i64(sign)), splat_i64(np.int64(63)))  # 0 or -1
    minus_one = splat_i64(np.int64(-1))
    move = add_i64(minus_one, and_i64(negative, add_i64(below_unit, splat_i64(np.int64(1)))))
    total = splat_i64(np.int64(0))
    count = splat_i64(np.int64(0))
    for k in range(np.uint64(begin), np.uint64(end)):
        product = multiply_i64(deltas, splat_i64(x[k]))
        update = shift_floor_i64(product, f)
        total = add_i64(total, update)
        count = count_below(count, add_i64(product, move), below_unit)
        place = base + np.uint64(columns[np.uint64(first) + k]) * np.uint64(LANES)
        step = narrow(shift_floor_i64(update, lr_shift))
        store_i32(rows, place, add_i32(load_i32(rows, place), step))
    store_i64(updates, lane, total)
    store_i64(small, lane, count)


@jit
def _largest_sum(starts, codes, magnitudes, first_iteration, iterations):
    """Return the largest sum of input magnitudes, and the largest number of non-zero inputs, of the samples that come."""
    samples = len(starts) - 1
    largest, most = np.int64(0), np.int64(0)
    for iteration in range(min(samples, iterations)):
        sample = (first_iteration + iteration) % samples
        total = np.int64(0)
        for k in range(np.uint64(starts[sample]), np.uint64(starts[sample + 1])):
            total += magnitudes[codes[k]]
        largest = max(largest, total)
        most = max(most, starts[sample + 1] - starts[sample])
    return largest, most


@jit
def _positive_first(begin, end, columns, codes, levels, sorted_columns, x):
    """List the non-zero inputs of a sample, the positive ones first; return how many are positive and how many there are."""
    count = 0
    for k in range(begin, end):
        if levels[codes[k]] > 0:
            sorted_columns[count], x[count] = columns[k], levels[codes[k]]
            count += 1
    positive = count
    for k in range(begin, end):
        if levels[codes[k]] < 0:
            sorted_columns[count], x[count] = columns[k], levels[codes[k]]
            count += 1
    return positive, count


@jit
def _largest_weight(rows, cell, classes, inputs):
    """Return the largest magnitude among the weights of one cell."""
    largest = np.int64(0)
    for c in range(classes):
        place = _place(cell * classes + c, inputs)
        for j in range(inputs):
            largest = max(largest, abs(np.int64(rows[place + j * LANES])))
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
    least, largest_input = min(levels.min(), np.int64(0)), max(levels.max(), np.int64(0))
    if least < -_INT32_MAX or largest_input > _INT32_MAX:
        return
    largest_input = max(largest_input, -least)
    largest_sum, most = _largest_sum(starts, codes, np.abs(levels), first_iteration, iterations)
    limit = min(_INT32_MAX, _INT64_MAX // classes // max(largest_sum, np.int64(1)))
    bound = np.zeros(cells, np.int64)  # of the magnitude of a cell's weights, kept true while they change
    alive = np.ones(cells, np.uint8)
    for cell in range(cells):
        for c in range(classes):
            for j in range(inputs):
                weight = weights[cell, c, j]
                if weight < -limit or weight > limit:
                    alive[cell] = 0
                else:
                    bound[cell] = max(bound[cell], abs(weight))

    # 2. Lay the weights out in strips.
    strips = (cells * classes + LANES - 1) // LANES
    rows = np.zeros(strips * LANES * inputs, np.int32)
    shifts = np.zeros((2, strips * LANES), np.int64)
    for cell in range(cells):
        for output in range(cell * classes, (cell + 1) * classes):
            shifts[0, output] = lr_shifts[cell]
            shifts[1, output] = (np.int64(1) << (f + lr_shifts[cell])) - 1
            if alive[cell]:
                for j in range(inputs):
                    rows[_place(output, inputs) + j * LANES] = np.int32(weights[cell, output - cell * classes, j])

    # 3. Train.
    one = np.int64(1) << f
    accumulators = np.zeros(strips * LANES, np.int64)
    delta = np.zeros(strips * LANES, np.int32)
    updates = np.zeros(strips * LANES, np.int64)
    small = np.zeros(strips * LANES, np.int64)
    active = np.zeros(strips, np.uint8)  # strips with a delta that is not zero
    learning = np.zeros(cells, np.uint8)  # cells with a delta that may not be zero
    x = np.zeros(most, np.int64)
    sorted_columns = np.zeros(most, np.uint32)
    run_totals = np.zeros((cells, TOTALS), np.int64)
    signed = np.zeros((cells, 2), np.int64)  # the sum of U, in two words
    for iteration in range(iterations):
        sample = (first_iteration + iteration) % samples
        begin, end = starts[sample], starts[sample + 1]
        if least < 0:
            positive, count = _positive_first(begin, end, columns, codes, levels, sorted_columns, x)
            sample_columns, first = sorted_columns, np.int64(0)
        else:
            positive = count = end - begin
            sample_columns, first = columns, begin
            for k in range(np.uint64(count)):
                x[k] = levels[codes[np.uint64(begin) + k]]
        for strip in range(strips):
            _forward_strip(rows, strip, inputs, sample_columns, first, x, count, accumulators)
            active[strip] = 0

        for cell in range(cells):
            outputs = range(cell * classes, (cell + 1) * classes)
            largest = np.int64(0)
            for output in outputs:
                largest = max(largest, accumulators[output])
            highest = shift_floor(relu(largest), f)
            if highest == 0 or not alive[cell]:  # no output is above zero: the first class is the answer, and nothing moves
                hits[cell, iteration] = np.uint8(1) if labels[sample] == 0 else np.uint8(0)
                if learning[cell]:
                    learning[cell] = 0
                    for output in outputs:
                        delta[output] = 0
                continue
            answer, largest_delta = np.int64(-1), np.int64(0)
            for c in range(classes):
                activation = shift_floor(relu(accumulators[cell * classes + c]), f)
                if activation == highest and answer < 0:
                    answer = np.int64(c)
                target = one if c == labels[sample] else np.int64(0)
                difference = target - activation if activation > 0 else np.int64(0)
                largest_delta = max(largest_delta, abs(difference))
                delta[cell * classes + c] = np.int32(difference)  # cut if above the limit; then the cell is given up
            hits[cell, iteration] = np.uint8(1) if answer == labels[sample] else np.uint8(0)
            learning[cell] = 1
            if largest_delta > limit:
                alive[cell] = 0
            else:
                growth = ((largest_delta * largest_input) >> (f + lr_shifts[cell])) + 1
                if growth > limit - bound[cell]:
                    bound[cell] = _largest_weight(rows, cell, classes, inputs)
                    if growth > limit - bound[cell]:
                        alive[cell] = 0
                bound[cell] += growth
            for output in outputs:
                if not alive[cell]:
                    delta[output] = 0
                elif delta[output] != 0:
                    active[output // LANES] = 1

        for sign, begin, end in ((1, np.int64(0), positive), (-1, positive, count)):
            if begin == end:
                continue
            for strip in range(strips):
                if active[strip]:
                    _update_strip(
                        rows, strip, inputs, sample_columns, first, x, begin, end, sign, f, shifts, delta, updates, small
                    )
            for cell in range(cells):
                if not learning[cell]:
                    continue
                total, magnitude = np.int64(0), np.int64(0)
                for output in range(cell * classes, (cell + 1) * classes):
                    if delta[output] != 0:
                        total += updates[output]
                        magnitude += abs(updates[output])
                        run_totals[cell, LOST if delta[output] * sign > 0 else FLOORED] += small[output]
                add_to_total(run_totals[cell], UPDATE_HIGH, high_word(magnitude), low_word(magnitude))
                add_to_total(signed[cell], 0, high_word(total), low_word(total))

    # 4. Hand the results over. Nothing wrapped: that was proven on the way.
    for cell in range(cells):
        if not alive[cell]:
            continue
        finished[cell] = 1
        moved = np.int64(0)  # the sum of S: all that the weights have moved
        for c in range(classes):
            place = _place(cell * classes + c, inputs)
            for j in range(inputs):
                weight = np.int64(rows[place + j * LANES])
                moved += weight - weights[cell, c, j]
                weights[cell, c, j] = weight
        # U - S * 2**lr_shift is never negative, so the sum of its magnitude is the sum of U less that of S * 2**lr_shift.
        high, low = multiply_wide(moved, np.int64(1) << lr_shifts[cell])
        error_high = signed[cell, 0] - (high << 32) - (high_word(low) & _LOW_32)
        add_to_total(totals[cell], ERROR_HIGH, error_high, signed[cell, 1] - low_word(low))
        add_to_total(totals[cell], UPDATE_HIGH, run_totals[cell, UPDATE_HIGH], run_totals[cell, UPDATE_HIGH + 1])
        totals[cell, LOST] += run_totals[cell, LOST]
        totals[cell, FLOORED] += run_totals[cell, FLOORED]
