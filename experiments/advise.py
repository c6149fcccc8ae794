"""The advisor: how few bits of weights, activations, errors and gradients are enough to train to a target.

    python experiments/advise.py --target 0.88                       # DIGITS, an MLP, two minutes
    python experiments/advise.py --dataset mnist --target 0.97 --data-dir DATA --workers 2

Expected: about 18 bits in all for 88 % on DIGITS, instead of the 64 of four 16-bit words.
"""

import argparse
from pathlib import Path

from intnet import commandline  # all else is imported in main, where Ctrl-C is answered from the first moment on

DESCRIPTION = """\
Find the fewest bits of each role with which a network still trains to a target, and what proves it.

A recipe reaches the target if the test accuracy after its last epoch, the mean over several seeds, does. The search begins with
a recipe that does (--recipe), and
  1. cuts bits at the top of fixed-point words that no number used;
  2. bisects every role's word with the others as they are, far down where telemetry says that little was lost;
  3. puts the shortest words together, and gives back what they then lack;
  4. takes bits away one by one, from either end of each word, until every recipe with one bit less fails.
These last recipes, with their 95 % intervals, are the proof; where an interval holds the target, more seeds are trained, up
to --seeds-max. Roundings, overflow modes and rates are kept as they are: another rate may need other words."""

EPILOG = """\
what you get in --out:
  report.html                 all of it on one page
  advice.png, advice.json     the trials of every role, the recipe, its neighbours that fail and why, and accumulators that
                              are certain to suffice
  recipe.json                 the recipe, for experiments/train.py --recipe
  runs.csv                    every training
  advice.sqlite, config.json  the store that a later run continues, and the settings

examples:
  python experiments/advise.py --target 0.88
  python experiments/advise.py --target 0.9 --tolerance 0.01 --seeds 5 --workers 2
  python experiments/advise.py --target 0.85 --roles weight,activation --hidden 32 --out results/advice-small
  python experiments/advise.py --dataset mnist --model lenet5 --target 0.985 --epochs 3 --data-dir DATA \\
    --scheduler tcp://HOST:8786

A run that was stopped goes on where it was when the same command is given again. Another target, tolerance or number of seeds
may share a folder, and uses the trainings that are stored; all else needs another --out.
Exit codes: 0 (also if the target is not reached, which is a finding), 2 (bad input), 130 (Ctrl-C)."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = commandline.Parser(DESCRIPTION, EPILOG)
    add, integer = parser.add_argument, commandline.integer
    at_least_1 = integer(range(1, 2**31))
    add("--dataset", default="digits", metavar="NAME", help="as in experiments/train.py (default: digits)")
    add("--model", metavar="NAME", help="as in experiments/train.py (default: mlp; CIFAR: vgg_small)")
    add("--target", type=commandline.number, required=True, metavar="A", help="test accuracy, a fraction of 1, such as 0.97")
    add("--tolerance", type=commandline.number, default=0.0, metavar="T", help="how far below it a mean may be (default: 0)")
    add("--recipe", metavar="NAME", help="what is begun with (default: fixed16; other models than mlp and lenet5: int8)")
    roles = ("weight", "activation", "error", "gradient")
    add("--roles", type=commandline.words, default=roles, metavar="A,B", help=f"whose words (default: {','.join(roles)})")
    add("--seeds", type=integer(range(2, 65)), default=3, metavar="N", help="trainings of a recipe that counts (default: 3)")
    add("--seeds-max", type=integer(range(2, 65)), metavar="N", help="at most, where it is close (default: twice as many)")
    for name, kind, help_ in (
        ("epochs", at_least_1, "(default: as experiments/train.py)"),
        ("batch", at_least_1, "samples a step"),
        ("rate", str, "learning rate, as 2^-3 or 0.1"),
        ("momentum", str, ""),
        ("schedule", str, "linear, constant, or step:EPOCH=RATE,..."),
        ("width", commandline.number, "factor on the units or channels"),
        ("hidden", commandline.sizes, "hidden units of an mlp, as 100,50"),
        ("samples", at_least_1, "only the first N training and test samples"),
    ):
        add(f"--{name}", type=kind, metavar=name[0].upper(), help=help_ or None)
    parser.add_workers()
    add("--data-dir", type=commandline.folder, metavar="DIR", help="folder of the data set's files")
    parser.add_usual("results/advice-DATASET[-MODEL]")
    arguments = parser.parse_args()
    if arguments.out is None:
        arguments.out = Path("results") / "-".join(filter(None, ("advice", arguments.dataset, arguments.model)))
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Search, and write what was found."""
    from tqdm.auto import tqdm

    from intnet import advisor, sweeps
    from intnet.studies import advice as study

    names = ("epochs", "batch", "rate", "momentum", "schedule", "width", "hidden", "samples")
    settings = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    workers = sweeps.workers_of(arguments.workers, arguments.scheduler, arguments.threads)
    options = {
        **{name: getattr(arguments, name) for name in ("target", "tolerance", "recipe", "roles", "seeds", "seeds_max")},
        "settings": settings,
    }
    commandline.begin_anew(arguments, advisor.set_aside, lambda: advisor.check(arguments.dataset, arguments.model, **options))
    with tqdm(unit="training", disable=arguments.quiet or None, leave=False) as bar:
        found = advisor.advise(
            arguments.dataset, arguments.model, **options, workers=workers, data_dir=arguments.data_dir, out=arguments.out,
            progress=bar.update, say=(lambda _: None) if arguments.quiet else bar.write,
        )  # fmt: skip
    study.export(found, arguments.out, study.title(arguments.dataset, arguments.model), plots=not arguments.no_plots)
    commandline.finish(arguments, f"Advice: {study.title(arguments.dataset, arguments.model)}", found.sentences)


def interrupted(arguments: argparse.Namespace) -> str:
    """Say how to go on."""
    return commandline.how_to_go_on(arguments, "Finished trainings")


if __name__ == "__main__":
    commandline.run(parse, main, interrupted)
