"""The program of pruning as its user meets it: its files, how it is stopped and goes on, what mistakes give.

Most runs are in this process, as its start takes longer than they do; what is stopped is a process of its own.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
from unittest import mock

import pytest
from programs import Program, check_refusal, contents, names, rewrite, table, times

from intnet import checkpoint, files
from intnet.studies import compression, pruning, sparse_linear, tables

program = Program("pruning.py")
LINEAR = ("--study", "linear", "--steps", "20", "--fraction-bits", "16,12", "--methods", "gd,trimmed")
DENSE = ("--dataset", "digits", "--width", "0.25", "--samples", "64", "--train-epochs", "2")
TUNED = ("--study", "resnet20", "--epochs", "3", "--prune-epochs", "2", "--percentiles", "50", "--batch", "32")
ITERATIVE = (*TUNED, "--methods", "iterative", "--percentile", "70")
OPTIONS = (  # of a network
    *("from", "dataset", "model", "width", "recipe", "train-epochs", "samples", "train-seed", "data-dir"),
    *("batch", "rate", "momentum", "decay", "seed", "epochs", "prune-epochs", "percentile", "percentiles"),
)
FILES = {"config.json", "untuned.csv", "pruning.csv", "sparsity.csv", "table.md", "report.html", "dense", "runs"}


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    """Run the small study once, for reading only."""
    folder = tmp_path_factory.mktemp("made") / "linear"
    return folder, program(*LINEAR, "--out", folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Train, prune and tune a network once, for reading only."""
    folder = tmp_path_factory.mktemp("made") / "study"
    run = program(*TUNED, *DENSE, "--methods", "one-shot,iterative", "--percentile", "70", "--out", folder)
    assert run.returncode == 0, run.stderr
    return folder, run


def begun(made):
    return ("--from", made[0] / "dense")


# 1. What it says and writes ---------------------------------------------------------------------------------------------


def test_help_teaches():
    run = program("--help")
    assert (run.returncode, run.stderr) == (0, "")
    for part in (
        *("linear", "resnet20", "projected", "proximal", "trimmed", "--from CHECKPOINT", "--percentiles A,B", "Exit codes"),
        *("linear.csv", "pruning.csv", "sparsity.csv", "table.md", "dense/", "runs/", "experiments/quantization.py"),
        *("goes on when the same command", "python experiments/pruning.py --study linear"),
        *pruning.METHODS,
        *("the network to start from", "fine-tuning:"),
    ):
        assert part in run.stdout
    for option in (*OPTIONS, "methods", "fraction-bits", "steps", "threads", "out", "fresh", "no-plots", "quiet"):
        assert f"--{option} " in run.stdout


def test_examples_of_the_help_are_read():
    text = program("--help").stdout
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("python experiments/pruning.py")]
    assert len(lines) >= 4
    read = []
    with mock.patch("intnet.commandline.run", lambda parse, *_: (read.append(parse()), sys.exit(0))):
        for line in lines:
            words = line.partition("      ")[0].split()[2:]
            assert program(*words).returncode == 0, line
    assert {one.study for one in read} == {"linear", "resnet20"}


