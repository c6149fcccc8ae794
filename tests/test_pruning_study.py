"""The study of pruning: its schedules and masks, its tables against numpy.percentile, how it goes on, what it refuses."""

import re
import shutil
import threading
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from programs import contents, times

from intnet import checkpoint, files
from intnet.errors import InputError, StudyError
from intnet.studies import compression as shared
from intnet.studies import pruning as study
from intnet.studies import tables
from intnet.studies.compression import FineTuning
from intnet.studies.pruning import LayerRow, PruningSpec, Row

ONE_SHOT, GLOBAL = "one-shot", "one-shot-global"
EVERY = (ONE_SHOT, GLOBAL, "iterative", "iterative-global")
SPEC = PruningSpec(EVERY, 80, (50,), 2, FineTuning(3, batch=32, rate="0.02"))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Train a network to start from."""
    spec = shared.dense_spec("digits", width=0.25, epochs=1, samples=64)
    return shared.dense(spec, tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def made(start, tmp_path_factory):
    """Run a study, for reading only."""
    folder, told = tmp_path_factory.mktemp("made") / "study", []
    assert study.run(SPEC, start, folder, after=told.append) == []
    return folder, told


def stored(arrays):
    """Return the stored weights of the layers that are pruned, by name, as integers of one unit."""
    names = [name for name in arrays if name.endswith(".weight/master") and "/shortcut/" not in name]
    assert len(names) == 1 + 2 * 9 + 1
    return {name.removesuffix(".weight/master"): arrays[name].astype(np.int64) for name in names}


def zeros_after(weights, percentile, together):
    """Return how many weights of each layer a rule leaves at zero: below a percentile, or there before."""
    everything = np.abs(np.concatenate([one.reshape(-1) for one in weights.values()]))
    found = {}
    for name, one in weights.items():
        limit = np.percentile(everything if together else np.abs(one), percentile)
        found[name] = int(np.count_nonzero((np.abs(one) < limit) | (one == 0)))
    return found


# 1. Schedules and masks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percentile", "epochs", "shares"),
    [
        (80, 4, [20, 40, 60, 80, 80, 80]),
        (80, 1, [80, 80]),
        (33.3, 3, [Fraction("11.1"), Fraction("22.2"), Fraction("33.3"), Fraction("33.3")]),
        (0.1, 2, [Fraction(1, 20), Fraction(1, 10)]),
        (0, 3, [0, 0, 0]),
        (100, 3, [Fraction(100, 3), Fraction(200, 3), 100, 100]),
    ],
)
def test_the_percentile_grows_linearly_and_exactly(percentile, epochs, shares):
    spec = PruningSpec(percentile=percentile, prune_epochs=epochs)
    assert [spec.share(epoch) for epoch in range(1, len(shares) + 1)] == shares


@pytest.mark.parametrize("method", EVERY)
def test_what_is_pruned_before_which_epoch(method, start, monkeypatch):
    """And the rule is that of the method: of each layer, or of all."""
    calls = []

    def pruner(name):
        return lambda _, share, masked=True: calls.append((name, trainer.epoch + 1, share, masked))

    monkeypatch.setattr(study, "pruner", pruner)
    spec = replace(SPEC, methods=method, prune_epochs=3, tuning=replace(SPEC.tuning, epochs=5))
    (one,) = study.trajectories(spec, start)
    trainer = one.trainer
    for epoch in range(5):
        trainer.epoch = epoch
        one.before(trainer)
    share = Fraction(80, 3)
    iterative = [(method, 1, share, False), (method, 2, 2 * share, False), (method, 3, 80, True)]
    assert calls == (iterative if method.startswith("iterative") else [(method, 1, 80, True)])


def test_rules_go_by_the_name_of_the_method():
    assert [study.pruner(name).__name__ for name in EVERY] == ["prune_layers", "prune_globally"] * 2


@pytest.mark.parametrize("method", ["iterative", "iterative-global"])
def test_what_is_pruned_grows_again_until_the_last_of_the_pruning_epochs(method, start):
    """Zeros right after pruning are exactly those of the percentile; from the mask on they stay as they are."""
    (one,) = study.trajectories(replace(SPEC, methods=method), start)
    weights = [*stored(start.stored.arrays)]
    parameters = {each.name.removesuffix(".weight"): each for each in one.trainer.network.parameters}
    pruned, after = [], []

    def look():
        zeros = {layer: np.array(parameters[layer].stored.mantissa == 0) for layer in weights}
        return zeros, {layer: parameters[layer].mask for layer in weights}

    def before(trainer):
        given = {layer: parameters[layer].stored.mantissa.astype(np.int64) for layer in weights}
        one.before(trainer)
        expected = zeros_after(given, float(SPEC.share(trainer.epoch + 1)), method.endswith("global"))
        zeros, masks = look()
        if trainer.epoch < 2:
            assert {layer: int(found.sum()) for layer, found in zeros.items()} == expected
        pruned.append((zeros, masks))

    one.trainer.run(before=before, after=lambda _: after.append(look()))
    assert [all(mask is None for mask in masks.values()) for _, masks in (*pruned, *after)] == [True, False, False] * 2
    grown = {layer: int((pruned[0][0][layer] & ~after[0][0][layer]).sum()) for layer in weights}
    assert sum(grown.values()) > 100
    held = pruned[1][0]  # from the last pruning on
    for zeros, masks in (after[1], pruned[2], after[2]):
        for layer in weights:
            np.testing.assert_array_equal(masks[layer], ~held[layer])
            assert not (held[layer] & ~zeros[layer]).any()
            assert not parameters[layer].value.mantissa[held[layer]].any()
    for name, parameter in parameters.items():
        assert (parameter.mask is not None) == (name in weights)  # shortcuts, biases and normalization have none


@pytest.mark.parametrize("method", [ONE_SHOT, GLOBAL])
def test_one_shot_masks_before_the_first_epoch(method, start):
    (one,) = study.trajectories(replace(SPEC, methods=method), start)
    parameters = {each.name.removesuffix(".weight"): each for each in one.trainer.network.parameters}
    weights = stored(start.stored.arrays)
    one.before(one.trainer)
    zeros = {layer: parameters[layer].stored.mantissa == 0 for layer in weights}
    assert {layer: int(found.sum()) for layer, found in zeros.items()} == zeros_after(weights, 80, method == GLOBAL)
    one.trainer.run(before=one.before)
    for layer, found in zeros.items():
        np.testing.assert_array_equal(parameters[layer].mask, ~found)
        assert not parameters[layer].stored.mantissa[found].any()


def test_a_start_with_masks_keeps_its_zeros(made, start):
    begun = shared.load(made[0] / "runs" / "one-shot-80")
    held = {one.name: ~one.mask for one in begun.network().parameters if one.mask is not None}
    assert held
    spec = replace(SPEC, methods="iterative", percentile=20, tuning=replace(SPEC.tuning, epochs=2))
    (one,) = study.trajectories(spec, begun)
    one.trainer.run(before=one.before)
    for parameter in one.trainer.network.parameters:
        if parameter.name in held:
            assert not parameter.stored.mantissa[held[parameter.name]].any()
            assert not (parameter.mask & held[parameter.name]).any()
    assert begun.digest != start.digest


# 2. The tables ----------------------------------------------------------------------------------------------------------


def test_the_rows_of_a_training(made, start):
    folder, told = made
    assert [row[:3] for row in told] == [
        *(("one-shot", 80.0, epoch) for epoch in (1, 2, 3)),
        *(("one-shot-global", 80.0, epoch) for epoch in (1, 2, 3)),
        *(("iterative", share, epoch) for epoch, share in ((1, 40.0), (2, 80.0), (3, 80.0))),
        *(("iterative-global", share, epoch) for epoch, share in ((1, 40.0), (2, 80.0), (3, 80.0))),
    ]
    for method in EVERY:
        text = (folder / "runs" / f"{method}-80" / "epochs.csv").read_text()
        assert text.splitlines()[0] == "method,percentile,epoch,sparsity,test_loss,test_accuracy"
        assert tables.from_csv(Row, text) == [row for row in told if row.method == method]
    for row in told:
        assert 0 < row.sparsity < 1
        assert row.test_accuracy * len(start.test) == pytest.approx(round(row.test_accuracy * len(start.test)))


def test_untuned_rows_are_those_of_the_rules(made, start):
    rows = {row[:3]: row for row in tables.from_csv(Row, (made[0] / "untuned.csv").read_text())}
    assert set(rows) == {("dense", 0.0, 0), *((name, share, 0) for name in (ONE_SHOT, GLOBAL) for share in (50.0, 80.0))}
    weights = stored(start.stored.arrays)
    size = sum(one.size for one in weights.values())
    for (name, share, _), row in rows.items():
        zeros = zeros_after(weights, share, name == GLOBAL)
        assert row.sparsity == sum(zeros.values()) / size
    dense = shared.tested(start, start.network())
    assert rows["dense", 0.0, 0][4:] == (dense.loss, dense.accuracy)
    network = start.network()
    for layer, one in weights.items():
        (parameter,) = (each for each in network.parameters if each.name == f"{layer}.weight")
        parameter.mask = ~(np.abs(one) < np.percentile(np.abs(one), 50))
        parameter.enforce()
    tested = shared.tested(start, network)
    assert rows[ONE_SHOT, 50.0, 0][4:] == (tested.loss, tested.accuracy)


def test_zeros_by_layer_are_exact(made, start):
    folder = made[0]
    _, layers = study.stored_rows(SPEC, start, folder)
    assert [row.method for row in layers if row.layer == "total"] == list(EVERY)
    for method in EVERY:
        rows = {row.layer: row for row in layers if row.method == method}
        if method in (ONE_SHOT, GLOBAL):  # of the start, without fine-tuning
            weights = stored(start.stored.arrays)
            zeros = zeros_after(weights, 80, method == GLOBAL)
        else:
            weights = stored(checkpoint.load(folder / "runs" / f"{method}-80" / "checkpoint.npz").arrays)
            zeros = {layer: int(np.count_nonzero(one == 0)) for layer, one in weights.items()}
            text = (folder / "runs" / f"{method}-80" / "sparsity.csv").read_text()
            assert text.splitlines()[0] == "method,layer,weights,zeros,sparsity"
            assert tables.from_csv(LayerRow, text) == list(rows.values())
        assert set(rows) == {*weights, "total"}
        assert {layer: (rows[layer].weights, rows[layer].zeros) for layer in weights} == {
            layer: (one.size, zeros[layer]) for layer, one in weights.items()
        }
        assert rows["total"][2:4] == (sum(one.size for one in weights.values()), sum(zeros.values()))
        assert all(row.sparsity == row.zeros / row.weights for row in rows.values())


# 3. Going on ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "batches", "epochs"),
    [("iterative", 3, 9), ("iterative", 9, 1), ("one-shot-global", 1, 9), ("one-shot", 5, 9)],
    ids=["in the second epoch", "after the first", "in the first", "in the last"],
)
def test_a_study_stopped_within_or_between_epochs_gives_the_same(method, batches, epochs, made, start, tmp_path):
    """An epoch has two batches; the second of iterative pruning begins with the mask."""
    told, spec = [], replace(SPEC, methods=method)

    def stop(one):
        told.append(type(one))
        if told.count(int) == batches or told.count(Row) == epochs:
            raise KeyboardInterrupt

    for path in ("config.json", "untuned.csv"):
        shutil.copy(made[0] / path, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        study.run(spec, start, tmp_path, progress=stop, after=stop)
    name = f"{method}-80"
    kept = tmp_path / "runs" / name / "checkpoint.npz"
    assert (checkpoint.load(kept).epoch if kept.exists() else 0) == (told.count(int) - (epochs > 1)) // 2
    assert study.run(spec, start, tmp_path) == []
    for path in ("epochs.csv", "sparsity.csv"):
        assert (tmp_path / "runs" / name / path).read_bytes() == (made[0] / "runs" / name / path).read_bytes()
    assert shared.load(tmp_path / "runs" / name).digest == shared.load(made[0] / "runs" / name).digest


def test_a_finished_study_is_only_read(made, start, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    study.export(SPEC, start, folder, plots=False)
    before, told = times(folder), []
    assert study.run(SPEC, start, folder, progress=told.append) == []
    study.export(SPEC, start, folder, plots=False)
    assert (times(folder), told) == (before, [])


def test_more_epochs_and_percentiles_are_added(made, start, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    told = []
    more = replace(SPEC, methods=ONE_SHOT, percentiles=(30, 50), tuning=replace(SPEC.tuning, epochs=4))
    study.run(more, start, folder, after=told.append)
    assert [row.epoch for row in told] == [4]
    rows, _ = study.stored_rows(more, start, folder)
    assert [row[:3] for row in rows] == [
        ("dense", 0.0, 0),
        *((name, share, 0) for name in (ONE_SHOT, GLOBAL) for share in (30.0, 50.0, 80.0)),
        *((ONE_SHOT, 80.0, epoch) for epoch in (1, 2, 3, 4)),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tuning": replace(SPEC.tuning, rate="0.01")}, "optimizer.rate"),
        ({"tuning": replace(SPEC.tuning, seed=2)}, "seed 1 there, 2 here"),
        ({"tuning": replace(SPEC.tuning, batch=16)}, "batch 32 there, 16 here"),
        ({"tuning": replace(SPEC.tuning, epochs=2)}, "has 3 epochs behind it, and the training ends after 2"),
        ({"prune_epochs": 1}, "prune_epochs 2 there, 1 here"),
    ],
)
def test_another_tuning_is_refused_and_nothing_is_lost(change, message, made, start, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    before = contents(folder)
    with pytest.raises(StudyError, match=rf"{re.escape(message)}.*choose another --out"):
        study.run(replace(SPEC, methods="iterative", **change), start, folder)
    assert contents(folder) == before


def test_another_start_is_refused(made, start, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    before = contents(folder)
    with pytest.raises(StudyError, match="holds a study with start_sha256"):
        study.run(SPEC, shared.load(made[0] / "runs" / "one-shot-80"), folder)
    assert contents(folder) == before
    assert start.digest


def test_a_percentile_that_looks_the_same_is_another_training(made, start, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    with pytest.raises(StudyError, match=r"percentile 80\.0 there, 80\.0000001 here"):
        study.run(replace(SPEC, percentile=80.0000001), start, folder)


def test_trainings_of_another_process_are_told_and_left_alone(made, start, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    shutil.rmtree(folder / "runs" / "iterative-80")
    (folder / "runs" / "iterative-80").mkdir()
    with files.locked(folder / "runs" / "iterative-80"):
        assert study.run(SPEC, start, folder) == ["iterative-80"]
    rows, layers = study.stored_rows(SPEC, start, folder)
    assert {row.method for row in rows if row.epoch} == {*EVERY} - {"iterative"}
    assert "iterative" not in {row.method for row in layers}
    assert study.run(SPEC, start, folder) == []
    assert {name: text for name, text in contents(folder).items() if name.endswith(".csv")} == {
        name: text for name, text in contents(made[0]).items() if name.endswith(".csv")
    }


def test_two_that_begin_at_once_share_a_study(made, start, tmp_path, monkeypatch):
    """The second begins while the first evaluates; it may wait, and must not end in an error."""
    outcome, tested = [], shared.tested

    def second():
        try:
            outcome.append(study.run(replace(SPEC, tuning=replace(SPEC.tuning, epochs=0)), start, tmp_path))
        except StudyError as error:
            outcome.append(error)

    other = threading.Thread(target=second)

    def slowly(*arguments):
        if not other.ident:
            other.start()
            other.join(2)  # it has ended by then, or it waits
        return tested(*arguments)

    monkeypatch.setattr(shared, "tested", slowly)
    study.run(replace(SPEC, tuning=replace(SPEC.tuning, epochs=0)), start, tmp_path)
    other.join()
    assert outcome == [[]]
    assert (tmp_path / "untuned.csv").read_bytes() == (made[0] / "untuned.csv").read_bytes()


def test_what_another_process_stores_while_one_waits_to_export_is_not_lost(made, start, tmp_path, monkeypatch):
    folder, locked = shutil.copytree(made[0], tmp_path / "study"), files.locked
    shutil.move(folder / "runs" / "iterative-80", tmp_path)

    def waited(*arguments, **options):
        if (tmp_path / "iterative-80").exists():  # meanwhile the other one ends
            shutil.move(tmp_path / "iterative-80", folder / "runs")
            study.export(SPEC, start, folder, plots=False)
        return locked(*arguments, **options)

    monkeypatch.setattr(files, "locked", waited)
    study.export(SPEC, start, folder, plots=False)
    rows = tables.from_csv(Row, (folder / "pruning.csv").read_text())
    assert {row.method for row in rows if row.epoch} == {*EVERY}


@pytest.mark.parametrize(("name", "message"), [("untuned.csv", "is damaged"), ("config.json", "is damaged")])
def test_damaged_files_of_the_study_are_refused(name, message, made, start, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    for content in (b"\xff\xfe", (folder / name).read_bytes()[:-4]):
        (folder / name).write_bytes(content)
        before = contents(folder)
        with pytest.raises(StudyError, match=f"{name} {message}.*--fresh"):
            study.run(SPEC, start, folder)
        assert contents(folder) == before


def test_tables_beside_a_checkpoint_are_made_again(made, start, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    (folder / "runs" / "iterative-80" / "epochs.csv").write_bytes(b"\xff")
    (folder / "runs" / "iterative-80" / "sparsity.csv").write_text("method\n")
    (folder / "runs" / "one-shot-80" / "epochs.csv").unlink()
    (folder / "untuned.csv").unlink()
    study.run(SPEC, start, folder)
    assert contents(folder) == contents(made[0])


def test_a_damaged_table_of_layers_is_refused_as_the_others_are(made, start, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    path = folder / "runs" / "iterative-80" / "sparsity.csv"
    path.write_bytes(path.read_bytes()[:-5])
    try:
        study.export(SPEC, start, folder, plots=False)
    except StudyError:
        return
    raise AssertionError


# 4. Specifications, and what is said ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("one-shot", "shot")}, "methods are one-shot, one-shot-global, iterative, iterative-global, got 'shot'"),
        ({"methods": "dense"}, "got 'dense'"),
        ({"percentile": -1}, "percentile must be at least 0, got -1"),
        ({"percentile": 100.5}, r"percentile must be at most 100, got 100\.5"),
        ({"percentile": float("nan")}, "percentile must be at least 0, got nan"),
        ({"percentile": "80"}, "got '80'"),
        ({"percentile": True}, "got True"),
        ({"percentiles": (20, 101)}, "percentiles must be at most 100, got 101"),
        ({"percentiles": ()}, "percentiles must not be empty"),
        ({"prune_epochs": 0}, "prune_epochs must be at least 1, got 0"),
        ({"prune_epochs": 4}, "iterative prunes in 4 epochs and is fine-tuned in 3; use more epochs, or prune in fewer"),
        ({"prune_epochs": 4, "methods": "iterative-global"}, "iterative-global prunes in 4 epochs"),
    ],
)
def test_specifications_are_checked_before_anything_is_made(changes, message):
    with pytest.raises(InputError, match=message):
        replace(SPEC, **changes)


def test_what_a_specification_takes():
    spec = PruningSpec(("iterative", "one-shot", "iterative"), 0, (10, 20, 10))
    assert (spec.methods, spec.percentile, spec.percentiles) == (("iterative", "one-shot"), 0.0, (10.0, 20.0))
    assert replace(SPEC, methods="one-shot", prune_epochs=4).prune_epochs == 4  # which one-shot has none of
    assert replace(SPEC, prune_epochs=4, tuning=FineTuning(0)).prune_epochs == 4  # nothing is fine-tuned


ROWS = [
    Row("dense", 0.0, 0, 0.001, 1.0, 0.9),
    Row("one-shot", 80.0, 0, 0.79, 2.0, 0.5),
    Row("one-shot", 60.0, 0, 0.6, 2.0, 0.625),
    Row("iterative", 40.0, 1, 0.4, 1.0, 0.95),
    Row("iterative", 80.0, 2, 0.8, 1.0, 0.85),
    Row("iterative", 80.0, 3, 0.8, 1.0, 0.875),
    Row("one-shot", 80.0, 3, 0.79, 1.0, 0.8),
]


def test_the_table_compares_with_the_course_where_it_can():
    """The best epoch is one that is pruned to the end; what is not asked for is not in it."""
    lines = study.table(replace(SPEC, methods=("iterative", "one-shot")), ROWS).splitlines()
    assert lines[0] == "Dense: 90.00% here, 91.51% in the course. Drops from dense, in points:"
    assert lines[4:] == [
        "| one-shot, 80 % | no | 79.0000% | 50.00% | 40.00 | 81.51 |",
        "| one-shot, 60 % | no | 60.0000% | 62.50% | 27.50 | 19.28 |",
        "| iterative, 80 % | 3 epochs | 80.0000% | 87.50% | 2.50 | 3.95 |",
        "| one-shot, 80 % | 3 epochs | 79.0000% | 80.00% | 10.00 | 3.46 |",
    ]
    lines = study.table(replace(SPEC, methods="iterative"), ROWS, compares=False).splitlines()
    assert lines[0] == "Dense: 90.00% here. Drops from dense, in points:"
    assert lines[-1] == "| iterative, 80 % | 3 epochs | 80.0000% | 87.50% | 2.50 |  |"
    better = [*ROWS[:4], ROWS[4]._replace(test_accuracy=0.89), *ROWS[5:]]
    assert study.table(replace(SPEC, methods="iterative"), better).splitlines()[-1] == (
        "| its best epoch on the test set | 2 epochs | 80.0000% | 89.00% | 1.00 | 3.95 |"
    )


def test_sentences_name_the_layers_with_the_most_and_the_fewest_zeros():
    layers = [
        LayerRow("one-shot", *one)
        for one in (("conv1", 10, 2, 0.2), ("conv2", 1000, 900, 0.9), ("dense1", 4, 2, 0.5), ("total", 1014, 904, 904 / 1014))
    ]
    assert study.describe(layers) == [
        "one-shot: 904 of 1,014 weights are zero (89.1519%); most in conv2 (90.0%), least in conv1 (20.0%)."
    ]


def test_what_is_exported(made, start, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    sentences = study.export(SPEC, start, folder)
    rows, layers = study.stored_rows(SPEC, start, folder)
    assert tables.from_csv(Row, (folder / "pruning.csv").read_text()) == rows
    assert (folder / "pruning.csv").read_text().startswith("method,percentile,epoch,sparsity,test_loss,test_accuracy\n")
    assert tables.from_csv(LayerRow, (folder / "sparsity.csv").read_text()) == layers
    assert sentences == [(folder / "table.md").read_text().rstrip(), *study.describe(layers)]
    made_here = {path.name for path in folder.iterdir() if path.name[0] != "."} - {"runs", "dense"}
    assert made_here == {"config.json", "untuned.csv", "pruning.csv", "sparsity.csv", "table.md", *study.PICTURES}
    assert made_here < {*study.STUDY.files}
    assert "in the course" not in sentences[0]  # these are digits
