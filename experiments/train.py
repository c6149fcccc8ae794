"""Train one network in integers, and see where bits were lost.

    python experiments/train.py                                      # DIGITS, an MLP of 16-bit numbers, seconds
    python experiments/train.py --dataset mnist --data-dir DATA      # MNIST from a folder, half a minute

Expected, test accuracy after 20 epochs: DIGITS about 92 %, MNIST about 97.8 %.
"""

import argparse
import sys
from pathlib import Path

from intnet import commandline  # all else is imported in main, where Ctrl-C is answered from the first moment on

DESCRIPTION = """\
Train a network whose every number, from the first layer to the last weight, is an integer. A recipe says how: format,
rounding and overflow of weights, activations, errors, gradients and momentum, and how wide sums are.

recipes (--recipe), or a .json file like the "recipe" in config.json:
  fixed16  16-bit fixed point everywhere, stochastic rounding, no wider copy of the weights (Gupta et al. 2015)
  int8     8-bit words with one exponent a tensor, and a 16-bit copy of the weights
  bfp8     8-bit words with one exponent a row of weights or a sample, stochastic rounding (SWALP, Yang et al. 2019);
           bfp8-big: one a tensor; bfp8-mixed: rows of weights, whole tensors of the rest, as in the released code
  niti8    8-bit words with one exponent a tensor, no copy of the weights; the rate is a number of bits (NITI, Wang et al. 2020)
  wide     24-bit words and a 40-bit copy of the weights: as good as float, for reference"""

EPILOG = """\
what you get in --out:
  report.html                  all of it on one page, for a browser: sentences, pictures, tables to sort, telemetry, settings
  train.csv                    a row an epoch: loss, accuracies (fractions of 1), seconds
  telemetry.csv                a row a tensor, role and epoch: range, bits used, saturated, wrapped, lost to rounding, count
  training.png, telemetry.png  pictures of both
  config.json                  everything that decides the bits, the unit of the loss, and a SHA-256 of the weights
  checkpoint.npz               the weights, and all that a later run needs to go on

examples:
  python experiments/train.py                                         an MLP on DIGITS, in seconds
  python experiments/train.py --recipe niti8 --lr-shift -4            8 bits; the largest gradient moves a weight by 2^4 units
  python experiments/train.py --dataset mnist --data-dir DATA         784-100-50-10 on MNIST from DATA or DATA/mnist
  python experiments/train.py --dataset mnist --model lenet5 --epochs 10
  python experiments/train.py --dataset cifar10 --model resnet20 --recipe int8 --augment --samples 2000   a quick look
  python experiments/train.py --rate 0.1 --momentum 0.9 --schedule step:10=2^-5,15=2^-7
  python experiments/train.py --schedule constant --epochs 40 --out D given after the same with 20 epochs, it goes on from there

A run that was stopped goes on where it was when the same command is given again, with the same bits as one never stopped.
Where the schedule is constant or in steps, --epochs may be raised. One seed gives the same bits on any machine with any
number of threads; only the seconds differ. Without --data-dir, data are searched in $INTNET_DATA and then downloaded once.

A network that dies (all outputs zero, or no weight moving any more) ends the training early; that is a result: a sentence says
so, everything is kept, and the exit code is 0. Exit codes: 0, 2 (bad input), 130 (Ctrl-C)."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = commandline.Parser(DESCRIPTION, EPILOG)
    add, integer = parser.add_argument, commandline.integer
    at_least_1 = integer(range(1, 2**31))
    add("--dataset", default="digits", metavar="NAME", help="digits, mnist, fashion-mnist, cifar10, cifar10-jpeg or cifar100")
    add(
        "--model",
        metavar="NAME",
        help="mlp, lenet5, vgg_small, vgg16, resnet18, binary_resnet18, resnet20 or preresnet164 (default: mlp; "
        "CIFAR: vgg_small)",
    )
    add(
        "--recipe", metavar="NAME", help="see above, or a .json file (default: fixed16; other models than mlp and lenet5: int8)"
    )
    add("--epochs", type=at_least_1, metavar="N", help="(default: 20; CIFAR: 10)")
    add("--batch", type=at_least_1, metavar="N", help="samples a step (default: DIGITS 32, CIFAR 128, else 64)")
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument(
        "--lr-shift",
        type=integer(range(-62, 49)),
        metavar="K",
        help="the learning rate is 2^-K (default: 3; other models than mlp and lenet5: 7; niti8: -4)",
    )
    rate.add_argument(
        "--rate", metavar="R", help="the learning rate as 2^-9, 0.01 or 3/128; kept as a mantissa of 15 bits and a shift"
    )
    add("--momentum", metavar="M", help="(default: 0; other models than mlp and lenet5: 0.9)")
    add("--decay", default="0", metavar="D", help="weight decay (default: 0)")
    add(
        "--schedule",
        metavar="S",
        help="linear (falls to rate/epochs), constant, or step:EPOCH=RATE,... from 0 (default: linear; niti8: constant)",
    )
    add("--loss", metavar="NAME", help="cross_entropy, niti_cross_entropy or squared_error (default: the recipe's)")
    add(
        "--width",
        type=commandline.number,
        metavar="W",
        help="factor on the units or channels of every layer but the last (default: 1; vgg_small: 0.25)",
    )
    add(
        "--hidden",
        type=commandline.sizes,
        metavar="A,B",
        help="hidden units of an mlp; none for no hidden layer (default: 100,50)",
    )
    add("--augment", action="store_true", help="random crops, and flips of what is still itself in a mirror")
    add(
        "--standardize",
        action=argparse.BooleanOptionalAction,
        help="subtract each channel's mean and divide by its deviation (default: CIFAR only)",
    )
    add("--samples", type=at_least_1, metavar="N", help="only the first N training and test samples, for a quick look")
    add(
        "--seed",
        type=integer(range(2**64)),
        default=0,
        metavar="S",
        help="of weights, order, augmentation and rounding (default: 0)",
    )
    add(
        "--data-dir",
        type=commandline.folder,
        metavar="DIR",
        help="folder of the data set's files; DIR and DIR/DATASET are searched",
    )
    add("--device", choices=("cpu", "gpu", "auto"), default="cpu", help="where to train: the bits are the same (default: cpu)")
    add("--threads", type=integer(range(1, 1025)), metavar="N", help="the bits are the same (default: all cores)")
    add(
        "--out",
        type=commandline.folder,
        metavar="DIR",
        help="results folder (default: results/train-DATASET[-MODEL][-RECIPE], as they are given)",
    )
    add("--fresh", action="store_true", help="set an old folder aside under a dated name and begin anew")
    add("--no-plots", action="store_true", help="write no pictures")
    add("--quiet", action="store_true", help="no progress bar, no report")
    arguments = parser.parse_args()
    if arguments.out is None:
        named = (arguments.dataset, arguments.model, arguments.recipe and Path(arguments.recipe).stem)
        arguments.out = Path("results") / "-".join(("train", *filter(None, named)))
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Train."""
    from intnet import kernels
    from intnet.studies import training
    from intnet.trainings import TrainingSpec, prepare

    if arguments.threads is not None:
        kernels.set_threads(arguments.threads)
    same = ("dataset", "model", "recipe", "epochs", "batch", "momentum", "decay", "schedule", "loss", "width", "hidden")
    spec = TrainingSpec(
        **{name: getattr(arguments, name) for name in (*same, "standardize", "samples", "seed")},
        rate=arguments.rate if arguments.lr_shift is None else f"2^{-arguments.lr_shift}",
        augmentation=arguments.augment,
    )
    ready = prepare(spec, arguments.data_dir, arguments.device)
    if arguments.fresh and (aside := training.set_aside(arguments.out)) and not arguments.quiet:
        print(f"The old results are in {aside}", flush=True)
    with training.opened(ready, arguments.out) as folder:
        _run(ready, folder, arguments.quiet)
        training.export(ready, folder, plots=not arguments.no_plots)
    title = f"Training: {ready.spec.dataset}, {ready.spec.model}, {ready.trainer.network.recipe.name}"
    commandline.finish(arguments, title, training.describe(ready))


