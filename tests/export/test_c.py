"""The C of networks, compiled with every warning an error and sanitizers of undefined behaviour and memory: intnet's bits."""

import ctypes
import dataclasses
import re
import shutil
import subprocess

import numpy as np
import pytest
from c_programs import MEMORY, SANITIZED, compiles_for_32_bits, gcc, library, run
from naive import round_fraction, wrap
from networks import FIXED, KINDS, inputs_of, scatter

import intnet
from intnet import compression, layers, models
from intnet.errors import InputError
from intnet.export import write_c
from intnet.export._c_arithmetic import Helpers
from intnet.network import Network
from intnet.random import random_words

M32 = pytest.mark.skipif(not compiles_for_32_bits(), reason="gcc makes no programs of 32 bits here (gcc-multilib)")


def check(network, folder, count=20, flags=SANITIZED, reentrant=False, promise=None):
    """Compare the code with its network."""
    write_c(network, folder, scratch="caller" if reentrant else "static", inputs=promise)
    x = inputs_of(network, count)
    if promise:
        x = intnet.QTensor(np.clip(x.mantissa, *promise), x.exponent, x.format)
    y = network.forward(x).mantissa
    found = run(folder, x.mantissa, y[0].size, flags=flags, reentrant=reentrant)
    assert found.tolist() == y.reshape(len(y), -1).tolist()


# Inference --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer(kind, tmp_path):
    make, shape = KINDS[kind]
    check(scatter(Network(make(), shape, FIXED, seed=3)), tmp_path)
    check(scatter(Network(make(), shape, FIXED, seed=3), extreme=True), tmp_path, reentrant=True)


@pytest.mark.parametrize("bits", [5, 12, 20, 29])
def test_words_of_any_length(bits, tmp_path):
    role = f"fxp-s{bits}/{bits // 2}"
    recipe = dataclasses.replace(FIXED, weight=role, activation=role, error=role, accumulator_bits=min(64, 2 * bits + 3))
    for kind in ("dense", "convolution", "batch normalization", "residual", "activations", "global pool", "pools"):
        make, shape = KINDS[kind]
        check(scatter(Network(make(), shape, recipe, seed=4), extreme=bits != 20), tmp_path)


@pytest.mark.parametrize("number", range(12))
def test_every_rounding_and_overflow(number, tmp_path):
    rounding, overflow = list(intnet.Rounding)[number].value, ("saturate", "wrap", "saturate_symmetric")[number % 3]
    role, (make, shape) = f"fxp-s7/2 {rounding} {overflow}", KINDS["dense"]
    recipe = dataclasses.replace(FIXED, weight="fxp-s6/3", activation=role, error="fxp-s6/3", accumulator_bits=20)
    check(scatter(Network(make(), shape, recipe), extreme=True), tmp_path, count=50)
    finer = recipe.override("dense2", activation=f"fxp-s14/13 {rounding} {overflow}")  # to the left
    check(scatter(Network(make(), shape, finer), extreme=True), tmp_path, count=50)


@pytest.mark.parametrize("fraction", [30, -2])
def test_words_of_40_bits_and_units_above_1(fraction, tmp_path):
    role = f"fxp-s40/{fraction} ties_even"
    recipe = dataclasses.replace(FIXED, activation=role, weight="fxp-s16/12", accumulator_bits=64)
    for kind in ("batch normalization", "residual", "activations"):
        make, shape = KINDS[kind]
        check(scatter(Network(make(), shape, recipe)), tmp_path)


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize("bits", [11, 31, 32, 33, 40, 63, 64])
def test_accumulators_that_overflow(overflow, bits, tmp_path):
    half = f"fxp-s{bits // 2}/2"
    recipe = dataclasses.replace(
        FIXED, weight=half, activation=half, error=half, accumulator_bits=bits, accumulator_overflow=overflow
    )
    network = scatter(Network([layers.Dense(6), layers.ReLU(), layers.Dense(4)], (40,), recipe), extreme=True)
    if bits >= 63 and overflow == "saturate":
        with pytest.raises(InputError, match=r"'dense1': its sums may take \d+ bits before they saturate, and C99 has 64; use"):
            write_c(network, tmp_path)
        return
    x = inputs_of(network, 50)
    assert network.layers.layers[0].accumulated(x)[1] > 0
    check(network, tmp_path, count=50)


