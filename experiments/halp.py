"""HALP: SVRG with bit centering, eight bits to any accuracy (De Sa et al. 2018).

    python experiments/halp.py --study convex     # two least-squares problems, a minute
    python experiments/halp.py --study digits     # softmax regression on DIGITS, a minute
    python experiments/halp.py --study resnet --data-dir DIR --samples 20000     # ResNet-18, hours

Expected: HALP with 8 bits ends at a distance of 1e-10 or so from the optimum of problem b, as SVRG in wide words does, where 8
bits on a fixed grid stay 25 away; on DIGITS its gradient falls below 1e-8, that of LP-SGD stays at 0.1.
"""

import argparse
import sys
from pathlib import Path

from intnet import commandline  # all else is imported in main, where Ctrl-C is answered from the first moment on

DESCRIPTION = """\
Train by SVRG: every T steps the full gradient is taken at a centre, and a step's gradient on one sample is corrected by it, so
that its noise vanishes at the optimum. HALP stores the weights as offsets of b bits from a wide centre, on a grid whose step is
norm(gradient) / (mu (2^(b-1) - 1)): as the gradient vanishes, so does the grid, and b bits reach any accuracy. Weights of b
bits on a fixed grid stay in a cloud as wide as the grid.

studies (--study):
  convex   least squares, distance to the optimum. a: 100 samples of 5 features, no noise. b: 1000 of 100, inputs of 8 bits
  digits   softmax regression on DIGITS with weight decay, norm of the gradient
  resnet   ResNet-18 on CIFAR-10, training loss and test accuracy: the most --bits with every --recentre, an epoch between two
           full gradients (or the first --recentre) with every --bits, SVRG and SGD

methods: sgd and svrg in wide words; halp; of the first two studies lp_sgd and lp_svrg, weights of --bits on a fixed grid"""

EPILOG = """\
what you get in --out:
  report.html                  all of it on one page, for a browser: sentences, pictures, tables to sort, settings
  convex.csv or digits.csv     every number: problem, method, bits (0: wide), mu, T, scale, seed, iteration, and the distance
                               or the norm of the gradient
  .json, .png, config.json     the findings, a picture on a log scale, and what was asked for
of resnet:
  epochs.csv                   recipe, method, bits, recentre (epochs), T (steps), seed, epoch, train_loss (nats),
                               test_accuracy, and saturated, the share of all moves of offsets that left their word
  training_loss.csv            loss of every tenth iteration, the mean of 1,000 up to it; the four pictures; table.md
  runs/NAME/                   a checkpoint an epoch and the loss of every step; a study may run in several processes at once

examples:
  python experiments/halp.py --study convex --problems b --bits 8 --recentre 2000 --seeds 1
  python experiments/halp.py --study convex --bits 2,4,8,16 --mu 1,3,10 --scale exact
  python experiments/halp.py --study digits --bits 4,8 --recentre 500,1500 --rate 0.05
  python experiments/halp.py --study resnet --data-dir DIR --bits 2,4,8 --recentre 0.5,1,3 --width 0.125 --epochs 10
  python experiments/halp.py --study resnet --data-dir DIR --methods halp --bits 8 --recentre 1 --recipes wide,bfp8-mixed

Rates and mu are those of the released code, whose loss is the squared error without a half. A small mu makes a coarse grid, a
large one a grid so small that offsets saturate. Rounding to nearest (ties_pos) stands still where no step moves a weight by
half a unit: of b bits a weight's share of the full gradient moves it by at most rate mu 2^(b-1) units, 0.1 in problem b.

A study that was stopped goes on when the same command is given again, with the same bits. Exit codes: 0, 2 (bad input), 130
(Ctrl-C)."""

