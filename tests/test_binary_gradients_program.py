"""The program of the gradient studies as its user meets it: its files, how it goes on, what mistakes give.

Most runs are in this process, as its start takes longer than they do; what is stopped is a process of its own.
"""

import json
import shutil
import signal
from functools import partial
from unittest import mock

import pytest
from programs import Program, check_refusal, names, table

from intnet.studies import rosenbrock, thin_resnet, toy_gradients

PROGRAM = Program("binary_gradients.py")
TINY = {
    "rosenbrock": ("--steps", "60", "--every", "25"),
    "cosine": ("--activations", "binary,full", "--samples", "30", "--coordinates", "4", "--dim", "3", "--seeds", "2"),
    "loss-decrease": (
        "--dim", "2,3", "--samples", "4", "--epsilon", "0.1", "--sigma", "0.1", "--spread", "0.3", "--rates", "0.1,0.4",
        "--batch", "20", "--seeds", "1", "--pretrain-steps", "8",
    ),
    "stochastic-rounding": (
        "--averaged", "1,3", "--dim", "3", "--seeds", "1", "--batches", "2", "--batch", "20", "--rates", "5", "--pretrain", "no"
    ),
    "thin-resnet": (
        "--dataset", "digits", "--train-samples", "48", "--epochs", "1", "--convolutions", "2,1", "--batch", "4",
        "--batches", "1", "--epsilon", "0.1", "--rates", "0.1,0.3",
    ),
}  # fmt: skip
FILES = {
    "rosenbrock": {"rosenbrock.csv", "rosenbrock.json", "rosenbrock.png"},
    "cosine": {"cosine.csv", "cosine.json", "cosine.png"},
    "loss-decrease": {"decrease.csv", "loss_decrease.json", "decrease.png", "decrease-trained.png", "best.png"},
    "stochastic-rounding": {"stochastic_rounding.csv", "stochastic_rounding.json", "stochastic_rounding.png"},
    "thin-resnet": {"thin_resnet.csv", "thin_resnet.json", "thin_resnet.png", "trained-full.npz", "trained-binary.npz"},
}
COLUMNS = {
    "rosenbrock": rosenbrock.RosenbrockRow,
    "cosine": toy_gradients.CosineRow,
    "loss-decrease": toy_gradients.DecreaseRow,
    "stochastic-rounding": toy_gradients.SignsRow,
    "thin-resnet": thin_resnet.ThinResNetRow,
}


def table_of(study):
    (name,) = (name for name in FILES[study] if name.endswith(".csv"))
    return name


def program(*arguments):
    """Run it in this process; the ResNet with 1 to 8 channels."""
    thin = partial(thin_resnet.ThinResNetSpec, width=1 / 64, train_batch=24)
    return PROGRAM(*arguments, patches=[mock.patch.object(thin_resnet, "ThinResNetSpec", thin)])