def test_the_linear_study(linear):
    folder, run = linear
    assert (run.returncode, run.stderr) == (0, "")
    assert names(folder) == {"config.json", "report.html", *sparse_linear.FILES}
    rows = table(folder / "linear.csv")
    assert ",".join(rows[0]) == "method,parameter,fraction_bits,step,loss,w0,w1,w2,w3,w4"
    assert len(rows) == 5 * 2 * 21
    assert {(row["loss"], row["w0"], row["w4"]) for row in rows if row["step"] == "0"} == {("51.0", "0.0", "0.0")}
    spec = sparse_linear.LinearSpec(("gd", "trimmed"), (16, 12), 20)
    expected = sparse_linear.describe(sparse_linear.run(spec, folder))
    assert run.stdout.splitlines() == [*expected, f"Results: {folder}"]
    for name in ("linear.png", "linear-bits.png"):
        assert (folder / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_study_of_a_network(made):
    folder, run = made
    assert run.stderr == ""
    assert names(folder) == FILES | set(pruning.PICTURES)
    assert names(folder / "runs") == {"one-shot-70", "iterative-70"}
    rows = table(folder / "pruning.csv")
    assert ",".join(rows[0]) == "method,percentile,epoch,sparsity,test_loss,test_accuracy"
    assert [(row["method"], row["percentile"], row["epoch"]) for row in rows] == [
        ("dense", "0.0", "0"),
        *((name, share, "0") for name in ("one-shot", "one-shot-global") for share in ("50.0", "70.0")),
        *(("one-shot", "70.0", epoch) for epoch in "123"),
        *(("iterative", share, epoch) for epoch, share in (("1", "35.0"), ("2", "70.0"), ("3", "70.0"))),
    ]
    layers = table(folder / "sparsity.csv")
    assert ",".join(layers[0]) == "method,layer,weights,zeros,sparsity"
    assert {row["method"] for row in layers} == {"one-shot", "one-shot-global", "iterative"}
    lines = run.stdout.splitlines()
    assert [line.split()[:3] for line in lines[:8]] == [
        *(["dense", "epoch", one] for one in "12"),
        *([name, "epoch", one] for name in ("one-shot", "iterative") for one in "123"),
    ]
    assert lines[8].startswith("Dense: ")
    assert (folder / "table.md").read_text() in run.stdout
    assert lines[-1] == f"Results: {folder}"
    config = json.loads((folder / "config.json").read_text())
    assert (config["study"], config["dataset"]["name"], config["samples"]) == ("pruning", "digits", 64)
    assert config["start_sha256"] == compression.load(folder / "dense").digest
    assert names(folder) <= {*pruning.STUDY.files, "report.html", "runs"}  # so --fresh knows them


def test_the_dense_network_is_a_training_like_any_other(made):
    assert names(made[0] / "dense") == {"checkpoint.npz", "train.csv", "telemetry.csv", "config.json"}
    stored = checkpoint.load(made[0] / "dense" / "checkpoint.npz")
    assert stored.epoch == 2
    assert stored.config["model"] == {"name": "resnet20", "width": 0.25}


def test_quiet_says_nothing_and_without_plots_there_is_none(made, tmp_path):
    for options in ((*LINEAR, "--out", tmp_path / "a"), (*ITERATIVE, *begun(made), "--epochs", "0", "--out", tmp_path / "b")):
        run = program(*options, "--quiet", "--no-plots")
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert names(tmp_path / "a") == {"config.json", "linear.csv", "table.md", "report.html"}
    assert names(tmp_path / "b") == FILES - {"dense", "runs"}


def test_without_plots_matplotlib_is_not_needed(tmp_path):
    code = (
        "import runpy, sys; sys.modules['matplotlib'] = None; sys.argv.pop(0); sys.path[0] = sys.argv.pop(0); "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, program.path.parent, program.path, *LINEAR, "--no-plots", "--out", tmp_path / "a"]
    run = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert names(tmp_path / "a") == {"config.json", "linear.csv", "table.md", "report.html"}


# 2. Going on ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("study", ["linear", "resnet20"])
def test_a_finished_study_is_only_read(study, linear, made, tmp_path):
    whole, first = linear if study == "linear" else made
    folder = shutil.copytree(whole, tmp_path / "study")
    options = LINEAR if study == "linear" else (*TUNED, *DENSE, "--methods", "one-shot,iterative", "--percentile", "70")
    before = times(folder)
    run = program(*options, "--out", folder, "--no-plots", "--quiet")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert times(folder) == before
    again = program(*options, "--out", folder, "--threads", "1", "--no-plots")
    assert first.stdout.endswith(again.stdout.replace(str(folder), str(whole)))
    assert contents(folder) == contents(whole)


def same(folder, made, run="iterative-70"):
    """Check that a study of one method has the bits of the whole one."""
    for name in ("epochs.csv", "sparsity.csv"):
        assert (folder / "runs" / run / name).read_bytes() == (made[0] / "runs" / run / name).read_bytes()
    ours, theirs = (checkpoint.load(one / "runs" / run / "checkpoint.npz") for one in (folder, made[0]))
    assert compression.load(folder / "runs" / run).digest == compression.load(made[0] / "runs" / run).digest
    assert {name: array.tobytes() for name, array in ours.arrays.items()} == {
        name: array.tobytes() for name, array in theirs.arrays.items()
    }
    for name in ("untuned.csv", "config.json"):
        assert (folder / name).read_bytes() == (made[0] / name).read_bytes()
    kept = [row for row in table(folder / "pruning.csv") if row["method"] in ("iterative", "dense")]
    assert kept == [row for row in table(made[0] / "pruning.csv") if row["method"] in ("iterative", "dense")]


def epochs(run):
    """Return the names and numbers of the epochs that a run told of."""
    found = [re.fullmatch(r" *(.+) epoch +(\d+)   test .*", line) for line in run.stdout.splitlines()]
    return [one.groups() for one in found if one]


def test_killed_twice_and_resumed_it_gives_the_same(made, tmp_path):
    """First when an epoch of the dense network is kept, then within the epoch of pruning that ends with the mask."""
    options = (*ITERATIVE, *DENSE, "--no-plots", "--out", tmp_path)
    run = program.stopped(signal.SIGKILL, ("intnet.checkpoint", "save"), 1, *options)
    assert run.returncode == -signal.SIGKILL
    assert names(tmp_path) == {"dense"}
    assert checkpoint.load(tmp_path / "dense" / "checkpoint.npz").epoch == 1
    run = program.stopped(signal.SIGKILL, ("intnet.training", "Trainer.step"), 1 + 2 + 1, *options)
    assert run.returncode == -signal.SIGKILL
    assert epochs(run) == [("dense", "2"), ("iterative", "1")]
    assert checkpoint.load(tmp_path / "runs" / "iterative-70" / "checkpoint.npz").epoch == 1
    assert not (tmp_path / "pruning.csv").exists()
    run = program(*options, "--threads", "2")
    assert run.returncode == 0, run.stderr
    assert epochs(run) == [("iterative", "2"), ("iterative", "3")]
    same(tmp_path, made)


def test_interrupted_it_says_how_to_go_on(made, tmp_path):
    options = (*ITERATIVE, *begun(made), "--out", tmp_path, "--fresh")
    run = program.stopped(signal.SIGINT, ("intnet.studies.tables", "Table.add"), 2, *options)
    assert (run.returncode, run.stdout) == (130, "")
    assert run.stderr.strip() == (
        f"Interrupted. Finished epochs are kept in {tmp_path}; the same command without --fresh goes on from there."
    )
    assert [row in table(made[0] / "untuned.csv") for row in table(tmp_path / "untuned.csv")] == [True, True]


def test_interrupted_runs_of_the_linear_study_are_kept(tmp_path):
    run = program.stopped(signal.SIGINT, ("intnet.compression.sparse", "SparseDescent.run"), 3, *LINEAR, "--out", tmp_path)
    assert "Finished runs are kept" in run.stderr
    assert len({(row["method"], row["parameter"]) for row in table(tmp_path / "linear.csv")}) >= 2


def test_a_method_that_another_process_trains_is_left_alone(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    shutil.rmtree(folder / "runs" / "iterative-70")
    options = (*TUNED, *begun(made), "--percentile", "70", "--methods", "one-shot,iterative", "--no-plots", "--out", folder)
    (folder / "runs" / "iterative-70").mkdir()
    with files.locked(folder / "runs" / "iterative-70"):
        run = program(*options)
    assert (run.returncode, run.stderr) == (0, "")
    assert "Trained by another command meanwhile: iterative-70." in run.stdout
    assert {row["method"] for row in table(folder / "pruning.csv") if row["epoch"] != "0"} == {"one-shot"}
    assert program(*options).returncode == 0
    same(folder, made)


def test_fresh_sets_the_old_one_aside(made, linear, tmp_path):
    """Whichever study it is, nothing stored is lost."""
    folder = shutil.copytree(made[0], tmp_path / "study")
    run = program(*LINEAR, "--out", folder, "--fresh", "--no-plots")
    assert (run.returncode, run.stderr) == (0, "")
    (aside,) = (path for path in tmp_path.iterdir() if path != folder)
    assert run.stdout.splitlines()[0] == f"The old results are in {aside}"
    assert contents(aside) == contents(made[0])
    shown = {name for name in contents(linear[0]) if name.endswith((".png", ".html"))}  # the report shows the pictures
    kept = {name: text for name, text in contents(folder).items() if name != "report.html"}
    assert kept == {name: text for name, text in contents(linear[0]).items() if name not in shown}
    before = contents(folder)
    shutil.rmtree(aside)
    run = program(*ITERATIVE, *begun(made), "--no-plots", "--quiet", "--fresh", "--out", folder)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    (aside,) = (path for path in tmp_path.iterdir() if path != folder)
    assert contents(aside) == before
    same(folder, made)


# 3. Mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ("--study", "required")),
        (("--study", "resnet18"), ("invalid choice: 'resnet18'", "linear")),
        ((*TUNED, "--percentile", "-1"), ("percentile must be at least 0, got -1.0",)),
        ((*TUNED, "--percentile", "101"), ("percentile must be at most 100, got 101.0",)),
        ((*TUNED, "--percentile", "nan"), ("percentile must be at least 0, got nan",)),
        ((*TUNED, "--percentile", "80%"), ("--percentile", "got '80%'", "a number")),
        ((*TUNED, "--percentiles", "20,-1"), ("percentiles must be at least 0, got -1.0",)),
        ((*TUNED, "--percentiles", "-1,20"), ("percentiles must be at least 0, got -1.0",)),
        ((*TUNED, "--percentiles", "20,101"), ("percentiles must be at most 100, got 101.0",)),
        ((*TUNED, "--percentiles", "nan"), ("percentiles must be at least 0, got nan",)),
        ((*TUNED, "--percentiles", ""), ("--percentiles", "got ''")),
        ((*TUNED, "--methods", "one-shot,l1"), ("methods are one-shot, one-shot-global", "got 'l1'")),
        ((*TUNED, "--methods", ""), ("got ''",)),
        ((*TUNED, "--epochs", "1"), ("iterative prunes in 2 epochs and is fine-tuned in 1",)),
        (("--study", "resnet20", "--epochs", "9"), ("iterative prunes in 10 epochs and is fine-tuned in 9",)),
        ((*TUNED, "--epochs", "-1"), ("--epochs", "got '-1'")),
        ((*TUNED, "--prune-epochs", "0"), ("--prune-epochs", "got '0'")),
        ((*TUNED, "--steps", "9"), ("--steps belongs to --study linear, got it with --study resnet20",)),
        ((*TUNED, "--fraction-bits", "9"), ("--fraction-bits belongs to --study linear",)),
        ((*TUNED, "--model", "mlp"), ("--study resnet20 prunes model resnet20, got --model mlp",)),
        ((*TUNED, "--rate", "0"), ("rate must be above 0",)),
        ((*TUNED, "--rate", "fast"), ("rate: a factor is a number", "'fast'")),
        ((*TUNED, "--momentum", "1"), ("momentum must be less than 1",)),
        ((*TUNED, "--batch", "0"), ("--batch", "got '0'")),
        ((*TUNED, "--seed", "-1"), ("--seed", "got '-1'")),
        ((*TUNED, "--threads", "0"), ("--threads", "1..1024")),
        ((*TUNED, "--dataset", "flowers"), ("no data set 'flowers'", "cifar10")),
        ((*TUNED, "--dataset", "mnist", "--data-dir", "EMPTY"), ("MNIST",)),
        ((*TUNED, "--dataset", "digits", "--recipe", "int9"), ("recipe 'int9' is unknown",)),
        ((*TUNED, "--dataset", "digits", "--samples", "9999"), ("9999 are asked for",)),
        ((*TUNED, "--dataset", "digits", "--width", "0"), ("width",)),
        ((*TUNED, "--from", "EMPTY"), ("checkpoint.npz cannot be read: No such file",)),
        ((*TUNED, "--from", "EMPTY/none.npz"), ("none.npz cannot be read: No such file",)),
        *((("--study", "linear", f"--{name}", "1"), (f"--{name} belongs to --study resnet20",)) for name in OPTIONS),
        (("--study", "linear", "--methods", "one-shot"), ("methods are gd, projected", "got 'one-shot'")),
        (("--study", "linear", "--methods", "gd,"), ("got ''",)),
        (("--study", "linear", "--fraction-bits", "0"), ("fraction_bits must be at least 1, got 0",)),
        (("--study", "linear", "--fraction-bits", "53"), ("fraction_bits must be at most 52, got 53",)),
        (("--study", "linear", "--fraction-bits", ""), ("--fraction-bits", "got ''")),
        (("--study", "linear", "--fraction-bits", "6"), ("0.004 is 0 units with 6 fraction bits",)),
        (("--study", "linear", "--steps", "0"), ("--steps", "got '0'")),
    ],
)
def test_mistakes_are_one_line(arguments, parts, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = [str(one).replace("EMPTY", str(tmp_path / "empty")) for one in arguments]
    check_refusal(program(*arguments, "--out", tmp_path / "none"), *parts)
    assert names(tmp_path) == {"empty"}


@pytest.mark.parametrize(
    "option", [("--width", "1"), ("--recipe", "int8"), ("--train-epochs", "2"), ("--train-seed", "0"), ("--samples", "9")]
)
def test_a_start_is_not_trained_again(option, made, tmp_path):
    run = program(*TUNED, *begun(made), *option, "--out", tmp_path / "none")
    check_refusal(run, f"{option[0]} is for a network that is trained here, and --from", "leave one out")
    assert names(tmp_path) == set()


def test_a_start_that_does_not_fit(made, tmp_path):
    where = made[0] / "dense" / "checkpoint.npz"
    rewrite(where, tmp_path / "mlp.npz", lambda config, _: config["model"].update(name="mlp"))
    rewrite(where, tmp_path / "other.npz", lambda config, _: config["dataset"].update(train_checksum="0" * 64))
    rewrite(where, tmp_path / "string.npz", lambda config, _: config.update(model="preresnet164"))
    rewrite(where, tmp_path / "none.npz", lambda config, _: config.pop("model"))
    (tmp_path / "text.npz").write_text("not at all")
    (tmp_path / "cut.npz").write_bytes(where.read_bytes()[:-100])
    before = names(tmp_path)
    for name, options, part in (
        ("mlp.npz", (), "is a checkpoint of model mlp, and resnet20 is asked for; give another --from"),
        ("other.npz", (), "was trained on other data than digits in this place"),
        ("string.npz", (), "is of another study"),
        ("none.npz", (), "does not say its model"),
        ("text.npz", (), "no checkpoint of intnet"),
        ("cut.npz", (), "is damaged"),
        (where, ("--dataset", "mnist"), "was trained on digits, and mnist is asked for; leave --dataset out"),
        (made[0], (), "checkpoint.npz cannot be read: No such file"),
    ):
        check_refusal(program(*TUNED, "--from", tmp_path / name, *options, "--out", tmp_path / "none"), part)
        assert names(tmp_path) == before
    same_options = ("--dataset", "digits", "--model", "resnet20", "--epochs", "0", "--no-plots")
    assert program(*TUNED, "--from", where, *same_options, "--out", tmp_path / "a").returncode == 0


def test_folders_of_others(made, linear, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    before = contents(tmp_path)
    for options, where, parts in (
        (LINEAR, folder, ("a study with study pruning, and sparse-linear is asked for", "--fresh")),
        (LINEAR, tmp_path / "other", ("holds thesis.txt, but no config.json",)),
        (LINEAR, tmp_path / "other" / "thesis.txt", ("is not a folder",)),
        ((*LINEAR, "--fresh"), tmp_path / "other", ("holds no study", "choose another --out")),
        ((*TUNED, *begun(made)), tmp_path / "other", ("holds thesis.txt, which is none of this study's",)),
        ((*TUNED, *DENSE), tmp_path / "other", ("holds thesis.txt, which is none of this study's",)),
        ((*TUNED, *begun(made), "--fresh"), tmp_path / "other", ("holds no study",)),
        ((*TUNED, *DENSE, "--fresh"), tmp_path / "other", ("holds no study",)),
        ((*TUNED, *DENSE), tmp_path / "other" / "thesis.txt", ("is not a folder",)),
        ((*TUNED, *DENSE, "--train-seed", "1"), folder, ("dense: the checkpoint is of another training", "seed 0 there")),
        ((*TUNED, "--from", made[0] / "runs" / "one-shot-70"), folder, ("start_sha256",)),
        ((*ITERATIVE, *begun(made), "--rate", "0.1"), folder, ("iterative-70: the checkpoint is of another training", "rate")),
    ):
        check_refusal(program(*options, "--out", where, "--quiet"), *parts)
        assert contents(tmp_path) == before
    other = shutil.copytree(linear[0], tmp_path / "linear")
    for start in (begun(made), DENSE):
        refused = program(*ITERATIVE, *start, "--out", other)
        check_refusal(refused, "holds a study of sparse-linear, and this is one of pruning", "--out")
        assert contents(other) == contents(linear[0])


def test_a_damaged_study_is_refused_as_it_is(made, linear, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    for name in ("untuned.csv", "config.json", "runs/iterative-70/checkpoint.npz"):
        whole = (folder / name).read_bytes()
        for content in (whole[:-9], b"\xff\xfe"):
            (folder / name).write_bytes(content)
            before = contents(folder)
            run = program(*ITERATIVE, *begun(made), "--out", folder)
            check_refusal(run, str(folder / name), "damaged", "--fresh")
            assert contents(folder) == before
        (folder / name).write_bytes(whole)
    folder = shutil.copytree(linear[0], tmp_path / "linear")
    for content in ((folder / "linear.csv").read_bytes()[:-9], b"\xff\xfe", b"method\n"):
        (folder / "linear.csv").write_bytes(content)
        before = contents(folder)
        check_refusal(program(*LINEAR, "--out", folder), "linear.csv is damaged", "--fresh")
        assert contents(folder) == before


@pytest.mark.parametrize("start", [("--from", "nothing"), ("--from", "STUDY/dense"), ("--dataset", "mnist", "--data-dir", ".")])
def test_a_refused_command_with_fresh_leaves_the_old_study_where_it_is(start, made, tmp_path):
    """As --fresh of the other programs does; a start within the old study goes away with it."""
    folder = shutil.copytree(made[0], tmp_path / "study")
    run = program(*TUNED, *(one.replace("STUDY", str(folder)) for one in start), "--fresh", "--quiet", "--out", folder)
    assert run.returncode in (0, 2)
    if run.returncode == 2:
        assert names(tmp_path) == {"study"}
        assert contents(folder) == contents(made[0])


def test_a_study_that_was_begun_with_a_checkpoint_trains_no_network(made, tmp_path):
    assert program(*ITERATIVE, *begun(made), "--epochs", "0", "--no-plots", "--out", tmp_path).returncode == 0
    before = contents(tmp_path)
    check_refusal(program(*ITERATIVE, *DENSE, "--train-seed", "1", "--quiet", "--out", tmp_path))
    assert contents(tmp_path) == before


def test_a_file_is_no_folder(made, tmp_path):
    (tmp_path / "file").write_text("mine")
    check_refusal(program(*TUNED, *begun(made), "--out", tmp_path / "file"), str(tmp_path / "file"), "is not a folder")


def test_a_variable_that_was_not_set_is_no_start(tmp_path):
    check_refusal(program(*TUNED, "--from", "", "--out", tmp_path / "none"), "--from", "got ''")


def test_it_is_in_use(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    with files.locked(folder / "dense"):
        check_refusal(program(*ITERATIVE, *DENSE, "--out", folder), "dense is in use by another run")
    assert tables.CONFIG in names(folder)
