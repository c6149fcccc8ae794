"""The convex SWALP study: what it shows on small problems, a folder that is filled bit by bit, and clear refusals."""

import csv
import json
import shutil
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_allclose

from intnet import datasets
from intnet.errors import InputError, StudyError
from intnet.files import locked
from intnet.formats import Fixed
from intnet.regression import SoftmaxRegression
from intnet.studies import swalp_convex, tables
from intnet.studies.swalp_convex import (
    SGD_LP,
    SWALP,
    LinearRow,
    LinearSpec,
    LogisticRow,
    LogisticSpec,
    linear_problem,
    logistic_problem,
    measure,
    optimum,
    quantized_distance,
    run_linear,
    run_logistic,
    set_aside,
)
from intnet.studies.swalp_convex_reading import export, read_linear, read_logistic, references

LINEAR = LinearSpec(
    formats=("fxp-s9/6", "fxp-s7/4"),
    seeds=(0, 1, 2),
    iterations=24_000,
    averaging_start=2_000,
    rate="2^-7",
    features=48,
    samples=400,
)
TINY = LinearSpec(formats=("fxp-s8/6",), seeds=(0, 1), iterations=300, averaging_start=30, rate="2^-8", features=4, samples=20)
LOGISTIC = LogisticSpec(
    fraction_bits=(3, 7), seeds=(0, 1), iterations=30_000, averaging_start=10_000, rate="0.1", decay="0.01", samples=200
)


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    folder = tmp_path_factory.mktemp("linear")
    return folder, run_linear(LINEAR, folder)


@pytest.fixture(scope="module")
def logistic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logistic")
    return folder, run_logistic(LOGISTIC, folder)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# 1. What is shown -------------------------------------------------------------------------------------------------------


def test_the_floor_is_that_of_the_grid_and_the_average_goes_below(linear):
    """The floor is the square of the grid's: 16 times lower for two bits; the average has none."""
    fine, coarse, wide = read_linear(linear[1], LINEAR)
    assert (fine.format, coarse.format, wide.format) == ("9/6", "7/4", "wide")
    assert 12 < coarse.floor / fine.floor < 20
    for one in (fine, coarse, wide):
        assert one.seeds == 3
        assert one.floor > 20 * one.average
        assert -1.6 < one.slope < -0.7
        assert list(one.averages) == [3_000, 6_000, 12_000, 24_000]
    assert wide.quantized_optimum is None
    assert coarse.quantized_optimum == references(LINEAR)[7, 4]


def test_few_bits_averaged_are_as_good_as_more(logistic):
    found = {(one.fraction_bits, one.method): one for one in read_logistic(logistic[1])}
    assert list(found) == [(bits, method) for bits in (3, 7, 0) for method in (SGD_LP, SWALP)]
    for bits in (3, 7, 0):
        last, average = found[bits, SGD_LP], found[bits, SWALP]
        assert average.loss < last.loss
        assert average.gradient_norm_squared < last.gradient_norm_squared / 20
    assert found[3, SWALP].loss < found[7, SGD_LP].loss
    assert found[7, SWALP].loss == pytest.approx(found[0, SWALP].loss, rel=0.02)
    assert found[3, SWALP].seeds == 2


def test_a_crossing_is_found():
    rows = [LinearRow(8, 6, method, 0, i * 100, v) for i in range(1, 9) for method, v in ((SGD_LP, 1.0), (SWALP, 1 / i))]
    spec = LinearSpec(formats=("fxp-s8/6",), wide=None, seeds=(0,), iterations=800, averaging_start=50, features=4, samples=20)
    line = references(spec)[8, 6]
    (found,) = read_linear([row._replace(squared_distance=row.squared_distance * 4.5 * line) for row in rows], spec)
    assert (found.crossing, found.crossing_extrapolated) == (500, None)
    assert found.slope == pytest.approx(-1)
    (found,) = read_linear([row._replace(squared_distance=row.squared_distance * 16 * line) for row in rows], spec)
    assert (found.crossing, found.crossing_extrapolated) == (None, 1600)


# 2. Problems and measures -----------------------------------------------------------------------------------------------


def test_the_synthetic_problem_is_what_it_says():
    problem = linear_problem(LinearSpec(features=8, samples=3000))
    inputs, targets = problem.inputs / 32, problem.targets / 2**16
    assert_allclose(inputs.std(), 1, atol=0.02)
    best = optimum(problem)
    assert np.abs(best).max() < 0.52
    assert_allclose((inputs @ best - targets).std(), 0.1, rtol=0.05)
    assert_allclose(inputs.T @ (inputs @ best - targets), np.zeros(8), atol=1e-9)


def test_the_quantized_optimum():
    assert quantized_distance(np.array([0.3, -0.25, 1.5]), Fixed(4, 2)) == pytest.approx(0.05**2 + 0 + 0)
    assert quantized_distance(np.array([3.0]), Fixed(4, 2)) == pytest.approx(1.25**2)  # beyond 1.75


