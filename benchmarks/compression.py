"""What coded weights cost: a training step and an evaluation of ResNet-20 in int8, in steps and evaluations of plain weights.

    python benchmarks/compression.py

Codes of 4 bits, affine, in all layers but the first and the last; with masks (80 % pruned) a second product takes the place of
the sums of the inputs. The same batches of noise, as no time depends on what they show; turns alternate, ratios are medians.
"""

import argparse
import time

from halp import trainer_of


def trainers(batch: int, width: float):
    """Return the same network three times: with plain weights, with codes, with codes and masks."""
    from intnet import compression
    from intnet.optimizers import SGD

    made = {name: trainer_of("int8", SGD("0.002", "0.875", "1e-4"), batch, width, "resnet20") for name in NAMES}
    compression.prune_globally(made["codes, masks"].network, 80)
    for name in NAMES[1:]:
        compression.quantize_weights(made[name].network, 4)
    return made


NAMES = ("plain", "codes", "codes, masks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=15, help="turns after the first of each (default: 15)")
    parser.add_argument("--batch", type=int, default=128, help="(default: 128)")
    parser.add_argument("--width", type=float, default=0.5, help="(default: 0.5)")
    arguments = parser.parse_args()
    import numpy as np

    from intnet import kernels
    from intnet.layers import Step
    from intnet.training import evaluate

    made, rows = trainers(arguments.batch, arguments.width), np.arange(arguments.batch)
    seconds: dict[tuple[str, str], list[float]] = {(name, what): [] for name in NAMES for what in ("step", "evaluation")}
    for number in range(arguments.steps + 1):
        for name, trainer in made.items():
            begin = time.perf_counter()
            trainer.step(rows, trainer.optimizer.schedule.at(0, 3), Step(number, 0, True))
            middle = time.perf_counter()
            evaluate(trainer.network, trainer.train)
            seconds[name, "step"].append(middle - begin)
            seconds[name, "evaluation"].append(time.perf_counter() - middle)
    print(f"ResNet-20 at width {arguments.width:g}, batch {arguments.batch}, int8, {kernels.threads()} threads\n")
    print("| weights | s a step | of plain | s an evaluation | of plain |")
    print("|---|---:|---:|---:|---:|")
    for name in NAMES:
        cells = []
        for what in ("step", "evaluation"):
            some = np.array(seconds[name, what][1:])  # the first compiles
            ratio = np.median(some / np.array(seconds["plain", what][1:]))
            cells += [f"{np.median(some):.3f}", f"{ratio:.2f}"]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
