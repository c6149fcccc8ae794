"""The program of few-bit weights as its user meets it: its files, how it is stopped and goes on, what mistakes give.

Most runs are in this process, as its start takes longer than they do; what is stopped is a process of its own.
"""

import json
import shutil
import signal
import sys
from unittest import mock

import numpy as np
import pytest
from programs import Program, check_refusal, contents, names, rewrite, table, times

from intnet import checkpoint, files
from intnet.studies import compression, quantization

program, training, pruning = Program("quantization.py"), Program("train.py"), Program("pruning.py")
DENSE = ("--dataset", "digits", "--model", "mlp", "--width", "0.25", "--samples", "100", "--train-epochs", "2")
TUNED = ("--bits", "4,2", "--schemes", "affine,symmetric", "--tune-bits", "2", "--finetune", "2", "--batch", "50")
FILES = {"config.json", "untuned.csv", "quantization.csv", "table.md", "report.html", "dense", "runs"}
HEADER = "scheme,bits,finetuned,test_loss,test_accuracy"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Train a perceptron, code its weights and tune it once, for reading only."""
    folder = tmp_path_factory.mktemp("made") / "study"
    run = program(*TUNED, *DENSE, "--out", folder)
    assert run.returncode == 0, run.stderr
    return folder, run


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """Prune a small ResNet-20, for reading only: the folder of the tuning."""
    folder = tmp_path_factory.mktemp("made") / "pruned"
    dense = ("--dataset", "digits", "--width", "0.25", "--samples", "32", "--train-epochs", "1")
    tuned = ("--methods", "one-shot", "--epochs", "1", "--percentiles", "80", "--batch", "16", "--no-plots")
    run = pruning("--study", "resnet20", *dense, *tuned, "--out", folder)
    assert run.returncode == 0, run.stderr
    return folder / "runs" / "one-shot-80"


def begun(made):
    return ("--from", made[0] / "dense")


# 1. What it says and writes ---------------------------------------------------------------------------------------------


def test_help_teaches():
    run = program("--help")
    assert (run.returncode, run.stderr) == (0, "")
    for part in (
        *("affine", "symmetric", "--from CHECKPOINT", "--finetune N", "--tune-bits A,B", "'*/body/*'", "Exit codes"),
        *("quantization.csv", "quantization.png", "table.md", "dense/", "runs/", "experiments/train.py"),
        *("scheme, bits, finetuned", "test_loss, test_accuracy", "goes on when the same command", "1..8"),
    ):
        assert part in run.stdout
    for option in ("layers", "input-bits", "data-dir", "train-seed", "rate", "decay", "threads", "out", "fresh", "quiet"):
        assert f"--{option} " in run.stdout


def test_examples_of_the_help_are_read():
    text = program("--help").stdout
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("python experiments/quantization.py")]
    assert len(lines) >= 4
    with mock.patch("intnet.commandline.run", lambda parse, *_: sys.exit(parse() is None)):
        for line in lines:
            assert program(*line.split()[2:]).returncode == 0, line


def test_the_study(made):
    folder, run = made
    assert run.stderr == ""
    assert names(folder) == FILES | {"quantization.png"}
    assert names(folder / "runs") == {"affine-2", "symmetric-2"}
    rows = table(folder / "quantization.csv")
    assert ",".join(rows[0]) == HEADER
    assert [(row["scheme"], row["bits"], row["finetuned"]) for row in rows] == [
        ("none", "16", "0"),
        *((name, bits, "0") for name in ("affine", "symmetric") for bits in "42"),
        *((name, "2", epoch) for name in ("affine", "symmetric") for epoch in "12"),
    ]
    for row in rows:
        assert all(repr(float(row[name])) == row[name] for name in ("test_loss", "test_accuracy"))
        assert float(row["test_accuracy"]) * 100 == pytest.approx(round(float(row["test_accuracy"]) * 100))
    lines = run.stdout.splitlines()
    assert [line.partition("   test")[0].split() for line in lines[:6]] == [
        *(["dense", "epoch", epoch] for epoch in "12"),
        *([f"{name},", "2", "bits", "epoch", epoch] for name in ("affine", "symmetric") for epoch in "12"),
    ]
    assert lines[6].startswith("Start: ")
    assert "in the course" not in run.stdout  # these are digits
    assert (folder / "table.md").read_text() in run.stdout
    assert lines[-1] == f"Results: {folder}"
    assert (folder / "quantization.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    config = json.loads((folder / "config.json").read_text())
    assert (config["study"], config["model"]["name"], config["layers"]) == (
        "quantization", "mlp", "all but the first and the last"
    )  # fmt: skip
    assert config["start_sha256"] == compression.load(folder / "dense").digest
    assert names(folder) <= {*quantization.STUDY.files, "report.html", "runs"}  # so --fresh knows them


def test_quiet_says_nothing_and_without_plots_there_is_none(made, tmp_path):
    run = program(*begun(made), "--quiet", "--no-plots", "--scale", "power", "--input-bits", "5", "--out", tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert names(tmp_path) == FILES - {"dense", "runs"}
    found = [(row["scheme"], row["bits"]) for row in table(tmp_path / "quantization.csv")]
    assert found == [("none", "16"), *(("affine-power-inputs5", bits) for bits in "65432")]


def test_a_checkpoint_of_the_training_program_is_a_start(tmp_path):
    options = ("--samples", "100", "--hidden", "6,5", "--epochs", "1", "--no-plots", "--quiet", "--out", tmp_path / "trained")
    assert training(*options).returncode == 0
    for name, where in (("a", tmp_path / "trained"), ("b", tmp_path / "trained" / "checkpoint.npz")):
        run = program("--from", where, "--bits", "3", "--no-plots", "--out", tmp_path / name)
        assert run.returncode == 0, run.stderr
    rows = table(tmp_path / "a" / "quantization.csv")
    assert rows[0]["test_accuracy"] == table(tmp_path / "trained" / "train.csv")[-1]["test_accuracy"]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_zeros_of_a_pruned_network_stay_while_it_is_tuned(pruned, tmp_path):
    options = ("--model", "resnet20", "--bits", "3", "--finetune", "2", "--batch", "16", "--rate", "0.1", "--no-plots")
    run = program("--from", pruned, *options, "--out", tmp_path)
    assert run.returncode == 0, run.stderr
    before, after = (checkpoint.load(one / "checkpoint.npz").arrays for one in (pruned, tmp_path / "runs" / "affine-3"))
    masks = {name: array for name, array in before.items() if name.endswith("/mask")}
    assert len(masks) == 20
    for name, mask in masks.items():
        np.testing.assert_array_equal(after[name], mask)
        weights = after[name.replace("/mask", "/master")]
        assert not weights[~mask].any()
        assert not after[name.replace("/mask", "/value")][~mask].any()
        assert (weights != before[name.replace("/mask", "/master")]).any()
    assert 0.75 < 1 - np.concatenate([mask.reshape(-1) for mask in masks.values()]).mean() < 0.8
    again = program("--from", tmp_path / "runs" / "affine-3", "--bits", "3", "--no-plots", "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    rows, tuned = table(tmp_path / "again" / "quantization.csv"), table(tmp_path / "quantization.csv")
    assert rows[1]["test_loss"] == tuned[-1]["test_loss"]  # the tuned network coded again


# 2. Going on ------------------------------------------------------------------------------------------------------------


def same(folder, made):
    """Check that a study has the bits of another."""
    ours, theirs = contents(folder), contents(made[0])
    for name in ("untuned.csv", "quantization.csv", "table.md", "config.json"):
        assert ours[name] == theirs[name]
    for run in ("affine-2", "symmetric-2"):
        assert ours[f"runs/{run}/epochs.csv"] == theirs[f"runs/{run}/epochs.csv"]
        assert compression.load(folder / "runs" / run).digest == compression.load(made[0] / "runs" / run).digest


def test_a_finished_study_is_only_read(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    before = times(folder)
    run = program(*TUNED, *DENSE, "--out", folder, "--no-plots", "--quiet")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert times(folder) == before
    again = program(*TUNED, *begun(made), "--out", folder, "--threads", "1")
    assert made[1].stdout.endswith(again.stdout.replace(str(folder), str(made[0])))
    assert contents(folder) == contents(made[0])  # the picture, too


def test_killed_and_resumed_and_by_two_processes_it_gives_the_same(made, tmp_path):
    """Within its second epoch. A second process that comes while the first is in the study's own table has to come again."""
    options = (*TUNED, *begun(made), "--no-plots", "--out", tmp_path)
    run = program.stopped(signal.SIGKILL, ("intnet.training", "Trainer.step"), 3, *options)
    assert run.returncode == -signal.SIGKILL
    assert checkpoint.load(tmp_path / "runs" / "affine-2" / "checkpoint.npz").epoch == 1
    assert not (tmp_path / "quantization.csv").exists()
    both = [program.start(*options) for _ in range(2)]
    ended = [(*process.communicate(timeout=600), process.returncode) for process in both]
    for output, errors, code in ended:
        assert code == 0 or (code == 2 and "in use by another run" in errors), ended
        assert code == 2 or "Results: " in output
    assert 0 in [code for _, _, code in ended]
    assert program(*options).returncode == 0
    same(tmp_path, made)


