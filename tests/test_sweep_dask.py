"""A sweep on a real cluster of Dask, two workers on this machine: the same table, whatever is killed meanwhile."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import Program, check_refusal

from intnet.errors import InputError, StudyError
from intnet.sweeps import Dask, GridSpec, Store, SweepSpec, VersionError, run_sweep

pytest.importorskip("distributed", reason="a cluster needs the extra dist: pip install 'intnet[dist]'")

ROOT = Path(__file__).parents[1]
PROGRAM = Program("sweep.py")
SETTINGS = {"dataset": "digits", "samples": 200, "epochs": 1, "hidden": [8], "batch": 20}
SPEC = SweepSpec({"weight.word_bits": [6, 10, 16], "rate": ["2^-2", "2^-4"], "seed": [0, 1, 2]}, SETTINGS)
GRID = GridSpec("digits", range(9, 11), range(12, 14), range(2), iterations=1001)
TOML = """
[settings]
dataset = "digits"
samples = 200
epochs = 1
hidden = [8]
batch = 20

[axes]
weight.word_bits = [6, 10, 16]
rate = ["2^-2", "2^-4"]
seed = "0:3"
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Cluster:
    """A scheduler and its workers, each a process of its own."""

    def __init__(self, folder, port=None):
        self.folder, self.port = folder, port or free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.workers, self.everyone = [], []
        self.begin()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def _start(self, what, *arguments, path=ROOT):
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *map(str, arguments), "--no-dashboard"]
        environment = {name: value for name, value in os.environ.items() if name != "INTNET_DATA"}
        environment |= {"PYTHONPATH": str(path), "PYTHONWARNINGS": "ignore"}
        process = subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.everyone.append(process)
        return process

    def begin(self):
        """Start a scheduler, at the address of the old one if there was one, and return when it listens."""
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", self.port)
        for _ in range(600):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.scheduler.poll() is None
            time.sleep(0.1)
        raise AssertionError("the scheduler does not listen")

    def add(self, count=1, path=ROOT):
        """Start workers."""
        for _ in range(count):
            arguments = (self.address, "--nthreads", 1, "--no-nanny", "--local-directory", self.folder)
            self.workers.append(self._start("worker", *arguments, path=path))
        return self

    def kill_worker(self):
        self._kill(self.workers.pop())

    def kill_all(self):
        """Kill the scheduler, and the workers with it."""
        for process in (self.scheduler, *self.workers):
            self._kill(process)
        self.workers = []

    @staticmethod
    def _kill(process):
        process.send_signal(signal.SIGKILL)
        process.wait()

    def end(self):
        for process in self.everyone:
            if process.poll() is None:
                self._kill(process)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster.add(2)


@pytest.fixture
def own(tmp_path):
    """Start a cluster to be killed; its workers come as a test asks for them."""
    (tmp_path / "cluster").mkdir()
    with Cluster(tmp_path / "cluster") as cluster:
        yield cluster


def fill(folder, spec=SPEC, workers=None, **options):
    with Store(folder, spec.study(), spec.schema) as store:
        run_sweep(spec, store, workers, **options)
        store.write_csv()
    return (folder / spec.schema.table).read_bytes()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("straight"))


def once(action):
    """Return a `progress` that acts when the first cells are stored."""
    told = []

    def progress(cells):
        told.append(cells)
        if len(told) == 1:
            action()

    return progress


# 1. The same bits ---------------------------------------------------------------------------------------------------------


def test_a_cluster_gives_the_same(cluster, straight, tmp_path):
    assert fill(tmp_path / "one", workers=Dask(cluster.address)) == straight
    assert fill(tmp_path / "grid", GRID, Dask(cluster.address)) == fill(tmp_path / "here", GRID)


def test_a_worker_that_is_killed_costs_only_time(own, straight, tmp_path):
    own.add(2)
    assert fill(tmp_path / "out", workers=Dask(own.address), progress=once(own.kill_worker)) == straight
    assert len(own.workers) == 1


def test_when_all_workers_are_killed_new_ones_are_waited_for(own, straight, tmp_path):
    said = []

    def kill():
        own.kill_worker()

    def say(line):
        said.append(line)
        if line == f"Waiting for workers at {own.address}.":
            own.add()

    assert fill(tmp_path / "out", workers=Dask(own.add().address), progress=once(kill), say=say) == straight
    assert said.count(f"Waiting for workers at {own.address}.") == 1


def test_a_scheduler_that_is_started_again_is_waited_for(own, straight, tmp_path):
    said = []

    def restart():
        own.kill_all()
        own.begin()
        own.add(2)

    assert fill(tmp_path / "out", workers=Dask(own.add(2).address), progress=once(restart), say=said.append) == straight
    assert any(line.startswith("A worker was lost (") for line in said)


