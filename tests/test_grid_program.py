"""The program as its user meets it: what it writes and says, how it is stopped and goes on, and what it answers to mistakes."""

import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from intnet.sweeps import GridSpec, GridStore, open_grid

PROGRAM = Path(__file__).parents[1] / "experiments" / "grid.py"
STOPPING = Path(__file__).with_name("stopping.py")
AXES = ("--lr-shifts", "9:11", "--fraction-bits", "12:14")
SMALL = (*AXES, "--iterations", "1001", "--no-plots")
STUDY = GridSpec("digits", iterations=1001).study()
LONG = ("--lr-shifts", "7:15", "--fraction-bits", "12:20", "--seeds", "8", "--iterations", "10000", "--no-plots", "--quiet")
FILES = {"config.json", "grid.sqlite", "grid.csv", "grid.nc", "cliffs.json", "report.html"}
PICTURES = {"surface.png", "cliffs.png"}


def start(*arguments, python=(), **changes):
    """Start the program; `changes` are variables of its environment."""
    command = [sys.executable, *python, PROGRAM, *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "INTNET_DATA"} | changes
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def grid(*arguments, **changes):
    """Run the program to its end."""
    with start(*arguments, **changes) as process:
        output, errors = process.communicate(timeout=300)  # the very first run compiles
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
    """Return bytes and time of every file in `folder`."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path(folder).iterdir()}


def names(folder):
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make a finished study, for reading only."""
    folder = tmp_path_factory.mktemp("made") / "study"
    run = grid("--out", folder, *SMALL)
    assert run.returncode == 0, run.stderr
    return folder, run


@pytest.fixture
def study(made, tmp_path):
    """Give each test a finished study of its own."""
    return shutil.copytree(made[0], tmp_path / "study")


# 1. What it says and writes -----------------------------------------------------------------------------------------------


def test_help_teaches():
    run = grid("--help")
    assert (run.returncode, run.stderr) == (0, "")
    for part in (
        "cliffs.png",
        "report.html",
        "--fraction-bits",
        "half-open",
        "2^-shift",
        "Exit codes",
        "python experiments/grid.py --",
        "--device",
    ):
        assert part in run.stdout


def test_the_report_and_the_files(made):
    folder, run = made
    sentences, place = run.stdout.splitlines()[:-1], run.stdout.splitlines()[-1]
    assert place == f"Results: {folder}"
    assert [sentence.split(":")[0] for sentence in sentences] == ["Best", "Left cliff", "Diagonal cliff", "Left out"]
    assert names(folder) == FILES
    lines = (folder / "grid.csv").read_text().splitlines()
    assert lines[0] == (
        "dataset,seed,lr_shift,fraction_bits,accuracy,mean_abs_update,mean_abs_error_scaled,"
        "lost_updates,floored_to_minus_one,wraps"
    )
    assert [line.split(",")[:4] for line in lines[1:]] == [
        ["digits", "0", lr_shift, fraction_bits] for lr_shift in ("9", "10") for fraction_bits in ("12", "13")
    ]
    assert all(repr(float(text)) == text for line in lines[1:] for text in line.split(",")[4:7])


def test_the_netcdf_is_the_grid(made):
    import xarray

    with xarray.open_dataset(made[0] / "grid.nc") as read:
        assert read.identical(open_grid(made[0]))


def test_a_finished_run_writes_nothing_again_and_quiet_prints_nothing(study):
    before = contents(study)
    folder_before = study.stat().st_mtime_ns
    run = grid("--out", study, *SMALL, "--quiet")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert contents(study) == before
    assert study.stat().st_mtime_ns == folder_before


def test_files_come_back_and_pictures_follow_the_cells(study):
    before = contents(study)
    for name in FILES - {"grid.sqlite"}:
        (study / name).unlink()
    assert grid("--out", study, *SMALL[:-1], "--quiet").returncode == 0
    drawn = contents(study)
    assert names(study) == FILES | PICTURES
    assert drawn["grid.csv"][0] == before["grid.csv"][0]
    run = grid("--out", study, *SMALL[:-1], "--lr-shifts", "11")
    assert (run.returncode, run.stdout.splitlines()[-1]) == (0, f"Results: {study}")
    after = contents(study)
    for name in FILES | PICTURES:
        assert after[name][0] != drawn[name][0], name
    assert len(open_grid(study).lr_shift) == 3


