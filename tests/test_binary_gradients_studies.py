"""The studies of gradient estimators: what is in their tables, how they go on, what they refuse, what they say."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction

import naive_levels
import numpy as np
import pytest
from toy_networks import as_matrices, as_samples

from intnet import checkpoint
from intnet.errors import InputError, StudyError
from intnet.gradients import CDG, STE, FirstLayers, Perceptron, step
from intnet.network import Network
from intnet.studies import binary_gradients_reading as reading
from intnet.studies import rosenbrock, tables, thin_resnet
from intnet.studies import toy_gradients as toys
from intnet.studies.rosenbrock import RosenbrockRow, RosenbrockSpec
from intnet.studies.thin_resnet import ThinResNetRow, ThinResNetSpec
from intnet.studies.toy_gradients import CosineRow, CosineSpec, DecreaseRow, DecreaseSpec, SignsRow, SignsSpec

SPECS = {
    "rosenbrock": RosenbrockSpec(steps=100, every=30),
    "cosine": CosineSpec(("binary", "full"), (0.1, 0.01), (60, 40), coordinates=5, dim=4, seeds=2),
    "loss-decrease": DecreaseSpec(
        dim=(2, 17), samples=(12, 3), epsilon=(0.1,), sigma=(0.1, 0.5), spread=(0.3,), rates=(0.5, 0.1), batch=20, batches=2,
        seeds=1, pretrain=(False, True), pretrain_steps=8, pretrain_batch=16,
    ),
    "stochastic-rounding": SignsSpec(
        averaged=(1, 3), dim=3, batch=30, batches=2, seeds=2, rates=7, pretrain_steps=8, pretrain_batch=16
    ),
    "thin-resnet": ThinResNetSpec(
        "digits", convolutions=(1, 2), epsilon=(0.1,), rates=(0.1, 0.4), batch=5, batches=1, width=1 / 64, epochs=2,
        train_batch=48, samples=96,
    ),
}  # fmt: skip
RUNS = {
    "rosenbrock": rosenbrock.run,
    "cosine": toys.run_cosine,
    "loss-decrease": toys.run_decrease,
    "stochastic-rounding": toys.run_signs,
    "thin-resnet": thin_resnet.run,
}
COLUMNS = {
    "rosenbrock": "schedule,step,rate,epsilon,loss",
    "cosine": "activation,epsilon,estimator,layer,seed,samples,cosine",
    "loss-decrease": "dim,estimator,samples,hyper,rate,pretrained,seed,loss_before,decrease",
    "stochastic-rounding": "pretrained,seed,batch,averaged,loss_before,best_loss,best_rate",
    "thin-resnet": "weights,layer,batch,estimator,epsilon,rate,cosine,loss_before,decrease",
}
KINDS = dict(zip(RUNS, (RosenbrockRow, CosineRow, DecreaseRow, SignsRow, ThinResNetRow), strict=True))
TABLES = dict(
    zip(RUNS, ("rosenbrock.csv", "cosine.csv", "decrease.csv", "stochastic_rounding.csv", "thin_resnet.csv"), strict=True)
)
GROUPS = {  # columns whose values make what is stored at once
    "rosenbrock": ("schedule",),
    "cosine": ("activation", "epsilon", "seed", "samples"),
    "loss-decrease": ("dim", "pretrained", "seed"),
    "stochastic-rounding": ("pretrained", "seed", "batch"),
    "thin-resnet": ("weights", "layer", "batch"),
}
TOTALS = {
    "rosenbrock": 200,
    "cosine": 8,
    "loss-decrease": 8,
    "stochastic-rounding": 8,
    "thin-resnet": thin_resnet.total(SPECS["thin-resnet"]),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Run every study once, for reading only."""
    found = {}

    def make(study):
        if study not in found:
            folder, told = tmp_path_factory.mktemp("made") / study, []
            rows = RUNS[study](SPECS[study], folder, progress=told.append)
            found[study] = folder, rows, sum(told)
        return found[study]

    return make


def group_of(study, row):
    return tuple(getattr(row, name) for name in GROUPS[study])


