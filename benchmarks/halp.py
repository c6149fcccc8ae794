"""What one step of HALP costs in steps of SGD, on ResNet-18: the full gradient apart.

    python benchmarks/halp.py

Both train the same network on the same batches of noise, as no time depends on what they show; steps alternate, and ratios are
medians. The full gradient comes on top: a pass over all samples every T steps.
"""

import argparse
import time

WIDTH = 0.125


def trainer_of(recipe: str, optimizer, batch: int, width: float, model: str = "resnet18"):
    import numpy as np

    from intnet import models
    from intnet.formats import BlockFloat
    from intnet.inputs import ArrayInputs
    from intnet.network import Network
    from intnet.tensor import quantize
    from intnet.training import Trainer

    network = Network(models.make_model(model, 10, width), (32, 32, 3), recipe)
    form = network.recipe.activation.format
    form = BlockFloat(form.word_bits) if isinstance(form, BlockFloat) else form
    images = quantize(np.random.default_rng(0).normal(size=(batch, 32, 32, 3)), form)
    return Trainer(network, optimizer, ArrayInputs(images, np.arange(batch) % 10, 10), epochs=3, batch=batch)


def measure(recipe: str, steps: int, batch: int, width: float) -> tuple[float, dict[str, float]]:
    """Return the median seconds of a step of SGD, and of each other optimizer how many of those its step takes."""
    import numpy as np

    from intnet.layers import Step
    from intnet.optimizers import HALP, SGD, SVRG, BitCentering

    period = 10 * steps  # so that the first step alone takes a full gradient
    optimizers = {
        "SGD": SGD("0.1", 0, "5e-4"),
        "SVRG": SVRG("0.1", "5e-4", period=period),
        "HALP, 8 bits": HALP("0.1", BitCentering(8, 20, period), "5e-4"),
    }
    trainers = {name: trainer_of(recipe, optimizer, batch, width) for name, optimizer in optimizers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    rows = np.arange(batch)
    for number in range(steps + 1):
        for name, trainer in trainers.items():
            start = time.perf_counter()
            trainer.step(rows, trainer.optimizer.schedule.at(0, 3), Step(number, 0, True))
            seconds[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(some[1:])) for name, some in seconds.items()}  # the first step compiles, and is full
    ratios = {name: float(np.median(np.divide(seconds[name][1:], seconds["SGD"][1:]))) for name in medians if name != "SGD"}
    return medians["SGD"], ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", default="wide,bfp8-mixed", help="(default: wide,bfp8-mixed)")
    parser.add_argument("--steps", type=int, default=15, help="steps after the first of each (default: 15)")
    parser.add_argument("--batch", type=int, default=128, help="(default: 128)")
    parser.add_argument("--width", type=float, default=WIDTH, help=f"(default: {WIDTH})")
    arguments = parser.parse_args()
    from intnet import kernels

    print(f"ResNet-18 at width {arguments.width:g}, batch {arguments.batch}, {kernels.threads()} threads\n")
    print("| recipe | SGD, s a step | optimizer | steps of SGD |")
    print("|---|---:|---|---:|")
    for recipe in arguments.recipes.split(","):
        second, ratios = measure(recipe, arguments.steps, arguments.batch, arguments.width)
        for name, ratio in ratios.items():
            print(f"| {recipe} | {second:.3f} | {name} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
