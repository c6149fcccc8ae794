"""Checkpoints: a resumed training has the bits of one never stopped; damaged and foreign files are refused, and left alone."""

import json
from dataclasses import replace

import numpy as np
import pytest

from intnet import checkpoint, datasets, layers
from intnet.errors import InputError, StudyError
from intnet.inputs import Augmentation, Encoder, Inputs
from intnet.network import Network
from intnet.optimizers import SGD, Schedule
from intnet.recipe import RECIPES
from intnet.training import Trainer

CONFIG = {"model": {"name": "small", "width": 1}, "dataset": {"name": "digits", "checksum": "abc"}}


@pytest.fixture(scope="module")
def digits():
    whole = datasets.load_digits()
    return replace(whole, codes=whole.codes[:200], labels=whole.labels[:200])


def dense():
    return [layers.Flatten(), layers.Dense(12), layers.ReLU(), layers.Dropout(0.25), layers.Dense(10)]


def convolutional():
    return [
        layers.Conv2D(4, 3, padding=1, bias=False), layers.BatchNorm(), layers.ReLU(), layers.MaxPool2D(2), layers.Flatten(),
        layers.Dense(10),
    ]  # fmt: skip


def make(data, recipe="fixed16", *, epochs=3, make_layers=dense, seed=3, batch=32, momentum="0.9", schedule="constant"):
    recipe = RECIPES[recipe]
    normalized = recipe.update == "normalized"
    optimizer = SGD(Schedule("2^4" if normalized else "2^-4", schedule), 0 if normalized else momentum)
    encoder = Encoder.of(data, recipe)
    network = Network(make_layers(), encoder.shape, recipe, seed)
    augmentation = Augmentation(padding=1, flip=True)
    return Trainer(
        network, optimizer, Inputs.of(data, encoder), epochs=epochs, batch=batch, seed=seed, augmentation=augmentation
    )


def outcome(trainer):
    """All that must be equal, bit for bit."""
    history = [replace(row, seconds=0) for row in trainer.history]
    return trainer.network.digest(), history, trainer.readings, trainer.epoch, trainer.died


# 1. The same bits


@pytest.mark.parametrize(
    ("recipe", "make_layers"),
    [("fixed16", dense), ("int8", dense), ("bfp8", dense), ("niti8", dense), ("int8", convolutional)],
    ids=["fixed16", "int8", "bfp8", "niti8", "batch_norm"],
)
def test_a_resumed_training_is_one_never_stopped(recipe, make_layers, digits, tmp_path):
    path = tmp_path / "checkpoint.npz"
    straight = make(digits, recipe, make_layers=make_layers)
    straight.run(straight.train)
    stopped = make(digits, recipe, make_layers=make_layers)
    stopped.run_epoch(stopped.train)
    checkpoint.save(path, stopped, CONFIG)
    resumed = make(digits, recipe, make_layers=make_layers)
    stored = checkpoint.load(path)
    assert stored.epoch == 1
    checkpoint.restore(resumed, stored, CONFIG)
    assert outcome(resumed) == outcome(stopped)
    resumed.run(resumed.train)
    assert outcome(resumed) == outcome(straight)


def test_a_constant_schedule_may_go_on_for_longer(digits, tmp_path):
    path = tmp_path / "checkpoint.npz"
    short, long = make(digits, epochs=1), make(digits, epochs=2)
    short.run()
    checkpoint.save(path, short)
    resumed = make(digits, epochs=2)
    checkpoint.restore(resumed, checkpoint.load(path))
    resumed.run()
    long.run()
    assert outcome(resumed) == outcome(long)
    checkpoint.save(path, long)
    with pytest.raises(InputError, match="2 epochs behind it, and the training ends after 1"):
        checkpoint.restore(short, checkpoint.load(path))


def test_the_same_state_makes_the_same_file(digits, tmp_path):
    trainer = make(digits)
    for name in ("a.npz", "b.npz"):
        checkpoint.save(tmp_path / name, trainer, CONFIG)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