def _run(ready, folder: Path, quiet: bool) -> None:
    """Train behind a progress bar, if there is a terminal to show it on, and print a line an epoch."""
    from tqdm.auto import tqdm

    from intnet.studies import training

    trainer = ready.trainer
    if trainer.epoch == trainer.epochs or trainer.died:
        return
    if trainer.epoch and not quiet:
        print(f"Going on after epoch {trainer.epoch} of {trainer.epochs}.", flush=True)
    left = (trainer.epochs - trainer.epoch) * len(trainer.train)
    with tqdm(total=left, unit="sample", unit_scale=True, disable=quiet or None, leave=False) as bar:

        def show(_: object) -> None:
            row = trainer.history[-1]
            bar.set_postfix_str(f"epoch {row.epoch}: loss {row.train_loss:.4g}, test {row.test_accuracy:.2%}")
            if not quiet:
                line = f"epoch {row.epoch:3}/{trainer.epochs}   loss {row.train_loss:8.4f}   "
                bar.write(f"{line}train {row.train_accuracy:7.2%}   test {row.test_accuracy:7.2%}   {row.seconds:6.2f} s")
                sys.stdout.flush()  # Ctrl-C ends the process as it stands

        training.run(ready, folder, progress=bar.update, after=show)


def interrupted(arguments: argparse.Namespace) -> str:
    """Say how to go on."""
    command = "the same command without --fresh" if arguments.fresh else "the same command"
    return f"Interrupted. Finished epochs are kept in {arguments.out}; {command} goes on from there."


if __name__ == "__main__":
    commandline.run(parse, main, interrupted)
