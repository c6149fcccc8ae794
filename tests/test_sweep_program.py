"""The program of sweeps as its user meets it: what it writes and says, how it goes on, and what it answers to mistakes."""

import json
import shutil
import signal

import pytest
from programs import Program, check_refusal, contents, names, table, times

from intnet.sweeps import Store, load_spec

SWEEP = Program("sweep.py")
HEAD = """
[settings]
dataset = "digits"
samples = 200
epochs = 1
hidden = [8]
batch = 20
"""
AXES = """
[axes]
weight.word_bits = [6, 10, 16]
seed = [0, 1]
"""
TEXTS = {"config.json", "sweep.csv", "sweep.json", "sweep.sqlite", "report.html"}
PICTURES = {"sweep.png", "sweep-telemetry.png"}
CLIFFS = 'study = "cliffs"\n[settings]\niterations = 1001\n[axes]\nlr_shift = "9:11"\nfraction_bits = "12:14"\nseed = "0:2"\n'


@pytest.fixture
def spec(tmp_path):
    """Write a small sweep."""
    path = tmp_path / "small.toml"
    path.write_text(HEAD + AXES)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make a finished sweep, for reading only."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "small.toml").write_text(HEAD + AXES)
    run = SWEEP(folder / "small.toml", "--out", folder / "out")
    assert (run.returncode, run.stderr) == (0, "")
    return folder / "out", run


@pytest.fixture
def finished(made, tmp_path):
    """Give each test a finished sweep of its own."""
    return shutil.copytree(made[0], tmp_path / "finished")


# 1. What it says and writes -----------------------------------------------------------------------------------------------


def test_help_teaches():
    run = SWEEP("--help")
    assert (run.returncode, run.stderr) == (0, "")
    for part in (
        "[axes]",
        "--workers",
        "--scheduler",
        "--shard",
        "--merge",
        "--dry-run",
        "--fresh",
        "word_bits fraction_bits block rounding",
        "half-open",
        "sweep.csv",
        "dask worker tcp://HOST:8786 --nthreads 1",
        "sbatch --array=1-8",
        'study = "cliffs"',
        "Exit codes",
    ):
        assert part in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 132


def test_the_help_names_every_axis():
    from intnet.sweeps.axes import NAMES

    said = SWEEP("--help").stdout.split()
    assert [name for name in NAMES if "." not in name and name not in said] == []


def test_the_report_and_the_files(made):
    folder, run = made
    *sentences, place = run.stdout.splitlines()
    assert place == f"Results: {folder}"
    assert sentences[0].startswith("Best: ")
    assert sentences[1].startswith("Along weight.word_bits: ")
    assert names(folder) == TEXTS | PICTURES
    rows = table(folder / "sweep.csv")
    assert [(row["weight.word_bits"], row["seed"]) for row in rows] == [(w, s) for w in ("6", "10", "16") for s in ("0", "1")]
    assert all(repr(float(row[name])) == row[name] for row in rows for name in ("test_accuracy", "train_loss"))
    found = json.loads((folder / "sweep.json").read_text())
    assert found["sentences"] == sentences
    assert [one["cell"] for one in found["settings"]] == [{"weight.word_bits": w} for w in (6, 10, 16)]
    for one in found["settings"]:
        accuracies = [
            float(row["test_accuracy"]) for row in rows if int(row["weight.word_bits"]) == one["cell"]["weight.word_bits"]
        ]
        assert one["accuracy"] == pytest.approx(sum(accuracies) / 2)
        assert one["half"] == pytest.approx(12.7062 * abs(accuracies[0] - accuracies[1]) / 2, rel=1e-4)  # Student's t, 1 degree
    config = json.loads((folder / "config.json").read_text())
    assert config["axes"] == {"weight.word_bits": [6, 10, 16], "seed": [0, 1]}
    assert (config["cells"], config["settings"]["hidden"]) == (6, "8")
    assert set(config["data"]) >= {"digits"}
    report = (folder / "report.html").read_text()
    assert "Sweep of weight.word_bits, seed: digits" in report


