"""Whole trainings on the GPU: the bits of the CPU's, and their times."""

import argparse
import os
import statistics
import time
from typing import Any

import numpy as np
from _gpu_report import DiffersError, Rows, check_equal
from _gpu_times import floor_of
from training import HIDDEN, Images

from intnet import datasets, jobs, kernels, online
from intnet.inputs import Encoder, Inputs
from intnet.kernels.cuda import _driver
from intnet.models import make_model
from intnet.network import Network
from intnet.optimizers import SGD
from intnet.studies.cliffs import cliff_problem
from intnet.sweeps import GridSpec
from intnet.training import Trainer

DEVICES = ("cpu", "gpu")
SMALL = 16  # samples, of which `--quick` trains a small network


def mnist(options: argparse.Namespace, **which: str) -> datasets.Dataset:
    """Return MNIST, or random images of its size and sparsity where it is not at hand."""
    if options.data_dir or os.environ.get("INTNET_DATA"):
        return datasets.load_mnist(options.data_dir, **which)
    random, count = np.random.default_rng(0), 70_000 if which.get("order") else 60_000
    codes = random.integers(0, 256, (count, 784), dtype=np.uint8) * (random.random((count, 784), np.float32) < 0.19)
    labels = random.integers(0, 10, count).astype(np.uint8)
    return datasets.Dataset("mnist", codes, np.arange(256) / 255, labels, 10, (28, 28))


# 1. The cliff grids ------------------------------------------------------------------------------------------------------


def train_grid(data: Any, cells: list[online.Cell], iterations: int, **how: Any) -> dict[online.Cell, online.CellResult]:
    """Train all cells, from drawing the samples to the results on the host."""
    found = online.train_cells(lambda seed: cliff_problem(data, seed, iterations), cells, iterations, **how)
    return {result.cell: result for results in found for result in results}


def cells_of(name: str, quick: bool) -> tuple[list[online.Cell], int]:
    """Return the published cells and iterations, or a few."""
    spec = GridSpec(name)
    return (spec.cells()[5::100], 6) if quick else (spec.cells(), spec.iterations)


def grids(rows: Rows, options: argparse.Namespace) -> None:
    """Compare both published grids: hits, weights, and all totals of every cell."""

    def compare(name: str) -> dict[str, Any]:
        data = datasets.load_digits() if name == "digits" else mnist(options, order="mldata")
        cells, iterations = cells_of(name, options.quick)
        cpu, gpu = (train_grid(data, cells, iterations, device=device) for device in DEVICES)
        for cell in cells:
            for what in ("hits", "weights"):
                check_equal(getattr(gpu[cell], what), getattr(cpu[cell], what), f"{cell} {what}:")
            for what in ("sum_abs_update", "sum_abs_error", "lost_updates", "floored_to_minus_one", "wraps"):
                if getattr(gpu[cell], what) != getattr(cpu[cell], what):
                    raise DiffersError(f"{cell} {what}: {getattr(gpu[cell], what)} for {getattr(cpu[cell], what)}")
        return {"detail": f"{len(cells)} cells of {iterations} samples: hits, weights, totals"}

    for name in ("digits", "mnist"):
        rows.piece(f"the {name.upper()} grid", lambda name=name: compare(name), need=5)


def time_grid(rows: Rows, options: argparse.Namespace) -> None:
    """Time the MNIST grid on the GPU and on the CPU of the same machine."""
    data = mnist(options, order="mldata")
    cells, iterations = cells_of("mnist", options.quick)

    def on(**how: Any) -> dict[str, Any]:
        seconds = []
        for _ in range(2 if options.quick else 6):
            start = time.perf_counter()
            train_grid(data, cells, iterations, **how)
            seconds.append(time.perf_counter() - start)
        return {"first": seconds[0], "wall": statistics.median(seconds[1:]), "detail": f"{len(cells)} cells"}

    rows.piece("the MNIST grid on the GPU", lambda: on(device="gpu"), need=5, status="timed")
    cores = jobs.available_cores()
    rows.piece(f"the MNIST grid on the CPU, {cores} threads", lambda: on(device="cpu"), need=5, status="timed")
    if cores != 2:
        rows.piece("the MNIST grid on the CPU, 2 threads", lambda: on(device="cpu", threads=2), need=5, status="timed")


# 2. Networks -------------------------------------------------------------------------------------------------------------


def few(data: Any, count: int) -> Any:
    """Return the first samples of a data set."""
    return datasets.Dataset(data.name, data.codes[:count], data.values, data.labels[:count], data.classes, data.shape)


def trainer_of(model: str, data: Any, device: str, batch: int) -> Trainer:
    """Return the trainer of a study: the MLP in 16 bits without momentum, residual networks in 8 bits with it."""
    mlp = model == "mlp"
    shape = data.shape if len(data.shape) == 3 else (*data.shape, 1)
    small = len(data.labels) <= SMALL  # what the simulator can take
    sizes = {"hidden": (8, 5) if small else HIDDEN} if mlp else {"width": 0.125 if small else 1}
    network = Network(make_model(model, **sizes), shape, "fixed16" if mlp else "int8")
    inputs = Inputs.of(data, Encoder.of(data, network.recipe, standardize=not mlp))
    optimizer = SGD("2^-3", 0) if mlp else SGD("2^-4", 0.875)
    return Trainer(network, optimizer, inputs, epochs=100, batch=batch, watch=False, device=device)


def images(count: int, quick: bool) -> Any:
    """Return random images of CIFAR-10's size, or tiny ones."""
    data = Images(count)
    if quick:
        data.codes, data.shape = data.codes[:, :48], (4, 4, 3)
    return data


