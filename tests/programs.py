"""What tests of the programs in experiments/ share: running one here or as a process, stopping it, reading what it left."""

import csv
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from intnet import checkpoint, kernels

STOPPING = Path(__file__).with_name("stopping.py")
LIMIT = 900  # seconds: the very first run compiles


def _environment():
    """Return the environment without the user's data: what is searched there must be asked for."""
    return {name: value for name, value in os.environ.items() if name != "INTNET_DATA"}


class Program:
    """One of them."""

    def __init__(self, name):
        self.path = Path(__file__).parents[1] / "experiments" / name

    def __call__(self, *arguments, patches=()):
        """Run it in this process, as its start takes longer than it does; with patches, context managers."""
        before, threads = signal.getsignal(signal.SIGINT), kernels.threads()
        with ExitStack() as stack:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            paths = [place / name for name in ("out", "errors")]  # files, as what is written last goes to the place of a file
            out, errors = (stack.enter_context(path.open("w", encoding="utf-8")) for path in paths)
            for one in (
                mock.patch.object(sys, "argv", [str(self.path), *map(str, arguments)]),
                mock.patch.object(sys, "path", [str(self.path.parent), *sys.path]),
                mock.patch.dict(os.environ, _environment(), clear=True),
                *patches,
                redirect_stdout(out),
                redirect_stderr(errors),
            ):
                stack.enter_context(one)
            try:
                with pytest.raises(SystemExit) as end:
                    runpy.run_path(str(self.path), run_name="__main__")
            finally:
                signal.signal(signal.SIGINT, before)
                kernels.set_threads(threads)
            out.flush(), errors.flush()
            found = [path.read_text(encoding="utf-8") for path in paths]
        return subprocess.CompletedProcess(arguments, end.value.code, *found)

    def start(self, *arguments, python=()):
        """Start it as a process of its own; `python` is what Python runs instead, with the program as an argument."""
        command = [sys.executable, *python, self.path, *arguments]
        return subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment()
        )

    def process(self, *arguments, python=()):
        """Run it as a process of its own."""
        with self.start(*arguments, python=python) as process:
            output, errors = process.communicate(timeout=LIMIT)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def stopped(self, number, function, count, *arguments):
        """Run it as a process that gets a signal when call `count` of a function ends, ``("module", "Class.method")``."""
        return self.process(*arguments, python=(STOPPING, *function, count, int(number)))


def check_refusal(run, *parts):
    """Check that a run ended with exit code 2 and one line, which has `parts` in it."""
    assert (run.returncode, run.stdout) == (2, ""), run
    lines = run.stderr.splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


def table(path):
    """Return the rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def names(folder):
    """Return what a folder shows."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def contents(folder):
    """Return the bytes of every file below a folder but the locks, which are empty, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in _files(folder)}


def times(folder):
    """Return when every file below a folder was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in _files(folder)}


def _files(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]


def rewrite(source, target, change):
    """Write a checkpoint again, whole, after `change(config, arrays)` has changed what is in it."""
    with np.load(source) as file:
        arrays = {name: file[name] for name in file.files if name != "sha256"}
    header = json.loads(arrays["header"].tobytes())
    change(header["config"], arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(target, **arrays, sha256=checkpoint._digest(arrays))
