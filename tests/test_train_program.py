"""The training program as its user meets it: what it writes and says, how it is stopped and goes on, what mistakes give."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from intnet import checkpoint, datasets, models
from intnet.errors import InputError
from intnet.files import locked
from intnet.recipe import RECIPES
from intnet.trainings import TrainingSpec, prepare

PROGRAM = Path(__file__).parents[1] / "experiments" / "train.py"
STOPPING = Path(__file__).with_name("stopping.py")
SMALL = ("--samples", "300", "--hidden", "12", "--epochs", "2", "--no-plots")
TEXTS = {"train.csv", "telemetry.csv", "config.json"}
FILES = TEXTS | {"checkpoint.npz", "report.html"}
PICTURES = {"training.png", "telemetry.png"}


def start(*arguments, python=(), **changes):
    """Start the program; `changes` are variables of its environment."""
    command = [sys.executable, *python, PROGRAM, *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "INTNET_DATA"} | changes
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def train(*arguments, **changes):
    """Run the program to its end."""
    with start(*arguments, **changes) as process:
        output, errors = process.communicate(timeout=600)  # the very first run compiles
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def check_refusal(run, *parts):
    """Check that a run ended with exit code 2 and one line, which has `parts` in it."""
    assert (run.returncode, run.stdout) == (2, ""), run
    lines = run.stderr.splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


def contents(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path(folder).iterdir()}


def names(folder):
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def bits(folder):
    """All that must not differ between two runs of one seed: everything but the seconds."""
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in table(folder / "train.csv")]
    stored = checkpoint.load(folder / "checkpoint.npz")
    arrays = {name: array.tobytes() for name, array in stored.arrays.items()}
    return rows, (folder / "telemetry.csv").read_bytes(), (folder / "config.json").read_bytes(), arrays


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make a finished training, for reading only."""
    folder = tmp_path_factory.mktemp("made") / "training"
    run = train("--out", folder, *SMALL)
    assert run.returncode == 0, run.stderr
    return folder, run


@pytest.fixture
def training(made, tmp_path):
    """Give each test a finished training of its own."""
    return shutil.copytree(made[0], tmp_path / "training")


# 1. What it says and writes


def test_help_teaches():
    run = train("--help")
    assert (run.returncode, run.stderr) == (0, "")
    parts = ("telemetry.csv", "training.png", "--lr-shift", "2^-K", "Exit codes", "python experiments/train.py --")
    for part in (*parts, *datasets.NAMES, *models.MODELS, *RECIPES):
        assert part in run.stdout


def test_the_report_and_the_files(made):
    folder, run = made
    assert run.stderr == ""
    *epochs, result, updates, fitting, place = run.stdout.splitlines()
    assert [line.split()[1] for line in epochs] == ["1/2", "2/2"]
    assert result.startswith("After 2 epochs: ")
    assert "test samples; loss" in result
    assert updates.startswith("Updates lost to rounding")
    assert "fit" in fitting
    assert place == f"Results: {folder}"
    assert names(folder) == FILES


def test_the_tables(made):
    rows = table(made[0] / "train.csv")
    assert list(rows[0]) == ["epoch", "train_loss", "train_accuracy", "test_accuracy", "seconds"]
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row in rows:
        assert 0 <= float(row["train_accuracy"]) <= 1
        assert float(row["train_accuracy"]) * 300 == pytest.approx(round(float(row["train_accuracy"]) * 300))
        assert float(row["train_loss"]) > 0
    readings = table(made[0] / "telemetry.csv")
    assert ",".join(readings[0]) == (
        "epoch,tensor,role,word_bits,fraction_bits,minimum,maximum,bits_used,saturated,wrapped,lost,count"
    )
    weight = [row for row in readings if (row["tensor"], row["role"]) == ("dense1.weight", "weight")]
    assert [(row["epoch"], row["word_bits"], row["fraction_bits"]) for row in weight] == [("1", "16", "14"), ("2", "16", "14")]
    assert {row["count"] for row in weight} == {str(10 * 12 * 64)}  # 300 samples in batches of 32