# 1. The tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("study", RUNS)
def test_a_table_has_its_columns_and_is_read_as_it_was_written(made, study):
    folder, rows, told = made(study)
    text = (folder / TABLES[study]).read_text()
    assert text.splitlines()[0] == COLUMNS[study]
    assert tables.from_csv(KINDS[study], text) == rows == sorted(rows)
    assert len(set(rows)) == len(rows)
    assert told == TOTALS[study]
    config = json.loads((folder / "config.json").read_text())
    assert config["study"] == study
    assert {"intnet", "numpy"} <= set(config)


def test_rosenbrock_descends_by_schedule(made):
    _, rows, _ = made("rosenbrock")
    constant, decaying = ([row for row in rows if row.schedule == name] for name in ("constant", "decaying"))
    assert [row.step for row in constant] == [0, 30, 60, 90, 100]
    assert [(row.step, row.rate, row.epsilon) for row in decaying[:4]] == [
        (0, 0, 0), (30, 0.1, 0.01), (40, 0.01, 0.001), (50, 0.001, 0.0001)
    ]  # fmt: skip
    assert [row.step for row in decaying][3:] == [50, 60, 70, 80, 90, 100]
    assert decaying[-1].epsilon == pytest.approx(1e-9)
    assert constant[0].loss == decaying[0].loss
    for some in (constant, decaying):
        assert some[-1].loss < some[0].loss
    x = np.array([-3, 7, 2, -9], np.int64) << 40
    exact = naive_levels.rosenbrock([Fraction(int(v), 2**40) for v in x])
    assert rosenbrock.rosenbrock_loss(x) == float(exact)


def test_cosines_are_those_of_their_definitions(made):
    """Recomputed with two evaluations a weight, over the weights that have a difference."""
    _, rows, _ = made("cosine")
    names = {(row.activation, row.estimator) for row in rows}
    assert names == {("full", "vanilla"), *(("binary", name) for name in ("vanilla", "steep", "swish", "polynomial"))}
    assert len(rows) == (4 + 1) * 4 * 2 * 2 * 2
    assert all(-1 <= row.cosine <= 1 for row in rows)
    assert all(row.cosine > 0.999 for row in rows if row.activation == "full" and row.epsilon == 0.01)
    target, network = toys.toy("binary", 4, 1, 20)
    batch = toys.draw_batch(target, 40, 1, 0)
    differences = CDG("0.1", 5, 1, plain=True)
    wanted = differences.wanted(network)
    assert [int(wanted[one].sum()) for one in network.slices] == [5, 5, 5, 4]
    a, b = (np.concatenate(found(network, batch).layers(network)) for found in (STE("swish"), differences))
    found = {row.layer: row.cosine for row in rows if row[:3] == ("binary", 0.1, "swish") and row[4:6] == (1, 40)}
    parts = {"fc1": slice(0, 16), "fc2": slice(16, 32), "fc3": slice(32, 48), "total": slice(0, 48)}
    assert found.keys() == parts.keys()
    for name, part in parts.items():
        x, y = a[part][wanted[part]], b[part][wanted[part]]
        norms = np.sqrt((x @ x) * (y @ y))
        assert found[name] == (pytest.approx(x @ y / norms) if norms else 0)
    assert 0.1 < abs(found["total"]) < 1


def test_all_coordinates_are_taken_if_none_are_drawn(tmp_path):
    spec = CosineSpec(("full",), 0.01, 50, coordinates=0, dim=3, seeds=1)
    rows = toys.run_cosine(spec, tmp_path)
    assert rows == toys.run_cosine(replace(spec, coordinates=99), tmp_path / "more")
    assert {row.layer: row.cosine > 0.99 for row in rows} == dict.fromkeys(("fc1", "fc2", "fc3", "total"), True)


