"""Training one layer sample by sample: the network of the cliff study."""

import numpy as np

from intnet._compile import jit
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

# What `train_online` counts for every cell, by position in `totals`. The two sums are kept in two words,
# value = high * 2**32 + low, because they may leave int64.
UPDATE_HIGH, UPDATE_LOW, ERROR_HIGH, ERROR_LOW, LOST, FLOORED, WRAPS = range(7)
TOTALS = 7


@jit
def count_nonzero(codes, zero_code):
    """Count, for each sample, the inputs whose code is not `zero_code`.

    Parameters
    ----------
    codes : (samples, inputs) unsigned integers
    zero_code : int
        The code of the real number 0, or -1 if there is none.

    Returns
    -------
    (samples,) int64
    """
    samples, inputs = codes.shape
    counts = np.zeros(samples, np.int64)
    for i in range(samples):
        for j in range(inputs):
            if np.int64(codes[i, j]) != zero_code:
                counts[i] += 1
    return counts


@jit
def pack_nonzero(codes, zero_code, starts, columns, packed):
    """Write the non-zero inputs of every sample one behind the other: `columns` gets their place, `packed` their code.

    Parameters
    ----------
    codes : (samples, inputs) unsigned integers
    zero_code : int
        The code of the real number 0, or -1 if there is none.
    starts : (samples,) int64
        Where each sample begins in `columns` and `packed`.
    columns, packed : (entries,) uint32, written
    """
    samples, inputs = codes.shape
    for i in range(samples):
        k = starts[i]
        for j in range(inputs):
            if np.int64(codes[i, j]) != zero_code:
                columns[k] = j
                packed[k] = codes[i, j]
                k += 1


@jit
def add_to_total(totals, position, high, low):
    """Add ``high * 2**32 + low`` to the two-word total at `position`, and carry."""
    low = totals[position + 1] + low
    totals[position] += high + high_word(low)
    totals[position + 1] = low_word(low)


@jit
def train_online(starts, columns, codes, labels, levels, fraction_bits, lr_shifts, first_iteration, weights, hits, totals):
    """Train one dense ReLU layer sample by sample, once for every cell: a learning rate ``2**-lr_shift``.

    For sample x with target y (``2**f`` at its label, else 0), all integers with f fraction bits::

        acc = W x;   z = acc >> f;   a = relu(acc) >> f;   delta = (y - a) * (z > 0)
        p = delta outer x;   U = p >> f;   S = p >> (f + lr_shift);   W += S

    in wrapping int64 arithmetic, shifts rounding to minus infinity. An input of zero changes nothing, so only the others
    are walked. A hit is a sample whose first largest `a` is at its label.

    Parameters
    ----------
    starts : (samples + 1,) int64
        Entries ``starts[i]`` to ``starts[i + 1]`` of `columns` and `codes` belong to sample i.
    columns, codes : (entries,) uint32
        Where each non-zero input stands (0..inputs - 1), and its code, an index into `levels`.
    labels : (samples,) int64
        Class of each sample.
    levels : (number of codes,) int64
        The integer with f fraction bits that each code stands for.
    fraction_bits : int64
        f, 0..62.
    lr_shifts : (cells,) int64
        With ``fraction_bits + lr_shift <= 62``.
    first_iteration : int64
        Iteration i takes sample ``i % samples``; a long training may come in several calls.
    weights : (cells, classes, inputs) int64
        Read and trained in place.
    hits : (cells, iterations) uint8
        Written: 1 where the sample was classified rightly. Fewer than 2**31 iterations a call.
    totals : (cells, TOTALS) int64
        Added to. Over iterations and weights: the sum of ``|U|`` and of ``|U - S * 2**lr_shift|`` (two words each), the
        number of lost updates (p != 0, S = 0), of updates floored to minus one (-2**(f + lr_shift) < p < 0), and of
        products, sums and weights that left int64 and wrapped. A sum counts once, by its exact value.
    """
    f = np.int64(fraction_bits)
    samples = labels.shape[0]
    cells, classes, _ = weights.shape
    iterations = hits.shape[1]
    delta = np.zeros(classes, np.int64)
    for cell in range(cells):
        lr_shift = np.int64(lr_shifts[cell])
        one_unit = np.int64(1) << (f + lr_shift)  # the smallest product that moves a weight up
        update_high, update_low = np.int64(0), np.int64(0)
        error_high, error_low = np.int64(0), np.int64(0)
        lost, floored, wraps = np.int64(0), np.int64(0), np.int64(0)
        for iteration in range(iterations):
            sample = (first_iteration + iteration) % samples
            first, last = starts[sample], starts[sample + 1]
            label = labels[sample]
            best, answer = np.int64(-1), np.int64(0)
            for c in range(classes):
                high, low = np.int64(0), np.int64(0)
                for k in range(first, last):
                    product_high, product = multiply_wide(weights[cell, c, columns[k]], levels[codes[k]])
                    if product_leaves_int64(product_high, product):
                        wraps += 1
                    high += high_word(product)
                    low += low_word(product)
                if words_leave_int64(high, low):
                    wraps += 1
                accumulator = join_words(high, low)
                activation = shift_floor(relu(accumulator), f)
                if activation > best:
                    best, answer = activation, np.int64(c)
                target = np.int64(1) << f if c == label else np.int64(0)
                delta[c] = target - activation if shift_floor(accumulator, f) > 0 else np.int64(0)
            hits[cell, iteration] = np.uint8(1) if answer == label else np.uint8(0)
            for c in range(classes):
                if delta[c] == 0:
                    continue
                for k in range(first, last):
                    product_high, product = multiply_wide(delta[c], levels[codes[k]])
                    if product_leaves_int64(product_high, product):
                        wraps += 1
                    update = shift_floor(product, f)
                    step = shift_floor(product, f + lr_shift)
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
                        lost += 1
                    if -one_unit < product < 0:
                        floored += 1
                    weight = weights[cell, c, columns[k]]
                    if add_leaves_int64(weight, step):
                        wraps += 1
                    weights[cell, c, columns[k]] = add_wrap(weight, step)
            # carry, so that the low words never leave int64 however long the run
            update_high += high_word(update_low)
            update_low = low_word(update_low)
            error_high += high_word(error_low)
            error_low = low_word(error_low)
        add_to_total(totals[cell], UPDATE_HIGH, update_high, update_low)
        add_to_total(totals[cell], ERROR_HIGH, error_high, error_low)
        totals[cell, LOST] += lost
        totals[cell, FLOORED] += floored
        totals[cell, WRAPS] += wraps