# 2. Foreign ones


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"recipe": "int8"}, ["recipe.name fixed16 there, int8 here"]),
        ({"seed": 4}, ["seed 3 there, 4 here"]),
        ({"batch": 16}, ["batch 32 there, 16 here"]),
        ({"momentum": "0.5"}, ["optimizer.momentum 0.899994 there, 2^-1 here"]),
        ({"schedule": "linear"}, ["optimizer.schedule constant there, linear over 3 epochs here"]),
        ({"make_layers": convolutional}, ["parameters 910 there"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_another_training_is_refused(changes, parts, digits, tmp_path):
    path = tmp_path / "checkpoint.npz"
    first = make(digits)
    first.run_epoch()
    checkpoint.save(path, first, CONFIG)
    content = path.read_bytes()
    other = make(digits, **changes)
    before = outcome(other)
    with pytest.raises(InputError, match="another training") as caught:
        checkpoint.restore(other, checkpoint.load(path), CONFIG)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert outcome(other) == before
    assert path.read_bytes() == content


def test_what_the_caller_added_is_compared(digits, tmp_path):
    path = tmp_path / "checkpoint.npz"
    trainer = make(digits)
    checkpoint.save(path, trainer, CONFIG)
    stored = checkpoint.load(path)
    checkpoint.restore(trainer, stored)
    for name, entry, text in (
        ("dataset", {"name": "digits", "checksum": "abd"}, "dataset.checksum abc there, abd here"),
        ("model", {"name": "mlp", "width": 1}, "model.name small there, mlp here"),
        ("standardize", True, "standardize null there, true here"),
    ):
        with pytest.raises(InputError, match=text):
            checkpoint.restore(trainer, stored, CONFIG | {name: entry})


@pytest.mark.parametrize(
    ("middle", "text"),
    [
        (layers.Tanh, r"layers\[3\] relu1 ReLU\(\) there, tanh1 Tanh\(\) here"),
        (lambda: layers.LeakyReLU(3), r"layers\[3\] relu1 ReLU\(\) there, leaky_relu1 LeakyReLU\(shift=3\) here"),
        (
            lambda: layers.Sequential(layers.ReLU(), layers.ReLU()),
            r"layers\[3\] relu1 ReLU\(\) there, stage1 Sequential\(\) here",
        ),
    ],
    ids=["tanh", "leaky", "twice"],
)
def test_layers_without_weights_are_compared(middle, text, digits, tmp_path):
    path = tmp_path / "checkpoint.npz"
    trainers = [
        make(digits, make_layers=lambda kind=kind: [layers.Flatten(), layers.Dense(12), kind(), layers.Dense(10)])
        for kind in (layers.ReLU, middle)
    ]
    checkpoint.save(path, trainers[0])
    with pytest.raises(InputError, match=f"^the checkpoint is of another training: {text}$"):
        checkpoint.restore(trainers[1], checkpoint.load(path))


def test_other_data_are_refused(digits, tmp_path):
    """As many samples, one code or one label or the table another."""
    path = tmp_path / "checkpoint.npz"
    first = make(digits)
    checkpoint.save(path, first)
    codes, labels = digits.codes.copy(), digits.labels.copy()
    codes[3, 5] ^= 1
    labels[7] = (labels[7] + 1) % 10
    for data in (replace(digits, codes=codes), replace(digits, labels=labels), replace(digits, values=digits.values / 2)):
        with pytest.raises(InputError, match=r"^the checkpoint is of another training: inputs_sha256 \w+"):
            checkpoint.restore(make(data), checkpoint.load(path))
    checkpoint.restore(make(replace(digits, codes=digits.codes.copy())), checkpoint.load(path))


def test_layers_that_only_look_alike_are_refused(digits, tmp_path):
    """As many parameters, in tensors of other shapes."""
    path = tmp_path / "checkpoint.npz"
    checkpoint.save(path, make(digits, make_layers=lambda: [layers.Flatten(), layers.Dense(20), layers.Dense(10)]))
    other = make(digits, make_layers=lambda: [layers.Flatten(), layers.Dense(10), layers.Dense(46), layers.Dense(10)])
    before = outcome(other)
    with pytest.raises(InputError):
        checkpoint.restore(other, checkpoint.load(path))
    assert outcome(other) == before


# 3. Damaged ones


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "checkpoint.npz"
    trainer = make(digits)
    trainer.run_epoch()
    checkpoint.save(path, trainer, CONFIG)
    return path.read_bytes()


def test_a_cut_file_is_refused(whole, tmp_path):
    path = tmp_path / "cut.npz"
    for length in (0, 1, 3, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StudyError, match="damaged") as caught:
            checkpoint.load(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_flipped_bit_changes_nothing_or_is_refused(whole, tmp_path):
    path = tmp_path / "flipped.npz"
    path.write_bytes(whole)
    stored = checkpoint.load(path)
    random = np.random.default_rng(1)
    refused = 0
    for place in random.integers(0, len(whole), 300):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << random.integers(8)
        path.write_bytes(flipped)
        try:
            found = checkpoint.load(path)
        except StudyError:
            refused += 1
        else:  # in what the zip format keeps beside the content: dates, attributes
            assert (found.config, found.progress, found.version) == (stored.config, stored.progress, stored.version)
            assert all(np.array_equal(found.arrays[name], array) for name, array in stored.arrays.items())
            assert found.arrays.keys() == stored.arrays.keys()
    assert refused > 200


def test_files_that_are_no_checkpoints(tmp_path):
    path = tmp_path / "other.npz"
    with pytest.raises(StudyError, match="cannot be read: No such file"):
        checkpoint.load(path)
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(StudyError, match="no checkpoint of intnet: its arrays are weights"):
        checkpoint.load(path)
    path.write_text("not at all")
    with pytest.raises(StudyError, match=r"damaged, or no checkpoint of intnet: it does not begin like an \.npz file; put"):
        checkpoint.load(path)
    np.savez(path, header=np.array([{"a": 1}], object), sha256=np.zeros(32, np.uint8))
    with pytest.raises(StudyError, match=r"damaged \(it holds Python objects\)"):  # and nothing in it was executed
        checkpoint.load(path)
    np.save(path.with_suffix(".npy"), np.zeros(3))
    with pytest.raises(StudyError, match=r"damaged, or no checkpoint of intnet: it does not begin like an \.npz file; put"):
        checkpoint.load(path.with_suffix(".npy"))


PROGRESS = {"epoch": 0, "died": None, "quiet": [0, 0], "history": [], "readings": []}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{", "its header does not say which format it has"),
        ("[1]", "its header does not say which format it has"),
        ('{"format": 1}', "its header does not say which format it has"),
        (json.dumps({"format": 1, "intnet": "1", "progress": PROGRESS}), "its header has no configuration"),
        (
            json.dumps({"format": 1, "intnet": "1", "config": {}}),
            r"in its header, this does not say where a training is \(TypeError",
        ),
        (
            json.dumps({"format": 1, "intnet": "1", "config": {}, "progress": PROGRESS | {"epoch": "x"}}),
            r"\(epoch 'x', died None\)",
        ),
        (json.dumps({"format": 1, "intnet": "1", "config": {}, "progress": {"epoch": 1}}), r"KeyError: 'quiet'"),
    ],
    ids=["no JSON", "a list", "no version", "no configuration", "no progress", "a text", "half"],
)
def test_odd_headers_are_refused_in_one_line(header, message, tmp_path):
    path = tmp_path / "odd.npz"
    arrays = {"header": np.frombuffer(header.encode(), np.uint8)}
    np.savez(path, **arrays, sha256=checkpoint._digest(arrays))
    with pytest.raises(StudyError, match=rf"odd\.npz is no checkpoint of intnet: .*{message}") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


def test_another_format_is_refused(digits, tmp_path, monkeypatch):
    path = tmp_path / "new.npz"
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    checkpoint.save(path, make(digits))
    monkeypatch.undo()
    with pytest.raises(StudyError, match=r"has format 2 .* reads format 1; use the version that wrote it"):
        checkpoint.load(path)


def test_differences_are_named_by_their_path():
    there = {"a": 1, "b": {"c": [1, 2], "d": "x"}, "e": None}
    here = json.loads(json.dumps(there))
    assert list(checkpoint.differences(there, here)) == []
    here["b"]["c"] = [1, 3]
    here["f"] = "y" * 100
    found = list(checkpoint.differences(there, here))
    assert found == ["b.c [1, 2] there, [1, 3] here", f"f null there, {'y' * 45}... here"]