def test_the_configuration_is_whole(made):
    config = json.loads((made[0] / "config.json").read_text())
    train_part = datasets.load("digits", subset="train")
    assert config["dataset"]["name"] == "digits"
    assert len(config["dataset"]["train_checksum"]) == len(train_part.checksum)
    assert config["model"] == {"name": "mlp", "width": 1, "hidden": [12]}
    assert config["recipe"] == RECIPES["fixed16"].to_dict()
    assert config["loss_unit"].startswith("nats")
    assert config["optimizer"]["rate"] == "2^-3"
    assert (config["samples"], config["batch"], config["epochs"], config["epochs_done"], config["seed"]) == (300, 32, 2, 2, 0)
    stored = checkpoint.load(made[0] / "checkpoint.npz")
    ready = prepare(TrainingSpec(samples=300, hidden=(12,), epochs=2))
    checkpoint.restore(ready.trainer, stored, ready.config)
    assert config["weights_sha256"] == ready.trainer.network.digest()


def test_a_finished_run_writes_nothing_again_and_quiet_prints_nothing(training):
    before = contents(training)
    run = train("--out", training, *SMALL, "--quiet")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert contents(training) == before


def test_files_come_back_and_pictures_are_drawn_once(training):
    before = contents(training)
    for name in TEXTS:
        (training / name).unlink()
    assert train("--out", training, *SMALL[:-1], "--quiet").returncode == 0
    drawn = contents(training)
    assert names(training) == FILES | PICTURES
    for name in TEXTS:
        assert drawn[name][0] == before[name][0]
    assert train("--out", training, *SMALL[:-1], "--quiet").returncode == 0
    assert contents(training) == drawn


def test_a_network_that_dies_is_a_result(tmp_path):
    recipe = RECIPES["fixed16"].to_dict() | {"name": "mine", "weight": "fxp-s16/14 floor", "gradient": "fxp-s16/9 ties_even"}
    recipe["weight"] = "fxp-s16/14 ties_even"
    (tmp_path / "mine.json").write_text(json.dumps(recipe))
    out = tmp_path / "out"
    arguments = ("--out", out, *SMALL, "--recipe", tmp_path / "mine.json", "--rate", "2^-20", "--epochs", "5")
    run = train(*arguments)
    assert (run.returncode, run.stderr) == (0, "")
    assert "\nThe network has died: no weight has moved in the last 50 steps" in run.stdout
    assert json.loads((out / "config.json").read_text())["died"].startswith("the network has died")
    assert "The network has died" in train(*arguments).stdout


# 2. The same bits however it is run


@pytest.mark.parametrize("threads", ["1", "2"])
def test_any_run_of_a_seed_gives_the_same(threads, made, tmp_path):
    assert train("--out", tmp_path, *SMALL, "--quiet", "--threads", threads).returncode == 0
    assert bits(tmp_path) == bits(made[0])