def test_decreases_are_of_every_estimator_and_rate(made):
    _, rows, _ = made("loss-decrease")
    small = {row[1:4] for row in rows if row.dim == 2}
    stes = {(f"ste_{name}", 0, 0.0) for name in ("vanilla", "steep", "swish", "polynomial", "random_backward")}
    nes = {(name, count, sigma) for name in ("nes", "nes_single") for count in (3, 12) for sigma in (0.1, 0.5)}
    others = {("ste_stochastic_sign", 1, 0.0), ("cdg", 0, 0.1), ("nes_max_point", 3, 0.1), ("ste_around", 3, 0.3)}
    assert small == stes | nes | others
    large = {row[1:4] for row in rows if row.dim == 17}
    assert large == {one for one in small if one[1] <= 3}  # beyond dimension 16, up to a tenth of the most, or the least
    for dim in (2, 17):
        for trained in (0, 1):
            keys = [(row.seed, *row[1:5]) for row in rows if (row.dim, row.pretrained) == (dim, trained)]
            assert len(keys) == len(set(keys)) == 2 * 2 * len(small if dim == 2 else large)
            assert {key[0] for key in keys} == {0, 1}  # the batches of the one pair of networks
    assert {row.rate for row in rows} == {0.1, 0.5}
    before = {(row.dim, row.pretrained, row.seed): row.loss_before for row in rows}
    assert len(set(before.values())) == len(before) == 8
    assert len({(*key, row.loss_before) for row in rows for key in [group_of("loss-decrease", row)]}) == 8


def test_a_decrease_is_a_difference_of_two_slow_losses(made):
    """One step of hidden layers alone along coordinate differences: 0.1 in each of them, none in the output's weights."""
    _, rows, _ = made("loss-decrease")
    target, network = toys.toy("binary", 2, 0, 20)
    batch = toys.draw_batch(target, 20, 0, 1)
    part = FirstLayers(network, 3)
    (moved,) = step(part, CDG("0.1", plain=True)(part, batch), [Fraction(1, 10)])
    weights = np.concatenate([moved, network.weights[12:]])
    for one in network.slices[:3]:
        assert np.linalg.norm((weights - network.weights)[one]) / 2**20 in (0, pytest.approx(0.1, abs=1e-5))
    before, after = (
        float(naive_levels.loss(as_matrices(network, some), *as_samples(network, batch), 1, 20) / 20)
        for some in (network.weights, weights)
    )
    (row,) = (row for row in rows if row[:6] == (2, "cdg", 0, 0.1, 0.1, 0) and row.seed == 1)
    assert row.loss_before == pytest.approx(before)
    assert row.decrease == pytest.approx(before - after)


def test_training_before_lowers_the_loss():
    target, network = toys.toy("binary", 4, 0, 20)
    trained = toys.pretrained(target, network, 60, 200, 0)
    batch = toys.draw_batch(target, 2000, 5, 0)
    assert trained.losses(batch).exact()[0] < network.losses(batch).exact()[0] / 2
    again = toys.pretrained(target, network, 60, 200, 0)
    assert again.weights.tolist() == trained.weights.tolist()
    assert toys.pretrained(target, network, 60, 200, 1).weights.tolist() != trained.weights.tolist()


@pytest.mark.parametrize(("layers", "other"), [("hidden", "all"), ("all", "hidden")])
def test_what_is_moved(layers, other, tmp_path):
    network = Perceptron.drawn((3, 3, 1))
    assert toys.moving(network, layers).weights.size == (9 if layers == "hidden" else 12)
    spec = SignsSpec(averaged=1, layers=layers, dim=2, batch=9, seeds=1, rates=2, pretrain=False)
    toys.run_signs(spec, tmp_path)
    with pytest.raises(StudyError, match=f"with layers {layers}, and {other} is asked for"):
        toys.run_signs(replace(spec, layers=other), tmp_path)


def test_best_losses_are_the_least_over_rates(made):
    _, rows, _ = made("stochastic-rounding")
    assert len(rows) == 2 * 2 * 2 * 3
    assert {row.averaged for row in rows} == {0, 1, 3}
    assert {row.best_rate for row in rows} <= {k / 14 for k in range(1, 8)}
    target, network = toys.toy("binary", 3, 1, 20)
    batch = toys.draw_batch(target, 30, 1, 1)
    direction = STE()(network, batch)
    moved = step(network, direction, [Fraction(k, 14) for k in range(1, 8)])
    losses = [naive_levels.loss(as_matrices(network, one), *as_samples(network, batch), 1, 20) / 30 for one in moved]
    (row,) = (row for row in rows if row[:4] == (0, 1, 1, 0))
    assert row.best_loss == pytest.approx(float(min(losses)))
    assert row.best_rate == (losses.index(min(losses)) + 1) / 14
    assert len({(*row[:3], row.loss_before) for row in rows}) == 8  # the same loss before, whatever is averaged