def test_overflows_that_are_errors_are_proven_or_refused(tmp_path):
    recipe = dataclasses.replace(FIXED, accumulator_overflow="error")
    network = Network([layers.Dense(2)], (30,), recipe)
    check(network, tmp_path, promise=(0, 512))
    wide = scatter(Network([layers.Dense(2)], (30,), recipe), extreme=True)
    with pytest.raises(InputError, match=r"'dense1': its sums may leave the accumulator of 32 bits, which is an error there"):
        write_c(wide, tmp_path)
    recipe = dataclasses.replace(FIXED, activation="fxp-s16/9 ties_even error")
    with pytest.raises(InputError, match=r"'dense1': overflow of a word is an error there, .* let it saturate or wrap"):
        write_c(scatter(Network([layers.Dense(2)], (30,), recipe), extreme=True), tmp_path)


@pytest.mark.parametrize("model", [lambda: models.mlp(hidden=(20, 10)), lambda: models.lenet5(width=0.2)])
def test_models(model, tmp_path):
    network = Network(model(), (28, 28, 1), "fixed16", seed=1)
    check(network, tmp_path, flags=MEMORY)
    check(network, tmp_path, promise=(0, 512))
    assert "#define MODEL_INPUT_GREATEST 512" in (tmp_path / "model.h").read_text()


def test_a_network_that_only_flattens_copies(tmp_path):
    network = Network([layers.Flatten()], (2, 2, 1), FIXED)
    check(network, tmp_path, reentrant=True)


@M32
@pytest.mark.parametrize("kind", ["dense", "convolution", "residual", "activations"])
def test_32_bits(kind, tmp_path):
    make, shape = KINDS[kind]
    check(scatter(Network(make(), shape, FIXED, seed=3)), tmp_path, flags=("-m32", "-fsanitize=undefined"))


def test_masked_weights_are_zeros(tmp_path):
    network = Network(models.mlp(hidden=(6,)), (8, 8, 1), FIXED)
    compression.prune_globally(network, 70)
    check(network, tmp_path)


# The files --------------------------------------------------------------------------------------------------------------


def test_the_files_say_what_they_are_and_need_nothing(tmp_path):
    network = Network(models.mlp(hidden=(6,)), (8, 8, 1), FIXED)
    header, source = write_c(network, tmp_path / "new", "digits")
    assert (header.name, source.name) == ("digits.h", "digits.c")
    text = header.read_text() + source.read_text()
    assert set(re.findall(r"#include.*", text)) == {"#include <stdint.h>", '#include "digits.h"'}
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    assert not re.search(r"\b(float|double|malloc)\b|\d\.\d", code)
    assert text.count(f"SHA-256 {network.digest()}") == 2
    for line in ("#define DIGITS_INPUTS 64", "#define DIGITS_OUTPUT_FRACTION_BITS 9", "#ifndef DIGITS_H",
                 "static const int16_t layer_dense1_weights[384] = {"):  # fmt: skip
        assert line in text
    before = header.read_bytes(), source.read_bytes()
    write_c(network, tmp_path / "new", "digits")
    assert before == (header.read_bytes(), source.read_bytes())
    gcc("-std=c99", "-O2", "-c", "digits.c", folder=tmp_path / "new")
    needed = subprocess.run(["nm", "-u", "digits.o"], cwd=tmp_path / "new", capture_output=True, text=True, check=True).stdout
    assert set(needed.split()) <= {"U", "memset", "memcpy", "memmove"}  # which compilers may call for any loop