def test_a_driver_that_is_killed_goes_on(cluster, straight, tmp_path):
    (tmp_path / "spec.toml").write_text(TOML)
    out = tmp_path / "out"
    arguments = (tmp_path / "spec.toml", "--out", out, "--scheduler", cluster.address, "--quiet", "--no-plots")
    run = PROGRAM.stopped(signal.SIGKILL, ("intnet.sweeps.storage", "Store.add"), 2, *arguments)
    assert run.returncode == -signal.SIGKILL
    with Store(out, SPEC.study(), SPEC.schema) as store:
        assert 2 <= store.count() < len(SPEC.cells())
    run = PROGRAM(*arguments)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert (out / "sweep.csv").read_bytes() == straight


def test_a_plan_counts_the_workers_of_a_cluster(cluster, tmp_path):
    (tmp_path / "spec.toml").write_text(TOML)
    run = PROGRAM(tmp_path / "spec.toml", "--out", tmp_path / "out", "--scheduler", cluster.address, "--dry-run")
    assert (run.returncode, run.stderr) == (0, "")
    assert "with 2 workers" in run.stdout
    assert not (tmp_path / "out").exists()


# 2. What cannot go on -----------------------------------------------------------------------------------------------------


def test_a_scheduler_that_does_not_answer(tmp_path):
    (tmp_path / "spec.toml").write_text(TOML)
    address = f"tcp://127.0.0.1:{free_port()}"
    run = PROGRAM(tmp_path / "spec.toml", "--out", tmp_path / "out", "--scheduler", address)
    check_refusal(run, f"the scheduler at {address} does not answer within 10 s", "start one with 'dask scheduler' or mend")


def test_a_scheduler_that_is_gone_for_long(own, straight, tmp_path):
    workers = Dask(own.add().address)

    def kill():
        own.kill_all()
        workers.patience = 1

    with pytest.raises(StudyError, match=r"1 s.* what was stored before is safe, and the same command goes on") as error:
        fill(tmp_path / "out", workers=workers, progress=once(kill))
    assert "\n" not in str(error.value)
    assert fill(tmp_path / "out") == straight


def test_no_worker(own, tmp_path):
    with pytest.raises(StudyError, match=rf"{own.address} has no worker; start some with 'dask worker {own.address}") as error:
        fill(tmp_path / "out", workers=Dask(own.address, patience=1))
    assert "\n" not in str(error.value)


def test_no_worker_for_long(own, straight, tmp_path):
    workers = Dask(own.add().address)

    def kill():
        own.kill_worker()
        workers.patience = 1

    with pytest.raises(StudyError, match=r"has had no worker for 1 s; start some .* the same command goes on") as error:
        fill(tmp_path / "out", workers=workers, progress=once(kill))
    assert "\n" not in str(error.value)
    assert fill(tmp_path / "out") == straight


def test_workers_of_other_versions(own, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "intnet", copy / "intnet", ignore=shutil.ignore_patterns("__pycache__"))
    version = copy / "intnet" / "_version.py"
    version.write_text(version.read_text() + "# changed\n")
    own.add(path=copy)
    with pytest.raises(VersionError, match=r"has other versions than the driver: intnet .* here and .* there; give") as error:
        fill(tmp_path / "out", workers=Dask(own.address))
    assert "\n" not in str(error.value)
    with Store(tmp_path / "out", SPEC.study(), SPEC.schema) as store:
        assert store.count() == 0


def test_a_full_disk(cluster, tmp_path):
    spec = SweepSpec({"seed": range(40)}, SETTINGS)
    with Store(tmp_path, spec.study(), spec.schema) as store:
        run_sweep(spec, store, cells=spec.cells()[:2])
        before = store.rows()
        store._connection.execute("PRAGMA max_page_count = 1")  # SQLite takes the present size as the least
        with pytest.raises(StudyError, match="full; free some space; what was stored before is safe") as error:
            run_sweep(spec, store, Dask(cluster.address))
        assert "\n" not in str(error.value)
        assert set(before) < set(store.rows())
        assert store.count() < 40
    fill(tmp_path, spec, Dask(cluster.address))
    with Store(tmp_path, spec.study(), spec.schema) as store:
        assert store.missing(spec.cells()) == []


@pytest.mark.parametrize(
    "address",
    ["localhost:8786", "tcp://:8786", "tcp://host", "tcp://host:port", "tcp://host:0", "tcp://host:70000", "", "http://a:1"],
)
def test_what_is_no_address(address):
    with pytest.raises(InputError, match=r"a scheduler is named as tcp://HOST:PORT, with a port in 1..65535, got"):
        Dask(address)


def test_protocols_that_need_more():
    with (
        pytest.raises(InputError, match=r"cannot be asked: .*; use tcp://HOST:PORT, or configure Dask"),
        Dask("tls://127.0.0.1:1"),
    ):
        pass