# 2. The same bits however it is run ---------------------------------------------------------------------------------------


def test_in_pieces_and_with_other_threads_it_is_the_same(made, tmp_path):
    pieces = (
        ("--lr-shifts", "10", "--fraction-bits", "13", "--threads", "1"),
        ("--lr-shifts", "9", "--fraction-bits", "13,12", "--threads", "2"),
        ("--lr-shifts", "10,9", "--fraction-bits", "12:14", "--threads", "2"),
    )
    for piece in pieces:
        assert grid("--out", tmp_path / "a", *SMALL, "--quiet", *piece).returncode == 0
    assert grid("--out", tmp_path / "b", *SMALL, "--quiet", "--threads", "1").returncode == 0
    for name in ("grid.csv", "cliffs.json", "config.json"):
        whole = (made[0] / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes() == whole
        assert (tmp_path / "b" / name).read_bytes() == whole


def count_rows(folder):
    with closing(sqlite3.connect(f"{folder.as_uri()}/grid.sqlite?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT count(*) FROM cells").fetchone()[0]


def stop_after_storing(folder, how, *arguments):
    """Run the program until it has stored something new, stop it by signal `how`, and return what it left."""
    stopping = (STOPPING, "intnet.sweeps", "GridStore.add", "1", str(int(how)))
    with start("--out", folder, *LONG, "--threads", "1", *arguments, python=stopping) as process:
        output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Run the long grid without a stop."""
    folder = tmp_path_factory.mktemp("straight")
    assert grid("--out", folder, *LONG).returncode == 0
    return (folder / "grid.csv").read_bytes()


def test_killed_and_resumed_it_gives_the_same(straight, tmp_path):
    assert stop_after_storing(tmp_path, signal.SIGKILL).returncode == -signal.SIGKILL
    stored = open_grid(tmp_path).accuracy.notnull().sum()
    assert 0 < stored < 512
    assert stop_after_storing(tmp_path, signal.SIGKILL, "--threads", "2").returncode == -signal.SIGKILL
    assert open_grid(tmp_path).accuracy.notnull().sum() > stored
    assert grid("--out", tmp_path, *LONG).returncode == 0
    assert (tmp_path / "grid.csv").read_bytes() == straight


def test_interrupted_and_resumed_it_gives_the_same(straight, tmp_path):
    run = stop_after_storing(tmp_path, signal.SIGINT)
    assert (run.returncode, run.stdout) == (130, "")
    line = f"Interrupted. Finished cells are kept in {tmp_path}; the same command goes on from there."
    assert run.stderr.split("\n") == ["", line, ""]
    assert 0 < count_rows(tmp_path) < 512
    assert grid("--out", tmp_path, *LONG).returncode == 0
    assert (tmp_path / "grid.csv").read_bytes() == straight


@pytest.mark.parametrize("module", ["numpy", "xarray"])
def test_interrupted_in_the_middle_of_an_import(module, study):
    """Ctrl-C comes where a library would let it through as a traceback, or swallow it."""
    before = contents(study)
    with start("--out", study, *SMALL, "--seeds", "2", "--fresh", python=("-X", "importtime")) as process:
        for line in process.stderr:  # one as each import ends, those of a package's parts before its own
            if f" {module}." in line:
                process.send_signal(signal.SIGINT)
                break
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith(
        f"\nInterrupted. Finished cells are kept in {study}; the same command without --fresh goes on from there.\n"
    )
    assert "Traceback" not in errors
    kept = {tuple(sorted(contents(folder).items())) for folder in study.parent.iterdir() if folder.name.startswith("study")}
    assert tuple(sorted(before.items())) in kept


# 3. Mistakes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--fraction-bit", "8"], ["unrecognized arguments: --fraction-bit 8"]),
        (["stray"], ["unrecognized arguments: stray"]),
        (["--dataset", "cifar"], ["'cifar'", "digits", "mnist"]),
        (["--lr-shifts", "9:9"], ["--lr-shifts", "'9:9'", "empty", "START < STOP"]),
        (["--fraction-bits", "14:12"], ["--fraction-bits", "'14:12'", "empty"]),
        (["--lr-shifts", "9.5"], ["--lr-shifts", "'9.5'", "START:STOP"]),
        (["--fraction-bits", "8:24:2"], ["--fraction-bits", "'8:24:2'", "START:STOP"]),
        (["--lr-shifts"], ["--lr-shifts", "expected one argument"]),
        (["--iterations", "1e4"], ["--iterations", "'1e4'", "integer"]),
        (["--threads", "0"], ["--threads", "'0'", "1..1024"]),
        (["--threads", str(10**30)], ["--threads", "1..1024"]),
        (["--device", "nonsense"], ["--device", "'nonsense'", "cpu", "gpu", "auto"]),
        (["--seeds", "0"], ["--seeds", "'0'", "1..4194304"]),
        (["--seed", "x"], ["--seed", "'x'", "integer"]),
        (["--out", ""], ["--out", "''", "path of a folder"]),
        # from here on the grid itself refuses, which takes the import of numba: its other refusals are in test_sweeps.py
        (["--lr-shifts=-1:5"], ["learning-rate shift", "not be negative", "-1"]),
        (["--fraction-bits", "8:33"], ["fraction bits", "0..31", "32"]),
        (["--fraction-bits", "0:99999999999999"], ["99999999999999 values", "at most 65536"]),
        (["--fraction-bits", "31", "--lr-shifts", "32"], ["at most 62", "31 + 32 = 63"]),
        (["--iterations", "1000"], ["at least 1001", "1000"]),
        (["--seed", "-1"], ["seeds", "0..559038739", "-1"]),
        (["--seeds", "4000000"], ["at most 4194304 cells", "960000000"]),
    ],
    ids=" ".join,
)
def test_bad_arguments(arguments, parts, tmp_path):
    check_refusal(grid("--out", tmp_path / "new", *arguments), *parts)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--iterations", "1002"], ["another study", "iterations 1001 there, 1002 here", "--fresh"]),
        (["--dataset", "mnist"], ["another study", "dataset digits there, mnist here", "--fresh"]),
    ],
    ids=" ".join,
)
def test_another_study_in_the_folder(arguments, parts, study):
    before = contents(study)
    check_refusal(grid("--out", study, *SMALL, *arguments), *parts)
    assert contents(study) == before


NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "NUMBA_ENABLE_CUDASIM": "0"}


def test_a_gpu_that_is_not_there(study, tmp_path):
    before = contents(study)
    check_refusal(grid("--out", study, *SMALL, "--seeds", "2", "--fresh", "--device", "gpu", **NO_GPU), "no GPU can be used")
    assert contents(study) == before
    check_refusal(grid("--out", tmp_path / "new", *SMALL, "--device", "gpu", **NO_GPU), 'use device="cpu"')
    assert not (tmp_path / "new").exists()


def test_auto_without_a_gpu_is_the_cpu(made, tmp_path):
    assert grid("--out", tmp_path, *SMALL, "--quiet", "--device", "auto", **NO_GPU).returncode == 0
    for name in ("grid.csv", "config.json"):
        assert (tmp_path / name).read_bytes() == (made[0] / name).read_bytes()


@pytest.mark.parametrize("below", ["grid.csv", "grid.csv/below", "x" * 300], ids=lambda text: text[:20])
@pytest.mark.parametrize("fresh", [(), ("--fresh",)], ids=["", "fresh"])
def test_a_place_that_can_hold_no_study(below, fresh, study):
    before = contents(study)
    check_refusal(
        grid("--out", study / below, *SMALL, *fresh), str(study / below), "choose another --out" if fresh else "--out"
    )
    assert contents(study) == before


def damage_by_garbage(path):
    path.write_bytes(b"\xa5" * 5000)


def damage_by_cutting(path):
    os.truncate(path, path.stat().st_size // 2 + 100)


def damage_by_emptying(path):
    os.truncate(path, 0)


def damage_a_note(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE study SET value = '{' WHERE key = 'written'")


@pytest.mark.parametrize("damage", [damage_by_garbage, damage_by_cutting, damage_by_emptying, damage_a_note])
def test_a_damaged_store_is_refused_and_fresh_sets_it_aside(damage, study):
    damage(study / "grid.sqlite")
    before = contents(study)
    check_refusal(grid("--out", study, *SMALL), str(study / "grid.sqlite"), "put", "back", "--fresh")
    assert contents(study) == before
    run = grid("--out", study, *SMALL, "--fresh")
    assert run.returncode == 0, run.stderr
    (aside,) = (folder for folder in study.parent.iterdir() if folder != study)
    assert contents(aside) == before
    assert run.stdout.splitlines()[0] == f"The old results are in {aside}"
    assert (study / "grid.csv").read_bytes() == before["grid.csv"][0]


@pytest.mark.parametrize("fresh", [(), ("--fresh",)], ids=["", "fresh"])
def test_a_second_run_at_the_same_time(fresh, study):
    before = contents(study)
    with GridStore(study, STUDY):
        check_refusal(grid("--out", study, *SMALL, "--seeds", "2", *fresh), str(study), "in use by another run")
    assert contents(study) == before


def test_fresh_leaves_other_files_alone(tmp_path):
    (tmp_path / "chapter1.tex").write_text("precious")
    before = contents(tmp_path)
    check_refusal(grid("--out", tmp_path, *SMALL, "--fresh"), str(tmp_path), "holds no study", "choose another --out")
    assert contents(tmp_path) == before


def without_network(folder):
    """Return variables by which a download fails at once: nobody listens at the discard port."""
    empty = folder / "empty"
    empty.mkdir()
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return {**proxies, "no_proxy": "", "NO_PROXY": "", "INTNET_DATA": str(empty), "XDG_CACHE_HOME": str(empty)}


def test_mnist_is_not_at_hand(study, tmp_path):
    before = contents(study)
    offline = without_network(tmp_path)
    run = grid("--dataset", "mnist", "--out", study, "--fresh", **offline)
    check_refusal(run, "MNIST is not at hand", "connect to the network, or give", "--data-dir", "train-images-idx3-ubyte")
    assert contents(study) == before  # not set aside for a run that could not begin
    check_refusal(grid("--dataset", "mnist", "--out", tmp_path / "new", **offline), "MNIST is not at hand")
    assert grid("--out", tmp_path / "new", *SMALL, "--quiet").returncode == 0  # the failed run does not keep the folder


def idx(*shape):
    return b"\0\0\x08" + struct.pack(f">B{len(shape)}I", len(shape), *shape)


@pytest.mark.parametrize(
    ("images", "part"),
    [
        (idx(60000, 28, 28) + bytes(1000), "is cut short: it has 1016 bytes"),
        (idx(60000, 28, 28)[:9], "is cut short"),
        (b"<html>404</html>" * 100, "is not an idx file"),
        (b"\x1f\x8b" + bytes(100), "is damaged: its gzip stream"),
        (idx(60000) + bytes(60000), "holds an array of shape (60000,), not (60000, 28, 28)"),
    ],
    ids=["truncated", "header", "corrupted", "gzip", "swapped"],
)
def test_a_bad_file_of_mnist(images, part, tmp_path):
    data = tmp_path / "data" / "mnist"
    data.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (data / f"{name}-ubyte").write_bytes(images)
    run = grid("--dataset", "mnist", "--data-dir", data.parent, "--out", tmp_path / "out")
    check_refusal(run, str(data / "train-images-idx3-ubyte"), part, "delete it, or put")


def test_a_data_folder_that_does_not_exist(tmp_path):
    run = grid("--dataset", "mnist", "--data-dir", tmp_path / "nowhere", "--out", tmp_path / "out")
    check_refusal(run, str(tmp_path / "nowhere"), "does not exist", "--data-dir")


@pytest.fixture
def full_disk(tmp_path):
    """Mount a disk of 32 KiB: room for the store and the small files, not for the NetCDF file."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "intnet-test", disk]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk(made, full_disk):
    run = grid("--out", full_disk / "study", *SMALL, "--quiet")
    check_refusal(run, "cannot write", "grid.nc", "No space left on device", "make room")
    assert open_grid(full_disk / "study").equals(open_grid(made[0]))
    run = grid("--out", full_disk / "study", *SMALL, "--quiet", "--seed", "1", "--seeds", "100")
    check_refusal(run, "full", "free some space; what was stored before is safe")
    assert open_grid(full_disk / "study").sel(seed=[0]).equals(open_grid(made[0]).astype(float))
