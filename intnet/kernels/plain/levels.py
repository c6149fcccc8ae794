"""Perceptrons whose activations have few levels: losses of many sets of weights, and what changes of single weights do.

A network is ``z_l = W_l a_{l-1}``, without biases. Hidden activations have `count` + 1 levels, held as the integers ``-count``,
``-count + 2``, .. ``count`` (the sign: -1 and 1): the level rises by one at each threshold that z reaches. Or, with `count` 0,
they are z, divided by ``2**shift``, to nearest, ties to plus infinity, and clamped to ``-one .. one``. The last layer has one
output and no activation; its z, divided by ``2**drop``, to nearest, is the output. The loss is the sum over samples of
``(output - target)**2``, exact, in two words: ``high * 2**32 + low``.

Weights stand in one vector, layer after layer, each (outputs, inputs) in C order; `sizes` are those of the layers, the inputs
first and the output, 1, last. Arrays of samples hold a sample a column, as the same is done to many at once.

Whoever calls has proven that no product, sum or shift below leaves int64, and that no error reaches ``2**30``.
"""

import numpy as np

from intnet._compile import jit
from intnet.arithmetic import high_word, level_of_sum, low_word, saturate, shift_nearest

SAMPLES_A_BLOCK = 256
"""Samples that are looked at together."""

MOST_LEVELS = 9


# 1. Forward -------------------------------------------------------------------------------------------------------------


@jit
def activate(z, count, thresholds, shift, one):
    """Return the activation of z: all int64; `thresholds` are `count` of them, rising."""
    if count > 0:
        return level_of_sum(z, thresholds, count)
    return saturate(shift_nearest(z, shift), -one, one)


@jit
def error_of(z, target, drop):
    """Return the output of the last layer's z less the target."""
    return shift_nearest(z, drop) - target


@jit
def add_products(weights, at, n_in, values, first, width, row):
    """Write ``weights[at : at + n_in] @ values[:, first : first + width]`` into `row`, in its words.

    Four rows of values at a time: the row of sums is then read and written a quarter as often.
    """
    for s in range(width):
        row[s] = 0
    fours = n_in - n_in % np.int64(4)
    for j in range(np.int64(0), fours, np.int64(4)):
        w0, w1, w2, w3 = weights[at + j], weights[at + j + 1], weights[at + j + 2], weights[at + j + 3]
        v0, v1 = values[j, first : first + width], values[j + 1, first : first + width]
        v2, v3 = values[j + 2, first : first + width], values[j + 3, first : first + width]
        for s in range(width):  # cast back to the words of the row as it is stored
            row[s] += w0 * v0[s] + w1 * v1[s] + w2 * v2[s] + w3 * v3[s]
    for j in range(fours, n_in):
        weight, value = weights[at + j], values[j, first : first + width]
        for s in range(width):
            row[s] += weight * value[s]


@jit
def first_sums(inputs, first, width, weights, n_out, z):
    """Write the sums of the first layer of `width` samples from `first` on into the first `n_out` rows of `z`, int64.

    Parameters
    ----------
    inputs : (features, samples) integers
    weights : (weights,) int64
        Those of the first layer first.
    """
    n_in = np.int64(inputs.shape[0])
    for i in range(n_out):
        add_products(weights, i * n_in, n_in, inputs, first, width, z[i])