def test_steps_of_one_convolution(made, tmp_path):
    folder, rows, _ = made("thin-resnet")
    assert {(row.weights, row.estimator, row.epsilon) for row in rows} == {
        ("full", "ste", 0.0), ("full", "cdg", 0.1), ("binary", "ste", 0.0), ("binary", "cdg", 0.1), ("binary", "cdg", 0.0)
    }  # fmt: skip
    assert len(rows) == (2 + 3) * 2 * 2
    assert {row.cosine for row in rows if row.estimator == "ste"} == {1.0}
    assert all(abs(row.cosine) <= 1 + 1e-12 for row in rows)
    assert len({(row.weights, row.loss_before) for row in rows}) == 2  # the same for every layer
    assert {path.name for path in folder.iterdir() if path.name[0] != "."} == {
        "config.json", "thin_resnet.csv", "trained-full.npz", "trained-binary.npz"
    }  # fmt: skip
    assert checkpoint.load(folder / "trained-full.npz").epoch == 2
    more = shutil.copytree(folder, tmp_path / "more")
    more = thin_resnet.run(replace(SPECS["thin-resnet"], weights=("full",), convolutions=1, batches=2), more)
    found = {(row.batch, row.loss_before) for row in more if (row.weights, row.layer) == ("full", 1)}
    assert {batch for batch, _ in found} == {0, 1}
    assert len({loss for _, loss in found}) == 2
    assert set(rows) < set(more)


def test_sixteen_convolutions_see_signs():
    for kind in thin_resnet.WEIGHTS:
        network = Network(thin_resnet.models.binary_resnet18(3, 1 / 64, weights=kind), (8, 8, 1), thin_resnet.recipe(), 0)
        assert len([layer for layer in network.layers.walk() if thin_resnet._sees_signs(layer)]) == 16


# 2. Going on ------------------------------------------------------------------------------------------------------------


