"""What the studies of pruning and quantization share: the network they start from, its fine-tuning, their folder."""

import copy
import json
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from programs import contents, rewrite

from intnet import checkpoint, files, models
from intnet.errors import DataError, InputError, InUseError, StudyError
from intnet.inputs import Augmentation
from intnet.network import Network
from intnet.optimizers import SGD, Factor
from intnet.recipe import RECIPES
from intnet.studies import compression as shared
from intnet.studies import tables, training, trajectories
from intnet.studies.compression import FineTuning
from intnet.training import Trainer
from intnet.trainings import TrainingSpec, prepare, usual_augmentation


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
    """Train a perceptron of 16-bit numbers, for reading only: its folder, and the training."""
    folder = tmp_path_factory.mktemp("made") / "mlp"
    ready = prepare(TrainingSpec(samples=100, hidden=(12, 8), epochs=1, augmentation=True))
    with training.opened(ready, folder) as opened:
        training.run(ready, opened)
    return folder, ready


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """Train a ResNet-20 of 8-bit words in a study's folder, for reading only."""
    folder = tmp_path_factory.mktemp("made") / "study"
    spec = shared.dense_spec("digits", width=0.25, epochs=1, samples=64)
    return folder, shared.dense(spec, folder)


# 1. The start -----------------------------------------------------------------------------------------------------------


def test_a_start_is_the_trained_network_without_its_momentum(resnet):
    folder, start = resnet
    stored = checkpoint.load(folder / "dense" / "checkpoint.npz")
    expected = {name for name in stored.arrays if "/momentum" not in name}
    found = start.network().state()
    assert set(found) == expected < set(stored.arrays)
    for name in expected:
        np.testing.assert_array_equal(found[name], stored.arrays[name])
    assert start.network() is not start.network()  # each is a new one
    assert start.digest == start.network().digest()
    assert (start.model, start.title) == ("resnet20", "digits, resnet20 at width 0.25, int8")
    assert (len(start.train.labels), len(start.test.labels)) == (64, 64)
    assert start.augmentation == Augmentation(padding=1, flip=False)


def test_it_is_tested_as_it_was_when_it_was_trained(mlp):
    folder, ready = mlp
    start = shared.load(folder)
    assert shared.tested(start, start.network()).accuracy == ready.trainer.history[-1].test_accuracy
    assert start.network().digest() == ready.trainer.network.digest()  # its recipe gave it no momentum
    np.testing.assert_array_equal(start.train.labels, ready.trainer.train.labels)


def test_a_file_and_its_folder_are_the_same_start(mlp):
    one, other = shared.load(mlp[0]), shared.load(str(mlp[0] / "checkpoint.npz"), model="mlp")
    assert one.path == other.path == mlp[0] / "checkpoint.npz"
    assert one.config == other.config
    assert set(one.config) == {"dataset", "model", "standardize", "samples", "test_samples", "start_sha256"}
    assert one.config["model"] == {"name": "mlp", "width": 1, "hidden": [12, 8]}


def test_other_weights_are_another_start(mlp, tmp_path):
    def change(_, arrays):
        arrays["network/dense1.weight/value"][0, 0] += 1

    rewrite(mlp[0] / "checkpoint.npz", tmp_path / "other.npz", change)
    assert shared.load(tmp_path / "other.npz").digest != shared.load(mlp[0]).digest


def test_masks_hold_on(mlp, tmp_path):
    def change(_, arrays):
        value = arrays["network/dense2.weight/value"]
        value[0] = 0
        arrays["network/dense2.weight/mask"] = value != 0

    rewrite(mlp[0] / "checkpoint.npz", tmp_path / "masked.npz", change)
    weight = shared.load(tmp_path / "masked.npz").network().parameters[2]
    assert (weight.name, weight.mask.sum()) == ("dense2.weight", np.count_nonzero(weight.stored.mantissa))
    assert not weight.mask[0].any()