@jit
def forward_from(z_first, width, weights, sizes, count, thresholds, shifts, one, z, a):
    """Write the activations of the first layer, and z and the activations of all others.

    Whatever of these has words of its own, 32 or 64 bits: the same for `weights`, `z` and `a`. Whoever calls has proven that
    no product and no sum leaves them.

    Parameters
    ----------
    z_first : (units of the first layer or more, SAMPLES_A_BLOCK) int64
        Its sums.
    width : int64
        Samples.
    weights : (weights,) int32 or int64
    sizes : (layers + 1,) int64
    count : int64
    thresholds : (layers, MOST_LEVELS) int64
        Of each layer.
    shifts : (layers,) int64
    one : int64
    z, a : (units of all layers, SAMPLES_A_BLOCK), written
        Layer after layer; rows of `z` of the first layer and of `a` of the output are not written.
    """
    start, place, before = np.int64(0), np.int64(0), np.int64(0)
    layers = sizes.shape[0] - 1
    for layer in range(layers):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        if layer > 0:
            for i in range(n_out):
                add_products(weights, start + i * n_in, n_in, a[before:place], np.int64(0), width, z[place + i])
        if layer + 1 < layers:
            for i in range(n_out):
                if layer == 0:
                    activate_row(z_first[i], width, count, thresholds[layer], shifts[layer], one, a[place + i])
                else:
                    activate_row(z[place + i], width, count, thresholds[layer], shifts[layer], one, a[place + i])
        start += n_in * n_out
        before = place
        place += n_out


@jit
def activate_row(z, width, count, thresholds, shift, one, out):
    """Write the activations of `width` sums."""
    if count == 1:
        at = thresholds[0]
        for s in range(width):
            out[s] = 1 if z[s] >= at else -1
    else:
        for s in range(width):
            out[s] = activate(np.int64(z[s]), count, thresholds, shift, one)


@jit
def forward_block(inputs, first, width, weights, sizes, count, thresholds, shifts, one, z, a):
    """Write z and the activations of `width` samples from `first` on, and those of the output into the last row.

    Parameters
    ----------
    inputs : (features, samples) integers
    weights : (weights,) int64
    sizes, count, thresholds, shifts, one
        As of `forward_from`.
    z, a : (units of all layers, SAMPLES_A_BLOCK) int64, written
        Layer after layer; `a` of the output is not written.
    """
    first_sums(inputs, first, width, weights, sizes[1], z)
    forward_from(z, width, weights, sizes, count, thresholds, shifts, one, z, a)


@jit
def squared_errors(z_first, z, layers, width, targets, begin, drop):
    """Return the sum over `width` samples of the squared errors of the outputs, which are the last rows, in two words."""
    high, low = np.int64(0), np.int64(0)
    for s in range(width):
        output = z_first[0, s] if layers == 1 else np.int64(z[z.shape[0] - 1, s])
        error = error_of(output, targets[begin + s], drop)
        square = error * error
        high += high_word(square)
        low += low_word(square)
    return high, low


@jit
def perceptron_losses(inputs, targets, first, last, weights, later, sizes, count, thresholds, shifts, one, drop, high, low):
    """Add the losses of the samples `first` to `last` under many sets of weights.

    Parameters
    ----------
    inputs : (features, samples) integers
    targets : (samples,) int64
    first, last : int64
    weights : (sets, weights) int64
    later : (sets, weights) int32 or int64
        The same numbers, in the words in which all layers but the first are computed; those of the first are not read.
    sizes, count, thresholds, shifts, one
        As of `forward_from`.
    drop : int64
    high, low : (sets,) int64
        Added to.
    """
    units, layers = np.int64(0), sizes.shape[0] - 1
    for layer in range(1, sizes.shape[0]):
        units += sizes[layer]
    z_first = np.empty((sizes[1], SAMPLES_A_BLOCK), np.int64)
    z, a = np.empty((units, SAMPLES_A_BLOCK), later.dtype), np.empty((units, SAMPLES_A_BLOCK), later.dtype)
    for begin in range(first, last, SAMPLES_A_BLOCK):
        width = min(np.int64(SAMPLES_A_BLOCK), last - begin)
        for c in range(weights.shape[0]):
            first_sums(inputs, begin, width, weights[c], sizes[1], z_first)
            forward_from(z_first, width, later[c], sizes, count, thresholds, shifts, one, z, a)
            top, rest = squared_errors(z_first, z, layers, width, targets, begin, drop)
            high[c] += top
            low[c] += rest


