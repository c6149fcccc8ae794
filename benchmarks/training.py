"""Training in integers against training in float32: the same networks, the same batches, the same two threads.

    python benchmarks/training.py [--data-dir DIR] [--json FILE] [--only mlp|resnet20]
    python benchmarks/training.py --accuracy [--data-dir DIR]     PyTorch's test accuracy, for docs/studies/training

Beside scikit-learn and, where it is installed, PyTorch (no dependency of intnet: ``pip install torch``). Every ratio is
our time over theirs, best of several rounds that take turns, so that what else the machine does falls on all alike. Below 1 we
are faster.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from intnet import datasets, kernels
from intnet.inputs import Encoder, Inputs
from intnet.layers import Step
from intnet.models import make_model
from intnet.network import Network
from intnet.optimizers import SGD
from intnet.training import Trainer

HIDDEN = (100, 50)
BATCH = {"mlp": 64, "resnet20": 128}


class Images:
    """Random images in the place of CIFAR-10: the time of a step does not depend on what they show."""

    def __init__(self, count: int) -> None:
        random = np.random.default_rng(0)
        self.codes = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        self.labels = random.integers(0, 10, count).astype(np.uint8)
        self.values, self.classes, self.shape = np.arange(256) / 255, 10, (32, 32, 3)


def take_turns(contestants: dict[str, Callable[[], None]], rounds: int, in_a_row: int = 1) -> dict[str, float]:
    """Return the best time of each, in seconds: the mean of `in_a_row` runs, if more than one after one that is not timed."""
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, run in contestants.items():
            time.sleep(0.3)  # another library's threads spin for a while after their work
            if in_a_row > 1:
                run()  # the caches are the other's
            start = time.perf_counter()
            for _ in range(in_a_row):
                run()
            best[name] = min(best[name], (time.perf_counter() - start) / in_a_row)
    return best


def share_in_kernels(run: Callable[[], None]) -> float:
    """Return which share of a run is spent within the functions of `intnet.kernels`."""
    spent, depth = [0.0], [0]
    originals = {name: getattr(kernels, name) for name in kernels.__all__ if callable(getattr(kernels, name))}

    def timed(function: Callable) -> Callable:
        def wrapper(*arguments, **options):
            depth[0] += 1
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                depth[0] -= 1
                if not depth[0]:
                    spent[0] += time.perf_counter() - start

        return wrapper

    prepared = {kind: kind.__call__ for kind in (kernels.Requantizer, kernels.RoundedProduct, kernels.Update, kernels.Updates)}
    try:
        for name, function in originals.items():
            if not isinstance(function, type):
                setattr(kernels, name, timed(function))
        for kind, call in prepared.items():
            kind.__call__ = timed(call)
        start = time.perf_counter()
        run()
        return spent[0] / (time.perf_counter() - start)
    finally:
        for name, function in originals.items():
            setattr(kernels, name, function)
        for kind, call in prepared.items():
            kind.__call__ = call


def our_trainer(model: str, data, recipe: str, rate: str, momentum: float, epochs: int = 100) -> Trainer:
    shape = data.shape if len(data.shape) == 3 else (*data.shape, 1)
    options = {"hidden": HIDDEN} if model == "mlp" else {}
    network = Network(make_model(model, **options), shape, recipe)
    inputs = Inputs.of(data, Encoder.of(data, network.recipe, standardize=model != "mlp"))
    return Trainer(network, SGD(rate, momentum), inputs, epochs=epochs, batch=BATCH[model])


def import_torch(threads: int):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return torch


def torch_step(torch, network, images, labels, rate: float, momentum: float) -> Callable:
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=momentum)
    loss = torch.nn.CrossEntropyLoss()

    def step(rows) -> None:
        optimizer.zero_grad()
        loss(network(images[rows]), labels[rows]).backward()
        optimizer.step()

    return step


def torch_resnet20(torch):
    """Return the network of `intnet.models.resnet20`."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
                nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
            )  # fmt: skip
            self.shortcut = nn.Identity()
            if stride != 1 or inputs != outputs:
                self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

        def forward(self, x):
            return torch.relu(self.body(x) + self.shortcut(x))

    layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    channels = 16
    for width in (16, 32, 64):
        for block in range(3):
            layers.append(Block(channels, width, 2 if width > 16 and not block else 1))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def bench_mlp(data, rounds: int, threads: int) -> dict[str, float]:
    """One epoch of 784-100-50-10 on MNIST, batch 64, plain SGD, as in docs/studies/training."""
    ours = our_trainer("mlp", data, "fixed16", "2^-3", 0)
    contestants: dict[str, Callable[[], None]] = {"intnet": lambda: ours.run_epoch() and None}
    if torch := import_torch(threads):
        nn = torch.nn
        network = nn.Sequential(
            nn.Linear(784, HIDDEN[0]), nn.ReLU(), nn.Linear(HIDDEN[0], HIDDEN[1]), nn.ReLU(), nn.Linear(HIDDEN[1], 10)
        )
        images = torch.tensor(data.codes.astype(np.float32) / 255)
        labels = torch.tensor(data.labels.astype(np.int64))
        step = torch_step(torch, network, images, labels, 2**-3, 0)

        def epoch() -> None:
            order = torch.randperm(len(labels))
            for first in range(0, len(order), BATCH["mlp"]):
                step(order[first : first + BATCH["mlp"]])

        contestants["pytorch"] = epoch
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier
    except ImportError:
        pass
    else:
        pixels = data.codes.astype(np.float32) / 255

        def scikit_learn() -> None:
            classifier = MLPClassifier(
                HIDDEN, solver="sgd", alpha=0, batch_size=BATCH["mlp"], learning_rate_init=2**-3, momentum=0, max_iter=1
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                classifier.fit(pixels, data.labels)

        contestants["scikit-learn"] = scikit_learn
    ours.run_epoch()  # compiles
    return take_turns(contestants, rounds)


def torch_accuracy(data_dir, seeds=range(3), epochs: int = 20) -> None:
    """Train 784-100-50-10 in PyTorch's float32 on one thread, as docs/studies/training trains it in integers."""
    torch = import_torch(1)
    if torch is None:
        sys.exit("PyTorch is not installed: pip install torch")
    nn = torch.nn
    parts = [datasets.load_mnist(data_dir, subset=part) for part in ("train", "test")]
    (x, y), (tested, truth) = (
        (torch.tensor(part.codes.astype(np.float32) / 255), torch.tensor(part.labels.astype(np.int64))) for part in parts
    )
    for seed in seeds:
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(784, HIDDEN[0]), nn.ReLU(), nn.Linear(HIDDEN[0], HIDDEN[1]), nn.ReLU(), nn.Linear(HIDDEN[1], 10)
        )
        for epoch in range(epochs):
            step = torch_step(torch, network, x, y, 2**-3 * (epochs - epoch) / epochs, 0)
            order = torch.randperm(len(y))
            for first in range(0, len(order), BATCH["mlp"]):
                step(order[first : first + BATCH["mlp"]])
        right = (network(tested).argmax(1) == truth).float().mean().item()
        print(f"seed {seed}: {right:.2%}", flush=True)