def test_only_a_dense_resnet_on_cifar10_is_compared(resnet):
    start = resnet[1]

    def of(dataset, model="resnet20", **arrays):
        config = copy.deepcopy(start.stored.config)
        config["dataset"]["name"], config["model"]["name"] = dataset, model
        return replace(start, stored=replace(start.stored, config=config, arrays=start.stored.arrays | arrays))

    assert not start.compares
    assert of("cifar10").compares
    assert of("cifar10-jpeg").compares
    assert not of("cifar10", "resnet18").compares
    assert not of("cifar10", **{"conv1.weight/mask": np.ones(1, np.bool_)}).compares
    assert not of("mnist").compares


def test_cifar100_is_not_compared(resnet):
    config = copy.deepcopy(resnet[1].stored.config)
    config["dataset"]["name"] = "cifar100"
    assert not replace(resnet[1], stored=replace(resnet[1].stored, config=config)).compares


def _drop(name):
    return lambda config, _: config.pop(name)


def _set(**values):
    return lambda config, _: config.update(values)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        *((_drop(name), (f"does not say its {name}", "give a checkpoint of experiments/train.py")) for name in shared._NEEDS),
        (_set(model="preresnet164"), ("is of another study", "give a checkpoint of experiments/train.py")),
        (_set(dataset="digits"), ("is of another study",)),
        (_set(dataset={"train_checksum": "", "test_checksum": ""}), ("does not say what it was trained on", "'name'")),
        (_set(dataset={"name": "digits"}), ("does not say what it was trained on", "train_checksum")),
        (_set(dataset={"name": "flowers"}), ("there is no data set 'flowers'",)),
        (_set(samples=None), ("does not say what it was trained on",)),
        (_set(samples=99), ("was trained on other data than digits in this place; name its folder with --data-dir",)),
        (_set(test_samples=99), ("was trained on other data than digits",)),
        (_set(model={"name": "mlp", "width": 1, "hidden": [12, 9]}), ("does not hold the weights of its mlp",)),
        (_set(model={"name": "mlp", "width": 1, "hidden": [12]}), ("does not hold the weights of its mlp", "dense2")),
        (_set(model={"name": "nope", "width": 1}), ("model 'nope' is unknown",)),
        (_set(recipe=RECIPES["int8"].to_dict()), ("does not hold the weights of its mlp",)),
        (_set(recipe={"name": "int9"}), ("the recipe lacks weight",)),
    ],
)
def test_a_checkpoint_that_is_no_start_is_refused_in_one_line(change, parts, mlp, tmp_path):
    rewrite(mlp[0] / "checkpoint.npz", tmp_path / "other.npz", change)
    with pytest.raises(InputError) as caught:
        shared.load(tmp_path / "other.npz")
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [_set(model={"name": "mlp", "hidden": [12, 8]}), _set(samples="many")])
def test_half_a_description_is_refused_in_one_line(change, mlp, tmp_path):
    rewrite(mlp[0] / "checkpoint.npz", tmp_path / "other.npz", change)
    with pytest.raises(StudyError, match=r"other\.npz does not say what it (is of|was trained on) \(\w+: ") as caught:
        shared.load(tmp_path / "other.npz")
    assert "\n" not in str(caught.value)


def test_what_is_wrong_with_a_start_is_told_as_it_is(mlp, tmp_path):
    """Data that are missing are no fault of the checkpoint."""
    rewrite(mlp[0] / "checkpoint.npz", tmp_path / "mnist.npz", lambda config, _: config["dataset"].update(name="mnist"))
    with pytest.raises(DataError, match=r"^(?!.*does not say)"):
        shared.load(tmp_path / "mnist.npz", tmp_path)
    rewrite(mlp[0] / "checkpoint.npz", tmp_path / "other.npz", lambda config, _: config["model"].update(hidden=[12, 9]))
    with pytest.raises(
        StudyError, match=r"other\.npz does not hold the weights of its mlp: dense2\.weight/value of shape .*$"
    ) as caught:
        shared.load(tmp_path / "other.npz")
    assert "does not say" not in str(caught.value)