CONVEX, RESNET = ("convex", "digits"), ("resnet",)
OWN = {  # options that only some studies have
    "iterations": CONVEX,
    "centre": CONVEX,
    "problems": ("convex",),
    "data_dir": ("digits", "resnet"),
    "samples": ("digits", "resnet"),
    "decay": ("digits", "resnet"),
    **dict.fromkeys(("dataset", "methods", "recipes", "epochs", "batch", "width", "momentum", "decay_of", "device"), RESNET),
}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = commandline.Parser(DESCRIPTION, EPILOG)
    at_least_1 = commandline.integer(range(1, 2**31))
    add = parser.add_argument
    add("--study", choices=(*CONVEX, *RESNET), required=True, help="see above")
    add("--bits", type=commandline.integer_range, metavar="A,B", help="2..16 (default: convex 8,16; digits 8; resnet 2,4,8)")
    add(
        "--mu",
        type=commandline.numbers,
        metavar="A,B",
        help="above 0 (default: problem a 4, problem b 3,1; digits 0.1; resnet 20)",
    )
    add(
        "--recentre",
        type=_steps,
        metavar="A,B",
        help="T, steps between two centres (default: convex 200,2000; digits 2000); of resnet in epochs (default: 0.5,1,3)",
    )
    add("--scale", type=commandline.words, metavar="A,B", help="exact, power_of_two (default: both; resnet exact)")
    add("--rounding", metavar="MODE", help="stochastic or ties_pos, to nearest (default: stochastic)")
    add("--seeds", type=commandline.integer(range(1, 2**16 + 1)), metavar="N", help="(default: convex 10; digits 5; resnet 1)")
    add("--iterations", type=at_least_1, metavar="N", help="of one sample each (default: problem a 5,000; else 100,000)")
    add(
        "--rate",
        metavar="R",
        help="learning rate, as 2^-9, 0.01 or 3/128 (default: problem a 0.001, problem b 0.00025, digits 0.02, resnet 0.1)",
    )
    add("--centre", metavar="FORMAT", help="of the wide words (default: convex fxp-s48/40, digits fxp-s36/32)")
    parser.add_usual("results/halp-STUDY")
    add = parser.add_argument_group("convex").add_argument
    add("--problems", type=commandline.words, metavar="A,B", help="a, b (default: both)")
    add = parser.add_argument_group("digits and resnet").add_argument
    add("--data-dir", type=commandline.folder, metavar="DIR", help="folder of the data set's files")
    add("--samples", type=at_least_1, metavar="N", help="only the first N training samples, for a quick look")
    add("--decay", metavar="D", help="weight decay (default: digits 0.01, resnet 5e-4)")
    add = parser.add_argument_group("resnet").add_argument
    add("--dataset", metavar="NAME", help="(default: cifar10)")
    add("--methods", type=commandline.words, metavar="A,B", help="halp, svrg, sgd (default: all)")
    add(
        "--recipes",
        type=commandline.words,
        metavar="A,B",
        help="the first is that of all trainings, HALP trains once in each other",
    )
    add("--epochs", type=at_least_1, metavar="N", help="(default: 10)")
    add("--batch", type=at_least_1, metavar="N", help="samples a step (default: 128)")
    add("--width", type=commandline.number, metavar="W", help="factor on the channels (default: 0.125)")
    add("--momentum", metavar="M", help="of SGD (default: 0.9)")
    add("--decay-of", choices=("offsets", "weights"), help="what decays in HALP: offsets, as released (default), or weights")
    add("--device", choices=("cpu", "gpu", "auto"), help="where to train: the bits are the same (default: cpu)")
    arguments = parser.parse_args()
    parser.refuse_foreign(arguments, OWN)
    if arguments.out is None:
        arguments.out = Path("results") / f"halp-{arguments.study}"
    return arguments


