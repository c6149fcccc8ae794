"""SWALP: train in low precision, average the weights (Yang et al. 2019).

    python experiments/swalp.py --study linear                        # a quadratic: below a minute
    python experiments/swalp.py --study logistic --dataset digits     # convex, and where the bits end
    python experiments/swalp.py --study preresnet --data-dir DATA     # a network on CIFAR-10, hours

Expected: see docs/studies/swalp.
"""

import argparse
from pathlib import Path

from intnet import commandline  # all else is imported in main, where Ctrl-C is answered from the first moment on


def parse() -> argparse.Namespace:
    parser = commandline.Parser("SWALP", "")
    add, integer = parser.add_argument, commandline.integer
    at_least_1 = integer(range(1, 2**31))
    add("--study", choices=("vgg", "preresnet"), required=True)
    add("--dataset", default="cifar10")
    add("--recipes", default="bfp8-mixed,wide", type=lambda text: tuple(text.split(",")))
    add("--seeds", type=at_least_1, default=1)
    add("--epochs", type=at_least_1, default=15)
    add("--start", type=at_least_1)
    add("--rate")
    add("--averaging-rate")
    add("--every", type=at_least_1, default=1)
    add("--unit", choices=("epoch", "step"), default="epoch")
    add("--average-bits", type=integer(range(8, 17)))
    add("--width", type=commandline.number)
    add("--depth", type=at_least_1)
    add("--dropout", type=commandline.number, default=0.0)
    add("--samples", type=at_least_1)
    add("--evaluation-samples", type=at_least_1, default=5000)
    add("--data-dir", type=commandline.folder)
    add("--device", choices=("cpu", "gpu", "auto"), default="cpu")
    add("--threads", type=integer(range(1, 1025)))
    add("--out", type=commandline.folder, default=Path("results/swalp"))
    return parser.parse_args()


def main(arguments: argparse.Namespace) -> None:
    from intnet import kernels
    from intnet.studies import swalp

    if arguments.threads is not None:
        kernels.set_threads(arguments.threads)
    same = ("recipes", "seeds", "epochs", "start", "rate", "averaging_rate", "every", "unit", "average_bits", "width", "depth",
            "dropout", "samples", "evaluation_samples")
    spec = swalp.NetworkSpec(arguments.study, arguments.dataset, **{name: getattr(arguments, name) for name in same})
    swalp.run(spec, arguments.out, arguments.data_dir, device=arguments.device, begun=lambda t: print(t.name, flush=True),
              after=lambda row: print(row, flush=True))
    print(*swalp.describe(spec, swalp.stored_rows(spec, arguments.out)), sep="\n")


def interrupted(arguments: argparse.Namespace) -> str:
    return "Interrupted."


if __name__ == "__main__":
    commandline.run(parse, main, interrupted)
