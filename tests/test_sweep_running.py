"""The table is the same, bit for bit, whoever runs the cells, whoever is killed meanwhile, and in however many shards."""

import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from programs import Program, contents, table

from intnet import datasets, kernels
from intnet.errors import DataError, InputError, StudyError
from intnet.recipe import RECIPES, ROLES
from intnet.studies import sweeps as study
from intnet.sweeps import GridSpec, Here, Pool, Store, SweepSpec, VersionError, merge, run_sweep, shard_folder
from intnet.sweeps.execution import Task, check_versions, load_once, run_task, versions
from intnet.trainings import prepare

SETTINGS = {"dataset": "digits", "samples": 200, "epochs": 1, "hidden": [8], "batch": 20}
SPEC = SweepSpec({"weight.word_bits": [6, 10, 16], "rate": ["2^-2", "2^-4"], "seed": [0, 1]}, SETTINGS)
GRID = GridSpec("digits", range(9, 11), range(12, 14), range(3), iterations=1001)


@pytest.fixture(autouse=True)
def _threads():
    before = kernels.threads()
    yield
    kernels.set_threads(before)


def fill(folder, spec=SPEC, workers=None, **options):
    """Run a sweep and return its table."""
    with Store(folder, spec.study(), spec.schema) as store:
        run_sweep(spec, store, workers, **options)
        store.write_csv()
    return (folder / spec.schema.table).read_bytes()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Run the sweep in this process, without a stop."""
    return fill(tmp_path_factory.mktemp("straight"))


def rows(folder, spec=SPEC):
    with closing(sqlite3.connect(folder / spec.schema.database)) as connection:
        return connection.execute("SELECT * FROM cells").fetchall()


def stored(folder, spec=SPEC):
    return len(rows(folder, spec))


class StoppedError(Exception):
    """Stops a run from within."""


def stop_at(count):
    """Return a `progress` that stops the run once so many cells are stored."""
    done = []

    def progress(cells):
        done.append(cells)
        if sum(done) >= count:
            raise StoppedError

    return progress


# 1. The same bits ---------------------------------------------------------------------------------------------------------


def test_a_pool_gives_the_same(straight, tmp_path):
    told = []
    assert fill(tmp_path, workers=Pool(2), progress=told.append) == straight
    assert sum(told) == len(SPEC.cells())
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("of", [2, 5])
def test_shards_give_the_same(of, straight, tmp_path):
    for number in range(1, of + 1):
        fill(shard_folder(tmp_path, number, of), cells=SPEC.shard(number, of))
    with Store(tmp_path, SPEC.study(), SPEC.schema) as store:
        assert merge(SPEC, store) == len(SPEC.cells())
        assert merge(SPEC, store) == 0
        store.write_csv()
    assert (tmp_path / "sweep.csv").read_bytes() == straight
    assert fill(tmp_path) == straight  # and a run goes on from there


def test_in_pieces_it_gives_the_same(straight, tmp_path):
    with pytest.raises(StoppedError):
        fill(tmp_path, progress=stop_at(3))
    assert stored(tmp_path) == 3
    narrow = SweepSpec({**dict(SPEC.axes), "weight.word_bits": [16]}, SETTINGS)
    fill(tmp_path, narrow)
    assert fill(tmp_path, workers=Here(threads=1)) == straight


def test_a_second_run_trains_nothing(straight, tmp_path):
    assert fill(tmp_path) == straight
    with Store(tmp_path, SPEC.study(), SPEC.schema) as store:
        assert run_sweep(SPEC, store, load=None, data_dir=tmp_path / "nowhere") == 0


def test_telemetry_is_that_of_the_trainer(straight, tmp_path):
    (tmp_path / "sweep.csv").write_bytes(straight)
    cell = SPEC.cells()[5]
    row = next(one for one in table(tmp_path / "sweep.csv") if tuple(one.values())[:3] == tuple(map(str, cell)))
    ready = prepare(SPEC.training(cell))
    ready.trainer.run(ready.test)
    last, readings = ready.trainer.history[-1], ready.trainer.readings
    assert row["outcome"] == "trained"
    assert row["weights_sha256"] == ready.trainer.network.digest()
    for name in ("test_accuracy", "train_accuracy", "train_loss"):
        assert float(row[name]) == getattr(last, "loss" if name == "loss" else name)
    for role in ROLES:
        some = [one for one in readings if one.role == role]
        assert int(row[f"{role}_bits_used"]) == max((one.bits_used for one in some), default=0)
        assert int(row[f"{role}_count"]) == sum(one.count for one in some)
        assert int(row[f"{role}_left"]) == sum(one.saturated + one.wrapped for one in some)
        assert int(row[f"{role}_lost"]) == sum(one.lost for one in some)
    assert (row["updates"], row["lost_updates"]) == (row["weight_count"], row["weight_lost"])
    assert int(row["updates"]) == 10 * (64 * 8 + 8 + 8 * 10 + 10)  # steps by weights and biases
    assert int(row["left_accumulator"]) == sum(one.saturated + one.wrapped for one in readings if one.role == "accumulator")


def test_the_cliffs_by_a_pool_and_in_shards_are_those_of_their_own_program(tmp_path):
    arguments = ("--lr-shifts", "9:11", "--fraction-bits", "12:14", "--seeds", "3", "--iterations", "1001")
    assert Program("grid.py")("--out", tmp_path / "own", *arguments, "--quiet", "--no-plots").returncode == 0
    own = (tmp_path / "own" / "grid.csv").read_bytes()
    assert fill(tmp_path / "pool", GRID, Pool(2)) == own
    for of in (2, 5):
        out = tmp_path / str(of)
        for number in range(1, of + 1):
            fill(shard_folder(out, number, of), GRID, cells=GRID.shard(number, of))
        with Store(out, GRID.study(), GRID.schema) as store:
            merge(GRID, store)
            assert study.export(store, GRID, plots=False)
        assert (out / "grid.csv").read_bytes() == own


# 2. Kills -----------------------------------------------------------------------------------------------------------------


def test_workers_that_are_killed_cost_only_time(straight, tmp_path):
    said, victims = [], []

    def progress(_):
        if len(victims) < 2:
            alive = [one.pid for one in multiprocessing.active_children() if one.pid not in victims]
            if alive:  # none is while a pool that broke is started again
                victims.append(alive[0])
                os.kill(victims[-1], signal.SIGKILL)

    assert fill(tmp_path, workers=Pool(2), progress=progress, say=said.append) == straight
    assert len(set(victims)) == 2
    assert said
    assert all(one == "A worker was lost (BrokenProcessPool); its cells are given out again." for one in said)


class Deadly(SweepSpec):
    """One of its cells kills who trains it."""

    def train(self, cells, load, **options):
        if (2,) in cells:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train(cells, load, **options)


def test_a_cell_that_kills_its_workers_ends_the_run_and_nothing_is_lost(tmp_path):
    spec = Deadly({"seed": range(4)}, SETTINGS)
    with pytest.raises(
        StudyError, match=r"workers were lost 4 times in a row .* with cell \(2,\); .* the same command goes on"
    ):
        fill(tmp_path, spec, Pool(1))
    assert {row[0] for row in rows(tmp_path, spec)} >= {0, 1}
    assert not multiprocessing.active_children()


PROGRAM = Program("sweep.py")
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
seed = "0:2"
"""


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["", "pool"])
def test_a_driver_that_is_killed_goes_on(workers, straight, tmp_path):
    (tmp_path / "spec.toml").write_text(TOML)
    out = tmp_path / "out"
    arguments = (tmp_path / "spec.toml", "--out", out, *workers, "--quiet", "--no-plots")
    run = PROGRAM.stopped(signal.SIGKILL, ("intnet.sweeps.storage", "Store.add"), 3, *arguments)
    assert run.returncode == -signal.SIGKILL
    assert 3 <= stored(out) < 12
    run = PROGRAM(*arguments)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert (out / "sweep.csv").read_bytes() == straight