LONG = ("--samples", "1500", "--batch", "10", "--hidden", "100", "--epochs", "6", "--momentum", "0.9", "--lr-shift", "6",
        "--augment", "--no-plots")  # fmt: skip


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Run a longer training without a stop."""
    folder = tmp_path_factory.mktemp("straight")
    assert train("--out", folder, *LONG, "--quiet").returncode == 0
    return bits(folder)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_and_resumed_it_gives_the_same(how, straight, tmp_path):
    stopping = (STOPPING, "intnet.checkpoint", "save", "2", str(int(how)))
    with start("--out", tmp_path, *LONG, python=stopping) as process:
        _, errors = process.communicate(timeout=600)
    assert process.returncode == (130 if how is signal.SIGINT else -how)
    if how is signal.SIGINT:
        line = f"Interrupted. Finished epochs are kept in {tmp_path}; the same command goes on from there."
        assert errors.split("\n") == ["", line, ""]
    done = checkpoint.load(tmp_path / "checkpoint.npz").epoch
    assert done == 2
    run = train("--out", tmp_path, *LONG)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[0] == f"Going on after epoch {done} of 6."
    assert bits(tmp_path) == straight


def test_more_epochs_go_on_where_the_schedule_allows(tmp_path):
    constant = (*SMALL, "--schedule", "constant", "--quiet")
    for folder, epochs in (("a", "1"), ("a", "3"), ("b", "3")):
        assert train("--out", tmp_path / folder, *constant, "--epochs", epochs).returncode == 0
    assert bits(tmp_path / "a") == bits(tmp_path / "b")
    before = contents(tmp_path / "a")
    check_refusal(train("--out", tmp_path / "a", *constant, "--epochs", "2"), "has 3 epochs behind it", "ends after 2")
    assert contents(tmp_path / "a") == before


# 3. Mistakes


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--epoch", "8"], ["unrecognized arguments: --epoch 8"]),
        (["--epochs", "0"], ["--epochs", "'0'", "1.."]),
        (["--lr-shift", "x"], ["--lr-shift", "'x'", "integer"]),
        (["--lr-shift", "3", "--rate", "0.1"], ["--rate", "not allowed with"]),
        (["--hidden", "10,0"], ["--hidden", "'10,0'", "1..65536"]),
        (["--width", "wide"], ["--width", "'wide'", "number"]),
        (["--out", ""], ["--out", "''", "path of a folder"]),
        (["--threads", "0"], ["--threads", "1..1024"]),
        (["--recipe", "nope"], ["recipe 'nope' is unknown", "fixed16", ".json"]),
    ],
    ids=" ".join,
)
def test_bad_arguments(arguments, parts, tmp_path):
    check_refusal(train("--out", tmp_path / "new", *arguments), *parts)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"dataset": "cifar"}, ["no data set 'cifar'", "digits, mnist"]),
        ({"model": "lenet"}, ["model 'lenet' is unknown", "lenet5"]),
        ({"model": "lenet5"}, ["conv2", "5x5"]),
        ({"model": "lenet5", "hidden": (3,)}, ["hidden layers are those of an mlp", "lenet5"]),
        ({"rate": "fast"}, ["a factor is a number", "'fast'"]),
        ({"momentum": "1"}, ["momentum must be less than 1"]),
        ({"momentum": "0.9", "recipe": "niti8"}, ["'niti8' has no momentum role"]),
        ({"rate": "0.1", "recipe": "niti8"}, ["power of two"]),
        ({"schedule": "cosine"}, ["constant, step or linear", "'cosine'"]),
        ({"loss": "hinge"}, ["loss 'hinge' is unknown"]),
        ({"width": 0.0}, ["width", "above 0"]),
        ({"samples": 1501}, ["1500 training samples, and 1501"]),
        ({"batch": 0}, ["batch must be"]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_what_cannot_be_trained(changes, parts):
    with pytest.raises(InputError) as caught:
        prepare(TrainingSpec(**changes))
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--recipe", "niti8"], ["recipe.name fixed16 there, niti8 here"]),
        (["--seed", "1"], ["seed 0 there, 1 here"]),
        (["--hidden", "13"], ["model.hidden [12] there, [13] here"]),
        (["--samples", "301"], ["dataset.train_checksum"]),
        (["--epochs", "3"], ["optimizer.schedule linear over 2 epochs there, linear over 3 epochs here"]),
    ],
    ids=" ".join,
)
def test_another_training_in_the_folder(arguments, parts, training):
    before = contents(training)
    check_refusal(train("--out", training, *SMALL, *arguments), str(training), "another training", "--fresh", *parts)
    assert contents(training) == before


def test_fresh_sets_the_old_one_aside(training):
    before = contents(training)
    run = train("--out", training, *SMALL, "--seed", "1", "--fresh")
    assert run.returncode == 0, run.stderr
    (aside,) = (folder for folder in training.parent.iterdir() if folder != training)
    assert contents(aside) == before
    assert run.stdout.splitlines()[0] == f"The old results are in {aside}"
    assert names(training) == FILES


def test_a_damaged_checkpoint_is_refused(training):
    os.truncate(training / "checkpoint.npz", 1000)
    before = contents(training)
    check_refusal(train("--out", training, *SMALL), str(training / "checkpoint.npz"), "damaged", "--fresh")
    assert contents(training) == before


def test_a_checkpoint_is_missing(training):
    (training / "checkpoint.npz").unlink()
    before = contents(training)
    check_refusal(train("--out", training, *SMALL), "earlier training", "no checkpoint.npz", "--fresh")
    assert contents(training) == before


def test_a_second_run_at_the_same_time(training):
    before = contents(training)
    with locked(training):
        check_refusal(train("--out", training, *SMALL), str(training), "in use by another run")
    assert contents(training) == before


@pytest.mark.parametrize("below", ["train.csv", "train.csv/below"])
def test_a_place_that_is_no_folder(below, training):
    before = contents(training)
    check_refusal(train("--out", training / below, *SMALL), str(training / below), "--out")
    assert contents(training) == before


def test_fresh_leaves_other_files_alone(tmp_path):
    (tmp_path / "chapter1.tex").write_text("precious")
    before = contents(tmp_path)
    check_refusal(train("--out", tmp_path, *SMALL, "--fresh"), str(tmp_path), "holds no study", "choose another --out")
    assert contents(tmp_path) == before


def test_data_that_are_not_there(tmp_path):
    run = train("--dataset", "mnist", "--data-dir", tmp_path / "nowhere", "--out", tmp_path / "out")
    check_refusal(run, str(tmp_path / "nowhere"), "does not exist")
    assert not (tmp_path / "out").exists()
