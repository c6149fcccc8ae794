"""The store of a grid: what is refused, what is kept to the bit, what survives damage, a kill and a second run."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from intnet.errors import StudyError
from intnet.online import Cell
from intnet.sweeps import GridSpec, GridStore, Row, open_grid, set_aside, write_atomically

STUDY = GridSpec("digits").study()
OTHER_STUDY = GridSpec("digits", iterations=2000).study()
ROWS = [  # of a grid of 2 x 2 x 2 cells; floats whose shortest decimals are long, and the largest counts
    Row(seed, lr_shift, fraction_bits, 0.1 + 0.2 + seed, lr_shift / 3, 5e-324 * fraction_bits, 2**63 - 1, 0, seed)
    for seed in (0, 1)
    for lr_shift in (9, 10)
    for fraction_bits in (12, 14)
]


def contents(folder):
    """Return the bytes of every file in `folder`, but for the empty lock."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file() and path.name != ".lock"}


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value)) > 30


@pytest.fixture
def folder(tmp_path):
    """Make a study with eight cells and notes."""
    with GridStore(tmp_path / "study", STUDY) as store:
        store.add(ROWS)
        store.set_note("data", {"checksum": "abc", "classes": 10})
    return tmp_path / "study"


# 1. Storage ---------------------------------------------------------------------------------------------------------------


def test_what_is_stored_comes_back_to_the_bit(folder):
    with GridStore(folder, STUDY) as store:
        assert store.rows() == ROWS
        assert [tuple(map(type, row)) for row in store.rows()] == [tuple(Row.__annotations__.values())] * len(ROWS)
        assert store.count() == 8
        assert store.note("data") == {"checksum": "abc", "classes": 10}
        assert store.note("nothing") is None
        assert store.missing([Cell(0, 9, 12), Cell(2, 9, 12), Cell(0, 9, 13)]) == [Cell(2, 9, 12), Cell(0, 9, 13)]


def test_the_csv_is_by_repr(folder):
    with GridStore(folder, STUDY) as store:
        store.write_csv()
    assert (
        (folder / "grid.csv")
        .read_bytes()
        .startswith(
            b"dataset,seed,lr_shift,fraction_bits,accuracy,mean_abs_update,mean_abs_error_scaled,"
            b"lost_updates,floored_to_minus_one,wraps\n"
            b"digits,0,9,12,0.30000000000000004,3.0,6e-323,9223372036854775807,0,0\n"
        )
    )
    assert (folder / "grid.csv").read_bytes().count(b"\n") == 9


def test_rows_are_stored_all_or_none(folder):
    with GridStore(folder, STUDY) as store:
        with pytest.raises(sqlite3.IntegrityError):
            store.add([ROWS[0]._replace(seed=7), ROWS[0]])
        assert store.rows() == ROWS
        store.add([ROWS[0]._replace(seed=7)])
        assert store.count() == 9


@pytest.mark.parametrize(
    "change", [{"accuracy": float("nan")}, {"wraps": np.int64(3)}, {"wraps": 0.5}, {"accuracy": "high"}, {"seed": None}]
)
def test_values_of_another_type_are_not_stored(folder, change):
    with GridStore(folder, STUDY) as store:
        with pytest.raises(sqlite3.IntegrityError):
            store.add([ROWS[0]._replace(lr_shift=11)._replace(**change)])
        assert store.rows() == ROWS


def test_cells_of_another_study_are_refused(folder):
    before = contents(folder)
    with pytest.raises(StudyError, match=r"holds another study: iterations 10000 there, 2000 here; .* --fresh") as error:
        GridStore(folder, OTHER_STUDY)
    assert one_line(error)
    assert contents(folder) == before


def test_a_study_without_a_cell_keeps_nobody_out(tmp_path):
    with GridStore(tmp_path, STUDY) as store:
        store.set_note("data", {"checksum": "of the other data"})
    with GridStore(tmp_path, OTHER_STUDY) as store:
        assert store.note("data") is None
        store.add(ROWS)
    with pytest.raises(StudyError, match="holds another study"):
        GridStore(tmp_path, STUDY)