def _steps(text: str) -> tuple[float, ...]:
    """Read a list of numbers of steps; what is none is for the study to refuse."""
    return tuple(int(value) if value == value // 1 else value for value in commandline.numbers(text))


def main(arguments: argparse.Namespace) -> None:
    """Run the study."""
    names = {*OWN, "bits", "mu", "recentre", "scale", "rounding", "rate"}
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    commandline.finish(arguments, *(_resnet if arguments.study in RESNET else _convex)(arguments, given))


def _convex(arguments: argparse.Namespace, given: dict) -> tuple[str, list[str]]:
    """Run a convex study: its runs are independent, and trained in threads. Return a title and what came out."""
    from tqdm.auto import tqdm

    from intnet import datasets
    from intnet.studies import halp_convex
    from intnet.studies.halp_convex_reading import export

    given |= {} if arguments.seeds is None else {"seeds": range(arguments.seeds)}
    convex = arguments.study == "convex"
    data = {} if convex else {"data_dir": given.pop("data_dir", None)}
    spec = (halp_convex.ConvexSpec if convex else halp_convex.DigitsSpec)(**given)
    total = sum(len(spec.runs(one)) for one in spec.problems) if convex else len(spec.runs())
    # without data the old results should stay where they are
    commandline.begin_anew(arguments, halp_convex.set_aside, lambda: convex or datasets.load("digits", **data, subset="train"))
    run = halp_convex.run_convex if convex else halp_convex.run_digits
    with tqdm(total=total, unit="run", disable=arguments.quiet or None, leave=False) as bar:
        run(spec, arguments.out, **data, threads=arguments.threads, progress=bar.update)
    what = f"least squares, problem {' and '.join(spec.problems)}" if convex else "softmax regression on digits"
    return f"HALP: {what}", export(spec, arguments.out, plots=not arguments.no_plots)


def _resnet(arguments: argparse.Namespace, given: dict) -> tuple[str, list[str]]:
    """Run the study of a network, behind a progress bar, with a line for every epoch."""
    from tqdm.auto import tqdm

    from intnet import kernels
    from intnet.errors import InputError
    from intnet.studies import halp_networks_reading as study
    from intnet.studies.halp_networks import NetworkSpec, trajectories

    if arguments.threads is not None:
        kernels.set_threads(arguments.threads)
    data_dir, device = given.pop("data_dir", None), given.pop("device", "cpu")
    for name in ("scale", "mu"):
        if len(values := given.get(name, ("",))) > 1:
            raise InputError(f"--{name} of --study resnet is one value, got {len(values)}; run the others apart")
    given |= {name: given[name][0] for name in ("scale", "mu") if name in given}
    spec = NetworkSpec(**given, seeds=arguments.seeds or 1)
    commandline.begin_anew(arguments, study.set_aside, lambda: next(trajectories(spec, data_dir, device)))
    with tqdm(unit="sample", unit_scale=True, disable=arguments.quiet or None, leave=False) as bar:

        def begun(trajectory) -> None:
            bar.reset(trajectory.samples_left)
            bar.set_description(trajectory.name)

        def show(row) -> None:
            if not arguments.quiet:
                name = study.setting_of(row).name(row.seed)
                bar.write(f"{name:>32} epoch {row.epoch:3}   loss {row.train_loss:7.4f}   accuracy {row.test_accuracy:7.2%}")
                sys.stdout.flush()  # Ctrl-C ends the process as it stands

        elsewhere = study.run(spec, arguments.out, data_dir, device=device, begun=begun, progress=bar.update, after=show)
    rows = study.export(spec, arguments.out, plots=not arguments.no_plots)
    others = [f"Trained by another command meanwhile: {', '.join(elsewhere)}."] if elsewhere else []
    if kept := study.not_asked_for(spec, arguments.out):
        others.append(f"Also kept there, and not asked for, so not in the tables: {', '.join(kept)}.")
    ended = study.stored_ends(spec, arguments.out)
    title = f"HALP: {spec.dataset}, ResNet-18 at width {spec.width:g}"
    return title, [study.table(spec, rows, ended), *study.describe(spec, rows, ended), *others]


def interrupted(arguments: argparse.Namespace) -> str:
    """Say how to go on."""
    return commandline.how_to_go_on(arguments, "Finished epochs" if arguments.study in RESNET else "Finished runs")


if __name__ == "__main__":
    commandline.run(parse, main, interrupted)