@pytest.mark.parametrize("chunk", [7, 4096])
def test_the_measures_are_those_of_the_objective(chunk, monkeypatch):
    monkeypatch.setattr(swalp_convex, "_CHUNK", chunk)
    data = datasets.load("digits", subset="test")
    problem = logistic_problem(data, "2^-6")
    weights = np.random.default_rng(0).normal(0, 0.3, problem.shape)
    inputs = np.hstack([data.values[data.codes], np.ones((len(data.codes), 1))])

    def objective(w):
        logits = inputs @ w.T
        entropy = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), data.labels]
        return entropy.mean() + (w**2).sum() / 2**7

    found = measure(problem, weights)
    assert found.loss == pytest.approx(objective(weights), rel=1e-12)
    assert found.error == np.mean((inputs @ weights.T).argmax(axis=1) != data.labels)
    step, gradient = 1e-6, np.zeros(weights.size)
    for i in range(weights.size):
        ahead, behind = weights.copy(), weights.copy()
        ahead.flat[i], behind.flat[i] = weights.flat[i] + step, weights.flat[i] - step
        gradient[i] = (objective(ahead) - objective(behind)) / (2 * step)
    assert found.gradient_norm_squared == pytest.approx(float(gradient @ gradient), rel=1e-5)


# 3. The folder ----------------------------------------------------------------------------------------------------------


def test_the_table_of_least_squares(linear):
    folder, rows = linear
    lines = list(csv.reader((folder / "linear.csv").read_text().splitlines()))
    assert ",".join(lines[0]) == "word_bits,fraction_bits,method,seed,iteration,squared_distance"
    assert len(lines) == 1 + len(rows)
    assert {tuple(line[:2]) for line in lines[1:]} == {("0", "0"), ("7", "4"), ("9", "6")}
    assert tables.from_csv(LinearRow, (folder / "linear.csv").read_text()) == rows
    config = json.loads((folder / "config.json").read_text())
    assert (config["study"], config["rate"], config["wide"]) == ("swalp-linear", "1/128", "fxp-s40/32")


def test_the_table_of_softmax(logistic):
    folder, rows = logistic
    lines = (folder / "logistic.csv").read_text().splitlines()
    assert lines[0] == "dataset,fraction_bits,method,seed,gradient_norm_squared,loss,train_error,test_error"
    assert len(lines) == 1 + len(rows) == 1 + 3 * 2 * 2
    config = json.loads((folder / "config.json").read_text())
    assert config["train_checksum"] != config["test_checksum"]
    assert Fraction(config["decay"]) == LOGISTIC.decay.exact


def test_what_is_exported(linear, logistic):
    for (folder, _), spec, name in ((linear, LINEAR, "linear"), (logistic, LOGISTIC, "logistic")):
        sentences = export(spec, folder)
        found = json.loads((folder / f"{name}.json").read_text())
        assert found["sentences"] == sentences
        assert len(found["findings"]) == (3 if name == "linear" else 6)
        assert not any("missing" in sentence for sentence in sentences)
        assert (folder / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["linear", "logistic"])
def test_a_stopped_run_goes_on_with_the_same_bytes(name, tmp_path, request):
    """It is stopped after the second run; the first call had more threads than runs that it kept."""
    run, spec = (run_linear, TINY) if name == "linear" else (run_logistic, LOGISTIC)
    if name == "linear":
        run(spec, tmp_path / "whole")
        whole = tmp_path / "whole"
    else:
        whole = request.getfixturevalue("logistic")[0]

    class Stopped(Exception):  # noqa: N818
        pass

    told = []

    def stop(runs):
        told.append(runs)
        if len(told) == 2:
            raise Stopped

    folder = tmp_path / "stopped"
    with pytest.raises(Stopped):
        run(spec, folder, threads=3, progress=stop)
    total = len(spec.runs())
    assert export(spec, folder, plots=False)[-1].startswith(f"{total - 2} of {total} runs are missing")
    told.clear()
    run(spec, folder, threads=1, progress=told.append)
    assert told == [2] + [1] * (total - 2)
    for file in (f"{name}.csv", "config.json"):
        assert (folder / file).read_bytes() == (whole / file).read_bytes()
    told.clear()
    run(spec, folder, progress=told.append)
    assert told == [total]


def test_another_study_in_the_folder_is_refused(linear, tmp_path):
    folder = tmp_path / "taken"
    shutil.copytree(linear[0], folder)
    before = contents(folder)
    other = replace(LINEAR, seeds=(0, 1))
    with pytest.raises(StudyError, match=r"with seeds \[0, 1, 2\], and \[0, 1\] is asked for; choose another --out, or set"):
        run_linear(other, folder)
    with pytest.raises(StudyError, match="with study swalp-linear, and swalp-logistic is asked for"):
        run_logistic(LOGISTIC, folder)
    assert contents(folder) == before
    aside = set_aside(folder)
    assert not folder.exists()
    assert contents(aside).items() >= before.items()


def spoil_config(folder):
    (folder / "config.json").write_text("{")


def lose_config(folder):
    (folder / "config.json").unlink()