def test_a_full_disk_loses_nothing(folder):
    with GridStore(folder, STUDY) as store:
        store._connection.execute("PRAGMA max_page_count = 1")  # SQLite takes the present size as the least
        with pytest.raises(StudyError, match="full; free some space; what was stored before is safe") as error:
            store.add(ROWS[0]._replace(seed=seed) for seed in range(2, 10_000))
        assert one_line(error)
        assert store.rows() == ROWS
    assert len(open_grid(folder).seed) == 2


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "grid.csv"
    write_atomically(path, lambda draft: draft.write_text("old"))

    def fail(draft):
        draft.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(StudyError, match="No space left on device; make room"):
        write_atomically(path, fail)
    assert contents(tmp_path) == {"grid.csv": b"old"}


# 2. One run at a time -----------------------------------------------------------------------------------------------------

HOLD = """
import sys
from intnet.sweeps import GridSpec, GridStore
with GridStore(sys.argv[1], GridSpec("digits").study()):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_two_stores_of_one_process_exclude_each_other(folder):
    with GridStore(folder, STUDY) as store:
        for _ in range(2):  # a refusal must not free the lock either
            with pytest.raises(StudyError, match="is in use by another run") as error:
                GridStore(folder, STUDY)
            assert one_line(error)
        with pytest.raises(StudyError, match="is in use by another run"):
            set_aside(folder)
        assert store.rows() == ROWS
    GridStore(folder, STUDY).close()


def test_two_processes_exclude_each_other_until_one_is_killed(folder):
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(StudyError, match="is in use by another run"):
            GridStore(folder, STUDY)
        with pytest.raises(StudyError, match="is in use by another run"):
            set_aside(folder)
        assert open_grid(folder).accuracy.size == 8
        other.kill()
        other.wait()
        with GridStore(folder, STUDY) as store:
            assert store.rows() == ROWS


def test_reading_while_another_program_writes(folder):
    with closing(sqlite3.connect(folder / "grid.sqlite", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM cells")
        assert open_grid(folder).accuracy.notnull().all()
        writer.execute("ROLLBACK")


def test_another_program_that_keeps_the_database_is_named(folder, monkeypatch):
    monkeypatch.setattr("intnet.sweeps.storage.PATIENCE", 0)
    with closing(sqlite3.connect(folder / "grid.sqlite", isolation_level=None)) as other:
        with GridStore(folder, STUDY) as store:
            other.execute("BEGIN EXCLUSIVE")
            for use in (
                store.rows,
                store.count,
                lambda: store.note("data"),
                lambda: store.missing([]),
                lambda: store.add(ROWS),
            ):
                with pytest.raises(StudyError, match="locked; another program holds it open; close that one") as error:
                    use()
                assert one_line(error)
        with pytest.raises(StudyError, match="another program holds it open"):
            open_grid(folder)


# A run that is killed while SQLite writes leaves changed pages in the file, and the old ones in a journal beside it.
KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("CREATE TABLE much (text)")
connection.executemany("INSERT INTO much VALUES (?)", [["x" * 1000]] * 1000)
os.kill(os.getpid(), 9)
"""


def kill_while_writing(folder):
    assert subprocess.run([sys.executable, "-c", KILLED, str(folder / "grid.sqlite")]).returncode == -signal.SIGKILL
    assert (folder / "grid.sqlite").stat().st_size > 100_000
    assert (folder / "grid.sqlite-journal").exists()


@pytest.mark.parametrize("reader_first", [True, False])
def test_what_a_killed_run_left_half_written_is_taken_back(folder, reader_first):
    before = contents(folder)
    kill_while_writing(folder)
    if reader_first:
        assert open_grid(folder).accuracy.size == 8
    with GridStore(folder, STUDY) as store:
        assert store.rows() == ROWS
    assert contents(folder) == before


def test_a_run_killed_at_its_very_start_leaves_a_folder_for_anyone(tmp_path):
    kill_while_writing(tmp_path)
    with GridStore(tmp_path, STUDY) as store:
        assert store.count() == 0


# 3. Damage ----------------------------------------------------------------------------------------------------------------