def test_what_is_no_checkpoint_is_refused(mlp, tmp_path):
    with pytest.raises(StudyError, match=r"checkpoint .*checkpoint\.npz cannot be read: No such file"):
        shared.load(tmp_path)
    with pytest.raises(StudyError, match=r"nothing\.npz cannot be read: No such file"):
        shared.load(tmp_path / "nothing.npz")
    (tmp_path / "text.npz").write_text("not at all")
    with pytest.raises(StudyError, match="damaged, or no checkpoint of intnet"):
        shared.load(tmp_path / "text.npz")
    content = (mlp[0] / "checkpoint.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(StudyError, match="is damaged"):
        shared.load(tmp_path / "cut.npz")
    with pytest.raises(StudyError, match="is a checkpoint of model mlp, and resnet20 is asked for; give another --from"):
        shared.load(mlp[0], model="resnet20")


# 2. The network that is trained for a study -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "schedule"),
    [
        (1, "constant"),
        (3, "constant"),
        (4, "step:2=0.01,3=0.001"),
        (5, "step:2=0.01,3=0.001"),
        (60, "step:30=0.01,45=0.001"),
    ],
)
def test_the_rate_of_the_dense_network_falls_at_half_and_three_quarters(epochs, schedule):
    spec = shared.dense_spec("digits", epochs=epochs)
    assert (spec.epochs, spec.schedule, spec.model, spec.width, spec.recipe.name) == (epochs, schedule, "resnet20", 0.5, "int8")
    assert (spec.batch, spec.rate, spec.momentum, spec.decay) == (128, Factor.of("0.1"), "0.875", "1e-4")
    assert spec.augmentation == usual_augmentation("digits")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs of the dense network must be at least 1, got 0"),
        ({"model": "resnet"}, "model 'resnet' is unknown"),
        ({"dataset": "flowers"}, "no data set 'flowers'"),
        ({"recipe": "int9"}, "recipe 'int9' is unknown"),
    ],
)
def test_what_dense_network_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        shared.dense_spec(**{"dataset": "digits", **options})


def test_the_dense_network_is_trained_once(resnet):
    folder, start = resnet
    assert start.path == folder / "dense" / "checkpoint.npz"
    before, told = contents(folder), []
    again = shared.dense(
        shared.dense_spec("digits", width=0.25, epochs=1, samples=64), folder, begun=told.append, progress=told.append
    )
    assert again.config == start.config
    assert [type(one) for one in told] == [Trainer]  # and nothing is done
    assert contents(folder) == before
    with pytest.raises(StudyError, match=r"dense: the checkpoint is of another training: model\.width 0\.25 there"):
        shared.dense(shared.dense_spec("digits", width=0.5, epochs=1, samples=64), folder)
    assert contents(folder) == before


def test_a_dense_network_that_dies_is_no_start(tmp_path):
    spec = replace(shared.dense_spec("digits", "mlp", recipe="fixed16", samples=16), rate="2^-40", epochs=1)
    with pytest.raises(StudyError, match="dense: the network has died: no weight has moved"):
        shared.dense(spec, tmp_path)


# 3. Fine-tuning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "epochs must be an integer of at least 0, got -1"),
        ({"epochs": 2.0}, r"epochs must be an integer of at least 0, got 2\.0"),
        ({"epochs": True}, "got True"),
        ({"batch": 0}, "batch must be an integer of at least 1, got 0"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": 2**63}, "seed must be"),
        ({"rate": "fast"}, "rate: a factor is a number such as .* got 'fast'"),
        ({"rate": 0}, "rate must be above 0, got 0"),
        ({"momentum": 1}, "momentum must be less than 1"),
        ({"decay": "-1"}, "decay: a factor must be 0, or at least"),
    ],
)
def test_what_fine_tuning_is_refused(options, message):
    with pytest.raises(InputError, match=message) as caught:
        FineTuning(**options)
    assert "\n" not in str(caught.value)