def same_bytes(folder, other, study):
    for name in (TABLES[study], "config.json"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize("study", RUNS)
def test_lost_groups_are_made_again_with_the_same_bytes(made, study, tmp_path):
    """Every second group is taken out of the table; a complete one is only read."""
    whole, rows, _ = made(study)
    folder = shutil.copytree(whole, tmp_path / "study")
    groups = sorted({group_of(study, row) for row in rows})
    kept = [row for row in rows if group_of(study, row) in groups[::2]]
    assert 0 < len(kept) < len(rows)
    (folder / TABLES[study]).write_text(tables.to_csv(KINDS[study], kept))
    told = []
    assert RUNS[study](SPECS[study], folder, progress=told.append) == rows
    assert sum(told) == TOTALS[study]
    same_bytes(folder, whole, study)
    written = (folder / TABLES[study]).stat().st_mtime_ns
    assert RUNS[study](SPECS[study], folder) == rows
    assert (folder / TABLES[study]).stat().st_mtime_ns == written


class Stopped(Exception):  # noqa: N818, D101
    pass


@pytest.mark.parametrize(("study", "after"), [(study, 1 if study == "thin-resnet" else 3) for study in RUNS])
def test_a_stopped_study_goes_on_with_the_same_bytes(made, study, after, tmp_path):
    """It is stopped from inside as soon as something is told for the third time; a network after its first epoch."""
    whole, folder = made(study)[0], tmp_path / "study"
    told = []

    def stop(progress):
        told.append(progress)
        if len([one for one in told if one]) == after:
            raise Stopped

    with pytest.raises(Stopped):
        RUNS[study](SPECS[study], folder, progress=stop)
    stored = folder / TABLES[study]
    assert not stored.exists() or stored.read_bytes() != (whole / TABLES[study]).read_bytes()
    RUNS[study](SPECS[study], folder)
    same_bytes(folder, whole, study)


@pytest.mark.parametrize(
    ("study", "less"),
    [
        ("cosine", {"seeds": 1}),
        ("cosine", {"epsilon": (0.01,), "samples": 40, "activations": ("full",)}),
        ("loss-decrease", {"dim": 17, "pretrain": True}),
        ("stochastic-rounding", {"seeds": 1, "batches": 1, "pretrain": [False]}),
        ("thin-resnet", {"weights": ("binary",), "convolutions": 2}),
    ],
)
def test_a_small_study_grows_into_the_whole(made, study, less, tmp_path):
    some = RUNS[study](replace(SPECS[study], **less), tmp_path)
    assert 0 < len(some) < len(made(study)[1])
    RUNS[study](SPECS[study], tmp_path)
    same_bytes(tmp_path, made(study)[0], study)


@pytest.mark.parametrize(
    ("study", "change", "message"),
    [
        ("rosenbrock", {"steps": 110}, "steps 100, and 110"),
        ("rosenbrock", {"every": 10}, "every 30, and 10"),
        ("rosenbrock", {"seed": 1}, "seed 0, and 1"),
        ("cosine", {"dim": 5}, "dim 4, and 5"),
        ("cosine", {"coordinates": 6}, "coordinates 5, and 6"),
        ("cosine", {"weight_bits": 16}, "weight_bits 20, and 16"),
        *(
            ("loss-decrease", {name: value}, f"{name} ")
            for name, value in {
                "batch": 21, "batches": 3, "rates": (0.1,), "epsilon": 0.2, "sigma": 0.1, "spread": 0.1, "length": 0.2,
                "samples": 3, "layers": "all", "pretrain_steps": 9, "pretrain_batch": 17, "weight_bits": 16,
            }.items()
        ),
        *(
            ("stochastic-rounding", {name: value}, f"{name} ")
            for name, value in {
                "dim": 4, "layers": "hidden", "batch": 31, "rates": 8, "averaged": 1, "pretrain_steps": 9,
                "pretrain_batch": 17, "weight_bits": 16,
            }.items()
        ),
        *(
            ("thin-resnet", {name: value}, f"{name} ")
            for name, value in {
                "epsilon": 0.2, "rates": 0.1, "batch": 6, "width": 0.25, "epochs": 3, "train_batch": 49, "rate": 0.1,
                "samples": 95, "seed": 1,
            }.items()
        ),
    ],
)  # fmt: skip
def test_another_configuration_is_refused(made, study, change, message, tmp_path):
    folder = shutil.copytree(made(study)[0], tmp_path / "study")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(StudyError, match=f"holds a study with {message}.* is asked for; choose another --out"):
        RUNS[study](replace(SPECS[study], **change), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_studies_do_not_share_a_folder(made, tmp_path):
    folder = shutil.copytree(made("cosine")[0], tmp_path / "study")
    with pytest.raises(StudyError, match="with study cosine, and rosenbrock is asked for"):
        rosenbrock.run(SPECS["rosenbrock"], folder)


# 3. Specifications ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RosenbrockSpec(steps=9), "steps must be at least 10, got 9"),
        (lambda: RosenbrockSpec(every=0), "every must be at least 1, got 0"),
        (lambda: CosineSpec(("linear",)), "the activations are binary, ternary, 2bit, full, got 'linear'"),
        (lambda: CosineSpec(epsilon=()), "epsilon must not be empty"),
        (lambda: CosineSpec(epsilon=0), "epsilon must be above 0, got 0"),
        (lambda: CosineSpec(epsilon=-0.1), r"epsilon must be above 0, got -0\.1"),
        (lambda: CosineSpec(epsilon=float("nan")), "epsilon must be above 0, got nan"),
        (lambda: CosineSpec(epsilon=(0.1, float("inf"))), "epsilon must be at most 16, got inf"),
        (lambda: CosineSpec(epsilon=1e-7), r"epsilon 1e-07 vanishes: it rounds to 0 in weights whose unit is 9\.54e-07"),
        (lambda: CosineSpec(epsilon=0.001, weight_bits=8), r"epsilon 0\.001 vanishes.* 0\.00391; .* just above 0\.00195"),
        (lambda: CosineSpec(epsilon="0.1"), "epsilon must be above 0, got '0.1'"),
        (lambda: CosineSpec(samples=0), "samples must be at least 1, got 0"),
        (lambda: CosineSpec(samples=2.5), r"samples must be at least 1, got 2\.5"),
        (lambda: CosineSpec(samples=True), "samples must be at least 1, got True"),
        (lambda: CosineSpec(weight_bits=25), "weights must have 8..24 fraction bits, got 25"),
        (lambda: CosineSpec(coordinates=-1), "coordinates must be at least 0, got -1"),
        (lambda: DecreaseSpec(sigma=1e-7), "sigma 1e-07 vanishes"),
        (lambda: DecreaseSpec(epsilon=1e-7), "epsilon 1e-07 vanishes"),
        (lambda: DecreaseSpec(length=1e-7), "length 1e-07 vanishes"),
        (lambda: DecreaseSpec(length=0), "length must be above 0, got 0"),
        (lambda: DecreaseSpec(spread=1e-12), "spread 1e-12 vanishes"),
        (lambda: DecreaseSpec(epsilon=1e13), "epsilon must be at most 16, got 1"),
        (lambda: DecreaseSpec(rates=(0.1, float("nan"))), "rates must be above 0, got nan"),
        (lambda: DecreaseSpec(layers="some"), "layers are hidden or all, got 'some'"),
        (lambda: DecreaseSpec(dim=0), "dim must be at least 1, got 0"),
        (lambda: DecreaseSpec(pretrain_steps=0), "pretrain_steps must be at least 1, got 0"),
        (lambda: SignsSpec(averaged=(1, 0)), "averaged must be at least 1, got 0"),
        (lambda: SignsSpec(layers=None), "layers are hidden or all, got None"),
        (lambda: SignsSpec(rates=0), "rates must be at least 1, got 0"),
        (lambda: SignsSpec(weight_bits=7), "weights must have 8..24 fraction bits, got 7"),
        (lambda: ThinResNetSpec(weights=("ternary",)), "weights are full or binary, got 'ternary'"),
        (lambda: ThinResNetSpec(convolutions=(1, 17)), r"the convolutions that see signs are 1\.\.16, got 17"),
        (lambda: ThinResNetSpec(convolutions=0), "convolutions must be at least 1, got 0"),
        (lambda: ThinResNetSpec(epsilon=1e-9), "epsilon 1e-09 vanishes"),
        (lambda: ThinResNetSpec(epsilon=8.0), r"epsilon must be at most 2, got 8.0"),
        (lambda: ThinResNetSpec(rate=0), "rate must be above 0, got 0"),
        (lambda: ThinResNetSpec(epochs=0), "epochs must be at least 1, got 0"),
    ],
)
def test_specifications_are_checked_before_anything_is_made(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_what_is_named_twice_counts_once():
    twice = CosineSpec(("full", "full"), (0.1, 0.1), (9, 9))
    assert (twice.activations, twice.epsilon, twice.samples) == (("full",), (0.1,), (9,))
    spec = DecreaseSpec(dim=(8, 8), samples=(5, 3, 5), sigma=1, rates=(0.3, 0.1, 0.3), pretrain=[True, False, True], length=1)
    assert (spec.dim, spec.samples, spec.sigma, spec.rates, spec.pretrain) == ((8,), (5, 3), (1.0,), (0.1, 0.3), (True, False))
    assert repr(spec.sigma), repr(spec.length) == ("(1.0,)", "1.0")  # as they come back from a file
    assert SignsSpec(averaged=(2, 2), pretrain=True).averaged == (2,)
    assert ThinResNetSpec(weights=("full", "full"), convolutions=(3, 3)).convolutions == (3,)


def test_more_samples_than_there_are_are_refused(tmp_path):
    with pytest.raises(InputError, match="digits has 1500 training samples, and 1501 are asked for"):
        thin_resnet.run(replace(SPECS["thin-resnet"], samples=1501), tmp_path / "none")
    assert not (tmp_path / "none").exists()


# 4. What is said --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("study", "pictures", "sentence"),
    [
        ("rosenbrock", ["rosenbrock"], "Decaying rate and epsilon: "),
        ("cosine", ["cosine"], "binary, vanilla, epsilon 0.1, 60 samples: fc1 "),
        ("loss-decrease", ["best", "decrease", "decrease-trained"], "dim 17, fresh, nes, 0.5, 3 samples: "),
        ("stochastic-rounding", ["stochastic_rounding"], "After training: loss "),
        ("thin-resnet", ["thin_resnet"], "binary weights, convolution 2, cdg, all signs: loss "),
    ],
)
def test_what_is_exported(made, study, pictures, sentence, tmp_path):
    _, rows, _ = made(study)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    sentences = reading.export(study, rows, tmp_path / "a", plots=False)
    name = study.replace("-", "_")
    assert [path.name for path in (tmp_path / "a").iterdir()] == [f"{name}.json"]
    assert json.loads((tmp_path / "a" / f"{name}.json").read_text()) == {"findings": sentences}
    assert any(one.startswith(sentence) for one in sentences), sentences
    assert reading.export(study, rows, tmp_path / "b") == sentences
    assert {path.name for path in (tmp_path / "b").iterdir()} == {f"{name}.json", *(f"{one}.png" for one in pictures)}
    files = toys.FILES + rosenbrock.FILES + thin_resnet.FILES
    assert {path.name for path in (tmp_path / "b").iterdir()} <= set(files)
    assert all(path.stat().st_size > 5000 for path in (tmp_path / "b").glob("*.png"))


