"""Whole trainings on a GPU: the same weights, losses, predictions and telemetry as on the CPU, and nothing large crosses."""

import copy
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from intnet import QTensor, compression, kernels, layers, matmul, quantize, requantize
from intnet.errors import DeviceError, InputError
from intnet.formats import BlockFloat
from intnet.inputs import Augmentation, Encoder, Inputs
from intnet.kernels.cuda import _driver
from intnet.models import make_model
from intnet.network import Network
from intnet.optimizers import HALP, SGD, SWALP, BitCentering, SWALPSchedule
from intnet.training import Trainer, evaluate, pool_statistics

ROOT = Path(__file__).resolve().parent.parent
usable = pytest.mark.skipif(
    not _driver.SIMULATED and _driver.problem() is not None, reason="needs a GPU, or NUMBA_ENABLE_CUDASIM=1"
)
absent = pytest.mark.skipif(_driver.SIMULATED or _driver.problem() is None, reason="there is a GPU, or a simulated one")

if _driver.SIMULATED:
    import cuda_simulator

    cuda_simulator.mend()


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "NUMBA_ENABLE_CUDASIM", RuntimeWarning)
        yield


def samples(count, shape, classes=3, seed=0):
    random = np.random.default_rng(seed)
    return SimpleNamespace(
        codes=random.integers(0, 256, (count, int(np.prod(shape))), dtype=np.uint8),
        labels=random.integers(0, classes, count).astype(np.uint8), values=np.arange(256) / 255, classes=classes, shape=shape,
    )  # fmt: skip


def optimizer(recipe):
    if recipe.update == "normalized":
        return SGD("2^3")
    return SGD("2^-4", "7/8", "2^-9") if recipe.momentum is not None and recipe.name != "fixed16" else SGD("2^-4")


def prepare(make, recipe, device, data, batch, augmentation=None, epochs=1):
    network = Network(make(), data.shape, recipe)
    inputs = Inputs.of(data, Encoder.of(data, network.recipe, standardize=len(data.shape) == 3 and data.shape[2] > 1))
    trainer = Trainer(
        network, optimizer(network.recipe), inputs, epochs=epochs, batch=batch, device=device, augmentation=augmentation
    )
    return trainer, inputs


def train(*arguments, **options):
    trainer, inputs = prepare(*arguments, **options)
    trainer.run()
    return trainer, inputs


def what_came_of(trainer, inputs):
    tested = evaluate(trainer.network, inputs)
    last = trainer.history[-1]
    numbers = last.train_loss, last.train_accuracy, tested.loss, tested.predictions.tolist()
    return trainer.network.digest(), numbers, trainer.readings


def small_mlp():
    return make_model("mlp", 3, hidden=(7, 5))


def small_residual():
    """Convolutions, normalization, a residual block with a stride, pooling."""
    block = [layers.Conv2D(8, 3, stride=2, padding=1), layers.BatchNorm(), layers.ReLU(), layers.Conv2D(8, 3, padding=1)]
    return layers.Sequential(
        [
            layers.Conv2D(4, 3, padding=1), layers.BatchNorm(), layers.ReLU(),
            layers.Residual(block, [layers.Conv2D(8, 1, stride=2)]), layers.ReLU(),
            layers.MaxPool2D(2), layers.GlobalAvgPool(), layers.Dense(3),
        ]
    )  # fmt: skip


def small_zoo():
    """Stack one of each of the other layers."""
    return layers.Sequential(
        [
            layers.Conv2D(4, 3, padding=1), layers.LeakyReLU(3), layers.AvgPool2D(2), layers.Flatten(), layers.Dropout(0.25),
            layers.Dense(6), layers.Tanh(), layers.Dense(6), layers.HardTanh(), layers.Dense(5), layers.Sign(), layers.Dense(3),
        ]
    )  # fmt: skip


@usable
@pytest.mark.parametrize("recipe", ["fixed16", "int8", "niti8", "bfp8", "wide"])
def test_an_mlp_is_the_same_on_both(recipe):
    data = samples(5, (3, 3, 1))
    here, there = (what_came_of(*train(small_mlp, recipe, device, data, 3)) for device in ("cpu", "gpu"))
    assert there == here


@usable
@pytest.mark.parametrize(("make", "recipe"), [(small_residual, "int8"), (small_zoo, "fixed16")])
def test_a_network_of_images_is_the_same_on_both(make, recipe):
    data, moved = samples(2, (4, 4, 2)), Augmentation(1, True)
    here, there = (what_came_of(*train(make, recipe, device, data, 2, moved)) for device in ("cpu", "gpu"))
    assert there == here