def test_a_finished_run_writes_nothing_again_and_quiet_prints_nothing(finished, spec):
    before, then = contents(finished), times(finished)
    for more in ((), ("--workers", "2"), ("--scheduler", "tcp://127.0.0.1:1")):  # nobody is asked
        run = SWEEP(spec, "--out", finished, "--quiet", *more)
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert (contents(finished), times(finished)) == (before, then)


def test_files_come_back_and_no_picture_is_written_unasked(finished, spec):
    before = contents(finished)
    for name in (TEXTS | PICTURES) - {"sweep.sqlite"}:
        (finished / name).unlink()
    assert SWEEP(spec, "--out", finished, "--no-plots").returncode == 0
    assert names(finished) == TEXTS
    assert SWEEP(spec, "--out", finished, "--quiet").returncode == 0
    after = contents(finished)
    for name in ("sweep.csv", "sweep.json", "config.json", *PICTURES):
        assert after[name] == before[name], name


def test_more_values_extend_a_folder(finished, spec, made):
    spec.write_text(HEAD + AXES.replace("[6, 10, 16]", "[8]"))
    run = SWEEP(spec, "--out", finished, "--workers", "1")
    assert run.returncode == 0, run.stderr
    assert "Along weight.word_bits: " in run.stdout  # all that is stored, not only what this run named
    assert json.loads((finished / "config.json").read_text())["axes"]["weight.word_bits"] == [6, 8, 10, 16]
    rows = (finished / "sweep.csv").read_text().splitlines()
    assert set((made[0] / "sweep.csv").read_text().splitlines()) < set(rows)
    assert len(rows) == 1 + 8


def test_fresh_sets_the_old_one_aside(finished, spec):
    before = contents(finished)
    run = SWEEP(spec, "--out", finished, "--fresh", "--no-plots")
    assert run.returncode == 0, run.stderr
    (aside,) = (one for one in finished.parent.iterdir() if one.name.startswith("finished."))
    assert run.stdout.splitlines()[0] == f"The old results are in {aside}"
    assert contents(aside) == before
    assert (finished / "sweep.csv").read_bytes() == before["sweep.csv"]


@pytest.mark.parametrize("text", [HEAD + AXES, CLIFFS], ids=["trainings", "cliffs"])
def test_shards_are_merged(text, tmp_path):
    path = tmp_path / "one.toml"
    path.write_text(text)
    table = load_spec(path).schema.table
    assert SWEEP(path, "--out", tmp_path / "straight", "--quiet", "--no-plots").returncode == 0
    out = tmp_path / "out"
    for number in (3, 1):
        run = SWEEP(path, "--out", out, "--shard", f"{number}/3", "--no-plots")
        assert run.returncode == 0, run.stderr
        assert run.stdout.splitlines()[-1] == f"Results: {out}/shard-{number}-of-3"
    check_refusal(SWEEP(path, "--out", out, "--merge"), "shard 2 of 3 is missing", "run it with --shard 2/3, then merge again")
    assert SWEEP(path, "--out", out, "--shard", "2/3", "--quiet", "--no-plots").returncode == 0
    run = SWEEP(path, "--out", out, "--merge")
    assert run.returncode == 0, run.stderr
    assert (out / table).read_bytes() == (tmp_path / "straight" / table).read_bytes()
    then = times(out)
    assert SWEEP(path, "--out", out, "--merge", "--quiet").returncode == 0
    assert times(out) == then


def test_the_cliff_study(tmp_path):
    (tmp_path / "cliffs.toml").write_text(CLIFFS)
    run = SWEEP(tmp_path / "cliffs.toml", "--out", tmp_path / "out", "--no-plots")
    assert run.returncode == 0, run.stderr
    arguments = ("--lr-shifts", "9:11", "--fraction-bits", "12:14", "--seeds", "2", "--iterations", "1001", "--no-plots")
    assert Program("grid.py")("--out", tmp_path / "own", *arguments, "--quiet").returncode == 0
    for name in ("grid.csv", "cliffs.json", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "own" / name).read_bytes()