def stopped(number, *arguments):
    """Run it in a process that gets a signal when it has stored something for the first time."""
    return PROGRAM.stopped(number, ("intnet.studies.tables", "Table.add"), 1, *arguments)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Run every study once, for reading only."""
    found = {}

    def make(study):
        if study not in found:
            folder = tmp_path_factory.mktemp("made") / study
            run = program("--study", study, *TINY[study], "--out", folder)
            assert run.returncode == 0, run.stderr
            found[study] = folder, run
        return found[study]

    return make


# Studies ----------------------------------------------------------------------------------------------------------------


def test_help_teaches():
    run = program("--help")
    assert (run.returncode, run.stderr) == (0, "")
    for part in ("coordinate discrete gradient", "vanilla", "loss-decrease", "--averaged A:B", "config.json", "Exit codes"):
        assert part in run.stdout
    for study in TINY:
        assert study in run.stdout


@pytest.mark.parametrize("study", TINY)
def test_each_study_writes_its_files(made, study):
    folder, run = made(study)
    assert run.stderr == ""
    assert names(folder) == FILES[study] | {"config.json", "report.html"}
    rows = table(folder / table_of(study))
    assert tuple(rows[0]) == COLUMNS[study]._fields
    config = json.loads((folder / "config.json").read_text())
    assert config["study"] == study
    sentences = json.loads(next(folder.glob(f"{study.replace('-', '_')}.json")).read_text())["findings"]
    assert run.stdout.splitlines() == [*sentences, f"Results: {folder}"]
    known = {*toy_gradients.FILES, *rosenbrock.FILES, *thin_resnet.FILES, "config.json", "report.html"}
    assert names(folder) <= known  # so --fresh knows them


def test_what_the_options_ask_for_is_in_the_tables(made):
    rows = table(made("cosine")[0] / "cosine.csv")
    assert {(row["activation"], row["epsilon"], row["samples"], row["seed"]) for row in rows} == {
        (activation, epsilon, "30", seed) for activation in ("binary", "full") for epsilon in ("0.1", "0.01") for seed in "01"
    }
    rows = table(made("loss-decrease")[0] / "decrease.csv")
    assert {(row["dim"], row["rate"], row["pretrained"], row["seed"]) for row in rows} == {
        (dim, rate, pretrained, "0") for dim in "23" for rate in ("0.1", "0.4") for pretrained in "01"
    }
    rows = table(made("stochastic-rounding")[0] / "stochastic_rounding.csv")
    assert [(row["pretrained"], row["batch"], row["averaged"]) for row in rows] == [("0", b, n) for b in "01" for n in "013"]
    rows = table(made("thin-resnet")[0] / "thin_resnet.csv")
    assert {(row["weights"], row["layer"]) for row in rows} == {(kind, n) for kind in ("full", "binary") for n in "12"}
    assert [row["step"] for row in table(made("rosenbrock")[0] / "rosenbrock.csv")][:4] == ["0", "25", "50", "60"]


@pytest.mark.parametrize(("option", "kinds"), [(("--pretrain", "yes"), {"1"}), (("--pretrain",), {"1"}), ((), {"0", "1"})])
def test_training_before_is_asked_for(option, kinds, tmp_path):
    run = program(
        "--study", "stochastic-rounding", "--averaged", "1", "--dim", "2", "--seeds", "1", "--batch", "9", "--rates", "2",
        "--pretrain-steps", "2", "--no-plots", "--out", tmp_path, *option,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert {row["pretrained"] for row in table(tmp_path / "stochastic_rounding.csv")} == kinds
    assert names(tmp_path) == {"stochastic_rounding.csv", "stochastic_rounding.json", "config.json", "report.html"}


def test_a_finished_study_is_only_read(made, tmp_path):
    folder = shutil.copytree(made("cosine")[0], tmp_path / "study")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.suffix != ".png"}
    run = program("--study", "cosine", *TINY["cosine"], "--out", folder, "--quiet", "--no-plots")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert {path: path.stat().st_mtime_ns for path in before if path.name[0] != "."} == {
        path: time for path, time in before.items() if path.name[0] != "."
    }


@pytest.mark.parametrize("study", ["rosenbrock", "cosine", "loss-decrease", "stochastic-rounding"])
def test_killed_and_resumed_it_gives_the_same(made, study, tmp_path):
    """It is killed when it has stored something for the first time; then other threads go on."""
    folder, whole = tmp_path / "study", made(study)[0]
    options = ("--study", study, *TINY[study], "--no-plots", "--out", folder)
    assert stopped(signal.SIGKILL, *options).returncode == -signal.SIGKILL
    kept, every = table(folder / table_of(study)), table(whole / table_of(study))
    assert 0 < len(kept) < len(every)
    assert all(row in every for row in kept)
    run = program(*options, "--threads", 2)
    assert run.returncode == 0, run.stderr
    for name in (table_of(study), f"{study.replace('-', '_')}.json", "config.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_interrupted_it_says_how_to_go_on(made, tmp_path):
    folder = tmp_path / "study"
    run = stopped(signal.SIGINT, "--study", "cosine", *TINY["cosine"], "--out", folder)
    assert (run.returncode, run.stdout) == (130, "")
    assert run.stderr.strip() == f"Interrupted. Finished parts are kept in {folder}; the same command goes on from there."
    assert all(row in table(made("cosine")[0] / "cosine.csv") for row in table(folder / "cosine.csv"))


def test_more_is_added_to_what_there_is(made, tmp_path):
    folder = shutil.copytree(made("cosine")[0], tmp_path / "study")
    kept = table(folder / "cosine.csv")
    options = ("--study", "cosine", "--coordinates", "4", "--dim", "3", "--no-plots", "--out", folder)
    run = program(*options, "--activations", "ternary,ternary", "--samples", "20", "--epsilon", "0.3,0.3", "--seeds", "1")
    assert run.returncode == 0, run.stderr
    rows = table(folder / "cosine.csv")
    assert [row for row in rows if row["activation"] != "ternary"] == kept
    assert len(rows) == len(kept) + 4


# Mistakes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ("--study", "required")),
        (("--study", "cosines"), ("invalid choice: 'cosines'", "stochastic-rounding")),
        (("--study", "cosine", "--epsilon", "1e-7"), ("epsilon 1e-07 vanishes", "9.54e-07", "just above 4.77e-07")),
        (("--study", "cosine", "--epsilon", "0.001", "--weight-bits", "8"), ("epsilon 0.001 vanishes", "0.00391", "0.00195")),
        (("--study", "cosine", "--epsilon", "0.1,0"), ("epsilon must be above 0, got 0.0",)),
        (("--study", "cosine", "--epsilon", "-0.1"), ("epsilon must be above 0, got -0.1",)),
        (("--study", "cosine", "--epsilon", "nan"), ("epsilon must be above 0, got nan",)),
        (("--study", "cosine", "--epsilon", "1e300"), ("epsilon must be at most 16", "1e+300")),
        (("--study", "cosine", "--epsilon", "few"), ("--epsilon", "got 'few'", "allowed is a number")),
        (("--study", "cosine", "--samples", "0"), ("--samples", "got '0'", "1..2147483647")),
        (("--study", "cosine", "--samples", "1,x"), ("--samples", "got 'x'")),
        (("--study", "cosine", "--activations", "linear"), ("the activations are binary, ternary, 2bit, full, got 'linear'",)),
        (("--study", "cosine", "--activations", "binary,"), ("got ''",)),
        (("--study", "cosine", "--dim", "8,16"), ("--dim of this study is one value, got 2",)),
        (("--study", "cosine", "--weight-bits", "25"), ("--weight-bits", "8..24")),
        (("--study", "cosine", "--coordinates", "-1"), ("--coordinates", "got '-1'")),
        (("--study", "cosine", "--sigma", "0.1"), ("--sigma belongs to --study loss-decrease, got it with --study cosine",)),
        (("--study", "rosenbrock", "--seeds", "2"), ("--seeds belongs to --study cosine or loss-decrease or stochastic",)),
        (("--study", "rosenbrock", "--steps", "9"), ("steps must be at least 10, got 9",)),
        (("--study", "loss-decrease", "--sigma", "1e-7"), ("sigma 1e-07 vanishes", "9.54e-07", "4.77e-07")),
        (("--study", "loss-decrease", "--length", "1e-9"), ("length 1e-09 vanishes",)),
        (("--study", "loss-decrease", "--length", "inf"), ("length must be at most 16, got inf",)),
        (("--study", "loss-decrease", "--spread", "1e-12"), ("spread 1e-12 vanishes",)),
        (("--study", "loss-decrease", "--rates", "0.1,nan"), ("rates must be above 0, got nan",)),
        (("--study", "loss-decrease", "--layers", "last"), ("--layers", "hidden", "all")),
        (("--study", "loss-decrease", "--steps", "3"), ("--steps belongs to --study rosenbrock",)),
        (("--study", "loss-decrease", "--pretrain", "maybe"), ("--pretrain", "'maybe'", "both")),
        (("--study", "stochastic-rounding", "--rates", "0.5"), ("--rates of this study is how many, a whole number, got 0.5",)),
        (("--study", "stochastic-rounding", "--rates", "nan"), ("a whole number, got nan",)),
        (("--study", "stochastic-rounding", "--rates", "3,4"), ("--rates of this study is one value, got 2",)),
        (("--study", "stochastic-rounding", "--rates", "0"), ("rates must be at least 1, got 0",)),
        (("--study", "stochastic-rounding", "--averaged", "0:3"), ("averaged must be at least 1, got 0",)),
        (("--study", "thin-resnet", "--convolutions", "17"), ("the convolutions that see signs are 1..16, got 17",)),
        (("--study", "thin-resnet", "--weights", "ternary"), ("weights are full or binary, got 'ternary'",)),
        (("--study", "thin-resnet", "--epsilon", "1e-9"), ("epsilon 1e-09 vanishes", "3.73e-09")),
        (("--study", "thin-resnet", "--epsilon", "9"), ("epsilon must be at most 2", "9.0")),
        (("--study", "thin-resnet", "--data-dir", "EMPTY"), ("CIFAR-10",)),
        (("--study", "thin-resnet", "--dataset", "flowers"), ("there is no data set 'flowers'", "cifar10")),
        (("--study", "thin-resnet", "--dataset", "digits", "--train-samples", "9999"), ("9999 are asked for",)),
        (("--study", "thin-resnet", "--samples", "9"), ("--samples belongs to --study cosine or loss-decrease",)),
    ],
)
def test_mistakes_are_one_line(arguments, parts, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = [tmp_path / "empty" if one == "EMPTY" else one for one in arguments]
    check_refusal(program(*arguments, "--out", tmp_path / "none"), *parts)
    assert not (tmp_path / "none").exists()


def test_what_is_refused_late_does_not_claim_the_folder(made, tmp_path):
    """Noise with which a loss could leave its word is found when it is drawn; the same folder then takes less of it."""
    folder, options = tmp_path / "study", ("--study", "loss-decrease", *TINY["loss-decrease"], "--no-plots", "--out")
    check_refusal(program(*options, folder, "--sigma", "16", "--weight-bits", "24", "--layers", "all"), "fraction bits")
    assert names(folder) == set()
    assert program(*options, folder).returncode == 0
    for name in ("decrease.csv", "config.json"):
        assert (folder / name).read_bytes() == (made("loss-decrease")[0] / name).read_bytes()


def test_folders_of_others(made, tmp_path):
    folder = shutil.copytree(made("cosine")[0], tmp_path / "study")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    options = ("--study", "cosine", *TINY["cosine"], "--out", folder)
    check_refusal(program(*options, "--dim", "4"), "with dim 3, and 4 is asked for", "--out", "--fresh")
    check_refusal(
        program("--study", "rosenbrock", "--out", folder), "with study cosine, and rosenbrock is asked for", "--fresh"
    )
    (folder / "cosine.csv").write_bytes(before["cosine.csv"][:-30])
    check_refusal(program(*options), "cosine.csv is damaged")
    (folder / "cosine.csv").write_bytes(before["cosine.csv"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    check_refusal(program(*options[:-1], tmp_path / "other"), "thesis.txt")
    check_refusal(program(*options[:-1], tmp_path / "other", "--fresh"), "holds no study", "choose another --out")
    check_refusal(program(*options[:-1], tmp_path / "other" / "thesis.txt"), "is not a folder")
    assert names(tmp_path / "other") == {"thesis.txt"}
    assert (tmp_path / "other" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("study", ["cosine", "thin-resnet"])
def test_fresh_sets_the_old_one_aside(made, study, tmp_path):
    """Nothing stored is lost, whichever study it is, and the new one has the same bytes."""
    folder = shutil.copytree(made(study)[0], tmp_path / "study")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}
    run = program("--study", "rosenbrock", *TINY["rosenbrock"], "--out", folder, "--fresh", "--no-plots")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("The old results are in ")
    (aside,) = (path for path in tmp_path.iterdir() if path != folder)
    assert str(aside) in run.stdout
    assert {path.name: path.read_bytes() for path in aside.iterdir() if path.name[0] != "."} == before
    assert (folder / "rosenbrock.csv").read_bytes() == (made("rosenbrock")[0] / "rosenbrock.csv").read_bytes()