@usable
def test_averages_are_the_same_on_both():
    """SWALP on a small network: its weights and sums; written into a network there, its statistics and outputs."""
    data, found = samples(4, (3, 3, 1)), []
    for device in ("cpu", "gpu"):
        network, wide = (Network([layers.Flatten(), layers.Dense(4), layers.BatchNorm(), layers.Dense(3)], data.shape, name)
                         for name in ("bfp8-mixed", "wide"))  # fmt: skip
        inputs, wide_inputs = (Inputs.of(data, Encoder.of(data, one.recipe)) for one in (network, wide))
        swalp = SWALP(SWALPSchedule("2^-3", start=1, averaging_rate="2^-4"), unit="step")
        Trainer(network, swalp, inputs, epochs=2, batch=2, device=device).run()
        swalp.average.write(wide.to(device).parameters)
        pool_statistics(wide, wide_inputs, batch=2)
        sums = {name: array.tobytes() for name, array in swalp.state().items()}
        found.append((network.digest(), sums, wide.digest(), evaluate(wide, wide_inputs).loss))
    assert found[0] == found[1]


@usable
@pytest.mark.parametrize("recipe", ["bfp8-mixed", "wide"])
def test_bit_centering_is_the_same_on_both(recipe):
    """HALP, with a change of place in the middle of a period."""
    data, found = samples(4, (3, 3, 1)), []
    for devices in (("cpu", "cpu"), ("gpu", "gpu"), ("gpu", "cpu")):
        network = Network([layers.Flatten(), layers.Dense(4), layers.BatchNorm(), layers.Dense(3)], data.shape, recipe)
        halp = HALP("2^-3", BitCentering(4, 2, 3), "2^-6")
        trainer = Trainer(network, halp, Inputs.of(data, Encoder.of(data, network.recipe)), epochs=2, batch=2)
        for device in devices:
            network.to(device)
            trainer.run_epoch()
        found.append((network.digest(), {name: array.tobytes() for name, array in halp.state().items()}))
    assert found[1] == found[0] == found[2]


@usable
def test_a_training_goes_on_elsewhere():
    data = samples(4, (3, 3, 1))
    whole, _ = train(small_mlp, "fixed16", "cpu", data, 2, epochs=2)
    part, _ = train(small_mlp, "fixed16", "gpu", data, 2, epochs=2)
    begun = Trainer(part.network, part.optimizer, part.train, epochs=2, batch=2)
    assert part.network.device == "gpu"
    assert part.network.digest() == whole.network.digest()
    with pytest.raises(InputError, match=r"lives on a GPU; move it back with network\.to\('cpu'\)"):
        copy.deepcopy(part.network)
    with pytest.raises(InputError, match="needs a forward pass"):
        begun.network.to("cpu").backward(quantize(np.zeros((2, 3)), "fxp-s16/13"), layers.Step(0, 0, True))
    assert copy.deepcopy(part.network).digest() == whole.network.digest()
    state = part.network.state()
    assert all(isinstance(array, np.ndarray) for array in state.values())
    part.network.to("gpu").load_state(state)
    assert part.network.device == "gpu"
    assert part.network.digest() == whole.network.digest()


@usable
def test_tensors_stay_where_they_are():
    """What crosses in a step does not grow with the images: numbers to decide by, channels, labels, the outputs."""
    crossed = []
    for size in (4, 8):
        data = samples(2, (size, size, 2))
        trainer, _ = prepare(small_residual, "int8", "gpu", data, 2)
        before = vars(_driver.transfers).copy()
        trainer.step(np.arange(2), trainer.optimizer.schedule.at(0, 1), layers.Step(0, 0, True))
        crossed.append({name: value - before[name] for name, value in vars(_driver.transfers).items()})
    for name in ("bytes_to_device", "bytes_to_host"):  # a shift that was not met before crosses once
        assert abs(crossed[1][name] - crossed[0][name]) < 512
        assert crossed[1][name] < 8192