@pytest.mark.parametrize(("more", "left", "workers"), [((), 6, 1), (("--workers", "3"), 6, 3), (("--shard", "2/4"), 2, 1)])
def test_a_dry_run_tells_what_it_would_take(more, left, workers, spec, tmp_path):
    run = SWEEP(spec, "--out", tmp_path / "out", "--dry-run", *more)
    assert (run.returncode, run.stderr) == (0, "")
    cells, time, memory = run.stdout.splitlines()
    assert cells == f"{left} cells, of which 0 are stored and {left} are to be trained."
    assert time.startswith("Estimated time: ")
    assert f"with {workers} worker" in time
    assert memory.startswith("Estimated memory: ")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_a_finished_sweep(finished, spec):
    before, then = contents(finished), times(finished)
    run = SWEEP(spec, "--out", finished, "--dry-run")
    assert run.stdout == "6 cells, of which 6 are stored and 0 are to be trained.\n"
    run = SWEEP(spec, "--out", finished, "--dry-run", "--fresh")
    assert run.stdout.startswith("6 cells, of which 0 are stored and 6 are to be trained.\n")
    assert (contents(finished), times(finished)) == (before, then)


def test_ctrl_c_says_how_to_go_on(spec, tmp_path, made):
    out = tmp_path / "out"
    run = SWEEP.stopped(signal.SIGINT, ("intnet.sweeps.storage", "Store.add"), 2, spec, "--out", out, "--quiet")
    assert run.returncode == 130
    assert run.stderr == f"\nInterrupted. Finished cells are kept in {out}; the same command goes on from there.\n"
    assert SWEEP(spec, "--out", out, "--quiet", "--no-plots").returncode == 0
    assert (out / "sweep.csv").read_bytes() == (made[0] / "sweep.csv").read_bytes()