# 3. What is not the same --------------------------------------------------------------------------------------------------


def changed_digits(name, *, subset):
    data = load_once(None, name, subset=subset)
    return replace(data, labels=np.roll(data.labels, 1))


def test_other_data_are_refused(tmp_path):
    few = SweepSpec({"seed": [0]}, SETTINGS)
    fill(tmp_path, few)
    before = (tmp_path / "sweep.sqlite").read_bytes()
    with pytest.raises(StudyError, match=r"was made from other digits data \(checksum \w{12}, now \w{12}\); choose") as error:
        fill(tmp_path, SweepSpec({"seed": [0, 1]}, SETTINGS), load=changed_digits)
    assert "\n" not in str(error.value)
    assert (tmp_path / "sweep.sqlite").read_bytes() == before


def write_recipe(path, like):
    path.write_text(json.dumps(RECIPES[like].to_dict() | {"name": "mine"}))
    return str(path)


@pytest.mark.parametrize("place", ["axis", "setting"])
def test_a_recipe_file_with_other_contents_is_refused(place, tmp_path):
    def spec(like, seeds):
        recipe = write_recipe(tmp_path / "mine.json", like)
        if place == "axis":
            return SweepSpec({"recipe": [recipe, "fixed16"], "seed": seeds}, SETTINGS)
        return SweepSpec({"seed": seeds}, SETTINGS | {"recipe": recipe})

    fill(tmp_path / "out", spec("fixed16", [0]))
    before = (tmp_path / "out" / "sweep.csv").read_bytes()
    with pytest.raises(StudyError, match=r"another|recipe") as error:
        fill(tmp_path / "out", spec("niti8", [0, 1]))
    assert "\n" not in str(error.value)
    assert "--fresh" in str(error.value)
    fill(tmp_path / "out", spec("fixed16", [0]))
    assert (tmp_path / "out" / "sweep.csv").read_bytes() == before


