"""Traces: what is in them, that recording changes no bit, and what explains a difference."""

from math import prod

import naive
import numpy as np
import pytest

import intnet
from intnet import datasets, models
from intnet.errors import InputError
from intnet.export import Trace, compare_traces, record_trace, trace_inference
from intnet.inputs import Encoder, Inputs
from intnet.layers import BatchNorm, Conv2D, Dense, Flatten, MaxPool2D, ReLU, Residual, Sequential
from intnet.network import Network
from intnet.optimizers import HALP, SGD, SWALP, BitCentering, Factor, Schedule, SWALPSchedule
from intnet.recipe import RECIPES
from intnet.training import Trainer

MODES = (
    "floor", "to_zero", "ceil", "to_away", "ties_even", "ties_pos", "ties_neg", "ties_away", "ties_zero", "jam", "stochastic",
    "pseudo_stochastic",
)  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    return datasets.load_digits()


def convolutions():
    body = [Conv2D(2, 3, padding="same"), BatchNorm()]
    return Sequential(Conv2D(2, 3, stride=2), BatchNorm(), ReLU(), Residual(body), ReLU(), MaxPool2D(2), Flatten(), Dense(10))


def trainer_of(digits, recipe="fixed16", optimizer=None, layers=None, samples=300, epochs=2, seed=0, batch=64):
    network = Network(layers or models.mlp(hidden=(12,)), (8, 8, 1), recipe, seed)
    inputs = Inputs.of(digits, Encoder.of(digits, network.recipe))
    few = Inputs(inputs.codes[:samples], inputs.labels[:samples], inputs.encoder, inputs.classes)
    return Trainer(network, optimizer or SGD("2^-3"), few, epochs=epochs, batch=batch)


OPTIMIZERS = {
    "fixed16": lambda: SGD("2^-3"),
    "fixed16 momentum decay": lambda: SGD("2^-4", "0.9", "2^-10"),
    "int8": lambda: SGD("2^-4", "0.9"),
    "bfp8": lambda: SGD("2^-4", "0.9", "2^-10"),
    "niti8": lambda: SGD(Schedule(Factor.of("2^4"), "constant")),
    "wide": lambda: SWALP(SWALPSchedule("2^-3", start=1, averaging_rate="2^-4"), momentum="0.9", unit="step"),
}


@pytest.mark.parametrize("case", OPTIMIZERS)
@pytest.mark.parametrize("layers", [None, convolutions])
def test_a_recorded_training_has_the_bits_and_counts_of_another(digits, case, layers):
    recipe = case.split()[0]
    plain, recorded = (trainer_of(digits, recipe, OPTIMIZERS[case](), layers() if layers else None) for _ in range(2))
    plain.run()
    trace = record_trace(recorded, (1, 3))
    assert (recorded.epoch, trace.steps) == (1, (1, 3))
    recorded.run()
    assert recorded.network.digest() == plain.network.digest()
    assert recorded.readings == plain.readings
    assert [row.train_loss for row in recorded.history] == [row.train_loss for row in plain.history]
    for name in recorded.network.state():
        assert (name.rpartition("/")[0] + "/before") in {key.partition("/")[2] for key in trace} or "/value" not in name
    # nothing is left behind
    assert "step" not in vars(recorded)
    assert all("forward" not in vars(layer) for layer in recorded.network.layers.walk())


