"""The HALP program as its user meets it: its tables, how it goes on, what mistakes give."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "experiments" / "halp.py"
TINY = ("--study", "convex", "--problems", "a", "--iterations", "300", "--recentre", "50", "--seeds", "1", "--bits", "8")


def program(*arguments):
    environment = {name: value for name, value in os.environ.items() if name != "INTNET_DATA"}
    command = [sys.executable, PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)  # the first run compiles


def check_refusal(run, *parts):
    assert (run.returncode, run.stdout) == (2, ""), run
    lines = run.stderr.splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def names(folder):
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_help_teaches():
    run = program("--help")
    assert (run.returncode, run.stderr) == (0, "")
    for part in ("convex", "digits", "power_of_two", "convex.csv", "lp_svrg", "--recentre", "norm(gradient)", "Exit codes"):
        assert part in run.stdout


def test_the_convex_study(tmp_path):
    folder = tmp_path / "convex"
    run = program(*TINY, "--out", folder)
    assert run.returncode == 0, run.stderr
    assert names(folder) == {"convex.csv", "convex.json", "convex.png", "config.json"}
    rows = table(folder / "convex.csv")
    assert tuple(rows[0]) == ("problem", "method", "bits", "mu", "T", "scale", "seed", "iteration", "distance")
    assert {row["method"] for row in rows} == {"sgd", "svrg", "halp", "lp_sgd", "lp_svrg"}
    assert "HALP, 8 bits, mu 4, T 50, exact scale: " in run.stdout
    again = program(*TINY, "--out", folder, "--threads", "1", "--no-plots")
    assert again.stdout == run.stdout


def test_the_digits_study(tmp_path):
    few = ("--study", "digits", "--iterations", "400", "--recentre", "200", "--seeds", "1", "--samples", "100", "--quiet")
    run = program(*few, "--scale", "power_of_two", "--rounding", "ties_pos", "--out", tmp_path / "digits")
    assert (run.returncode, run.stdout) == (0, ""), run.stderr
    rows = table(tmp_path / "digits" / "digits.csv")
    assert tuple(rows[0]) == ("method", "bits", "mu", "T", "scale", "seed", "iteration", "gradient_norm")
    assert len(rows) == 5 * 50


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--study", "convex", "--bits", "1"), ("bits", "2..16", "got 1")),
        (("--study", "convex", "--mu", "3,few"), ("--mu", "allowed is a number")),
        (("--study", "convex", "--recentre", "0.5"), ("whole number, got 0.5",)),
        (("--study", "convex", "--decay", "0.1"), ("--decay belongs to --study digits",)),
        (("--study", "digits", "--problems", "a"), ("--problems belongs to --study convex",)),
        (("--study", "linear"), ("invalid choice",)),
    ],
)
def test_mistakes_are_one_line(arguments, parts, tmp_path):
    check_refusal(program(*arguments, "--out", tmp_path / "none"), *parts)
    assert not (tmp_path / "none").exists()