def test_two_models_and_a_caller_in_another_language(tmp_path):
    for name in ("one", "two"):
        write_c(Network([layers.Dense(2), layers.ReLU(), layers.Dense(3)], (2,), FIXED, seed=len(name)), tmp_path, name)
    (tmp_path / "main.cc").write_text(
        '#include "one.h"\n#include "two.h"\nint main() { int16_t x[2] = {3, 4}, y[3]; one_infer(x, y); two_infer(x, y); '
        "return two_argmax(y) > 2; }\n"
    )
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    gcc("-c", "-std=c99", "one.c", "two.c", folder=tmp_path)
    subprocess.run(["g++", "-Wall", "-Wextra", "-Werror", "main.cc", "one.o", "two.o", "-o", "both"], cwd=tmp_path, check=True)
    subprocess.run([str(tmp_path / "both")], check=True)


def test_the_first_of_the_largest_is_the_class(tmp_path):
    write_c(Network([layers.Dense(4)], (3,), FIXED), tmp_path)
    code = library(tmp_path)
    for values, first in (([1, 5, 5, 2], 1), ([-3, -3, -3, -3], 0), ([-9, -8, -7, -6], 3)):
        assert code.model_argmax((ctypes.c_int16 * 4)(*values)) == first


def test_names_that_only_a_comment_can_hold(tmp_path):
    odd = [layers.Dense(3, name="*é\\"), layers.Dense(3, name="a.b"), layers.Dense(2, name="a b")]
    check(Network(odd, (3,), dataclasses.replace(FIXED, name="*/ int x; /*")), tmp_path)


def test_what_is_refused(tmp_path):
    network = Network([layers.Dense(4)], (3,), FIXED)
    for name in ("a b", "1a", "int", "", "é", "a" * 40, None):
        with pytest.raises(InputError, match=r"a name in C is up to 31 letters"):
            write_c(network, tmp_path, name)
    with pytest.raises(InputError, match=r"scratch is 'static' or 'caller', got 'heap'"):
        write_c(network, tmp_path, scratch="heap")
    with pytest.raises(InputError, match=r"'dense1' has activations in bfp-s8"):
        write_c(Network([layers.Dense(4)], (3,), "int8"), tmp_path)
    far = dataclasses.replace(FIXED, activation="fxp-s16/-70")
    with pytest.raises(InputError, match=r"shifts by -\d+ bits and C code by up to 62"):
        write_c(Network([layers.Dense(4), layers.Dense(3)], (3,), far.override("dense2", activation="fxp-s16/9")), tmp_path)
    assert list(tmp_path.iterdir()) == []


# The rules, one by one --------------------------------------------------------------------------------------------------

SEEDS = "#define SEED_LOW UINT32_C(7)\n#define SEED_HIGH UINT32_C(5)\n"
ENDS = {-(2**63), 2**63 - 1}
EDGES = sorted({sign * (2**power + more) for power in range(63) for more in (-1, 0, 1) for sign in (-1, 1)} | ENDS)


def helpers(folder, calls):
    """Return a library of functions that apply a rule to arrays; calls: name to (parameters, expression)."""
    used = Helpers()
    for name in calls:
        used(name)
    loops = [
        f"void all_{name}(int64_t n, const int64_t *a, const int64_t *b, int64_t *out) "
        f"{{ for (int64_t i = 0; i < n; i++) out[i] = {expression}; (void)b; }}\n"
        for name, expression in calls.items()
    ]
    (folder / "rules.c").write_text("#include <stdint.h>\n" + SEEDS + used.text() + "\n" + "".join(loops))
    trap = ("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")  # no runtime to load
    gcc("-std=c99", "-Wall", "-Wextra", "-Werror", "-O2", *trap, "-fPIC", "-shared", "rules.c", "-o", "rules.so", folder=folder)
    code = ctypes.CDLL(str(folder / "rules.so"))

    def apply(name, a, b):
        a, b = (np.ascontiguousarray(values, np.int64) for values in np.broadcast_arrays(a, b))
        out, pointer = np.empty(a.shape, np.int64), ctypes.POINTER(ctypes.c_int64)
        getattr(code, f"all_{name}")(ctypes.c_int64(a.size), *(one.ctypes.data_as(pointer) for one in (a, b, out)))
        return out.tolist()

    return apply