def test_a_cell_that_is_refused_when_it_is_trained_is_a_result(tmp_path):
    spec = SweepSpec({"samples": [200, 5000], "seed": [0]}, {name: SETTINGS[name] for name in ("epochs", "hidden", "batch")})
    fill(tmp_path / "here", spec)
    fill(tmp_path / "pool", spec, Pool(1))
    assert (tmp_path / "here" / "sweep.csv").read_bytes() == (tmp_path / "pool" / "sweep.csv").read_bytes()
    ran, refused = table(tmp_path / "here" / "sweep.csv")
    assert ran["outcome"] == "trained"
    samples = len(datasets.load("digits", subset="train").labels)
    assert refused["outcome"] == f"refused: digits has {samples} training samples, and 5000 are asked for"
    assert {value for name, value in refused.items() if name not in ("samples", "seed", "outcome")} == {""}
    with Store(tmp_path / "here", spec.study(), spec.schema) as store:
        sentences = study.export(store, spec)
        grid = study.to_xarray(store)
    assert any(sentence.startswith("Refused in 1 of 2 settings: samples 5000: digits has") for sentence in sentences)
    assert grid.outcome.values.tolist() == [["trained"], [refused["outcome"]]]

    def no_constant(name):
        raise AssertionError(name)

    found = json.loads((tmp_path / "here" / "sweep.json").read_text(), parse_constant=no_constant)
    assert found["settings"][1]["accuracy"] is None


def test_workers_of_other_versions_or_data_are_refused():
    here = versions()
    assert set(here) == {"intnet", "numpy", "numba", "python"}
    with pytest.raises(
        VersionError, match=r"worker at X has other versions than the driver: numpy .* here and 1.0 there; give"
    ):
        check_versions(here, here | {"numpy": "1.0"}, "X")
    check_versions(here, dict(here), "X")
    facts = SPEC.facts(lambda name, *, subset: load_once(None, name, subset=subset))
    task = Task(SPEC, SPEC.cells()[:1], None, facts, here)
    assert len(run_task(task).rows) == 1
    with pytest.raises(VersionError):
        run_task(replace(task, versions=here | {"intnet": "0"}))
    with pytest.raises(DataError, match=r"has other data than the driver \(digits differs\); give it the same files"):
        run_task(replace(task, facts={"digits": facts["digits"] | {"checksum": "0"}}))


# 4. Shards that do not fit ------------------------------------------------------------------------------------------------

