"""The study of few-bit weights: its rows against networks coded by hand, masks while it is tuned, how it goes on."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from programs import contents, times

from intnet import checkpoint, compression, files
from intnet.compression import WeightCoding
from intnet.errors import InputError, StudyError
from intnet.studies import compression as shared
from intnet.studies import pruning, tables, training
from intnet.studies import quantization as study
from intnet.studies.compression import FineTuning
from intnet.studies.quantization import QuantizationSpec, Row
from intnet.trainings import TrainingSpec, prepare

SPEC = QuantizationSpec((4, 2), ("affine", "symmetric"), tune_bits=(2,), tuning=FineTuning(2, batch=50))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Train a perceptron to start from."""
    folder = tmp_path_factory.mktemp("start")
    ready = prepare(TrainingSpec(samples=100, hidden=(12, 8), epochs=2))
    with training.opened(ready, folder) as opened:
        training.run(ready, opened)
    return shared.load(folder)


@pytest.fixture(scope="module")
def made(start, tmp_path_factory):
    """Run a study, for reading only."""
    folder, told = tmp_path_factory.mktemp("made") / "study", []
    assert study.run(SPEC, start, folder, after=told.append) == []
    return folder, told


# 1. The tables ----------------------------------------------------------------------------------------------------------


def test_rows_are_those_of_networks_that_are_coded_by_hand(made, start):
    """The first and the last layer are not coded."""
    rows = tables.from_csv(Row, (made[0] / "untuned.csv").read_text())
    assert (made[0] / "untuned.csv").read_text().splitlines()[0] == "scheme,bits,finetuned,test_loss,test_accuracy"
    expected = []
    for scheme, bits in (("affine", 2), ("affine", 4), ("symmetric", 2), ("symmetric", 4), ("none", 16)):
        network = start.network()
        if scheme != "none":
            for layer in network.layers.walk():
                if layer.name == "dense2":
                    layer.coding = WeightCoding(bits, scheme)
        found = shared.tested(start, network)
        expected.append(Row(scheme, bits, 0, found.loss, found.accuracy))
    assert sorted(rows) == sorted(expected)
    assert len({row.test_loss for row in rows}) == 5


def test_tuned_rows_are_one_an_epoch(made, start):
    folder, told = made
    assert [row[:3] for row in told] == [(name, 2, epoch) for name in ("affine", "symmetric") for epoch in (1, 2)]
    for name in ("affine", "symmetric"):
        path = folder / "runs" / f"{name}-2"
        assert tables.from_csv(Row, (path / "epochs.csv").read_text()) == [row for row in told if row.scheme == name]
        network = shared.load(path).network()
        compression.quantize_weights(network, WeightCoding(2, name))
        found = shared.tested(start, network)
        assert told[1 if name == "affine" else 3][3:] == (found.loss, found.accuracy)


def test_all_rows_are_read_in_the_order_that_was_asked_for(made, start):
    rows = study.stored_rows(SPEC, start, made[0])
    assert [row[:3] for row in rows] == [
        ("none", 16, 0),
        *((name, bits, 0) for name in ("affine", "symmetric") for bits in (4, 2)),
        *((name, 2, epoch) for name in ("affine", "symmetric") for epoch in (1, 2)),
    ]
    fewer = replace(SPEC, bits=(2,), schemes="symmetric", tune_bits=None, tuning=FineTuning(0))
    assert [row[:3] for row in study.stored_rows(fewer, start, made[0])] == [("none", 16, 0), ("symmetric", 2, 0)]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "affine"),
        ({"scale": "power"}, "affine-power"),
        ({"input_bits": 4}, "affine-inputs4"),
        ({"scale": "power", "input_bits": 8, "schemes": "symmetric"}, "symmetric-power-inputs8"),
    ],
)
def test_rows_say_how_weights_and_inputs_are_coded(changes, name, start, tmp_path):
    spec = QuantizationSpec(3, **changes)
    study.run(spec, start, tmp_path)
    rows = study.stored_rows(spec, start, tmp_path)
    assert [row[:3] for row in rows] == [("none", 16, 0), (name, 3, 0)]
    network = start.network()
    compression.quantize_weights(network, WeightCoding(3, spec.schemes[0], spec.scale))
    if spec.input_bits:
        compression.quantize_inputs(network, spec.input_bits)
    assert rows[1].test_loss == shared.tested(start, network).loss


