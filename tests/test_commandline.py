"""What the programs share: readers of their options, what every study has, how one begins anew and goes on."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from intnet import commandline, files
from intnet.errors import InputError

READERS = [commandline.words, commandline.numbers, commandline.integers, commandline.integer(range(1, 9)), commandline.number]


def parser():
    return commandline.Parser("what it does", "what you get")


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (commandline.words, "a,b", ("a", "b")),
        (commandline.words, "a", ("a",)),
        (commandline.words, "a,", ("a", "")),  # which no study knows: none may drop it silently
        (commandline.words, "", ("",)),
        (commandline.numbers, "0.1,2,-3e2", (0.1, 2.0, -300.0)),
        (commandline.numbers, "7", (7.0,)),
        (commandline.integers, "3,5", (3, 5)),
        (commandline.integers, "1", (1,)),
        (commandline.integers, "2147483647", (2**31 - 1,)),
        (commandline.integer(range(1, 9)), "8", 8),
        (commandline.integer(), "-5", -5),
    ],
)
def test_what_is_read(read, text, expected):
    found = read(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("read", "text", "parts"),
    [
        (commandline.numbers, "", ("got ''", "a number")),
        (commandline.numbers, "1,,2", ("got ''", "a number")),
        (commandline.numbers, "1,few", ("got 'few'", "a number")),
        (commandline.integers, "", ("got ''", "1..2147483647")),
        (commandline.integers, "3,0", ("got '0'", "1..2147483647")),
        (commandline.integers, "3,-1", ("got '-1'", "1..2147483647")),
        (commandline.integers, "2147483648", ("got '2147483648'", "1..2147483647")),
        (commandline.integers, "2.5", ("got '2.5'", "an integer")),
        (commandline.integers, "3,", ("got ''", "an integer")),
        (commandline.integer(range(1, 9)), "9", ("got '9'", "1..8")),
        (commandline.integer(), "nine", ("got 'nine'; allowed is an integer",)),
        (commandline.folder, "", ("got ''", "'.' for the current one")),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(read, text, parts):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        read(text)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", READERS[1:])
def test_an_error_of_a_reader_names_the_option_and_ends_with_2(read, capsys):
    made = parser()
    made.add_argument("--some", type=read)
    with pytest.raises(SystemExit) as end:
        made.parse_args(["--some", "x"])
    out, errors = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert errors.startswith("error: argument --some: got 'x'; allowed is a")
    assert errors.endswith("see --help\n")
    assert errors.count("\n") == 1


def test_negative_values_are_values():
    made = parser()
    made.add_argument("--some", type=commandline.numbers)
    made.add_argument("--flag", action="store_true")
    found = made.parse_args(["--some", "-1,2", "--flag"])
    assert (found.some, found.flag) == ((-1.0, 2.0), True)


# What every study has ---------------------------------------------------------------------------------------------------


def test_the_usual_options():
    made = parser()
    made.add_usual("results/some-STUDY")
    assert vars(made.parse_args([])) == {"threads": None, "out": None, "fresh": False, "no_plots": False, "quiet": False}
    found = made.parse_args(["--threads", "1024", "--out", "a/b", "--fresh", "--no-plots", "--quiet"])
    assert vars(found) == {"threads": 1024, "out": Path("a/b"), "fresh": True, "no_plots": True, "quiet": True}
    assert "(default: results/some-STUDY)" in made.format_help()


@pytest.mark.parametrize("words", [("--threads", "0"), ("--threads", "1025"), ("--out", ""), ("--no-plot",), ("--quie",)])
def test_usual_options_are_refused_where_they_cannot_be(words, capsys):
    made = parser()
    made.add_usual("results")
    with pytest.raises(SystemExit) as end:
        made.parse_args(list(words))
    assert end.value.code == 2
    assert words[0] in capsys.readouterr().err


OWN = {"bits": ("a", "b"), "train_epochs": ("b",), "from": ("b",)}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"study": "c", "bits": 3}, "--bits belongs to --study a or b, got it with --study c; leave it out"),
        ({"study": "a", "train_epochs": 0}, "--train-epochs belongs to --study b, got it with --study a; leave it out"),
        ({"study": "a", "from": Path("x")}, "--from belongs to --study b, got it with --study a; leave it out"),
        ({"study": "a", "train_epochs": ()}, "--train-epochs belongs to --study b"),  # what is given may be empty
        ({"study": "a", "bits": 0}, None),
        ({"study": "b", "bits": 1, "train_epochs": 2, "from": ""}, None),
        ({"study": "c"}, None),
    ],
)
def test_options_of_another_study(given, line, capsys):
    arguments = argparse.Namespace(**{"bits": None, "train_epochs": None, "from": None, **given})
    if line is None:
        parser().refuse_foreign(arguments, OWN)
        return
    with pytest.raises(SystemExit) as end:
        parser().refuse_foreign(arguments, OWN)
    assert end.value.code == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"error: {line}")


# Beginning anew, going on -----------------------------------------------------------------------------------------------


def test_nothing_is_set_aside_unless_it_is_asked_for(capsys):
    def never(*_):
        raise AssertionError

    commandline.begin_anew(argparse.Namespace(fresh=False, out=Path("x"), quiet=False), never, never)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("aside", [None, Path("old")])
def test_what_is_set_aside_is_told(aside, quiet, capsys):
    told = []

    def set_aside(folder):
        told.append(folder)
        return aside

    arguments = argparse.Namespace(fresh=True, out=Path("x"), quiet=quiet)
    commandline.begin_anew(arguments, set_aside, lambda: told.append("checked"))
    assert told == ["checked", Path("x")]  # first it is checked
    assert capsys.readouterr().out == ("The old results are in old\n" if aside and not quiet else "")
    commandline.begin_anew(arguments, set_aside)
    assert told[2:] == [Path("x")]


def test_what_cannot_be_done_sets_nothing_aside():
    def check():
        raise InputError("no such data")

    def never(_):
        raise AssertionError

    with pytest.raises(InputError, match="no such data"):
        commandline.begin_anew(argparse.Namespace(fresh=True, out=Path("x"), quiet=True), never, check)


def test_how_to_go_on_is_without_fresh():
    arguments = argparse.Namespace(fresh=False, out=Path("a"))
    assert commandline.how_to_go_on(arguments, "Finished runs") == (
        "Interrupted. Finished runs are kept in a; the same command goes on from there."
    )
    arguments.fresh = True
    assert commandline.how_to_go_on(arguments, "Finished epochs") == (
        "Interrupted. Finished epochs are kept in a; the same command without --fresh goes on from there."
    )


@pytest.mark.parametrize("quiet", [False, True])
def test_the_end_is_a_report_and_what_came_out(tmp_path, capsys, quiet):
    arguments = argparse.Namespace(out=tmp_path, quiet=quiet)
    commandline.finish(arguments, "A study", ["It works.", "It is fast."])
    assert capsys.readouterr().out == ("" if quiet else f"It works.\nIt is fast.\nResults: {tmp_path}\n")
    assert "<p>It is fast.</p>" in (tmp_path / files.REPORT).read_text()


def test_another_run_in_the_folder_writes_the_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(commandline, "PATIENCE", 0)
    with files.locked(tmp_path):
        commandline.finish(argparse.Namespace(out=tmp_path, quiet=False), "A study", ["It works."])
    assert capsys.readouterr().out == f"It works.\nResults: {tmp_path}\n"
    assert not (tmp_path / files.REPORT).exists()


def test_it_imports_nothing_heavy():
    heavy = ("numpy", "numba", "matplotlib", "tqdm", "scipy")
    code = f"import sys, intnet.commandline; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