def test_the_rules_at_the_edges_of_the_word(tmp_path):
    from fractions import Fraction

    from intnet.arithmetic import exp_negative, round_shift_pseudo_stochastic, round_shift_stochastic

    modes = [mode.value for mode in intnet.Rounding if mode.value not in ("stochastic", "pseudo_stochastic", "floor", "jam")]
    calls = {f"round_{mode}": f"round_{mode}(a[i], (int)b[i])" for mode in [*modes, "jam", "pseudo_stochastic"]}
    calls["floor_shift"] = "floor_shift(a[i], (int)b[i])"
    calls["wrap"] = "wrap((uint64_t)a[i], (int)b[i])"
    calls["exp_negative"] = "exp_negative(a[i], (int)b[i])"
    calls["round_stochastic"] = "round_stochastic(a[i], (int)(b[i] & 63), b[i] >> 12, (int)(b[i] >> 6 & 63))"
    apply = helpers(tmp_path, calls)
    values, shifts = (grid.ravel() for grid in np.meshgrid(np.array(EDGES), np.arange(1, 63)))
    pairs = list(zip(values.tolist(), shifts.tolist(), strict=True))
    assert apply("floor_shift", values, shifts) == [value >> shift for value, shift in pairs]
    assert apply("round_jam", values, shifts) == [value >> shift | 1 for value, shift in pairs]
    some = slice(None, None, 7)
    for mode in modes:
        expected = [round_fraction(Fraction(value, 2**shift), mode) for value, shift in pairs[some]]
        assert apply(f"round_{mode}", values[some], shifts[some]) == expected, mode
    pseudo = [int(round_shift_pseudo_stochastic(value, shift)) for value, shift in pairs]
    assert apply("round_pseudo_stochastic", values, shifts) == pseudo
    words, bits = (grid.ravel() for grid in np.meshgrid(np.array(EDGES), np.arange(1, 65)))
    assert apply("wrap", words, bits) == [wrap(value, bit) for value, bit in zip(words.tolist(), bits.tolist(), strict=True)]
    distances = np.array([value for value in EDGES if 0 <= value <= 2**62] + list(range(300)))
    for exponent in (-70, -64, -63, -32, -31, -30, -9, 0, 5, 6, 40):
        assert apply("exp_negative", distances, exponent) == [int(exp_negative(one, exponent)) for one in distances.tolist()]
    draws = np.random.default_rng(0)
    kept, by, count = draws.choice(np.array(EDGES), 5000), draws.integers(0, 63, 5000), draws.integers(1, 52, 5000)
    fraction = draws.integers(0, 2**51, 5000) >> (51 - count)
    expected = [
        int(round_shift_stochastic(*one))
        for one in zip(kept.tolist(), by.tolist(), fraction.tolist(), count.tolist(), strict=True)
    ]
    assert apply("round_stochastic", kept, by | count << 6 | fraction << 12) == expected


def test_random_words(tmp_path):
    calls = {"random_fraction": "0", "random_long_fraction": "0"}
    used = Helpers()
    for name in calls:
        used(name)
    draw = (
        "int64_t draw(uint32_t stream, uint32_t step, uint64_t element, int bits)\n{\n"
        "    random_source s = random_of(stream, step);\n"
        "    return bits <= 32 ? random_fraction(&s, element, bits) : random_long_fraction(&s, element, bits);\n}\n"
    )
    (tmp_path / "r.c").write_text(f"#include <stdint.h>\n{SEEDS}{used.text()}\n{draw}")
    gcc("-std=c99", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC", "-shared", "r.c", "-o", "r.so", folder=tmp_path)
    draw = ctypes.CDLL(str(tmp_path / "r.so")).draw
    draw.restype, draw.argtypes = ctypes.c_int64, [ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int]
    assert draw(3, 2, 9, 8) == 125  # the worked example of intnet/random.py
    seed = 5 * 2**32 + 7
    for element in (0, 1, 2, 3, 4, 1001, 2**34 + 1):
        word = int(random_words(seed, 3, 2, element)[0])
        high, low = (int(one) for one in random_words(seed, 3, 2, 2 * element, 2))
        for bits in (1, 16, 32):
            assert draw(3, 2, element, bits) == word >> (32 - bits)
        for bits in (33, 50, 62):
            assert draw(3, 2, element, bits) == (high << 32 | low) >> (64 - bits)
