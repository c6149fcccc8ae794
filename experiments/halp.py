"""HALP: SVRG with bit centering, eight bits to any accuracy (De Sa et al. 2018).

    python experiments/halp.py --study convex     # two least-squares problems, a minute
    python experiments/halp.py --study digits     # softmax regression on DIGITS, a minute

Expected: HALP with 8 bits ends at a distance of 1e-10 or so from the optimum of problem b, as SVRG in wide words does, where 8
bits on a fixed grid stay 25 away; on DIGITS its gradient falls below 1e-8, that of LP-SGD stays at 0.1.
"""

import argparse
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

methods: sgd and svrg in wide words; halp; lp_sgd and lp_svrg with weights of --bits on a fixed grid"""

EPILOG = """\
what you get in --out:
  convex.csv or digits.csv     every number: problem, method, bits (0: wide), mu, T, scale, seed, iteration, and the distance
                               or the norm of the gradient
  .json, .png, config.json     the findings, a picture on a log scale, and what was asked for

examples:
  python experiments/halp.py --study convex --problems b --bits 8 --recentre 2000 --seeds 1
  python experiments/halp.py --study convex --bits 2,4,8,16 --mu 1,3,10 --scale exact
  python experiments/halp.py --study digits --bits 4,8 --recentre 500,1500 --rate 0.05

Rates and mu are those of the released code, whose loss is the squared error without a half. A small mu makes a coarse grid, a
large one a grid so small that offsets saturate. Rounding to nearest (ties_pos) stands still where no step moves a weight by
half a unit: of b bits a weight's share of the full gradient moves it by at most rate mu 2^(b-1) units, 0.1 in problem b.

A study that was stopped goes on when the same command is given again, with the same bits. Exit codes: 0, 2 (bad input), 130
(Ctrl-C)."""

OWN = {  # options that only some studies have
    "problems": ("convex",),
    "data_dir": ("digits",),
    "samples": ("digits",),
    "decay": ("digits",),
}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = commandline.Parser(DESCRIPTION, EPILOG)
    at_least_1 = commandline.integer(range(1, 2**31))
    add = parser.add_argument
    add("--study", choices=("convex", "digits"), required=True, help="see above")
    add("--bits", type=commandline.integer_range, metavar="A,B", help="2..16 (default: convex 8,16; digits 8)")
    add("--mu", type=_numbers, metavar="A,B", help="above 0 (default: problem a 4, problem b 3,1; digits 0.1)")
    add("--recentre", type=_steps, metavar="A,B", help="T, steps between two centres (default: convex 200,2000; digits 2000)")
    add("--scale", type=_words, metavar="A,B", help="exact, power_of_two (default: both)")
    add("--rounding", metavar="MODE", help="stochastic or ties_pos, to nearest (default: stochastic)")
    add("--seeds", type=commandline.integer(range(1, 2**16 + 1)), metavar="N", help="(default: convex 10; digits 5)")
    add("--iterations", type=at_least_1, metavar="N", help="of one sample each (default: problem a 5,000; else 100,000)")
    add(
        "--rate",
        metavar="R",
        help="learning rate, as 2^-9, 0.01 or 3/128 (default: problem a 0.001, problem b 0.00025, digits 0.02)",
    )
    add("--centre", metavar="FORMAT", help="of the wide words (default: convex fxp-s48/40, digits fxp-s36/32)")
    add("--threads", type=commandline.integer(range(1, 1025)), metavar="N", help="the bits are the same (default: all cores)")
    add("--out", type=commandline.folder, metavar="DIR", help="results folder (default: results/halp-STUDY)")
    add("--fresh", action="store_true", help="set an old folder aside under a dated name and begin anew")
    add("--no-plots", action="store_true", help="write no picture")
    add("--quiet", action="store_true", help="no progress bar, no report")
    add = parser.add_argument_group("convex").add_argument
    add("--problems", type=_words, metavar="A,B", help="a, b (default: both)")
    add = parser.add_argument_group("digits").add_argument
    add("--data-dir", type=commandline.folder, metavar="DIR", help="folder of the data set's files")
    add("--samples", type=at_least_1, metavar="N", help="only the first N training samples, for a quick look")
    add("--decay", metavar="D", help="weight decay (default: 0.01)")
    arguments = parser.parse_args()
    for name, studies in OWN.items():
        if getattr(arguments, name) is not None and arguments.study not in studies:
            option = f"--{name.replace('_', '-')}"
            parser.error(
                f"{option} belongs to --study {' or '.join(studies)}, got it with --study {arguments.study}; leave it out"
            )
    if arguments.out is None:
        arguments.out = Path("results") / f"halp-{arguments.study}"
    return arguments


def _words(text: str) -> tuple[str, ...]:
    """Read a list of words."""
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[float, ...]:
    """Read a list of numbers."""
    return tuple(commandline.number(word) for word in text.split(","))


def _steps(text: str) -> tuple[float, ...]:
    """Read a list of numbers of steps; what is none is for the study to refuse."""
    return tuple(int(value) if value == value // 1 else value for value in _numbers(text))


def main(arguments: argparse.Namespace) -> None:
    """Run the study: its runs are independent, and trained in threads."""
    from tqdm.auto import tqdm

    from intnet import datasets
    from intnet.studies import halp_convex
    from intnet.studies.halp_convex_reading import export

    names = ("bits", "mu", "recentre", "scale", "rounding", "iterations", "rate", "centre", "problems", "samples", "decay")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    given |= {} if arguments.seeds is None else {"seeds": range(arguments.seeds)}
    convex = arguments.study == "convex"
    if convex:
        spec = halp_convex.ConvexSpec(**given)
        total, data = sum(len(spec.runs(one)) for one in spec.problems), {}
    else:
        spec = halp_convex.DigitsSpec(**given)
        total, data = len(spec.runs()), {"data_dir": arguments.data_dir}
    if arguments.fresh:
        if not convex:
            datasets.load("digits", **data, subset="train")  # as without data the old results should stay where they are
        if (aside := halp_convex.set_aside(arguments.out)) and not arguments.quiet:
            print(f"The old results are in {aside}", flush=True)
    run = halp_convex.run_convex if convex else halp_convex.run_digits
    with tqdm(total=total, unit="run", disable=arguments.quiet or None, leave=False) as bar:
        run(spec, arguments.out, **data, threads=arguments.threads, progress=bar.update)
    sentences = export(spec, arguments.out, plots=not arguments.no_plots)
    if not arguments.quiet:
        print(*sentences, f"Results: {arguments.out}", sep="\n")


def interrupted(arguments: argparse.Namespace) -> str:
    """Say how to go on."""
    command = "the same command without --fresh" if arguments.fresh else "the same command"
    return f"Interrupted. Finished runs are kept in {arguments.out}; {command} goes on from there."


if __name__ == "__main__":
    commandline.run(parse, main, interrupted)
