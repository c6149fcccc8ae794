"""The Verilog modules, run in Icarus Verilog: every rounding rule, whole benches, and a bit that is flipped."""

import shutil
import subprocess

import naive
import numpy as np
import pytest

from intnet import datasets, models
from intnet.errors import InputError
from intnet.export import compare_traces, read_mem, record_trace, trace_inference, write_dense_bench
from intnet.inputs import Encoder, Inputs
from intnet.network import Network
from intnet.optimizers import SGD
from intnet.recipe import RECIPES, Recipe
from intnet.training import Trainer

simulated = pytest.mark.skipif(
    shutil.which("iverilog") is None or shutil.which("vvp") is None,
    reason="Icarus Verilog is not installed (apt-get install iverilog)",
)
MODES = (
    "floor", "to_zero", "ceil", "to_away", "ties_even", "ties_pos", "ties_neg", "ties_away", "ties_zero", "jam", "stochastic",
    "pseudo_stochastic",
)  # fmt: skip
OVERFLOWS = ("wrap", "saturate", "saturate_symmetric")


def simulate(folder, *options, sources=("bench.v", "intnet_dense.v")):
    """Compile and run what is in a folder."""
    subprocess.run(["iverilog", "-g2012", "-Wall", "-o", "bench", *sources], cwd=folder, check=True, capture_output=True)
    return subprocess.run(["vvp", "bench", *options], cwd=folder, capture_output=True, text=True, check=False)


def trace_of(recipe="fixed16", steps=(0, 2), optimizer=None, hidden=(6,)):
    data = datasets.load_digits()
    network = Network(models.mlp(hidden=hidden), (8, 8, 1), recipe)
    inputs = Inputs.of(data, Encoder.of(data, network.recipe))
    few = Inputs(inputs.codes[:24], inputs.labels[:24], inputs.encoder, inputs.classes)
    return record_trace(Trainer(network, optimizer or SGD("2^-3"), few, epochs=1, batch=8), steps)


@pytest.fixture(scope="module")
def steps():
    return trace_of()


@simulated
def test_every_rounding_is_that_of_the_reference(tmp_path):
    """All words of 7 bits, by every mode, overflow and some shifts; stochastic with every random word of 3 bits."""
    write_dense_bench(tmp_path, trace_of(steps=0), "dense2", step=0)  # for the modules
    word, random_bits, shifts = 4, 3, (0, 1, 2, 5)
    cases = [(mode, 1, shift) for mode in range(len(MODES)) for shift in shifts]
    cases += [(mode, overflow, shift) for mode in (0, 4) for overflow in (0, 2) for shift in shifts]
    lines = ["module all;", "    reg signed [6:0] value;", "    reg [2:0] fraction;", "    integer v, r;"]
    for i, (mode, overflow, shift) in enumerate(cases):
        lines.append(f"    wire signed [{word - 1}:0] y{i};")
        given = f".IN_BITS(7), .SHIFT({shift}), .MODE({mode}), .OVERFLOW({overflow}), .OUT_BITS({word}), .RANDOM_BITS(3)"
        lines.append(f"    intnet_round_shift #({given}) m{i} (.value(value), .fraction(fraction), .result(y{i}));")
    lines += ["    initial for (v = -64; v < 64; v = v + 1) for (r = 0; r < 8; r = r + 1) begin",
              "        value = v; fraction = r; #1;"]  # fmt: skip
    lines += [f'        $write("%0d ", y{i});' for i in range(len(cases))]
    lines += ['        $write("\\n");', "    end", "endmodule", ""]
    (tmp_path / "all.v").write_text("\n".join(lines))
    run = simulate(tmp_path, sources=("all.v", "intnet_dense.v"))
    got = np.array([[int(one) for one in line.split()] for line in run.stdout.splitlines()])
    values = [value for value in range(-64, 64) for _ in range(8)]
    fractions = [one for _ in range(-64, 64) for one in range(8)]
    assert got.shape == (len(values), len(cases))
    for i, (mode, overflow, shift) in enumerate(cases):
        random = {"fractions": fractions, "random_bits": random_bits} if MODES[mode] == "stochastic" else {}
        made, _ = naive.requantize(values, [shift] * len(values), MODES[mode], OVERFLOWS[overflow], word, **random)
        assert got[:, i].tolist() == made, (MODES[mode], OVERFLOWS[overflow], shift)


@simulated
def test_benches_of_a_training_pass(tmp_path, steps):
    for step in (0, 2):
        for layer, relu in (("dense1", True), ("dense1", False), ("dense2", False)):
            write_dense_bench(tmp_path, steps, layer, step=step, relu=relu)
            run = simulate(tmp_path)
            assert run.returncode == 0, run
            count = (48, 384) if layer == "dense1" else (80, 60)
            assert run.stdout == f"PASS: {count[0]} outputs and {count[1]} weights agree\n"