def test_fine_tuning_is_that_of_the_course_but_for_the_epochs(resnet, mlp):
    start = resnet[1]
    trainer = FineTuning(epochs=3).trainer(start, start.network())
    told = trainer.optimizer.describe()
    assert (trainer.epochs, trainer.batch, trainer.seed, trainer.augmentation) == (3, 64, 1, start.augmentation)
    assert (told["rate"], told["momentum"], told["decay"]) == ("0.00199997", "0.875", "0.000100002")
    assert str(trainer.optimizer.schedule.over(3)).startswith("constant")
    plain = shared.load(mlp[0])
    assert FineTuning(batch=7).trainer(plain, plain.network()).batch == 7


def test_a_recipe_without_momentum_is_tuned_without(tmp_path):
    ready = prepare(TrainingSpec(samples=32, hidden=(6, 5), epochs=1, recipe="niti8"))
    with training.opened(ready, tmp_path) as opened:
        training.run(ready, opened)
    start = shared.load(tmp_path)
    trainer = FineTuning(epochs=1, rate="2^4").trainer(start, start.network())
    assert trainer.optimizer.describe()["momentum"] == "0"
    with pytest.raises(InputError, match="recipe 'niti8' has normalized updates: its rate is a power of two"):
        FineTuning(epochs=1).trainer(start, start.network())


# 4. A study's folder ----------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A row."""

    name: str
    count: int
    value: float


STUDY = shared.Study("untuned.csv", "tuned.csv", Row, ("table.md", "picture.png"))


def _part(name, made):
    def make():
        made.append(name)
        return [Row(name, 2, 0.5), Row(name, 1, 0.25)]

    return (name,), make


def test_untuned_parts_are_made_once_each(tmp_path):
    made, told = [], []
    parts = [_part(name, made) for name in ("b", "a")]
    assert STUDY.files == ("untuned.csv", "tuned.csv", "config.json", "dense", "table.md", "picture.png")
    rows = STUDY.run_untuned(tmp_path / "x", {"study": "s"}, parts[:1], told.append)
    assert rows == [Row("b", 2, 0.5), Row("b", 1, 0.25)]
    assert (tmp_path / "x" / "untuned.csv").read_text() == "name,count,value\nb,1,0.25\nb,2,0.5\n"
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    assert set(config) == {"study", "intnet"}
    rows = STUDY.run_untuned(tmp_path / "x", {"study": "s"}, parts, told.append)
    assert (made, told) == (["b", "a"], [1, 1, 1])
    assert [row.name for row in rows] == ["b", "b", "a", "a"]  # as they were asked for
    written = (tmp_path / "x" / "untuned.csv").stat().st_mtime_ns
    assert STUDY.run_untuned(tmp_path / "x", {"study": "s"}, parts[1:]) == [Row("a", 1, 0.25), Row("a", 2, 0.5)]
    assert (tmp_path / "x" / "untuned.csv").stat().st_mtime_ns == written
    with pytest.raises(StudyError, match="holds a study with study s, and t is asked for"):
        STUDY.run_untuned(tmp_path / "x", {"study": "t"}, parts)


def test_parts_that_were_finished_before_a_stop_are_kept(tmp_path):
    def fail():
        raise KeyboardInterrupt

    made = []
    with pytest.raises(KeyboardInterrupt):
        STUDY.run_untuned(tmp_path, {"study": "s"}, [_part("b", made), (("a",), fail)])
    assert len(STUDY.run_untuned(tmp_path, {"study": "s"}, [_part("b", made), _part("a", made)])) == 4
    assert made == ["b", "a"]


def test_a_study_is_set_aside_with_all_that_is_in_it(tmp_path):
    folder = tmp_path / "x"
    assert STUDY.set_aside(folder) is None
    STUDY.run_untuned(folder, {"study": "s"}, [_part("b", [])])
    (folder / "dense").mkdir()
    (folder / "runs").mkdir()
    before = contents(folder)
    aside = STUDY.set_aside(folder)
    assert contents(aside) == before
    assert not folder.exists()
    for name in ("dense", "runs", "untuned.csv", ".untuned.draft.csv"):  # what a study that was killed early has
        folder.mkdir()
        (folder / name).mkdir()
        assert STUDY.set_aside(folder) is not None
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(StudyError, match="holds no study"):
        STUDY.set_aside(folder)
    assert contents(folder) == {"thesis.txt": b"mine"}