@usable
def test_tensors_and_samples_move():
    tensor = quantize([[1.0, -2.0]], "fxp-s8/4")
    there = tensor.to("gpu")
    assert there.to("auto" if not _driver.SIMULATED else "cpu").mantissa.tolist() == tensor.mantissa.tolist()
    turned = QTensor(there.mantissa, there.exponent, there.format)
    assert turned.mantissa.tolist() == tensor.mantissa.tolist()
    column = quantize([[1.0], [3.0]], "fxp-s8/4")
    assert matmul(there, column.to("gpu")).mantissa.tolist() == matmul(tensor, column).mantissa.tolist()
    for thing in (tensor, prepare(small_mlp, "fixed16", "cpu", samples(2, (3, 3, 1)), 2)[1]):
        with pytest.raises(InputError, match="device must be one of"):
            thing.to("tpu")


@usable
def test_a_network_may_move_when_its_trainer_is_made():
    data = samples(4, (3, 3, 1))
    whole, _ = train(small_mlp, "fixed16", "cpu", data, 2)
    moved, _ = prepare(small_mlp, "fixed16", "cpu", data, 2)
    moved.network.to("gpu")
    moved.run()
    assert moved.network.digest() == whole.network.digest()


@usable
def test_functions_of_tensors():
    random = np.random.default_rng(0)
    a, b = random.integers(-128, 128, (3, 9)).astype(np.int8), random.integers(-128, 128, (9, 5)).astype(np.int8)
    assert matmul(a, b, device="gpu").tolist() == matmul(a, b).tolist()
    tensor = quantize(random.normal(size=(4, 6)), "fxp-s16/12")
    for form in ("fxp-s8/4", BlockFloat(8, "row")):
        here, there = (requantize(tensor, form, "stochastic", seed=3, device=device) for device in ("cpu", "gpu"))
        assert there.mantissa.tolist() == here.mantissa.tolist()
        assert there.exponent.tolist() == here.exponent.tolist()


@pytest.mark.skipif(not _driver.SIMULATED, reason="runs with NUMBA_ENABLE_CUDASIM=1")
def test_a_simulation_is_called_one():
    warnings.simplefilter("always")
    with pytest.warns(RuntimeWarning, match="simulated"):
        kernels.resolve_device("gpu")
    assert kernels.resolve_device("auto") == "cpu"


def test_devices_have_names():
    with pytest.raises(InputError, match="device must be one of cpu, gpu, auto, got 'tpu'"):
        kernels.resolve_device("tpu")


@absent
def test_without_a_gpu_it_is_said_what_is_missing():
    assert kernels.resolve_device("auto") == "cpu"
    network = Network(small_mlp(), (3, 3, 1), "fixed16")
    for thing in (quantize([1.0], "fxp-s8/4"), prepare(small_mlp, "fixed16", "cpu", samples(2, (3, 3, 1)), 2)[1]):
        with pytest.raises(DeviceError, match="no GPU can be used"):
            thing.to("gpu")
    with pytest.raises(DeviceError, match=r"no GPU can be used: .*; install .* or use device=\"cpu\""):
        network.to("gpu")
    assert network.device == "cpu"


@absent
def test_the_program_says_it_in_one_line(tmp_path):
    command = [sys.executable, str(ROOT / "experiments" / "train.py"), "--device", "gpu", "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "no GPU can be used" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@usable
def test_masks_do_not_come_to_a_gpu_with_a_state():
    network, there = (Network([layers.Dense(3)], (4,)) for _ in range(2))
    compression.prune_layers(network, 50)
    before = there.to("gpu").digest()
    with pytest.raises(InputError, match="mask"):
        there.load_state(network.state())
    assert there.digest() == before


def test_an_old_device_and_a_full_one(monkeypatch):
    old = SimpleNamespace(
        is_available=lambda: True,
        get_current_device=lambda: SimpleNamespace(name=b"Old One", compute_capability=(6, 1)),
    )
    monkeypatch.setattr(_driver, "SIMULATED", False)
    monkeypatch.setattr(_driver, "cuda", old)
    with pytest.raises(DeviceError, match=r"Old One has compute capability 6\.1 and the kernels need 7\.5 or later"):
        _driver.require()

    class FullError(RuntimeError):
        code = 2

    def full(*_):
        raise FullError

    monkeypatch.setattr(_driver, "cuda", SimpleNamespace(device_array=full, to_device=full))
    with pytest.raises(DeviceError, match=r"no memory left for an array of 8\.0 MiB .*; lower the batch size or the width"):
        _driver.empty((1024, 1024), np.int64)
    with pytest.raises(DeviceError, match=r"array of 0\.0 MiB"):
        _driver.to_device(np.zeros(3, np.int8))