def test_what_is_in_a_trace(digits):
    trainer = trainer_of(digits, optimizer=SGD("2^-3", "0.5"))
    weights = trainer.network.parameters[0]
    before = weights.value.mantissa.copy()
    trace = record_trace(trainer, 0)
    order = trainer.order(0)[:64]
    assert np.array_equal(trace["step0/labels"].mantissa, trainer.train.labels[order])
    assert np.array_equal(trace["step0/input"].mantissa, trainer.train.batch(order).mantissa)
    assert np.array_equal(trace["step0/dense1.weight/before"].mantissa, before)
    x, w = (trace[f"step0/{name}"].mantissa.astype(object) for name in ("flatten1/forward", "dense1.weight/before"))
    sums = x @ w.T  # biases are zero before the first step
    assert np.array_equal(trace["step0/dense1/forward_exact"].mantissa, sums.astype(np.int64))
    rounded = naive.requantize(sums.reshape(-1).tolist(), [14] * sums.size, "ties_even", "saturate", 16)[0]
    assert trace["step0/dense1/forward"].mantissa.reshape(-1).tolist() == rounded
    relu = np.maximum(trace["step0/dense1/forward"].mantissa, 0)
    assert np.array_equal(trace["step0/relu1/forward"].mantissa, relu)
    dy, x2 = (trace[f"step0/{name}"].mantissa.astype(object) for name in ("loss/backward", "relu1/forward"))
    assert np.array_equal(trace["step0/dense2.weight/gradient_exact"].mantissa, (dy.T @ x2).astype(np.int64))
    record = trace.records["step0/dense2.weight/gradient"]
    assert (record.role, record.rounding, record.overflow, record.word_bits) == ("gradient", "stochastic", "saturate", 16)
    assert (record.random_bits, record.exact, record.step) == (16, "step0/dense2.weight/gradient_exact", 0)
    keys = list(trace)
    for earlier, later in (
        ("dense1.weight/before", "input"), ("input", "dense1/forward_exact"), ("dense1/forward_exact", "dense1/forward"),
        ("dense2/forward", "loss/backward"), ("loss/backward", "dense2/backward"), ("dense2/backward", "relu1/backward"),
        ("relu1/backward", "dense1.weight/gradient_exact"), ("dense1.weight/momentum", "dense1.weight/after_exact"),
    ):  # fmt: skip
        assert keys.index(f"step0/{earlier}") < keys.index(f"step0/{later}")