def trainings(rows: Rows, options: argparse.Namespace) -> None:
    """Compare all weights after some steps, and what the telemetry counted."""

    def compare(model: str, batch: int, steps: int) -> dict[str, Any]:
        if model == "mlp":
            data = datasets.load_digits() if options.quick else mnist(options, subset="train")
            data = few(data, batch * steps)
        else:
            data = images(batch * steps, options.quick)
        ends = []
        for device in DEVICES:
            trainer = trainer_of(model, data, device, batch)
            trainer.run_epoch()
            ends.append((trainer.network.digest(), trainer.history[-1].train_accuracy, list(map(repr, trainer.readings))))
        (cpu, cpu_accuracy, cpu_readings), (gpu, gpu_accuracy, gpu_readings) = ends
        if cpu != gpu:
            raise DiffersError(
                f"after {steps} steps the weights are {gpu[:16]} for {cpu[:16]}; accuracy {gpu_accuracy}, {cpu_accuracy}"
            )
        if (cpu_accuracy, cpu_readings) != (gpu_accuracy, gpu_readings):
            different = [f"{a} for {b}" for a, b in zip(gpu_readings, cpu_readings, strict=False) if a != b][:1]
            raise DiffersError(f"equal weights, but accuracy {gpu_accuracy} for {cpu_accuracy}; {different}")
        return {"detail": f"{steps} steps of {batch}: SHA-256 of all weights {cpu[:16]}, telemetry"}

    plan = (("mlp", 8, 2), ("resnet20", 2, 1)) if options.quick else (("mlp", 64, 200), ("resnet20", 128, 20))
    for model, batch, steps in plan:
        rows.piece(model, lambda model=model, batch=batch, steps=steps: compare(model, batch, steps), need=10)


def resnet18_products(width: float = 1, size: int = 32) -> int:
    """Return the multiplications of a training step of ResNet-18 for one image: three passes, but two of the first layer."""

    def passes(outputs: int, inputs: int, taps: int, side: int) -> int:
        return outputs * inputs * taps * side * side

    widths = [max(1, round(count * width)) for count in (64, 128, 256, 512)]
    first = passes(widths[0], 3, 9, size)
    total, channels, side = 0, widths[0], size
    for stage, wide in enumerate(widths):
        side = side if not stage else -(-side // 2)
        for block in range(2):
            total += passes(wide, channels, 9, side) + passes(wide, wide, 9, side)
            total += passes(wide, channels, 1, side) if stage and not block else 0
            channels = wide
    return 3 * (total + 10 * channels) + 2 * first


def time_steps(rows: Rows, options: argparse.Namespace) -> None:
    """Time training steps, as a part of an epoch; the floor is that of the products alone."""

    def epochs(model: str, data: Any, device: str, batch: int, threads: int | None, count: int) -> dict[str, Any]:
        before = kernels.threads()
        kernels.set_threads(threads or before)
        try:
            trainer, seconds = trainer_of(model, data, device, batch), []
            for _ in range(count + 1):
                start, crossed = time.perf_counter(), vars(_driver.transfers).copy()
                trainer.run_epoch()
                seconds.append(time.perf_counter() - start)
        finally:
            kernels.set_threads(before)
        steps = trainer.steps_per_epoch
        found: dict[str, Any] = {"first": seconds[0], "wall": statistics.median(seconds[1:])}
        if device == "gpu":
            moved = {name: (value - crossed[name]) / steps for name, value in vars(_driver.transfers).items()}
            found["detail"] = (
                f"a step: {moved['to_device']:.1f} copies to the device, {moved['bytes_to_device'] / 1024:.1f} KiB; "
                f"{moved['to_host']:.1f} back, {moved['bytes_to_host'] / 1024:.1f} KiB"
            )
        return found

    def step(model: str, device: str, threads: int | None = None) -> dict[str, Any]:
        batch, steps = (2, 1) if options.quick else (128, 10)
        data = images(batch * steps, options.quick)
        found = epochs(model, data, device, batch, threads, 1 if options.quick else 3)
        found |= {"wall": found["wall"] / steps, "seconds": found["wall"] / steps}
        if model == "resnet18" and device == "gpu":
            found |= floor_of(options, dp4a=batch * resnet18_products(size=data.shape[0]))
            if "floor" in found:
                found["share"] = found["floor"] / found["seconds"]
        return found

    cores = kernels.threads()
    rows.piece("a step of ResNet-18, 128 images, GPU", lambda: step("resnet18", "gpu"), need=15, status="timed")
    rows.piece("a step of ResNet-20, 128 images, GPU", lambda: step("resnet20", "gpu"), need=10, status="timed")
    rows.piece(f"a step of ResNet-20, CPU, {cores} threads", lambda: step("resnet20", "cpu"), need=10, status="timed")
    if cores != 2:
        rows.piece("a step of ResNet-20, CPU, 2 threads", lambda: step("resnet20", "cpu", 2), need=10, status="timed")
    data = few(datasets.load_digits(), 16) if options.quick else mnist(options, subset="train")
    count = 1 if options.quick else 3
    plan = [("GPU", "gpu", None), *((f"CPU, {threads} threads", "cpu", threads) for threads in dict.fromkeys((cores, 2)))]
    for name, device, threads in plan:
        rows.piece(
            f"an epoch of the MLP, {len(data.labels)} images, batch 64, {name}",
            lambda device=device, threads=threads: epochs("mlp", data, device, 64, threads, count),
            need=10,
            status="timed",
        )
