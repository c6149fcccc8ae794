"""The SWALP program as its user meets it: its tables, how it is stopped and goes on, what mistakes give."""

import json
import shutil
import signal
import time
from dataclasses import replace

import pytest
from programs import Program, check_refusal, names, table

from intnet.errors import InputError, StudyError
from intnet.recipe import RECIPES
from intnet.studies import swalp
from intnet.studies.swalp_networks import Row, epochs_csv, read_rows

program = Program("swalp.py")
TINY = ("--study", "preresnet", "--dataset", "digits", "--depth", "8", "--width", "0.25", "--samples", "192", "--batch", "64")
TINY = (*TINY, "--epochs", "3", "--averaging-start", "2", "--evaluation-samples", "100", "--seeds", "2")
LINEAR = ("--study", "linear", "--iterations", "2000", "--averaging-start", "500", "--seeds", "2")
FILES = {"epochs.csv", "table.md", "config.json", "report.html", "runs"}
SPEC = {
    "dataset": "digits",
    "depth": 8,
    "width": 0.25,
    "samples": 192,
    "batch": 64,
    "epochs": 3,
    "start": 2,
    "evaluation_samples": 100,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make a finished study of a network, for reading only."""
    folder = tmp_path_factory.mktemp("made") / "study"
    run = program(*TINY, "--out", folder)
    assert run.returncode == 0, run.stderr
    return folder, run


# Networks ---------------------------------------------------------------------------------------------------------------


def test_help_teaches():
    run = program("--help")
    assert (run.returncode, run.stderr) == (0, "")
    for part in ("linear", "logistic", "vgg", "preresnet", "bfp8-mixed", "epochs.csv", "--depth 164", "Exit codes"):
        assert part in run.stdout


def test_the_tables_of_a_network(made):
    folder, run = made
    assert names(folder) == FILES | {"curves.png"}
    rows = table(folder / "epochs.csv")
    assert tuple(rows[0]) == Row._fields
    expected = [
        ("preresnet", recipe, method, str(seed), str(epoch))
        for recipe in ("bfp8-mixed", "wide")
        for method, epochs in (("sgd_lp", (1, 2, 3)), ("swalp", (2, 3)))
        for seed in (0, 1)
        for epoch in epochs
    ]
    assert [tuple(row.values())[:5] for row in rows] == expected
    assert all(0 <= float(row["test_error"]) <= 1 and float(row["train_loss"]) > 0 for row in rows)
    assert epochs_csv(read_rows(folder / "epochs.csv")) == (folder / "epochs.csv").read_text()
    first = [row for row in rows if row["recipe"] == "wide" and row["epoch"] == "2"]  # an average of one moment
    for seed in "01":
        sgd, average = ([*row.values()][5:] for row in first if row["seed"] == seed)
        assert sgd == average
    lines = (folder / "table.md").read_text().splitlines()
    assert len(lines) == 2 + 2 * 3
    assert lines[2].startswith("| `bfp8-mixed` | SGD | 2 | ")
    assert lines[0] in run.stdout
    assert run.stdout.count("seed by seed") == 2
    config = json.loads((folder / "config.json").read_text())
    assert config["optimizer"]["schedule"] == "swalp:2=0.0100002"
    assert (config["model"], config["depth"], config["samples"], config["seeds"]) == ("preresnet164", 8, 192, 2)
    assert [recipe["name"] for recipe in config["recipes"]] == ["bfp8-mixed", "wide"]


def test_a_finished_study_is_only_read(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    before = {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.suffix not in (".png", ".md")
    }
    run = program(*TINY, "--out", folder, "--quiet", "--no-plots")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_killed_and_resumed_and_in_two_processes_it_gives_the_same(made, tmp_path):
    folder = tmp_path / "study"
    with program.start(*TINY, "--out", folder, "--no-plots", "--threads", "1") as process:
        kept = folder / "runs" / "bfp8-mixed-seed0" / "checkpoint.npz"
        limit = time.monotonic() + 600
        while not kept.exists() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    both = [program.start(*TINY, "--out", folder, "--no-plots") for _ in range(2)]
    outputs = [process.communicate(timeout=900) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    again = program(*TINY, "--out", folder, "--no-plots", "--quiet")
    assert again.returncode == 0, again.stderr
    for name in ("epochs.csv", "table.md", "config.json"):
        assert (folder / name).read_bytes() == (made[0] / name).read_bytes()


def test_rows_of_training_do_not_depend_on_the_average(made, tmp_path):
    run = program(
        *TINY, "--recipes", "bfp8-mixed", "--seeds", 1, "--unit", "step", "--average-bits", 9, "--out", tmp_path / "s"
    )
    assert run.returncode == 0, run.stderr
    kept = [row for row in table(made[0] / "epochs.csv") if (row["recipe"], row["seed"]) == ("bfp8-mixed", "0")]
    rows = table(tmp_path / "s" / "epochs.csv")
    assert [row for row in rows if row["method"] == "sgd_lp"] == [row for row in kept if row["method"] == "sgd_lp"]
    assert len(rows) == 5


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--study", "linear", "--width", "1"), ("--width belongs to --study vgg or preresnet", "--study linear")),
        (("--study", "vgg", "--depth", "20"), ("--depth belongs to --study preresnet",)),
        (("--study", "logistic", "--formats", "fxp-s8/6"), ("--formats belongs to --study linear",)),
        (
            ("--study", "preresnet", "--dataset", "digits", "--epochs", "3", "--averaging-start", "4"),
            ("would be no average", "after 3"),
        ),
        (("--study", "vgg", "--dataset", "digits"), ("max_pool4", "(1, 1,")),
        (("--study", "preresnet", "--dataset", "digits", "--depth", "9"), ("6 n + 2", "got 9")),
        (("--study", "preresnet", "--dataset", "digits", "--recipes", "bfp9"), ("'bfp9' is unknown", "bfp8-mixed")),
        (("--study", "preresnet", "--dataset", "digits", "--recipes", "int8,int8"), ("a name of its own", "int8, int8")),
        (("--study", "preresnet", "--dataset", "digits", "--recipes", "niti8"), ("normalized updates",)),
        (("--study", "preresnet", "--dataset", "digits", "--samples", "9999999"), ("9999999 are asked for",)),
        (("--study", "preresnet", "--dataset", "digitz"), ("there is no data set 'digitz'", "cifar10")),
        (("--study", "linear", "--iterations", "100", "--averaging-start", "100"), ("averaging would never start", "100")),
        (("--study", "linear", "--rate", "0"), ("rate", "0")),
        (("--study", "linear", "--rate", "0.3"), ("fxp-s40/32",)),
        (("--study", "linear", "--formats", "fxp-s8"), ("fxp-s8",)),
        (("--study", "logistic", "--fraction-bits", "2:80"), ("fraction_bits", "1..62")),
        (("--study", "logistic", "--dataset", "cifar10"), ("digits, mnist", "cifar10")),
        (("--study", "preresnet", "--average-bits", "7"), ("--average-bits", "8..16")),
        (("--study", "convex"), ("invalid choice: 'convex'",)),
    ],
)
def test_mistakes_are_one_line(arguments, parts, tmp_path):
    check_refusal(program(*arguments, "--out", tmp_path / "none"), *parts)
    assert not (tmp_path / "none").exists()


def test_folders_of_others(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    check_refusal(
        program(*TINY[:-2], "--width", "0.5", "--out", folder), "bfp8-mixed-seed0", "width 0.25 there, 0.5 here", "--fresh"
    )
    check_refusal(program(*TINY, "--momentum", "0.5", "--out", folder), "momentum 0.899994 there, 2^-1 here")
    fewer = swalp.NetworkSpec("preresnet", recipes="wide", **SPEC)
    assert swalp.not_asked_for(fewer, folder) == ["bfp8-mixed-seed0", "bfp8-mixed-seed1", "wide-seed1"]
    (folder / "runs" / "wide-seed1" / "epochs.csv").write_text("model\n1\n")
    with pytest.raises(StudyError, match="is no table of this study: line 1: the columns are not model"):
        swalp.stored_rows(swalp.NetworkSpec("preresnet", seeds=2, **SPEC), folder)
    lines = (made[0] / "runs" / "wide-seed1" / "epochs.csv").read_text().replace("sgd_lp", "nomethod")
    (folder / "runs" / "wide-seed1" / "epochs.csv").write_text(lines)
    with pytest.raises(StudyError, match="is no table of wide with seed 1"):
        swalp.stored_rows(swalp.NetworkSpec("preresnet", seeds=2, **SPEC), folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    check_refusal(program(*TINY, "--out", tmp_path / "other"), "holds thesis.txt, which is none of this study's")
    check_refusal(program(*TINY, "--out", tmp_path / "other" / "thesis.txt"), "is not a folder")
    check_refusal(program(*LINEAR, "--out", tmp_path / "other"), "thesis.txt")
    assert (tmp_path / "other" / "thesis.txt").read_text() == "mine"
    shutil.copy(made[0] / "runs" / "wide-seed1" / "epochs.csv", folder / "runs" / "wide-seed1" / "epochs.csv")
    checkpoint = folder / "runs" / "wide-seed0" / "checkpoint.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    check_refusal(program(*TINY, "--out", folder), "is damaged", "checkpoint.npz")


def test_fresh_sets_the_old_one_aside(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    check_refusal(program(*TINY, "--dataset", "mnist", "--data-dir", tmp_path, "--fresh", "--out", folder), "MNIST")
    assert names(tmp_path) == {"study"}
    aside = swalp.set_aside(folder)
    assert aside is not None
    assert names(aside) == FILES | {"curves.png"}
    assert not folder.exists()


def test_what_a_specification_refuses():
    for changes, message in (
        ({"model": "resnet"}, "models are vgg, preresnet, got 'resnet'"),
        ({"model": "vgg", "depth": 20}, "depth is that of a preresnet"),
        ({"dropout": 0.5}, "dropout is that of a vgg"),
        ({"seeds": 0}, "seeds must be an integer of at least 1, got 0"),
        ({"recipes": ()}, "needs recipes"),
        ({"start": 0}, "after an epoch of 1 or more, got 0"),
        ({"width": 0}, "width is a factor above 0"),
        ({"start": 4}, "there would be no average"),
        ({"unit": "batch"}, "unit of averaging"),
        ({"dataset": "digitz"}, "there is no data set 'digitz'"),
        ({"recipes": 5}, "recipes are a sequence, got 5"),
        ({"recipes": (replace(RECIPES["bfp8"], name="../escaped"),)}, "name is that of a folder"),
    ):
        with pytest.raises(InputError, match=message):
            swalp.NetworkSpec(**{"model": "preresnet", **SPEC, **changes})
    assert swalp.NetworkSpec("preresnet", recipes="bfp8", **SPEC).recipes == (RECIPES["bfp8"],)


def test_sentences_claim_no_difference_under_two_deviations():
    spec = swalp.NetworkSpec("vgg", "cifar10", ("bfp8-mixed",), 2, epochs=2, start=1)

    def rows(after):
        return [
            swalp.Row("vgg", "bfp8-mixed", method, seed, epoch, 1.0, error)
            for seed, method, epoch, error in (
                (0, "sgd_lp", 1, 0.30), (1, "sgd_lp", 1, 0.32), (0, "swalp", 1, 0.3), (1, "swalp", 1, 0.3),
                (0, "sgd_lp", 2, 0.30), (1, "sgd_lp", 2, 0.30), (0, "swalp", 2, after), (1, "swalp", 2, after),
            )
        ]  # fmt: skip

    assert swalp.describe(spec, rows(0.29)) == [
        "bfp8-mixed: the average has a test error of 29.00 %, mean of 2 seeds; seed by seed that is 2.00 ± 1.41 points less "
        "than the weights of epoch 1 (no clear difference), and 1.00 ± 0.00 points less than the weights of epoch 2."
    ]
    assert "3.00 ± 1.41 points less than the weights of epoch 1, and" in swalp.describe(spec, rows(0.28))[0]
    assert "4.00 ± 1.41 points more than the weights of epoch 1, and" in swalp.describe(spec, rows(0.35))[0]
    assert "one seed; that is 2.00 points less than the weights of epoch 1, and" in swalp.describe(spec, rows(0.28)[::2])[0]
    assert swalp.describe(spec, []) == ["Nothing is trained to epoch 2 yet."]
    unfinished = [row for row in rows(0.28) if (row.seed, row.method, row.epoch) != (1, "swalp", 2)]
    assert [one.seeds for one in swalp.summarize(spec, unfinished)] == [1, 1, 1]
    lines = swalp.table(spec, rows(0.28)).splitlines()
    assert lines[2:] == [
        "| `bfp8-mixed` | SGD | 1 | 31.00 ± 1.41 | 2 | 7.61 ± 0.15 |",
        "| `bfp8-mixed` | SGD | 2 | 30.00 ± 0.00 | 2 |  |",
        "| `bfp8-mixed` | average | 2 | 28.00 ± 0.00 | 2 | 6.70 ± 0.12 |",
    ]


# Convex problems --------------------------------------------------------------------------------------------------------


def test_the_linear_study(tmp_path):
    run = program(*LINEAR, "--out", tmp_path / "linear")
    assert run.returncode == 0, run.stderr
    rows = table(tmp_path / "linear" / "linear.csv")
    assert tuple(rows[0]) == ("word_bits", "fraction_bits", "method", "seed", "iteration", "squared_distance")
    assert {(row["word_bits"], row["fraction_bits"]) for row in rows} == {("10", "8"), ("8", "6"), ("6", "4"), ("0", "0")}
    assert {"linear.csv", "linear.png", "config.json"} <= names(tmp_path / "linear")
    again = program(*LINEAR, "--out", tmp_path / "linear", "--threads", "1")
    assert again.stdout == run.stdout
    check_refusal(program(*LINEAR, "--rate", "2^-9", "--out", tmp_path / "linear"), "rate", "--fresh")


def test_the_logistic_study(tmp_path):
    few = ("--study", "logistic", "--iterations", "600", "--averaging-start", "300", "--seeds", "1", "--fraction-bits", "3,5")
    run = program(*few, "--out", tmp_path / "logistic")
    assert run.returncode == 0, run.stderr
    rows = table(tmp_path / "logistic" / "logistic.csv")
    columns = ("dataset", "fraction_bits", "method", "seed", "gradient_norm_squared", "loss", "train_error", "test_error")
    assert tuple(rows[0]) == columns
    assert [(row["fraction_bits"], row["method"]) for row in rows] == [(f, m) for f in "035" for m in ("sgd_lp", "swalp")]