@simulated
@pytest.mark.parametrize(
    ("weight", "accumulator"),
    [("fxp-s8/6 floor wrap", 16), ("fxp-s12/9 ties_away saturate_symmetric", 64), ("fxp-s9/7 stochastic random:5", 17),
     ("fxp-s14/11 pseudo_stochastic", 32), ("fxp-s16/12 ties_zero", 31)],
)  # fmt: skip
def test_other_words_and_modes_pass(tmp_path, weight, accumulator):
    word = int(weight.split("/")[0][5:])
    fraction = int(weight.split()[0].split("/")[1])
    rest = " ".join(weight.split()[1:])
    other = f"fxp-s{word}/{fraction - 2} {rest}"
    recipe = Recipe(
        "odd", weight=weight, activation=other, error=f"fxp-s{word}/{fraction - 1} {rest}",
        gradient=f"fxp-s{word}/{fraction - 4} {rest}",
        accumulator_bits=accumulator, accumulator_overflow="wrap" if accumulator < 20 else "saturate",
    )  # fmt: skip
    trace = trace_of(recipe, 1, SGD(0.3))
    for layer in ("dense1", "dense2"):
        write_dense_bench(tmp_path, trace, layer)
        run = simulate(tmp_path)
        assert (run.returncode, run.stdout[:5]) == (0, "PASS:"), run


@simulated
def test_one_flipped_bit_of_any_vector_fails(tmp_path, steps):
    write_dense_bench(tmp_path, steps, "dense2", step=2)
    for name in ("inputs", "weights", "biases", "outputs", "errors", "weights_after"):
        path = tmp_path / f"{name}.mem"
        text = path.read_text()
        words = text.split("\n")
        place = len(words) - 3 if name != "biases" else 2
        words[place] = f"{int(words[place], 16) ^ 0x4000:04x}"
        path.write_text("\n".join(words))
        run = simulate(tmp_path)
        assert run.returncode != 0, name
        first = (
            "FAIL update:" if name in ("weights", "errors", "weights_after") else "FAIL forward:"
        )  # a weight of an input of 0
        assert run.stdout.startswith(first), name
        assert "words differ" in run.stdout
        path.write_text(text)
    text = (tmp_path / "outputs.mem").read_text()  # a missing word is not agreed with
    (tmp_path / "outputs.mem").write_text("\n".join(text.splitlines()[:-1]))
    assert simulate(tmp_path).returncode != 0
    (tmp_path / "outputs.mem").write_text(text)
    assert simulate(tmp_path).returncode == 0


@simulated
def test_what_another_module_gives_is_explained(tmp_path, steps):
    """A module that cuts instead of rounding: its outputs, read back and compared."""
    write_dense_bench(tmp_path, steps, "dense1", step=2)
    bench = (tmp_path / "bench.v").read_text()
    assert "localparam Y_MODE = 4;" in bench
    (tmp_path / "bench.v").write_text(bench.replace("localparam Y_MODE = 4;", "localparam Y_MODE = 0;"))
    assert simulate(tmp_path, "+dump").returncode != 0
    key = "step2/dense1/forward"
    device = steps.with_values({key: read_mem(tmp_path / "got_outputs.mem", 16, shape=steps[key].shape)})
    difference = compare_traces(steps, device)
    assert difference.key == key
    assert difference.explanations == ("b has what rounding floor gives where ties_even is due",)


def test_what_the_modules_do_not_do_is_refused(tmp_path, steps):
    def refusal(trace, layer="dense1", **options):
        with pytest.raises(InputError) as caught:
            write_dense_bench(tmp_path / "none", trace, layer, **options)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "none").exists()
        return str(caught.value)

    assert "layer 'relu1' is no dense layer of this trace; choose one of dense1, dense2" in refusal(steps, "relu1")
    assert "the trace has no step 1; it has [0, 2]" in refusal(steps, step=1)
    assert "exponents; the module takes fixed point" in refusal(trace_of("bfp8", 0))
    assert "no momentum" in refusal(trace_of("fixed16", 0, SGD("2^-3", "0.9")))
    assert "no decay" in refusal(trace_of("fixed16", 0, SGD("2^-3", 0, "2^-9")))
    assert "no master" in refusal(trace_of(Recipe.from_dict({**RECIPES["fixed16"].to_dict(), "master": "fxp-s24/20"}), 0))
    fine = RECIPES["fixed16"].override("dense2", gradient="fxp-s40/30 ties_even")
    assert "shifted to the left by 8" in refusal(trace_of(fine, 0), "dense2")
    assert "no ReLU comes after step0/dense2/forward" in refusal(steps, "dense2", relu=True)
    assert "with the accumulator it was rounded from" in refusal(steps.without("_exact"))
    network = Network(models.mlp(hidden=(6,)), (8, 8, 1))
    data = datasets.load_digits()
    inference = trace_inference(network, Inputs.of(data, Encoder.of(data, network.recipe)).batch(np.arange(3)))
    assert "an inference has no update" in refusal(inference)
    assert {path.name for path in write_dense_bench(tmp_path, inference, "dense1", update=False)} == {
        "inputs.mem", "weights.mem", "biases.mem", "outputs.mem", "outputs_random.mem", "bench.v", "intnet_dense.v",
    }  # fmt: skip
    if shutil.which("iverilog"):
        run = simulate(tmp_path)
        assert (run.returncode, run.stdout) == (0, "PASS: 18 outputs agree\n")
