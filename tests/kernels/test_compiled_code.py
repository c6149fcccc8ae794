"""What the compiled code may hold: no floating point outside ``edge.py``; and every fast kernel has a plain one."""

import inspect
import os
import subprocess
import sys
import tempfile

import numba
import pytest

from intnet.kernels import plain, simd

SCRIPT = """
import re
import sys
import numpy as np
from intnet import arithmetic, kernels
from intnet.kernels import plain, simd

for code_type in (np.uint8, np.uint16, np.uint32):
    codes = np.array([[0, 1], [1, 1]], code_type)
    starts = np.concatenate([[0], np.cumsum(kernels.count_nonzero(codes, 0))])
    columns, packed = np.zeros(3, np.uint32), np.zeros(3, np.uint32)
    kernels.pack_nonzero(codes, 0, starts[:-1], columns, packed)
arguments = (
    starts, columns, packed, np.zeros(2, np.int64), np.array([0, 4]), np.int64(2), np.array([1]), np.int64(0),
    np.ones((1, 2, 2), np.int64), np.zeros((1, 3), np.uint8), np.zeros((1, plain.TOTALS), np.int64),
)
plain.train_online(*arguments)
simd.train_online(*arguments, np.zeros(1, np.uint8))

import intnet

for kind in (np.int8, np.int16, np.int32, np.int64):
    matrix = np.full((3, 3), 100, kind)
    for bits in (None, 20, 32, 64):
        intnet.matmul(matrix, matrix.T, bits, "saturate")
    intnet.matmul(np.full((2, 2), 2**62), np.full((2, 2), 2**62), overflow="wrap")
tensor = intnet.quantize(np.ones((2, 4)), "fxp-s16/4")
for mode in ("floor", "stochastic", "pseudo_stochastic"):
    intnet.round_shift(np.arange(9), 3, mode)
    for form in ("fxp-s8/2", "bfp-s8/row", "bfp-s16/tile2@-1"):
        intnet.requantize(intnet.requantize(tensor, form, mode, random_bits=40), "fxp-s32/9", mode, "wrap")

for kind in (np.int8, np.int16, np.int32, np.int64):
    image, filters = np.ones((2, 5, 5, 4), kind), np.ones((6, 3, 3, 4), kind)
    out, _ = kernels.conv2d(image, filters, padding=(1, 1, 1, 1))
    kernels.conv2d_backward_input(out.astype(kind), filters, (5, 5), padding=(1, 1, 1, 1))
    kernels.conv2d_backward_weights(image, out.astype(kind), (3, 3), padding=(1, 1, 1, 1), accumulator_bits=20)
    largest, places = kernels.max_pool(image, (2, 2), stride=(2, 2))
    kernels.max_pool_backward(largest, places, (5, 5), (2, 2), stride=(2, 2))
    kernels.sum_pool_backward(kernels.sum_pool(image, (2, 2), stride=(1, 2))[0], (5, 5), (2, 2), stride=(1, 2))
    for function in (kernels.extremes, kernels.max_magnitude, kernels.moments):
        function(image)
    kernels.argmax_rows(image.reshape(10, -1))
    kernels.sum_axes(image, 1, 3)
huge = np.full((1, 2, 2, 2), -(2**63))
kernels.conv2d(huge, huge)
kernels.conv2d_backward_input(huge, huge, (3, 3))
kernels.conv2d_backward_weights(huge, huge, (1, 1))
kernels.moments(huge)

for kind in (np.int8, np.int64):
    flat = np.arange(-20, 20).astype(kind)
    for values in (
        kernels.relu(flat), kernels.leaky_relu(flat, 2, 4), kernels.hard_tanh(flat, 5), kernels.sign(flat, 1),
        kernels.look_up(flat, flat, 0), kernels.dropout(flat, 2**15, 1, 2, 3),
    ):
        kernels.relu_backward(flat, values)
    kernels.leaky_relu_backward(flat, flat, 2, 4)
    kernels.hard_tanh_backward(flat, flat, 5)
    kernels.sign_backward(flat, flat, kernels.CLIP, 5)
    kernels.sign_backward(flat, flat, kernels.POLYNOMIAL, 5)
    kernels.logistic_backward(flat, flat, 16)
    kernels.tanh_backward(flat, flat, 16)
    logits, labels = flat.reshape(4, 10), np.arange(4)
    kernels.softmax_gradient(logits, -3, labels)
    kernels.softmax_loss(logits, -3, labels)
    kernels.niti_gradient(logits, -3, labels)
    kernels.subtract_target(logits, labels, 3)
    kernels.count_correct(logits, labels)
    kernels.linear_combination([(flat, 1, 0), (flat, 3, np.arange(-2, 2))], 4)
codes = np.zeros((2, 48), np.uint8)
for kind in (np.int8, np.int16, np.int32):
    table = np.zeros((3, 256), kind)
    kernels.gather(codes, np.arange(2), table)
    kernels.gather_augmented(codes, np.arange(2), (4, 4, 3), table, *kernels.draw_augmentation(2, 1, 1, 2, 3), 1, 0)
for kind, bits in ((np.int32, 32), (np.int64, 40), (np.int64, 64)):
    kernels.add_bias(np.zeros((4, 3), kind), np.ones((1, 3), np.int64), 4, bits)

for kind in (np.int8, np.int32):
    rows, ones, zeros = np.arange(-20, 20).astype(kind).reshape(10, 4), np.ones(4, np.int64), np.zeros(4, np.int64)
    linear, statistics = kernels.normalize_batch(rows, 0, ones, 0, ones, 0, 17)
    for result in (linear, kernels.normalize_backward(rows, 0, statistics, ones, 0)[0]):
        kernels.evaluate(result)
        kernels.bounds_of(result._replace(bounds=None))
        kernels.evaluate_requantized(result, 20, 4, 1, 8)
        kernels.evaluate_requantized(result, 20, 10, 1, 16)
    kernels.update_running(statistics, zeros, ones, 3)
    kernels.normalize_running(rows, 0, zeros, ones, ones, 0, ones, 0, 17)

for kind in (kernels.Target(3, 4, 1, 16), kernels.Target(3, 10, 1, 16), kernels.Target(3, 10, 1, 40, 40)):
    weights, velocity = np.ones((2, 9), np.int16 if kind.word_bits == 16 else np.int64)
    kernels.Update(weights, velocity, kernels.Factors(1, 2, 0, 8, 1), kind, kind, kind)(np.ones(9, np.int32), 0)
    plain_one = kernels.Update(weights, None, kernels.Factors(0, 0, 0, 8, 1), kind, kind)
    plain_one(np.ones(9, np.int32), 0)
    kernels.Updates([plain_one])([np.ones(9, np.int32)], 0, [kernels.new_counters_of_roles()])
small = np.full((3, 5), 100, np.int16)
kernels.multiply(small, small, b_transposed=True, accumulator_bits=32)
kernels.multiply(np.full((2, 9), 30000), np.full((9, 2), 2), accumulator_bits=32)
for kind in (np.int8, np.int16):
    ones, product = np.ones((3, 3), kind), kernels.RoundedProduct(kernels.Requantizer(4, 1, 8), 32, True)
    assert product(ones, ones, (0, 0), bias=np.ones(3, kind)) and kernels.multiply_transposed(ones, ones, 32)
    assert product.backward(ones, ones, ones, (0, 0), selects=True)

from intnet import Network, layers, models
from intnet.optimizers import SGD


def block():
    return layers.Residual([layers.Conv2D(4, 3, padding=1), layers.BatchNorm(), layers.ReLU()])

for name in ("fixed16", "int8", "wide"):  # the types of the others are among theirs
    body = [layers.Conv2D(4, 3), block(), layers.AvgPool2D(2), layers.MaxPool2D(2), layers.Dropout(0.5), layers.Flatten()]
    network = Network([*body, layers.Tanh(), layers.Sign(), layers.Dense(3)], (10, 10, 2), name)
    optimizer = SGD("2^2") if network.recipe.update == "normalized" else SGD("2^-4", 0 if name == "wide" else "7/8", "2^-9")
    x = intnet.quantize(np.ones((4, 10, 10, 2)), network.recipe.activation.format)
    for number in range(2):
        step = layers.Step(number, 1, True)
        errors = network.loss.gradient(network.forward(x, step), np.array([0, 1, 2, 0]), step)
        network.backward(errors, step)
        for parameter in network.parameters:
            optimizer.update(parameter, optimizer.schedule.at(0, 1), 4, step)
    network.forward(x)

from intnet.bit_centering import HALP, train_svrg
from intnet.optimizers import BitCentering
from intnet.regression import LeastSquares, Run, SoftmaxRegression, train_sgd

ones = np.ones((3, 5), np.int16)
for problem in (LeastSquares(ones, -2, np.arange(3), -2), SoftmaxRegression(ones, -2, np.arange(3), 3, "2^-9")):
    list(train_sgd(problem, [Run("fxp-s8/6")], "2^-3", 4, 1, threads=1))
    list(train_svrg(problem, [HALP(BitCentering(4, 1, 2), "fxp-s30/20")], "2^-3", 4, threads=1))

from intnet.gradients import CDG, NES, STE, Batch, Perceptron, gaussian_inputs, step

for activation, bits in (("binary", 20), ("full", 20)):  # later layers in 32 bits and in 64
    toy, inputs = Perceptron.drawn((2, 3, 3, 1), activation, weight_bits=bits), gaussian_inputs(2, 9, 0)
    batch = Batch(inputs, toy.outputs(inputs) + 9)
    for estimator in (CDG("0.1"), NES("0.1", 2), NES("0.1", 2, antithetic=False), STE(signs=int(activation == "binary"))):
        step(toy, estimator(toy, batch), [1])
    STE()(toy, batch)
kernels.rosenbrock_descent(np.arange(4) << 40, np.int64(2**38), np.int64(2**38), np.int64(2))

few, zero = np.zeros(3, np.int64), np.int64(0)
kernels.move_offsets(few, few, *np.array([0, 32, -8, 7, 1]), *np.zeros(4, np.uint64), zero)

compiled = 0
modules = [module for name, module in sys.modules.items() if name.startswith("intnet.") and name != "intnet.kernels.edge"]
for module in modules:
    for name, function in vars(module).items():
        for signature, code in getattr(function, "inspect_llvm", dict)().items():
            compiled += 1
            body = "\\n".join(line for line in code.splitlines() if not line.startswith(("declare", ";", "attributes", "!")))
            found = re.search(r"\\b(float|double|half|bfloat|x86_fp80|fp128)\\b|\\bf(add|sub|mul|div|rem|cmp|neg)\\b", body)
            assert not found, f"{module.__name__}.{name}{signature}: {body[max(0, found.start() - 200) : found.end() + 100]}"
print(compiled)
"""


class _Early:
    """The script in a process of its own, with an empty cache, as code from the cache cannot be inspected."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        environment = {**os.environ, "NUMBA_CACHE_DIR": self.folder.name}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", SCRIPT], env=environment, **pipes)

    def end(self):
        self.process.kill()
        self.process.communicate()
        self.folder.cleanup()


def begin_early():
    """Begin to compile while other tests run: it takes minutes. The session ends what this returns."""
    if numba.config.DISABLE_JIT:
        return None
    begun.append(_Early())
    return begun[0]


begun = []


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_no_kernel_holds_a_floating_point_instruction():
    process = begun[0].process
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert int(output) >= 100


def test_every_fast_kernel_has_a_plain_one():
    for name in simd.__all__:
        definition, function = getattr(plain, name), getattr(simd, name)
        parameters = list(inspect.signature(getattr(definition, "py_func", definition)).parameters)
        assert list(inspect.signature(getattr(function, "py_func", function)).parameters)[: len(parameters)] == parameters