SMALL = SweepSpec({"seed": range(4)}, SETTINGS)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Run a sweep in two shards."""
    out = tmp_path_factory.mktemp("shards")
    for number in (1, 2):
        fill(shard_folder(out, number, 2), SMALL, cells=SMALL.shard(number, 2))
    return out


def remove(out):
    shutil.rmtree(out / "shard-2-of-2")


def empty(out):
    remove(out)
    (out / "shard-2-of-2").mkdir()


def unfinish(out):
    with closing(sqlite3.connect(out / "shard-2-of-2" / "sweep.sqlite")) as connection, connection:
        connection.execute("DELETE FROM cells WHERE seed = 3")


def replace_by(axes, settings):
    def change(out):
        remove(out)
        fill(out / "shard-2-of-2", SweepSpec(axes, settings))

    return change


def damage(out):
    (out / "shard-2-of-2" / "sweep.sqlite").write_bytes(b"\xa5" * 5000)


def other_data(out):
    with Store(out / "shard-2-of-2", SMALL.study(), SMALL.schema) as store:
        store.set_note("data", {"digits": {"checksum": "other"}})


def add_another_count(out):
    (out / "shard-1-of-3").mkdir()


def remove_all(out):
    remove(out)
    shutil.rmtree(out / "shard-1-of-2")


BROKEN = {
    "missing": (remove, r"shard 2 of 2 is missing from .*; run it with --shard 2/2, then merge again"),
    "empty": (empty, r"shard 2 of 2 in .* has stored nothing yet; run it again with --shard 2/2"),
    "unfinished": (unfinish, r"shard 2 of 2 in .* is unfinished: 1 of 2 cells are missing; run it again with --shard 2/2"),
    "another": (replace_by({"seed": [1, 3]}, SETTINGS | {"epochs": 2}), r"shard 2 of 2 in .* is of another sweep; .* --fresh"),
    "other axes": (replace_by({"epochs": [1]}, {"samples": 200, "hidden": [8]}), r"shard 2 of 2 in .* is of another sweep"),
    "damaged": (damage, r"shard-2-of-2/sweep.sqlite: .* it is damaged"),
    "other data": (other_data, r"shard 2 of 2 in .* was made from other data than the rest \(digits differs\)"),
    "another count": (add_another_count, r"shard-1-of-N to shard-N-of-N; it holds of 2 and of 3"),
    "none": (remove_all, r"should hold the shards of one sweep, .*; it holds none"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_shards_that_do_not_fit(change, message, shards, tmp_path):
    out = shutil.copytree(shards, tmp_path / "out")
    change(out)
    with Store(out, SMALL.study(), SMALL.schema) as store:
        with pytest.raises(StudyError, match=message) as error:
            merge(SMALL, store)
        assert "\n" not in str(error.value)
        assert store.count() == 0


def test_more_shards_than_cells(tmp_path):
    for number in range(1, 7):
        fill(shard_folder(tmp_path, number, 6), SMALL, cells=SMALL.shard(number, 6))
    with Store(tmp_path, SMALL.study(), SMALL.schema) as store:
        assert merge(SMALL, store) == 4
    with pytest.raises(InputError, match="a shard is 1/N to N/N, got 7/6"):
        shard_folder(tmp_path, 7, 6)


# 5. Plans -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SMALL, GRID], ids=["sweep", "grid"])
def test_a_plan_tells_what_is_left_and_writes_nothing(spec, tmp_path):
    out = tmp_path / "out"
    cells = spec.cells()
    whole = study.plan(spec, cells, out, Pool(3), None)
    assert not out.exists()
    assert (whole.cells, whole.stored, whole.workers) == (len(cells), 0, 3)
    assert whole.seconds > 0
    assert whole.timed > 0
    assert whole.bytes > 2**20
    assert whole.wall_seconds == whole.seconds / 3
    assert whole.describe()[0] == f"{len(cells)} cells, of which 0 are stored and {len(cells)} are to be trained."
    with pytest.raises(StoppedError):
        fill(out, spec, progress=stop_at(1))
    some = stored(out, spec)
    assert study.plan(spec, cells, out, Here(), None).stored == some
    assert study.plan(spec, cells, out, Here(), None, fresh=True).stored == 0
    fill(out, spec)
    done = study.plan(spec, cells, out, Here(), None)
    assert (done.stored, done.seconds, done.timed) == (len(cells), 0, 0)
    assert len(done.describe()) == 1


def test_a_plan_of_another_sweep_is_refused(shards):
    folder = shards / "shard-1-of-2"
    for axes, settings in (({"seed": [0]}, SETTINGS | {"epochs": 2}), ({"epochs": [1]}, {"samples": 200})):
        spec = SweepSpec(axes, settings)
        with pytest.raises(StudyError, match="holds another study: ") as error:
            study.plan(spec, spec.cells(), folder, Here(), None)
        assert "\n" not in str(error.value)


def test_workers_are_a_number():
    for number in (0, 1025, True, "2", 2.0):
        with pytest.raises(InputError, match=r"workers must be an integer in 1..1024, got"):
            Pool(number)


def test_a_folder_is_for_one_kind_of_study(tmp_path):
    grid = GridSpec("digits", (9,), (12,), (0,), 1001)
    spec = SweepSpec({"seed": [0]}, {"dataset": "digits"})
    with Store(tmp_path, grid.study(), grid.schema):
        pass
    before = contents(tmp_path)
    with pytest.raises(StudyError, match=r"another kind of study \(grid.sqlite\).*choose another --out"):
        Store(tmp_path, spec.study(), spec.schema)
    assert contents(tmp_path) == before