def test_files_come_back_and_have_the_same_bytes(digits, tmp_path):
    trace = record_trace(trainer_of(digits, "bfp8"), 1)
    trace.save(tmp_path / "a.npz")
    trace.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    back = Trace.load(tmp_path / "a.npz")
    assert back.info == trace.info
    assert back.records == trace.records
    assert all(np.array_equal(back[key].mantissa, trace[key].mantissa) for key in trace)
    assert all(back[key].format == trace[key].format for key in trace)
    assert intnet.compare_traces(tmp_path / "a.npz", trace) is None
    (tmp_path / "a.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:-100])
    with pytest.raises(InputError, match=r"a\.npz is damaged, or no trace"):
        Trace.load(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(InputError, match="no trace of intnet"):
        Trace.load(tmp_path / "a.npz")
    with pytest.raises(InputError, match="cannot be read"):
        Trace.load(tmp_path / "none.npz")


def test_an_inference_is_that_of_evaluation(digits):
    for recipe in ("fixed16", "bfp8", "niti8"):
        trainer = trainer_of(digits, recipe)
        x = trainer.train.batch(np.arange(5))
        trace = trace_inference(trainer.network, x)
        assert np.array_equal(trace["inference/dense2/forward"].mantissa, trainer.network.forward(x).mantissa)
        assert trace.steps == ()
        assert compare_traces(trace, trace_inference(trainer.network, x)) is None


# What explains a difference ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steps(digits):
    return record_trace(trainer_of(digits, "fixed16", SGD("2^-1")), (2, 3))


def again(trace, key, mode=None, overflow=None, off=0):
    """Return a trace of a device that rounds one tensor in another way, in Python integers."""
    record = trace.records[key]
    exact, made = trace[record.exact], trace[key]
    shift = int(made.exponent.item() - exact.exponent.item()) + off
    values = exact.mantissa.reshape(-1).tolist()
    mode, overflow = mode or record.rounding, overflow or record.overflow
    bits = record.random_bits
    fractions = [naive.random_fraction(0, record.stream, record.random_step, i, bits) for i in range(len(values))]
    random = {"fractions": fractions, "random_bits": bits} if mode == "stochastic" else {}
    out = naive.requantize(values, [shift] * len(values), mode, overflow, record.word_bits, **random)[0]
    return trace.with_values({key: np.array(out, made.mantissa.dtype).reshape(made.shape)})


def with_ties(trace, key):
    """Return a trace whose exact tensor has every kind of rest: none, small, half, large, of both signs, even and odd."""
    record = trace.records[key]
    exact, made = trace[record.exact], trace[key]
    shift = int(made.exponent.item() - exact.exponent.item())
    quarters = np.arange(exact.mantissa.size) % 97 - 48
    values = (quarters << (shift - 2)) + (np.arange(exact.mantissa.size) % 3 == 0)
    return again(trace.with_values({record.exact: values.reshape(exact.shape)}), key)


@pytest.mark.parametrize("mode", MODES)
def test_every_rounding_mode_is_named(steps, mode):
    for key in ("step2/dense1/forward", "step3/dense2.weight/gradient"):
        base, due = with_ties(steps, key), steps.records[key].rounding
        difference = compare_traces(base, again(base, key, mode))
        if mode == due:
            assert difference is None
            continue
        assert (difference.key, difference.of_exponents) == (key, False)
        assert difference.explanations == (f"b has what rounding {mode} gives where {due} is due",)
        assert str(difference).startswith(f"step {key[4]}, {difference.layer}, {difference.tensor} ({key}): element ")


@pytest.mark.parametrize("off", [1, -1, 2, -2])
def test_a_shift_that_is_off_is_named(steps, off):
    key = "step3/dense1/forward"
    difference = compare_traces(steps, again(steps, key, off=off))
    assert f"b has what a shift of {14 + off} gives where a shift of 14 is due" in difference.explanations
    swapped = compare_traces(again(steps, key, off=off), steps)
    assert f"a has what a shift of {14 + off} gives where a shift of 14 is due" in swapped.explanations


def test_overflow_is_named(steps):
    key = "step2/dense1/forward"
    # a few sums beyond the word: the same in both traces
    record = steps.records[key]
    exact = steps[record.exact].mantissa.astype(np.int64).copy()
    exact[:3] *= 300
    wide = steps.with_values({record.exact: exact})
    base = again(wide, key)
    for overflow in ("wrap", "saturate_symmetric"):
        difference = compare_traces(base, again(wide, key, overflow=overflow))
        assert f"b has what overflow {overflow} gives where saturate is due" in difference.explanations
    both = compare_traces(base, again(wide, key, "floor", "wrap"))
    assert "b has what rounding floor and overflow wrap gives where ties_even and saturate is due" in both.explanations


def test_one_flipped_bit_is_found_and_not_explained(steps):
    for key, index, bit in (("step3/dense1/forward", (5, 7), 3), ("step2/dense2.weight/after", (9, 11), 0),
                            ("step3/relu1/backward", (0, 0), 1), ("step2/input", (3, 4, 4, 0), 2)):  # fmt: skip
        values = steps[key].mantissa.copy()
        values[index] ^= 1 << bit
        difference = compare_traces(steps, steps.with_values({key: values}))
        assert (difference.key, difference.index, difference.count, difference.size) == (key, index, 1, values.size)
        assert (difference.a, difference.b) == (int(steps[key].mantissa[index]), int(values[index]))
        assert difference.explanations == ()
        assert "no rounding mode, overflow mode or shift of intnet's explains it" in str(difference).lower()


def test_the_first_difference_in_the_order_of_computation(steps):
    changed = again(steps, "step3/dense1/forward", "floor").with_values(
        {key: steps[key].mantissa + 1 for key in ("step2/dense1.bias/after", "step3/dense2/forward")}
    )
    assert compare_traces(steps, changed).key == "step2/dense1.bias/after"


def test_without_exact_tensors_on_one_side(steps):
    device = again(steps, "step2/dense1/forward", "to_zero").without("_exact")
    assert "rounding to_zero" in compare_traces(steps, device).explanations[0]
    assert "rounding to_zero" in compare_traces(device, steps).explanations[0]
    bare = steps.without("_exact")
    assert compare_traces(bare, device).explanations == ()


def test_an_accumulator_that_wraps_is_named(digits):
    """Sums that leave 31 bits: two devices, one of which lets them wrap."""
    plain = {**RECIPES["fixed16"].to_dict(), "accumulator_bits": 31, "activation": "fxp-s16/12 ties_even"}
    narrow = {mode: intnet.Recipe.from_dict({**plain, "accumulator_overflow": mode})
              for mode in ("saturate", "wrap")}  # fmt: skip
    traces = {}
    for mode, recipe in narrow.items():
        trainer = trainer_of(digits, recipe)
        weight = trainer.network.parameters[0]
        weight.value.mantissa[:] = 32767
        traces[mode] = record_trace(trainer, 0)
    difference = compare_traces(traces["saturate"], traces["wrap"])
    assert (difference.key, difference.a) == ("step0/dense1/forward_exact", 2**30 - 1)
    assert "b has what an accumulator of 31 bits that wraps gives where saturate is due" in difference.explanations


def test_blocks_have_exponents_that_are_compared(digits):
    trace = record_trace(trainer_of(digits, "bfp8"), 0)
    key = "step0/dense1/forward"
    tensor = trace[key]
    exponents = tensor.exponent.copy()
    exponents[2] += 1
    other = trace.with_values({key: intnet.QTensor(tensor.mantissa, exponents, tensor.format)})
    difference = compare_traces(trace, other)
    assert (difference.of_exponents, difference.index, difference.explanations) == (True, (2, 0), ())
    record = trace.records[key]  # stochastic, a shift for each sample
    exact = trace[record.exact]
    shifts = (tensor.exponents() - exact.exponents()).reshape(-1).tolist()
    values = naive.requantize(exact.mantissa.reshape(-1).tolist(), shifts, "ties_zero", "saturate", 8)[0]
    other = trace.with_values({key: np.array(values, np.int8).reshape(tensor.shape)})
    assert "b has what rounding ties_zero gives where stochastic is due" in compare_traces(trace, other).explanations


# Refusals ----------------------------------------------------------------------------------------------------------------


def test_traces_of_another_network_are_refused(digits, steps):
    def refusal(other):
        with pytest.raises(InputError) as caught:
            compare_traces(steps, other)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    other = record_trace(trainer_of(digits, layers=models.mlp(hidden=(13,))), (2, 3))
    assert "layers: dense1 Dense(outputs=12" in refusal(other)
    other = record_trace(trainer_of(digits, layers=models.mlp(hidden=(12, 5))), (2, 3))
    assert "layers: " in refusal(other)
    assert "steps [2, 3] and [2]" in refusal(record_trace(trainer_of(digits), 2))
    assert "shape (64, 8, 8, 1) in a, (32, 8, 8, 1) in b" in refusal(record_trace(trainer_of(digits, batch=32), (2, 3)))
    recipe = RECIPES["fixed16"].override("dense1", activation="fxp-s16/8 ties_even")
    assert "step2/dense1/forward is fxp-s16/9 in a, fxp-s16/8 in b" in refusal(record_trace(trainer_of(digits, recipe), (2, 3)))
    with_momentum = record_trace(trainer_of(digits, optimizer=SGD("2^-1", "0.5")), (2, 3))
    assert "trace a has no step2/dense1.weight/before_momentum" in refusal(with_momentum)
    trainer = trainer_of(digits)
    assert "kind: training in a, inference in b" in refusal(trace_inference(trainer.network, trainer.train.batch(np.arange(2))))


def test_what_cannot_be_recorded_is_refused(digits, steps):
    trainer = trainer_of(digits)
    per_epoch = trainer.steps_per_epoch
    for wanted, part in (
        (-1, "steps are integers of at least 0, got -1"), ([], "got []"), (True, "got True"), (2.5, "got 2.5"),
        (2 * per_epoch, f"this training has 0..{2 * per_epoch - 1} before it"),
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            record_trace(trainer, wanted)
        assert part in str(caught.value)
    assert trainer.epoch == 0
    record_trace(trainer, 0)
    with pytest.raises(InputError, match=f"this training has {per_epoch}.."):
        record_trace(trainer, 0)
    halp = trainer_of(digits, "wide", HALP("0.2", BitCentering(bits=8, mu=2, period=50)))
    with pytest.raises(InputError, match="HALP passes with weights of its own"):
        record_trace(halp, 0)
    masked = trainer_of(digits)
    one = masked.network.parameters[0]
    one.mask = np.ones(one.shape, np.bool_)
    with pytest.raises(InputError, match=r"the mask of dense1\.weight"):
        record_trace(masked, 0)
    with pytest.raises(InputError, match="the trace has no 'x'"):
        steps.with_values({"x": np.zeros(1)})
    with pytest.raises(InputError, match=r"step2/labels has shape \(64,\), got values of shape \(3,\)"):
        steps.with_values({"step2/labels": np.zeros(3, np.int64)})
    assert prod(steps["step2/labels"].shape) == 64


def test_values_beyond_a_word_are_refused(steps):
    key = next(key for key in steps if key.endswith("/forward"))
    values = steps[key].mantissa.astype(np.int64)
    with pytest.raises(InputError, match=r"/forward is in fxp-s16/9, and some of the values leave that word"):
        steps.with_values({key: values + 2**16})