@pytest.mark.parametrize(("recipe", "bits"), [("fixed16", 16), ("int8", 16), ("niti8", 8), ("wide", 40)])
def test_none_has_the_bits_that_weights_are_stored_in(recipe, bits):
    ready = prepare(TrainingSpec(samples=20, hidden=(5, 4), epochs=1, recipe=recipe))
    assert study.stored_bits(ready.trainer.network) == bits


def test_layers_may_be_named(made, start, tmp_path):
    spec = replace(SPEC, schemes="affine", layers=("dense1", "dense?"), tuning=FineTuning(0))
    study.run(spec, start, tmp_path)
    network = start.network()
    for layer in network.layers.walk():
        if layer.name.startswith("dense"):
            layer.coding = WeightCoding(2)
    rows = {row[:2]: row for row in study.stored_rows(spec, start, tmp_path)}
    assert rows["affine", 2].test_loss == shared.tested(start, network).loss
    assert json.loads((tmp_path / "config.json").read_text())["layers"] == ["dense1", "dense?"]
    before = contents(made[0])
    with pytest.raises(StudyError, match="holds a study with layers all but the first and the last"):
        study.run(spec, start, made[0])
    assert contents(made[0]) == before


def test_a_name_and_a_list_of_it_are_one_study(start, tmp_path):
    spec = replace(SPEC, layers="dense2", tuning=FineTuning(0))
    study.run(spec, start, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["layers"] == ["dense2"]
    study.run(replace(spec, layers=["dense2"]), start, tmp_path)


def test_the_unit_of_the_loss_is_that_of_the_start(tmp_path):
    ready = prepare(TrainingSpec(samples=20, hidden=(5, 4), epochs=1, loss="squared_error"))
    with training.opened(ready, tmp_path / "start") as opened:
        training.run(ready, opened)
    study.run(QuantizationSpec(3), shared.load(tmp_path / "start"), tmp_path / "study")
    assert "squared error" in json.loads((tmp_path / "study" / "config.json").read_text())["loss_unit"]


# 2. Masks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_zeros_of_a_pruned_start_stay_zero_while_coded_weights_are_tuned(scheme, tmp_path):
    dense = shared.dense(shared.dense_spec("digits", width=0.25, epochs=1, samples=32), tmp_path)
    network = dense.network()
    compression.prune_layers(network, 70)
    trainer = FineTuning(1).trainer(dense, network)
    checkpoint.save(tmp_path / "pruned.npz", trainer, dense.stored.config)
    start = shared.load(tmp_path / "pruned.npz")
    held = {one.name: ~one.mask for one in start.network().parameters if one.mask is not None}
    assert len(held) == 20
    spec = QuantizationSpec(2, scheme, tuning=FineTuning(1, batch=16, rate="0.1"))
    study.run(spec, start, tmp_path / "study")
    arrays = checkpoint.load(tmp_path / "study" / "runs" / f"{scheme}-2" / "checkpoint.npz").arrays
    for name, zeros in held.items():
        np.testing.assert_array_equal(arrays[f"{name}/mask"], ~zeros)
        assert not arrays[f"{name}/master"][zeros].any()
        assert not arrays[f"{name}/value"][zeros].any()
    moved = [name for name in held if (arrays[f"{name}/master"] != start.stored.arrays[f"{name}/master"]).any()]
    assert len(moved) == 20  # and the others are trained
    tuned = shared.load(tmp_path / "study" / "runs" / f"{scheme}-2").network()
    compression.quantize_weights(tuned, WeightCoding(2, scheme))
    coded = [layer for layer in tuned.layers.walk() if getattr(layer, "coding", None) is not None]
    assert len(coded) == 20  # two of 22 layers with weights are not: the first and the last
    for layer in coded:
        if layer.weight.name in held:
            values = compression.dequantized(layer.coding(layer.weight))
            assert not values[held[layer.weight.name]].any()


# 3. Going on ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batches", "epochs"), [(1, 9), (3, 9), (9, 1)], ids=["in the first", "in the second", "between"])
def test_a_tuning_that_was_stopped_gives_the_same(batches, epochs, made, start, tmp_path):
    told, spec = [], replace(SPEC, schemes="symmetric")

    def stop(one):
        told.append(type(one))
        if told.count(int) == batches or told.count(Row) == epochs:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.run(spec, start, tmp_path, progress=stop, after=stop)
    study.run(spec, start, tmp_path)
    ours, theirs = (folder / "runs" / "symmetric-2" for folder in (tmp_path, made[0]))
    assert (ours / "epochs.csv").read_bytes() == (theirs / "epochs.csv").read_bytes()
    assert shared.load(ours).digest == shared.load(theirs).digest
    study.run(SPEC, start, tmp_path)
    for name in ("untuned.csv", "config.json", "runs/affine-2/epochs.csv"):
        assert (tmp_path / name).read_bytes() == (made[0] / name).read_bytes()


def test_a_finished_study_is_only_read(made, start, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    study.export(SPEC, start, folder, plots=False)
    before, told = times(folder), []
    assert study.run(SPEC, start, folder, progress=told.append) == []
    study.export(SPEC, start, folder, plots=False)
    assert (times(folder), told) == (before, [])


def test_another_study_or_tuning_is_refused_and_nothing_is_lost(made, start, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    before = contents(folder)
    for other, message in (
        (replace(SPEC, layers=("dense1",)), "holds a study with layers all but the first and the last"),
        (replace(SPEC, tuning=replace(SPEC.tuning, seed=9)), "seed 1 there, 9 here"),
        (replace(SPEC, tuning=replace(SPEC.tuning, epochs=1)), "has 2 epochs behind it"),
    ):
        with pytest.raises(StudyError, match=f"{message}.*choose another --out"):
            study.run(other, start, folder)
        assert contents(folder) == before
    with pytest.raises(StudyError, match="holds a study with study quantization, and pruning is asked for"):
        pruning.run(pruning.PruningSpec(tuning=FineTuning(0)), start, folder)
    assert contents(folder) == before


def test_unknown_layers_are_refused_before_anything_is_stored(start, tmp_path):
    for changes, message in (
        ({"layers": ("dense2", "dense9")}, "no layer with weights is called 'dense9'; there are dense1, dense2, dense3"),
        ({"layers": ()}, "there is no layer with weights among those asked for"),
        ({"layers": ("dense1",), "input_bits": 1}, "the inputs of layer 'dense1' may be negative; give them at least 2 bits"),
    ):
        with pytest.raises(InputError, match=message):
            study.run(QuantizationSpec(3, **changes), start, tmp_path / "none")
        assert not (tmp_path / "none").exists()


def test_trainings_of_another_process_are_told_and_left_alone(made, start, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    shutil.rmtree(folder / "runs" / "affine-2")
    (folder / "runs" / "affine-2").mkdir()
    with files.locked(folder / "runs" / "affine-2"):
        assert study.run(SPEC, start, folder) == ["affine-2"]
    assert {row.scheme for row in study.stored_rows(SPEC, start, folder) if row.finetuned} == {"symmetric"}
    study.run(SPEC, start, folder)
    assert study.stored_rows(SPEC, start, folder) == study.stored_rows(SPEC, start, made[0])


def test_a_table_of_other_rows_is_refused(made, start, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    shutil.copy(folder / "runs" / "symmetric-2" / "epochs.csv", folder / "runs" / "affine-2" / "epochs.csv")
    with pytest.raises(StudyError, match="is no table of affine codes of 2 bits; remove it"):
        study.stored_rows(SPEC, start, folder)
    (folder / "runs" / "affine-2" / "epochs.csv").unlink()
    assert len(study.stored_rows(SPEC, start, folder)) == 1 + 4 + 2
    (folder / "untuned.csv").write_text("scheme\n")
    with pytest.raises(StudyError, match=r"untuned\.csv is no table of this study: line 1"):
        study.stored_rows(SPEC, start, folder)


# 4. Specifications, and what is said ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 0}, r"weights are coded in 1\.\.8 bits, got 0"),
        ({"bits": (4, 9)}, r"weights are coded in 1\.\.8 bits, got 9"),
        ({"bits": 2.5}, r"got 2\.5"),
        ({"bits": True}, "got True"),
        ({"bits": "4"}, "got '4'"),
        ({"bits": ()}, "bits and schemes must not be empty"),
        ({"schemes": ()}, "bits and schemes must not be empty"),
        ({"schemes": ("affine", "signed")}, "scheme is affine or symmetric, got 'signed'"),
        ({"scale": "exact"}, "scale is ratio or power, got 'exact'"),
        ({"tune_bits": (4, 3), "bits": (4, 2)}, "fine-tuned are some of the bits 4, 2, got 3"),
        ({"layers": ("dense1", 2)}, "layers are names or patterns of names, got 2"),
        ({"input_bits": 9}, "input_bits must be at most 8, got 9"),
        ({"input_bits": 0}, "input_bits must be at least 1, got 0"),
        ({"input_bits": 2.5}, r"input_bits must be at least 1, got 2\.5"),
    ],
)
def test_specifications_are_checked_before_anything_is_made(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        QuantizationSpec(**changes)
    assert "\n" not in str(caught.value)


def test_what_a_specification_takes():
    spec = QuantizationSpec([3, 2, 3], "symmetric")
    assert (spec.bits, spec.schemes, spec.tune_bits, spec.tuning.epochs) == ((3, 2), ("symmetric",), (3, 2), 0)
    assert QuantizationSpec(range(1, 4), ("affine", "affine"), tune_bits=(2, 2)).tune_bits == (2,)
    assert QuantizationSpec(4, tune_bits=()).tune_bits == ()


def test_the_table_compares_with_the_course_where_it_can():
    """The course has affine codes by ratios; the best epoch is the best on the test set, and the last is the last."""
    rows = [
        Row("none", 16, 0, 1.0, 0.9),
        *(Row(name, bits, 0, 1.0, 0.5 + bits / 20) for name in ("affine", "affine-power") for bits in (6, 3)),
        Row("affine", 3, 1, 1.0, 0.88),
        Row("affine", 3, 2, 1.0, 0.86),
    ]
    lines = study.table(rows).splitlines()
    assert lines[0] == "Start: 90.00% here, 91.51% in the course. Drops from it, in points:"
    assert lines[4:] == [
        "| affine | 6 | 80.00% | 10.00 | 0.06 |  |  |  |  |  |",
        "| affine | 3 | 65.00% | 25.00 | 14.89 | 86.00% | 4.00 | 88.00% | 2.00 | 0.75 |",
        "| affine-power | 6 | 80.00% | 10.00 |  |  |  |  |  |  |",
        "| affine-power | 3 | 65.00% | 25.00 |  |  |  |  |  |  |",
    ]
    lines = study.table(rows, compares=False).splitlines()
    assert lines[0] == "Start: 90.00% here. Drops from it, in points:"
    assert lines[5] == "| affine | 3 | 65.00% | 25.00 |  | 86.00% | 4.00 | 88.00% | 2.00 |  |"
    assert len({line.count("|") for line in lines[2:]}) == 1


def test_what_is_exported(made, start, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    sentences = study.export(SPEC, start, folder)
    rows = study.stored_rows(SPEC, start, folder)
    text = (folder / "quantization.csv").read_text()
    assert text.startswith("scheme,bits,finetuned,test_loss,test_accuracy\nnone,16,0,")
    assert tables.from_csv(Row, text) == rows
    assert sentences == [(folder / "table.md").read_text().rstrip()]
    made_here = {path.name for path in folder.iterdir() if path.name[0] != "."} - {"runs"}
    assert made_here == {"config.json", "untuned.csv", "quantization.csv", "table.md", "quantization.png"}
    assert made_here < {*study.STUDY.files}