def cut_table(folder):
    (folder / "linear.csv").write_text((folder / "linear.csv").read_text()[:-200])


def lose_a_line(folder):
    lines = (folder / "linear.csv").read_text().splitlines(keepends=True)
    (folder / "linear.csv").write_text("".join(lines[:-1]))


def rename_a_column(folder):
    (folder / "linear.csv").write_text((folder / "linear.csv").read_text().replace("seed", "sheep"))


@pytest.mark.parametrize("spoil", [spoil_config, lose_config, cut_table, lose_a_line, rename_a_column])
def test_damaged_folders_are_refused(spoil, tmp_path):
    run_linear(TINY, tmp_path)
    spoil(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(StudyError, match=r"damaged|but no config\.json") as refusal:
        run_linear(TINY, tmp_path)
    assert "\n" not in str(refusal.value)
    assert contents(tmp_path) == before


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="is not a folder"):
        run_linear(TINY, tmp_path / "file")
    with pytest.raises(StudyError, match="holds no study"):
        export(TINY, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(InputError, match="may reach"):
        run_linear(LinearSpec(formats=("fxp-s60/40",), features=4, samples=9), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    (tmp_path / "busy").mkdir()
    with locked(tmp_path / "busy"), pytest.raises(StudyError, match="in use by another run"):
        run_linear(TINY, tmp_path / "busy")


@pytest.mark.parametrize("stored", [False, True])
def test_what_is_refused_before_anything_is_stored_does_not_claim_the_folder(stored, tmp_path):
    def refused(name):
        with tables.opened(tmp_path, "linear.csv", LinearRow, {"study": name}, {}) as table:
            if stored:
                table.add([LinearRow(8, 6, SWALP, 0, 1, 0.5)])
            raise InputError("it cannot be done")

    with pytest.raises(InputError, match="it cannot be done"):
        refused("one")
    assert (tmp_path / "config.json").exists() == stored
    with pytest.raises(InputError, match="with study one, and other is asked for" if stored else "it cannot be done"):
        refused("other")


def test_a_table_is_read_as_it_was_written():
    rows = [LogisticRow("digits", 3, SWALP, 2**64 - 1, 1e-300, float("inf"), 0.1 + 0.2, 1.0)]
    assert tables.from_csv(LogisticRow, tables.to_csv(LogisticRow, rows)) == rows


# 4. Specifications ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"averaging_start": 200_000}, "averaging would never start: it starts after 200000 iterations, and there are 200000"),
        ({"iterations": 2**32}, "iterations"),
        ({"iterations": 0}, "iterations"),
        ({"seeds": ()}, "seeds must be one or more integers .* got none"),
        ({"seeds": (-1,)}, "seeds"),
        ({"seeds": 3}, "seeds must be integers in a sequence, got 3"),
        ({"samples": 0}, "samples must be an integer in"),
        ({"samples": 255}, "at least as many as features, 256, got 255"),
        ({"rate": 0}, "rate must be greater than 0"),
        ({"rate": "x"}, "factor"),
        ({"formats": (), "wide": None}, "at least one"),
        ({"formats": ("fxp-s8/6", "fxp-s8/6")}, "each named once"),
        ({"formats": ("fxp-s8/-1",)}, "fraction bits must not be negative"),
        ({"formats": ("fxp-u8/6",)}, "sign"),
        ({"formats": 8}, "sequence"),
        ({"data_seed": 2**32}, "data_seed"),
    ],
)
def test_linear_specifications_are_checked(change, message):
    with pytest.raises(InputError, match=message):
        LinearSpec(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "cifar10"}, "digits, mnist, fashion-mnist, got 'cifar10'"),
        ({"fraction_bits": (-1,)}, "fraction_bits"),
        ({"fraction_bits": ()}, "got none"),
        ({"averaging_start": 10**6}, "never start"),
        ({"samples": 0}, "samples"),
        ({"decay": -1}, "factor"),
        ({"fraction_bits": (62,)}, "word_bits"),
        ({"fraction_bits": (24,), "wide": "fxp-s28/24"}, "must be another"),
    ],
)
def test_logistic_specifications_are_checked(change, message):
    with pytest.raises(InputError, match=message):
        LogisticSpec(**change)


def test_more_samples_than_there_are_are_refused(tmp_path):
    with pytest.raises(InputError, match="digits has 1500 training samples, and 1501 are asked for"):
        run_logistic(LogisticSpec(samples=1501), tmp_path)


def test_defaults_are_provably_exact():
    """What the study trains by default passes the proof with the data as they are."""
    spec = LogisticSpec()
    problem = logistic_problem(datasets.load("digits", subset="train"), spec.decay)
    assert swalp_convex.train_sgd(problem, spec.runs(), spec.rate, spec.iterations, spec.averaging_start)
    brightest = SoftmaxRegression(np.full((1, 785), 256, np.int16), -8, np.zeros(1, int), 10, spec.decay)  # of MNIST
    assert swalp_convex.train_sgd(brightest, spec.runs(), spec.rate, spec.iterations, spec.averaging_start)