def test_sentences_tell_the_numbers():
    rows = [
        CosineRow("binary", 0.1, "vanilla", layer, seed, 300_000, value + seed / 10)
        for layer, value in zip(("fc1", "fc2", "fc3", "total"), (0.5, 0.6, 0.7, 0.8), strict=True)
        for seed in (0, 1)
    ]
    assert reading.describe_cosines(rows) == [
        "binary, vanilla, epsilon 0.1, 300,000 samples: fc1 0.5500, fc2 0.6500, fc3 0.7500, total 0.8500 (reported: 0.8934, "
        "0.8968, 0.9629, 0.9046)."
    ]
    rows = [DecreaseRow(8, "nes", 500, 0.1, rate, 0, seed, 1.0, value + seed) for rate, value in ((0.1, 0.25), (0.5, -1.0))
            for seed in (0, 1)]  # fmt: skip
    assert reading.describe_decrease(rows) == ["dim 8, fresh, nes, 0.1, 500 samples: +0.7500 at rate 0.1, best +0.7500 at 0.1."]
    signs = [SignsRow(0, 0, 0, count, 2.0, best, 0.1) for count, best in ((0, 1.5), (1, 1.25), (2, 1.0))]
    assert reading.describe_signs(signs) == [
        "Fresh: loss 2.0000; best after a step by STE 1.5000, by stochastic activations, so many averaged, 1: 1.2500, 2: "
        "1.0000."
    ]
    thin = [ThinResNetRow("binary", 3, batch, "cdg", 0.0, rate, 0.25, 1.5, rate - batch) for batch in (0, 1)
            for rate in (0.1, 0.2)]  # fmt: skip
    assert reading.best_decreases(thin) == {("binary", 3, "cdg", 0.0): [(0.2, 0.2), (-0.8, 0.2)]}
    assert reading.describe_thin_resnet(thin) == [
        "binary weights, convolution 3, cdg, all signs: loss 1.5000, best +0.2000 at 0.2, -0.8000 at 0.2; cosine to STE 0.250."
    ]
    curve = [RosenbrockRow("constant", step, 0.1, 0.1, loss) for step, loss in ((0, 9.0), (1000, 2.0))]
    assert reading.describe_rosenbrock(curve) == ["Constant rate and epsilon: 2 after 1,000 steps, the least 2."]