@jit
def perceptron_pair_losses(
    inputs, targets, first, last, weights, moves, later, sizes, count, thresholds, shifts, one, drop, high, low
):
    """Add the losses of the samples `first` to `last` with weights that are moved, there and back: w + m and w - m.

    The sums of the first layer are ``W x + M x`` and ``W x - M x``: the first is made once for all, the second once a pair.

    Parameters
    ----------
    weights : (weights,) int64
    moves : (pairs, weights) int64
    later : (2, pairs, weights) int32 or int64
        w + m and w - m, in the words in which all layers but the first are computed.
    others
        As of `perceptron_losses`.
    high, low : (2, pairs) int64
        Added to: of w + m, and of w - m.
    """
    units, layers = np.int64(0), sizes.shape[0] - 1
    for layer in range(1, sizes.shape[0]):
        units += sizes[layer]
    stay, move, z_first = (
        np.empty((sizes[1], SAMPLES_A_BLOCK), np.int64),
        np.empty((sizes[1], SAMPLES_A_BLOCK), np.int64),
        np.empty((sizes[1], SAMPLES_A_BLOCK), np.int64),
    )
    z, a = np.empty((units, SAMPLES_A_BLOCK), later.dtype), np.empty((units, SAMPLES_A_BLOCK), later.dtype)
    for begin in range(first, last, SAMPLES_A_BLOCK):
        width = min(np.int64(SAMPLES_A_BLOCK), last - begin)
        first_sums(inputs, begin, width, weights, sizes[1], stay)
        for pair in range(moves.shape[0]):
            first_sums(inputs, begin, width, moves[pair], sizes[1], move)
            for way in range(2):
                for i in range(sizes[1]):
                    for s in range(width):
                        z_first[i, s] = stay[i, s] + move[i, s] if way == 0 else stay[i, s] - move[i, s]
                forward_from(z_first, width, later[way, pair], sizes, count, thresholds, shifts, one, z, a)
                top, rest = squared_errors(z_first, z, layers, width, targets, begin, drop)
                high[way, pair] += top
                low[way, pair] += rest


@jit
def perceptron_outputs(inputs, first, last, weights, sizes, count, thresholds, shifts, one, drop, outputs):
    """Write the outputs of the samples `first` to `last` under one set of weights, (weights,); see `perceptron_losses`."""
    units = np.int64(0)
    for layer in range(1, sizes.shape[0]):
        units += sizes[layer]
    z, a = np.empty((units, SAMPLES_A_BLOCK), np.int64), np.empty((units, SAMPLES_A_BLOCK), np.int64)
    for begin in range(first, last, SAMPLES_A_BLOCK):
        width = min(np.int64(SAMPLES_A_BLOCK), last - begin)
        forward_block(inputs, begin, width, weights, sizes, count, thresholds, shifts, one, z, a)
        for s in range(width):
            outputs[begin + s] = error_of(z[units - 1, s], np.int64(0), drop)


# 2. Changes of one weight -----------------------------------------------------------------------------------------------


@jit
def change_of_square(z, move, target, drop):
    """Return what the squared error becomes more, if the last z moves."""
    before, after = error_of(z, target, drop), error_of(z + move, target, drop)
    return (after - before) * (after + before)


@jit
def change_of_loss(
    s, layer, unit, value, target, by_input, starts, places, sizes, count, thresholds, shifts, one, drop, z, a, changed, moves,
    sums,
):  # fmt: skip
    """Return what the squared error of a sample becomes more, if one activation of a layer has another value.

    Only what depends on it is evaluated: of each following layer what the changed activations before add to z.

    Parameters
    ----------
    s : int64
        The sample's column of `z` and `a`.
    layer, unit, value : int64
        That activation, and its new value.
    target : int64
    by_input : (weights,) int64
        The weights, each layer transposed: (inputs, outputs).
    starts, places : (layers,) int64
        Where the weights and the units of a layer begin.
    changed, moves, sums : (largest layer,) int64
        Room.
    """
    layers = sizes.shape[0] - 1
    changed[0], moves[0], number = unit, value - a[places[layer] + unit, s], np.int64(1)
    for after in range(layer + 1, layers):
        n_out, start, place = sizes[after + 1], starts[after], places[after]
        for k in range(n_out):
            sums[k] = np.int64(0)
        for c in range(number):
            row, move = by_input[start + changed[c] * n_out : start + (changed[c] + 1) * n_out], moves[c]
            for k in range(n_out):
                sums[k] += row[k] * move
        if after + 1 == layers:
            return change_of_square(z[place, s], sums[0], target, drop)
        number = np.int64(0)
        for k in range(n_out):
            if sums[k] != 0:
                now = activate(z[place + k, s] + sums[k], count, thresholds[after], shifts[after], one)
                was = a[place + k, s]
                if now != was:
                    changed[number], moves[number] = k, now - was
                    number += np.int64(1)
        if number == 0:
            return np.int64(0)
    return np.int64(0)