def sql(*statements):
    def damage(path):
        with closing(sqlite3.connect(path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    return damage


def overwritten(start, stop):
    def damage(path):
        stored = bytearray(path.read_bytes())
        stored[start:stop] = b"\xa5" * len(stored[start:stop])
        path.write_bytes(stored)

    return damage


def foreign(path):
    path.unlink()
    sql("CREATE TABLE cells (x)", "CREATE TABLE study (y)")(path)


DAMAGES = {
    "garbage": lambda path: path.write_bytes(b"not a database " * 1000),
    "a few bytes": lambda path: path.write_bytes(b"SQLite"),
    "cut in a page": lambda path: os.truncate(path, path.stat().st_size // 2 + 100),
    "cut between pages": lambda path: os.truncate(path, path.stat().st_size // 2),
    "first page": overwritten(100, 4096),
    "last page": overwritten(-4096, None),
    "another program's": foreign,
    "no cells": sql("DROP TABLE cells"),
    "no notes": sql("DROP TABLE study"),
    "no study": sql("DELETE FROM study"),
    "a column more": sql("ALTER TABLE cells ADD COLUMN more"),
    "no JSON": sql("UPDATE study SET value = '{' WHERE key = 'study'"),
    "not a dict": sql("UPDATE study SET value = '[1]' WHERE key = 'study'"),
    "no data set": sql("UPDATE study SET value = '{}' WHERE key = 'study'"),
    "bytes": sql("UPDATE study SET value = x'ff' WHERE key = 'study'"),
    "no UTF-8": sql("UPDATE study SET value = CAST(x'ff' AS TEXT) WHERE key = 'study'"),
    "type of a value": sql("PRAGMA ignore_check_constraints = 1", "UPDATE cells SET accuracy = 'high'"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_database_is_refused_left_alone_and_set_aside(folder, damage):
    damage(folder / "grid.sqlite")
    before = contents(folder)
    for use in (lambda: GridStore(folder, STUDY), lambda: open_grid(folder)):
        with pytest.raises(StudyError, match=r"grid.sqlite: .* it is damaged; put a good copy back, or .* --fresh") as error:
            use()
        assert one_line(error)
    assert contents(folder) == before
    aside = set_aside(folder)
    assert contents(aside) == before
    with GridStore(folder, STUDY) as store:
        assert store.count() == 0


def test_a_malformed_note_is_refused(folder):
    sql("UPDATE study SET value = 'oops' WHERE key = 'data'")(folder / "grid.sqlite")
    with GridStore(folder, STUDY) as store, pytest.raises(StudyError, match="its note 'data' is malformed; it is damaged"):
        store.note("data")


@pytest.mark.parametrize(
    ("damage", "state"), [(Path.unlink, "missing"), (lambda path: os.truncate(path, 0), "empty")], ids=["deleted", "emptied"]
)
def test_a_lost_database_is_not_silently_begun_anew(folder, damage, state):
    with GridStore(folder, STUDY) as store:
        store.write_csv()
    damage(folder / "grid.sqlite")
    before = contents(folder)
    with pytest.raises(StudyError, match=f"grid.sqlite is {state} but .* holds grid.csv of an earlier study; put") as error:
        GridStore(folder, STUDY)
    assert one_line(error)
    with pytest.raises(StudyError, match=r"damaged|holds no study"):
        open_grid(folder)
    assert contents(folder) == before
    assert contents(set_aside(folder)) == before


def test_a_folder_in_the_place_of_the_database(tmp_path):
    (tmp_path / "grid.sqlite").mkdir()
    for use in (GridStore, lambda folder, study: open_grid(folder)):  # noqa: ARG005
        with pytest.raises(StudyError, match="unable to open database file; check that the folder is writable"):
            use(tmp_path, STUDY)


@pytest.mark.parametrize(
    ("below", "message"),
    [
        ("file", "file is not a folder; --out must name a folder"),
        ("file/below", "Not a directory; choose another --out"),
        ("file/further/below", "Not a directory; choose another --out"),
        ("dangling", "dangling is not a folder"),
        ("x" * 300, "File name too long; choose another --out"),
    ],
    ids=lambda text: text[:20],
)
def test_places_that_can_hold_no_study(tmp_path, below, message):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(StudyError, match=message) as error:
        GridStore(tmp_path / below, STUDY)
    assert one_line(error)
    assert (tmp_path / "file").read_text() == "precious"
    with pytest.raises(StudyError, match="holds no study"):
        open_grid(tmp_path / below)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_that_is_not_writable(tmp_path):
    tmp_path.chmod(0o555)
    for place in (tmp_path, tmp_path / "below"):
        with pytest.raises(
            StudyError, match=r"folder is writable, or choose another --out|Permission denied; choose another --out"
        ):
            GridStore(place, STUDY)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system where nobody can make files")
@pytest.mark.parametrize("place", ["/proc", "/proc/intnet"])
def test_a_file_system_that_is_not_writable(place):
    with pytest.raises(StudyError, match=f"cannot .* {place}.*choose another --out") as error:
        GridStore(place, STUDY)
    assert one_line(error)


# 4. Setting aside ---------------------------------------------------------------------------------------------------------


def test_a_study_is_set_aside_under_a_dated_name(folder):
    (folder / "thoughts.txt").write_text("of the user")
    before = contents(folder)
    aside = set_aside(folder)
    assert re.fullmatch(r"study\.\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d", aside.name)
    assert contents(aside) == before
    assert not folder.exists()
    assert open_grid(aside).accuracy.size == 8


def test_setting_aside_twice_in_a_second_keeps_both(folder):
    names = {set_aside(folder)}
    for _ in range(2):
        GridStore(folder, STUDY).close()
        names.add(set_aside(folder))
    assert len(names) == 3
    assert all((name / "grid.sqlite").exists() for name in names)


def test_where_there_is_nothing_to_set_aside(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "locked once").mkdir()
    (tmp_path / "locked once" / ".lock").touch()
    for name in ("empty", "locked once", "missing"):
        assert set_aside(tmp_path / name) is None
    assert sorted(os.listdir(tmp_path)) == ["empty", "locked once"]


def test_what_is_not_a_study_is_never_moved(tmp_path, folder, monkeypatch):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("precious")
    for place in (tmp_path / "thesis", tmp_path / "thesis" / "chapter1.tex"):
        with pytest.raises(StudyError, match=r"holds no study .* so it is not set aside; choose another --out") as error:
            set_aside(place)
        assert one_line(error)
    monkeypatch.chdir(folder)
    with pytest.raises(StudyError, match="cannot be set aside from within"):
        set_aside(".")
    assert sorted(os.listdir(tmp_path)) == ["study", "thesis"]


# 5. As a labelled grid ----------------------------------------------------------------------------------------------------


def test_a_complete_grid_is_labelled(folder):
    with GridStore(folder, STUDY) as store:
        grid = store.to_xarray()
    assert grid.identical(open_grid(str(folder)))
    assert grid.sizes == {"seed": 2, "lr_shift": 2, "fraction_bits": 2}
    assert list(grid.data_vars) == list(Row._fields[3:])
    for row in ROWS:
        cell = grid.sel(seed=row.seed, lr_shift=row.lr_shift, fraction_bits=row.fraction_bits)
        assert tuple(cell[name].item() for name in Row._fields) == row
    assert {name: str(variable.dtype) for name, variable in grid.variables.items()} == {
        name: "int64" if kind is int else "float64" for name, kind in Row.__annotations__.items()
    }
    assert grid.attrs == {**STUDY, "title": "intnet grid: digits", "chance_accuracy": 0.1}
    assert all(variable.attrs.keys() == {"long_name", "units"} for variable in grid.variables.values())
    assert grid.mean_abs_update.units == "raw unit"


def test_cells_that_are_missing_are_nan(tmp_path):
    with GridStore(tmp_path, STUDY) as store:
        store.add([ROWS[0], ROWS[-1]])
    grid = open_grid(tmp_path)
    assert grid.sizes == {"seed": 2, "lr_shift": 2, "fraction_bits": 2}
    stored = np.zeros((2, 2, 2), bool)
    stored[0, 0, 0] = stored[1, 1, 1] = True
    for variable in grid.data_vars.values():
        assert variable.dtype == np.float64
        assert_array_equal(variable.notnull(), stored)
    assert grid.wraps.values[1, 1, 1] == 1


def test_a_study_without_cells_is_an_empty_grid(tmp_path):
    with GridStore(tmp_path, STUDY) as store:
        assert store.to_xarray().accuracy.shape == (0, 0, 0)


def test_the_grid_equals_itself_as_netcdf(folder):
    import xarray

    grid = open_grid(folder)
    grid.to_netcdf(folder / "grid.nc", engine="h5netcdf")
    with xarray.open_dataset(folder / "grid.nc") as read:
        assert read.identical(grid)


def test_folders_with_odd_names(tmp_path, monkeypatch):
    odd = tmp_path / "100% sure? #1 & ünï"
    GridStore(odd, STUDY).close()
    assert open_grid(odd).accuracy.size == 0
    monkeypatch.chdir(odd)
    assert open_grid(".").accuracy.size == 0


def test_a_folder_without_a_study(tmp_path):
    with pytest.raises(StudyError, match=r"holds no study .* run experiments/grid.py --out") as error:
        open_grid(tmp_path)
    assert one_line(error)
    assert os.listdir(tmp_path) == []
