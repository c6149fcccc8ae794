"""The study of sparse descents: its table against floats and exact fractions, how it goes on, what it refuses, what it says."""

import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from intnet.errors import InputError, StudyError
from intnet.studies import sparse_linear as study
from intnet.studies import tables
from intnet.studies.sparse_linear import LinearRow, LinearSpec

SMALL = LinearSpec(fraction_bits=(40, 8), steps=25)
RUNS = [
    ("gd", 0.0),
    ("projected", 2.0),
    *(("l1", one) for one in (0.2, 0.5, 1.0, 2.0)),
    *(("proximal", one) for one in (0.004, 0.01, 0.02, 0.04)),
    *(("trimmed", one) for one in (0.02, 0.04, 0.1, 0.2)),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Run a small study, for reading only."""
    folder, told = tmp_path_factory.mktemp("made") / "linear", []
    rows = study.run(SMALL, folder, progress=told.append)
    return folder, rows, told


# 1. The table -----------------------------------------------------------------------------------------------------------


def test_the_table_has_its_columns_and_every_float_as_its_shortest_exact_decimal(made):
    folder, rows, told = made
    text = (folder / "linear.csv").read_text()
    lines = [line.split(",") for line in text.splitlines()]
    assert lines[0] == ["method", "parameter", "fraction_bits", "step", "loss", "w0", "w1", "w2", "w3", "w4"]
    assert len(lines) == 1 + len(RUNS) * 2 * 26
    for line in lines[1:]:
        assert all(repr(float(one)) == one for one in (line[1], *line[4:]))
        assert all(str(int(one)) == one for one in line[2:4])
    assert sorted(rows) == tables.from_csv(LinearRow, text)
    assert tables.to_csv(LinearRow, sorted(rows)) == text
    assert told == [1] * len(RUNS) * 2
    config = json.loads((folder / "config.json").read_text())
    assert {name: config[name] for name in ("study", "rate", "keep", "steps")} == {
        "study": "sparse-linear", "rate": "0.02", "keep": 2, "steps": 25
    }  # fmt: skip
    assert (np.array(config["x"]) == study.X).all()
    assert (np.array(config["y"]) == study.Y).all()
    assert {"intnet", "numpy"} <= set(config)


def test_what_is_returned_comes_as_it_was_asked_for(made):
    keys = list(dict.fromkeys(row[:3] for row in made[1]))
    assert keys == [(*one, bits) for bits in (40, 8) for one in RUNS]
    assert [row.step for row in made[1]] == [*range(26)] * len(keys)  # steps count updates


def test_every_descent_starts_at_zero_with_a_loss_of_51(made):
    first = [row for row in made[1] if row.step == 0]
    assert len(first) == len(RUNS) * 2
    assert {row[4:] for row in first} == {(51.0, 0.0, 0.0, 0.0, 0.0, 0.0)}
    assert {row.loss for row in made[1] if row.step == 1} != {51.0}


def test_losses_are_those_of_the_weights_beside_them(made):
    """In exact fractions; weights of 40 fraction bits are exact floats."""
    for row in made[1]:
        exact = sum(
            (sum(x * Fraction(w) for x, w in zip(line, row.weights, strict=True)) - y) ** 2
            for line, y in zip(study.X, study.Y, strict=True)
        )
        assert row.loss == float(exact)


def floats(method, parameter, steps):
    """Return the weights of every step, in floats."""
    x, y, w = np.array(study.X, float), np.array(study.Y, float), np.zeros(5)
    path = [w]
    for _ in range(steps):
        gradient = 2 * x.T @ (x @ w - y) + (parameter * np.sign(w) if method == "l1" else 0)
        w = w - 0.02 * gradient
        smallest = np.argsort(-abs(w), kind="stable")[2:]
        shrunk = np.sign(w) * np.maximum(abs(w) - parameter, 0)
        if method == "projected":
            w[smallest] = 0
        elif method == "proximal":
            w = shrunk
        elif method == "trimmed":
            w[smallest] = shrunk[smallest]
        path.append(w)
    return np.array(path)


@pytest.mark.parametrize(("bits", "tolerance"), [(40, 1e-10), (16, 1e-3)])
def test_two_hundred_steps_are_those_of_floats(bits, tolerance, tmp_path):
    groups = study.by_run(study.run(LinearSpec(fraction_bits=bits), tmp_path))
    assert list(groups) == [(*one, bits) for one in RUNS]
    for (method, parameter, _), rows in groups.items():
        expected = floats(method, parameter, 200)
        np.testing.assert_allclose([row.weights for row in rows], expected, rtol=0, atol=tolerance, err_msg=method)
        if bits == 40 and method in ("projected", "trimmed"):  # they find the sparse solution
            np.testing.assert_allclose(rows[-1].weights, (0, -3, 0, 0, 1), atol=1e-6)
            assert [value == 0 for value in rows[-1].weights] == [True, False, True, True, False]


def halves_away(numerator, denominator):
    """Round to nearest, ties away from zero."""
    size = (2 * abs(numerator) + denominator) // (2 * denominator)
    return size if numerator >= 0 else -size


@pytest.mark.parametrize("method", ["gd", "projected", "l1", "proximal", "trimmed"])
def test_eight_bits_are_those_of_integers_one_by_one(made, method):
    """A move is rounded once; rate and parameter are rounded to units before."""
    unit, x, y = 2**8, study.X, study.Y
    for name, parameter in RUNS:
        if name != method:
            continue
        rate, penalty, w = round(Fraction("0.02") * unit), round(Fraction(str(parameter)) * unit), [0] * 5
        rows = [row for row in made[1] if row[:3] == (name, parameter, 8)]
        for row in rows:
            assert [Fraction(one) * unit for one in row.weights] == w
            errors = [sum(a * b for a, b in zip(line, w, strict=True)) - t * unit for line, t in zip(x, y, strict=True)]
            gradient = [2 * sum(x[i][j] * errors[i] for i in range(3)) for j in range(5)]
            if method == "l1":
                gradient = [one + penalty * ((v > 0) - (v < 0)) for one, v in zip(gradient, w, strict=True)]
            w = [v - halves_away(rate * one, unit) for v, one in zip(w, gradient, strict=True)]
            order = sorted(range(5), key=lambda j, w=w: (-abs(w[j]), j))
            shrunk = [(v > 0) * max(v - penalty, 0) - (v < 0) * max(-v - penalty, 0) for v in w]
            if method == "projected":
                w = [w[j] if j in order[:2] else 0 for j in range(5)]
            elif method == "proximal":
                w = shrunk
            elif method == "trimmed":
                w = [w[j] if j in order[:2] else shrunk[j] for j in range(5)]


# 2. Going on ------------------------------------------------------------------------------------------------------------


def test_a_small_study_grows_into_the_whole(made, tmp_path):
    some = study.run(replace(SMALL, methods=("trimmed",), fraction_bits=8), tmp_path)
    assert Counter(row.method for row in some) == {"trimmed": 4 * 26}
    study.run(replace(SMALL, methods="gd"), tmp_path)
    assert study.run(SMALL, tmp_path) == made[1]
    for name in ("linear.csv", "config.json"):
        assert (tmp_path / name).read_bytes() == (made[0] / name).read_bytes()
    written, told = (tmp_path / "linear.csv").stat().st_mtime_ns, []
    assert study.run(replace(SMALL, methods=("l1", "gd")), tmp_path, progress=told.append) == [
        row for bits in (40, 8) for name in ("l1", "gd") for row in made[1] if (row.method, row.fraction_bits) == (name, bits)
    ]
    assert sum(told) == 10
    assert (tmp_path / "linear.csv").stat().st_mtime_ns == written


def test_other_steps_are_another_study(tmp_path):
    study.run(replace(SMALL, methods="gd"), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(StudyError, match="holds a study with steps 25, and 26 is asked for; choose another --out"):
        study.run(replace(SMALL, steps=26), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class Stopped(Exception):  # noqa: N818, D101
    pass


def test_finished_descents_of_a_stopped_study_are_kept(tmp_path):
    """As the program says when it is interrupted."""
    told = []

    def stop(progress):
        told.append(progress)
        if len(told) == 5:
            raise Stopped

    with pytest.raises(Stopped):
        study.run(SMALL, tmp_path, progress=stop)
    kept = tables.from_csv(LinearRow, (tmp_path / "linear.csv").read_text())
    assert len({row[:3] for row in kept}) >= 4


def test_a_table_whose_last_lines_are_lost_is_mended_or_refused(made, tmp_path):
    study.run(SMALL, tmp_path)
    text = (tmp_path / "linear.csv").read_text()
    (tmp_path / "linear.csv").write_text("".join(text.splitlines(keepends=True)[:-3]))
    try:
        rows = study.run(SMALL, tmp_path)
    except StudyError:
        return
    study.export(rows, tmp_path, plots=False)
    assert rows == made[1]


# 3. Specifications ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("gd", "adam")}, "methods are gd, projected, l1, proximal, trimmed, got 'adam'"),
        ({"methods": ("",)}, "got ''"),
        ({"fraction_bits": ()}, "fraction_bits must not be empty"),
        ({"fraction_bits": 0}, "fraction_bits must be at least 1, got 0"),
        ({"fraction_bits": (40, 53)}, "fraction_bits must be at most 52, got 53"),
        ({"fraction_bits": 8.0}, r"fraction_bits must be at least 1, got 8\.0"),
        ({"fraction_bits": True}, "got True"),
        ({"fraction_bits": 52}, "use fewer fraction bits"),
        ({"fraction_bits": 4, "methods": "gd"}, r"rate 0\.02 is 0 units with 4 fraction bits; use another, or more bits"),
        ({"fraction_bits": 6}, r"parameter 0\.004 is 0 units with 6 fraction bits; use another, or more bits"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 2.5}, r"steps must be at least 1, got 2\.5"),
    ],
)
def test_specifications_are_checked_before_anything_is_made(changes, message):
    with pytest.raises(InputError, match=message):
        LinearSpec(**changes)


def test_what_is_named_twice_counts_once():
    spec = LinearSpec(("gd", "l1", "gd"), (8, 8, 12))
    assert (spec.methods, spec.fraction_bits) == (("gd", "l1"), (8, 12))
    assert spec.runs() == [("gd", 0.0), *(("l1", one) for one in (0.2, 0.5, 1.0, 2.0))]
    assert LinearSpec("projected", 5).runs() == [("projected", 2.0)]  # a rate of 0.64 units is one


def test_no_methods_are_refused():
    with pytest.raises(InputError, match="methods must not be empty"):
        LinearSpec(methods=())


# 4. What is said --------------------------------------------------------------------------------------------------------


def test_what_is_exported(made, tmp_path):
    sentences = study.export(made[1], tmp_path, plots=False)
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[0].startswith("| method | parameter | fraction bits | loss at step 1 / 20 | weights at step 25 |")
    assert len(lines) == 2 + len(RUNS) * 2
    assert len({line.count("|") for line in lines}) == 1
    assert sentences == study.describe(made[1])


def test_sentences_and_lines_tell_the_numbers():
    def rows(method, parameter, bits, *weights):
        return [LinearRow(method, parameter, bits, step, 2.0 - step, *one) for step, one in enumerate(weights)]

    zero = (0.0,) * 5
    some = [
        *rows("l1", 0.5, 40, zero, (1.0, 0.0, 0.5, 0.0, -1.0)),
        *rows("gd", 0.0, 40, zero, (1.0, 2.0, 0.5, 0.0, -1.0)),
        *rows("l1", 0.5, 8, zero, (1.0, 0.25, 0.5, 0.0, -1.0)),
        *rows("gd", 0.0, 8, zero, (1.0, 2.0, 0.0, 0.0, -1.5)),
        *rows("gd", 0.0, 12, zero, (1.0, 2.0, 0.5, 0.0, -1.0)),
    ]
    assert study.describe(some) == [
        "12 fraction bits against 40: the last weights are off by up to 0 (gd), and the same weights are zero everywhere.",
        "8 fraction bits against 40: the last weights are off by up to 0.5 (gd), and other weights are zero in l1 0.5, gd.",
    ]
    assert study.table(some).splitlines()[2] == "| l1 | 0.5 | 40 | 1 | 1.0000, 0, 0.5000, 0, -1.0000 | 1 |"
    assert study.describe(some[:4]) == []  # of one width there is nothing to compare