def test_a_folder_is_checked_before_hours_are_spent(tmp_path):
    folder = tmp_path / "x"
    STUDY.check(folder, "s")  # there is none
    assert not folder.exists()
    STUDY.run_untuned(folder, {"study": "s"}, [_part("b", [])])
    for name in ("dense", "runs"):
        (folder / name).mkdir()
    before = contents(folder)
    STUDY.check(folder, "s")
    with pytest.raises(StudyError, match="holds a study of s, and this is one of t; choose another --out"):
        STUDY.check(folder, "t")
    assert contents(folder) == before
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(StudyError, match=r"holds thesis\.txt, which is none of this study's; choose another --out"):
        STUDY.check(folder, "s")
    with pytest.raises(StudyError, match=r"thesis\.txt is not a folder; --out must name a folder"):
        STUDY.check(folder / "thesis.txt", "s")
    (folder / "thesis.txt").unlink()
    (folder / "config.json").write_text("{")
    with pytest.raises(StudyError, match=r"config\.json is damaged"):
        STUDY.check(folder, "s")


@pytest.mark.parametrize(("present", "allowed"), [(("dense",), True), (("dense", "runs"), True), (("dense", "thesis"), False)])
def test_what_may_be_in_a_folder_before_the_study(present, allowed, tmp_path):
    for name in present:
        (tmp_path / name).mkdir()

    def opened():
        return tables.opened(tmp_path, "t.csv", Row, {"study": "s"}, {}, ("dense", "runs"))

    if not allowed:
        with pytest.raises(StudyError, match=r"holds thesis, but no config\.json of a study"), opened():
            pass
        assert contents(tmp_path) == {}
        return
    with pytest.raises(InputError, match="too late"), opened():
        raise InputError("too late")
    assert contents(tmp_path) == {}  # it does not claim the folder
    with opened() as table:
        table.add([Row("a", 1, 0.5)])
    with pytest.raises(InputError, match="too late"), opened():
        raise InputError("too late")
    assert set(contents(tmp_path)) == {"config.json", "t.csv"}


# 5. Trainings -----------------------------------------------------------------------------------------------------------


class Counted(trajectories.Trajectory):
    """Notes the epochs before which it was asked."""

    kind = Row

    def before(self, trainer):
        """Note the epoch."""
        seen.append((trainer is self.trainer, trainer.epoch))

    def evaluate(self):
        """Return a row."""
        return [Row("x", self.trainer.epoch, 0.0)]


seen: list = []


def _counted(mlp, epochs):
    network = Network(models.mlp(hidden=(5,)), (8, 8, 1), "fixed16")
    return Counted("x", Trainer(network, SGD("2^-3"), mlp[1].trainer.train, epochs=epochs, batch=50), {})


def test_what_is_done_before_an_epoch_is_done_again_when_it_is_resumed(mlp, tmp_path):
    seen.clear()
    trajectories.train(_counted(mlp, 2), tmp_path)
    assert seen == [(True, 0), (True, 1)]
    seen.clear()
    told = []

    def stop(samples):
        told.append(samples)
        if len(told) == 3:  # within the second of its epochs
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trajectories.train(_counted(mlp, 4), tmp_path, progress=stop)
    assert seen == [(True, 2), (True, 3)]
    trajectories.train(_counted(mlp, 4), tmp_path)
    assert seen == [(True, 2), (True, 3), (True, 3)]
    trajectories.train(_counted(mlp, 4), tmp_path)
    assert len(seen) == 3
    assert trajectories.Trajectory.before(_counted(mlp, 1), None) is None  # by default nothing is done


def test_a_training_in_use_is_left_alone(mlp, tmp_path):
    with files.locked(tmp_path), pytest.raises(InUseError):
        trajectories.train(_counted(mlp, 1), tmp_path)
    assert contents(tmp_path) == {}