# 2. Mistakes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ["the following arguments are required: SPEC.toml"]),
        (("SPEC", "stray"), ["unrecognized arguments: stray"]),
        (("none.toml",), ["cannot read none.toml: No such file or directory", "--help"]),
        ((".",), ["cannot read .: Is a directory"]),
        (("SPEC", "--workers", "0"), ["--workers", "'0'", "1..1024"]),
        (("SPEC", "--workers", "two"), ["--workers", "'two'", "integer"]),
        (("SPEC", "--workers", "2", "--scheduler", "tcp://a:1"), ["--scheduler", "not allowed with argument --workers"]),
        (("SPEC", "--scheduler", "a:1"), ["a scheduler is named as tcp://HOST:PORT", "'a:1'"]),
        (("SPEC", "--scheduler", ""), ["a scheduler is named as tcp://HOST:PORT", "''"]),
        (("SPEC", "--shard", "0/3"), ["--shard", "'0/3'", "I/N with I from 1 to N"]),
        (("SPEC", "--shard", "4/3"), ["--shard", "'4/3'"]),
        (("SPEC", "--shard", "/3"), ["--shard", "'/3'"]),
        (("SPEC", "--shard", "1"), ["--shard", "'1'"]),
        (("SPEC", "--merge", "--shard", "1/2"), ["--merge", "--shard", "leave one out"]),
        (("SPEC", "--merge", "--fresh"), ["--merge", "--fresh", "leave one out"]),
        (("SPEC", "--merge", "--dry-run"), ["--merge", "--dry-run", "leave one out"]),
        (("SPEC", "--merge"), ["should hold the shards of one sweep", "it holds none"]),
        (("SPEC", "--workers", "2", "--threads", "2"), ["--threads", "--workers", "leave one out"]),
    ],
    ids=" ".join,
)
def test_bad_arguments(arguments, parts, spec, tmp_path):
    run = SWEEP(*(spec if one == "SPEC" else one for one in arguments), "--out", tmp_path / "new")
    check_refusal(run, *parts)
    assert not (tmp_path / "new" / "sweep.csv").exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (HEAD + "[axes]\nweight.word_bit = [6]\n", ["line 9: ", "'weight.word_bit'", "did you mean 'weight.word_bits'?"]),
        (HEAD + "[axes]\nseed = []\n", ["line 9: ", "axis seed is empty"]),
        (HEAD + "[axes]\nseed = [0\n", ["line 9: ", "this is not TOML"]),
        (HEAD + "[axes]\nword_bits = [40]\n", ["line 9: ", "word_bits 40 is impossible", "accumulator_bits"]),
        (HEAD, ["the sweep has no axes"]),
    ],
)
def test_bad_specifications(text, parts, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    check_refusal(SWEEP(path, "--out", tmp_path / "new"), f"error: {path}", *parts)
    assert not (tmp_path / "new").exists()


def test_another_sweep_in_the_folder(finished, spec):
    before = contents(finished)
    for text in (
        HEAD.replace("epochs = 1", "epochs = 2") + AXES,
        HEAD + "[axes]\nrate = [1]\n",
    ):
        spec.write_text(text)
        for more in ((), ("--dry-run",)):
            run = SWEEP(spec, "--out", finished, *more)
            check_refusal(run, "holds another study", "--fresh")
            assert contents(finished) == before


def test_missing_data(tmp_path):
    path = tmp_path / "cifar.toml"
    path.write_text('[settings]\ndataset = "cifar10"\n[axes]\nseed = [0]\n')
    (tmp_path / "data").mkdir()
    run = SWEEP(path, "--out", tmp_path / "out", "--data-dir", tmp_path / "none")
    check_refusal(run, str(tmp_path / "none"), "does not exist")


def test_a_damaged_store_and_a_second_run(finished, spec):
    with Store(finished, load_spec(spec).study(), load_spec(spec).schema):
        check_refusal(SWEEP(spec, "--out", finished), "in use by another run")
    (finished / "sweep.sqlite").write_bytes(b"\xa5" * 5000)
    before = contents(finished)
    check_refusal(SWEEP(spec, "--out", finished), "sweep.sqlite: ", "damaged", "--fresh")
    check_refusal(SWEEP(spec, "--out", finished, "--dry-run"), "sweep.sqlite: ", "damaged", "--fresh")
    assert contents(finished) == before
    check_refusal(SWEEP(spec, "--out", finished / "sweep.csv"), "is not a folder; --out must name a folder")


LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (24576, 24576))
sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0].rpartition("/")[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["here", "pool"])
def test_no_file_can_grow(workers, tmp_path):
    """As on a full disk: in a line, and what was stored is whole."""
    path = tmp_path / "long.toml"
    path.write_text(HEAD + '[axes]\nseed = "0:60"\n')
    run = SWEEP.process(path, "--out", tmp_path / "out", "--quiet", "--no-plots", *workers, python=("-c", LIMITED))
    check_refusal(run, str(tmp_path / "out"))
    spec = load_spec(path)
    with Store(tmp_path / "out", spec.study(), spec.schema) as store:
        stored = store.count()
        assert 0 < stored < 60
    assert SWEEP(path, "--out", tmp_path / "out", "--quiet", "--no-plots").returncode == 0
    assert len(table(tmp_path / "out" / "sweep.csv")) == 60


def test_what_is_left_out_is_said(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(
        'impossible = "skip"\n[settings]\nsamples = 100\nepochs = 1\nhidden = [8]\n[axes]\nweight.word_bits = [8, 64]\n'
    )
    planned = SWEEP(path, "--dry-run", "--out", tmp_path / "out")
    assert "Left out: 1 of 2 combinations; weight.word_bits 64 is impossible" in planned.stdout, planned
    assert not (tmp_path / "out").exists()
    ran = SWEEP(path, "--out", tmp_path / "out", "--no-plots")
    assert "Left out: 1 of 2 combinations" in ran.stdout, ran
    assert "Left out: 1 of 2 combinations" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_what_cannot_be_trained_is_said_before(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text('[settings]\nsamples = 100\nepochs = 1\nhidden = [8]\n[axes]\n"weight.word_bits@dense9" = [8, 9]\n')
    check_refusal(SWEEP(path, "--dry-run", "--out", tmp_path / "out"), "none of the 2 cells", "dense9", "dense1")