@jit
def perceptron_changes(
    inputs, targets, first, last, weights, by_input, sizes, count, thresholds, shifts, one, drop, epsilon, wanted, high, low,
):  # fmt: skip
    """Add how the loss of the samples `first` to `last` changes if a weight alone is `epsilon` more, or less: of many weights.

    Parameters
    ----------
    inputs, targets, first, last, sizes, count, thresholds, shifts, one
        As of `perceptron_losses`.
    weights, by_input : (weights,) int64
        The same, the second with each layer transposed.
    epsilon : int64
    wanted : (weights,) bool
        Of which weights.
    high, low : (2, weights) int64
        Added to: for more, and for less.
    """
    layers, units, most = sizes.shape[0] - 1, np.int64(0), np.int64(0)
    starts, places = np.empty(layers, np.int64), np.empty(layers, np.int64)
    start = np.int64(0)
    for layer in range(layers):
        starts[layer], places[layer] = start, units
        start += sizes[layer] * sizes[layer + 1]
        units += sizes[layer + 1]
        most = max(most, sizes[layer + 1])
    z, a = np.empty((units, SAMPLES_A_BLOCK), np.int64), np.empty((units, SAMPLES_A_BLOCK), np.int64)
    changed, moves, sums = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    known, changes = np.empty(MOST_LEVELS, np.int64), np.empty(MOST_LEVELS, np.int64)
    for begin in range(first, last, SAMPLES_A_BLOCK):
        width = min(np.int64(SAMPLES_A_BLOCK), last - begin)
        forward_block(inputs, begin, width, weights, sizes, count, thresholds, shifts, one, z, a)
        for layer in range(layers):
            n_in, n_out, place = sizes[layer], sizes[layer + 1], places[layer]
            for i in range(n_out):
                row = starts[layer] + i * n_in
                asked = False
                for j in range(n_in):
                    asked = asked or wanted[row + j]
                if not asked:
                    continue
                for s in range(width):
                    target, here = targets[begin + s], z[place + i, s]
                    number = np.int64(0)  # of levels whose change of the loss is known
                    for j in range(n_in):
                        if not wanted[row + j]:
                            continue
                        h = np.int64(inputs[j, begin + s]) if layer == 0 else a[places[layer - 1] + j, s]
                        move = epsilon * h
                        for way in range(2):
                            moved = here + move if way == 0 else here - move
                            if layer + 1 == layers:
                                change = change_of_square(here, moved - here, target, drop)
                            else:
                                value = activate(moved, count, thresholds[layer], shifts[layer], one)
                                if value == a[place + i, s]:
                                    continue
                                place_of = np.int64(-1)
                                if count > 0:
                                    for k in range(number):
                                        if known[k] == value:
                                            place_of = k
                                if place_of >= 0:
                                    change = changes[place_of]
                                else:
                                    change = change_of_loss(
                                        s,
                                        layer,
                                        i,
                                        value,
                                        target,
                                        by_input,
                                        starts,
                                        places,
                                        sizes,
                                        count,
                                        thresholds,
                                        shifts,
                                        one,
                                        drop,
                                        z,
                                        a,
                                        changed,
                                        moves,
                                        sums,
                                    )
                                    if count > 0:
                                        known[number], changes[number] = value, change
                                        number += np.int64(1)
                            high[way, row + j] += high_word(change)
                            low[way, row + j] += low_word(change)