def bench_resnet20(rounds: int, threads: int) -> tuple[dict[str, float], float]:
    """Training steps of ResNet-20 on 128 images, one after the other, 8-bit against float32."""
    data, batch = Images(2 * BATCH["resnet20"]), BATCH["resnet20"]
    ours = our_trainer("resnet20", data, "int8", "2^-4", 0.875)
    rate = ours.optimizer.schedule.at(0, 1)
    rows, numbers = np.arange(batch), iter(range(10**6))

    def step() -> None:
        ours.step(rows, rate, Step(next(numbers), 0, True))

    contestants: dict[str, Callable[[], None]] = {"intnet": step}
    if torch := import_torch(threads):
        images = data.codes.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2).astype(np.float32) / 255
        labels = torch.tensor(data.labels.astype(np.int64))
        theirs = torch_step(torch, torch_resnet20(torch), torch.tensor(images), labels, 2**-4, 0.875)
        contestants["pytorch"] = lambda: theirs(slice(0, batch))
    for run in contestants.values():
        for _ in range(3):
            run()
    return take_turns(contestants, rounds, in_a_row=5), share_in_kernels(step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="folder of the MNIST files (else $INTNET_DATA); without, random images of its size")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--only", choices=("mlp", "resnet20"), help="leave the other out")
    parser.add_argument("--accuracy", action="store_true", help="train PyTorch's MLP for 20 epochs, 3 seeds, and nothing else")
    parser.add_argument("--rounds", type=int, default=7, help="best of so many (default: 7)")
    arguments = parser.parse_args()
    if arguments.accuracy:
        torch_accuracy(arguments.data_dir)
        return
    threads = kernels.threads()
    found: dict[str, float] = {"threads": threads}
    if arguments.only != "resnet20":
        data = mnist(arguments.data_dir)
        times = bench_mlp(data, arguments.rounds, threads)
        print(f"MLP 784-100-50-10, one epoch of {len(data.labels)} samples, batch 64, 16-bit stochastic:")
        found |= report("mlp", times)
    if arguments.only != "mlp":
        times, share = bench_resnet20(arguments.rounds, threads)
        print("ResNet-20, one training step of 128 images, 8-bit:")
        found |= report("resnet20", times)
        print(f"  {share:.1%} of the step is spent in kernels")
        found["resnet20_in_kernels"] = share
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def mnist(data_dir):
    if data_dir or os.environ.get("INTNET_DATA"):
        return datasets.load_mnist(data_dir, subset="train")
    print("No MNIST at hand: random images of its size.")
    random = np.random.default_rng(0)
    data = Images(1)
    data.codes = random.integers(0, 256, (60_000, 784), dtype=np.uint8) * (random.random((60_000, 784)) < 0.19)
    data.labels, data.shape = random.integers(0, 10, 60_000).astype(np.uint8), (28, 28)
    return data


def report(name: str, times: dict[str, float]) -> dict[str, float]:
    """Print times and ratios, and return them under their keys."""
    found = {}
    for who, seconds in times.items():
        ratio = "" if who == "intnet" else f"   we take {times['intnet'] / seconds:.2f} of that"
        print(f"  {who:<14}{seconds:9.4f} s{ratio}")
        key = who.replace("-", "_")
        found[f"{name}_{key}_seconds"] = seconds
        if who != "intnet":
            found[f"{name}_vs_{key}"] = times["intnet"] / seconds
    return found


if __name__ == "__main__":
    main()