def test_interrupted_it_says_how_to_go_on(made, tmp_path):
    options = (*TUNED, *DENSE, "--out", tmp_path)
    run = program.stopped(signal.SIGINT, ("intnet.checkpoint", "save"), 3, *options)
    assert run.returncode == 130
    assert run.stderr.strip() == f"Interrupted. Finished epochs are kept in {tmp_path}; the same command goes on from there."
    assert (tmp_path / "untuned.csv").read_bytes() == (made[0] / "untuned.csv").read_bytes()
    assert checkpoint.load(tmp_path / "runs" / "affine-2" / "checkpoint.npz").epoch == 1
    assert program(*options, "--no-plots").returncode == 0
    same(tmp_path, made)


def test_what_another_process_tunes_is_left_alone(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    shutil.rmtree(folder / "runs" / "affine-2")
    (folder / "runs" / "affine-2").mkdir()
    with files.locked(folder / "runs" / "affine-2"):
        run = program(*TUNED, *begun(made), "--no-plots", "--out", folder)
    assert (run.returncode, run.stderr) == (0, "")
    assert "Trained by another command meanwhile: affine-2." in run.stdout
    assert {row["scheme"] for row in table(folder / "quantization.csv") if row["finetuned"] != "0"} == {"symmetric"}
    assert program(*TUNED, *begun(made), "--no-plots", "--out", folder).returncode == 0
    same(folder, made)


def test_fresh_sets_the_old_one_aside(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    run = program(*TUNED, *DENSE, "--no-plots", "--fresh", "--out", folder)
    assert (run.returncode, run.stderr) == (0, "")
    (aside,) = (path for path in tmp_path.iterdir() if path != folder)
    assert run.stdout.splitlines()[0] == f"The old results are in {aside}"
    assert contents(aside) == contents(made[0])
    same(folder, made)


def test_more_bits_are_added(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    run = program(*begun(made), "--bits", "5,2", "--finetune", "2", "--batch", "50", "--no-plots", "--out", folder)
    assert run.returncode == 0, run.stderr
    assert "affine, 5 bits epoch   2" in run.stdout
    assert "affine, 2 bits epoch" not in run.stdout  # it is there
    kept = table(made[0] / "quantization.csv")
    found = table(folder / "quantization.csv")
    assert [(row["scheme"], row["bits"], row["finetuned"]) for row in found] == [
        ("none", "16", "0"), ("affine", "5", "0"), ("affine", "2", "0"), *(("affine", bits, n) for bits in "52" for n in "12")
    ]  # fmt: skip
    assert all(row in kept for row in found if row["bits"] != "5")
    assert names(folder / "runs") == {"affine-2", "symmetric-2", "affine-5"}
    assert program(*TUNED, *begun(made), "--no-plots", "--quiet", "--out", folder).returncode == 0
    assert (folder / "quantization.csv").read_bytes() == (made[0] / "quantization.csv").read_bytes()


def test_a_tuning_that_died_is_told(made, tmp_path):
    run = program(
        *begun(made), "--bits", "3", "--finetune", "1", "--rate", "2^-40", "--decay", "0", "--no-plots", "--out", tmp_path
    )
    assert run.returncode == 0, run.stderr
    assert "no weight has moved" in (tmp_path / "runs" / "affine-3" / "ended.txt").read_text()
    assert "the network has died" in run.stdout


# 3. Mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--bits", "0"), ("weights are coded in 1..8 bits, got 0",)),
        (("--bits", "9"), ("weights are coded in 1..8 bits, got 9",)),
        (("--bits", "4,9"), ("got 9",)),
        (("--bits", "-1"), ("weights are coded in 1..8 bits, got -1",)),
        (("--bits", "few"), ("--bits", "got 'few'", "values A,B,C")),
        (("--bits", "2.5"), ("--bits", "got '2.5'")),
        (("--bits", ""), ("--bits", "got ''")),
        (("--bits", "4,"), ("--bits", "got '4,'")),
        (("--bits", "8:2"), ("--bits", "which is empty")),
        (("--schemes", "signed"), ("scheme is affine or symmetric, got 'signed'",)),
        (("--schemes", "affine,"), ("got ''",)),
        (("--scale", "exact"), ("--scale", "invalid choice: 'exact'", "ratio")),
        (("--bits", "4,2", "--tune-bits", "3"), ("fine-tuned are some of the bits 4, 2, got 3",)),
        (("--tune-bits", "few"), ("--tune-bits", "got 'few'")),
        (("--input-bits", "9"), ("--input-bits", "got '9'", "1..8")),
        (("--input-bits", "0"), ("--input-bits", "got '0'", "1..8")),
        (("--finetune", "-1"), ("--finetune", "got '-1'")),
        (("--finetune", "many"), ("--finetune", "got 'many'")),
        (("--layers", "dense9"), ("no layer with weights is called 'dense9'; there are dense1, dense2, dense3",)),
        (("--layers", "dense1,"), ("no layer with weights is called ''",)),
        (("--layers", "dense1", "--input-bits", "1"), ("the inputs of layer 'dense1' may be negative",)),
        (("--rate", "0"), ("rate must be above 0",)),
        (("--rate", "nan"), ("rate: a factor is a number", "'nan'")),
        (("--momentum", "1"), ("momentum must be less than 1",)),
        (("--decay", "-1"), ("decay: a factor must be 0",)),
        (("--batch", "0"), ("--batch", "got '0'")),
        (("--study", "resnet20"), ("unrecognized arguments: --study resnet20",)),
        (("--percentile", "80"), ("unrecognized arguments: --percentile 80",)),
        (("--model", "resnet20"), ("is a checkpoint of model mlp, and resnet20 is asked for; give another --from",)),
        (("--dataset", "mnist"), ("was trained on digits, and mnist is asked for; leave --dataset out",)),
        *(((f"--{name}", "1"), (f"--{name} is for a network that is trained here",)) for name in ("width", "train-epochs")),
        *(((f"--{name}", "1"), (f"--{name} is for a network that is trained here",)) for name in ("train-seed", "samples")),
        (("--recipe", "int8"), ("--recipe is for a network that is trained here",)),
    ],
)
def test_mistakes_are_one_line(arguments, parts, made, tmp_path):
    check_refusal(program(*begun(made), *arguments, "--out", tmp_path / "none"), *parts)
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--dataset", "flowers"), ("no data set 'flowers'", "cifar10")),
        (("--dataset", "digits", "--model", "resnet"), ("model 'resnet' is unknown", "resnet20")),
        (("--dataset", "digits", "--model", "lenet5"), ("conv2", "5x5")),
        (("--dataset", "digits", "--model", "mlp", "--recipe", "int9"), ("recipe 'int9' is unknown",)),
        (("--dataset", "digits", "--samples", "9999"), ("9999 are asked for",)),
        (("--dataset", "mnist", "--data-dir", "EMPTY"), ("MNIST",)),
        (("--from", "EMPTY"), ("checkpoint.npz cannot be read: No such file",)),
        (("--from", "EMPTY/none.npz"), ("none.npz cannot be read: No such file",)),
        (("--data-dir", ""), ("--data-dir", "got ''")),
    ],
)
def test_no_start_is_one_line(arguments, parts, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = [str(one).replace("EMPTY", str(tmp_path / "empty")) for one in arguments]
    check_refusal(program(*arguments, "--out", tmp_path / "none"), *parts)
    assert names(tmp_path) == {"empty"}


def test_a_start_that_does_not_fit(made, tmp_path):
    where = made[0] / "dense" / "checkpoint.npz"
    rewrite(where, tmp_path / "halp.npz", lambda config, _: config.update(model="resnet18"))
    rewrite(where, tmp_path / "thin.npz", lambda config, _: config.pop("dataset"))
    rewrite(where, tmp_path / "other.npz", lambda config, _: config["dataset"].update(test_checksum="0" * 64))
    rewrite(where, tmp_path / "wide.npz", lambda config, _: config["model"].update(width=0.5))
    (tmp_path / "text.npz").write_text("not at all")
    before = names(tmp_path)
    for name, part in (
        ("halp.npz", "is of another study; give a checkpoint of experiments/train.py"),
        ("thin.npz", "does not say its dataset"),
        ("other.npz", "was trained on other data than digits"),
        ("wide.npz", "does not hold the weights of its mlp"),
        ("text.npz", "no checkpoint of intnet"),
        (made[0], "checkpoint.npz cannot be read: No such file"),
    ):
        check_refusal(program("--from", tmp_path / name, "--out", tmp_path / "none"), part)
        assert names(tmp_path) == before


def test_too_few_layers_are_told(tmp_path):
    options = ("--samples", "50", "--hidden", "6", "--epochs", "1", "--no-plots", "--quiet", "--out", tmp_path / "trained")
    assert training(*options).returncode == 0
    run = program("--from", tmp_path / "trained", "--out", tmp_path / "none")
    check_refusal(run, "no layers between its first and its last; name the layers")
    run = program("--from", tmp_path / "trained", "--layers", "dense*", "--bits", "4", "--no-plots", "--out", tmp_path / "a")
    assert run.returncode == 0, run.stderr


def test_folders_of_others_and_damaged_ones(made, pruned, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    shutil.copytree(pruned.parents[1], tmp_path / "pruned")
    before = contents(tmp_path)
    for options, where, parts in (
        ((*TUNED, *begun(made)), tmp_path / "other", ("holds thesis.txt, which is none of this study's",)),
        ((*TUNED, *begun(made), "--fresh"), tmp_path / "other", ("holds no study",)),
        ((*TUNED, *begun(made)), tmp_path / "pruned", ("holds a study of pruning, and this is one of quantization",)),
        ((*TUNED, "--from", made[0] / "runs" / "affine-2"), folder, ("start_sha256", "--fresh")),
        ((*TUNED, *begun(made), "--layers", "dense1"), folder, ("layers all but the first and the last", "--fresh")),
        ((*TUNED, *begun(made), "--seed", "2"), folder, ("affine-2: the checkpoint is of another training", "seed 1 there")),
        ((*TUNED, *DENSE, "--width", "0.5"), folder, ("dense: the checkpoint is of another training", "width")),
    ):
        check_refusal(program(*options, "--out", where, "--quiet"), *parts)
        assert contents(tmp_path) == before
    for name in ("untuned.csv", "config.json", "runs/affine-2/checkpoint.npz", "dense/checkpoint.npz"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-9])
        check_refusal(program(*TUNED, *DENSE, "--out", folder), str(folder / name), "damaged", "--fresh")
        assert (folder / name).read_bytes() == whole[:-9]
        (folder / name).write_bytes(whole)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("refused", [("--layers", "dense9"), ("--model", "resnet20"), ("--train-epochs", "3")])
def test_a_refused_command_with_fresh_leaves_the_old_study_where_it_is(refused, made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    run = program(*TUNED, *begun(made), *refused, "--fresh", "--quiet", "--out", folder)
    assert (run.returncode, names(tmp_path)) == (2, {"study"})
    assert contents(folder) == contents(made[0])


def test_unknown_layers_are_refused_before_a_network_is_trained(tmp_path):
    run = program(*DENSE, "--layers", "dense9", "--quiet", "--out", tmp_path / "study")
    check_refusal(run, "no layer with weights is called")
    assert names(tmp_path) == set()


def test_a_rate_that_cannot_be_is_refused_before_a_network_is_trained(tmp_path):
    run = program(*DENSE, "--finetune", "1", "--rate", "2^-48", "--quiet", "--out", tmp_path / "study")
    check_refusal(run, "rate 2^-48")
    assert names(tmp_path) == set()
