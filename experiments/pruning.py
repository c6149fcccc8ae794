"""Make weights zero: sparse solutions of a linear problem, and a pruned ResNet-20.

    python experiments/pruning.py --study linear                          # five methods, four widths of words, seconds
    python experiments/pruning.py --study resnet20 --data-dir DATA        # CIFAR-10: trained, pruned, fine-tuned; hours

Expected: projected and trimmed descent find the sparse solution exactly, the L1 norm shrinks it; a ResNet-20 pruned to 80 % is
near chance before fine-tuning and within some points of dense after it. docs/studies/compression has tables.
"""

import argparse
from pathlib import Path

import _networks

from intnet import commandline  # all else is imported in main, where Ctrl-C is answered from the first moment on

DESCRIPTION = """\
Which weights can be zero, and what does it cost? All in integers.

studies (--study):
  linear    three equations in five unknowns, at most two of them not zero, by descent in fixed point: plain; projected (all but
            the two largest set to zero after every step); with the gradient of the L1 norm; with a soft threshold (proximal);
            with a threshold on the three smallest alone (trimmed)
  resnet20  weights below a percentile of their layer's magnitudes (one-shot, iterative), or of all layers' together
            (one-shot-global, iterative-global), become zero. One-shot: at once, then fine-tuned with a mask. Iterative: a
            little more before each epoch, what was pruned may grow again, until the last of --prune-epochs. The 1x1 shortcuts
            are not pruned"""

EPILOG = """\
what you get in --out:
  report.html   all of it on one page, for a browser: sentences, pictures, tables to sort, settings
  linear.csv    a row a step: method, parameter (1st: 0, kept weights, lambda, threshold), loss, weights; table.md, pictures
  pruning.csv   a row a method, percentile and epoch (0: not fine-tuned); sparsity.csv: zeros by layer; table.md, pictures
  dense/, runs/ checkpoints: of the network trained here, and of each method, from which experiments/quantization.py can go on

examples:
  python experiments/pruning.py --study linear --fraction-bits 40,10,6 --methods projected,trimmed
  python experiments/train.py --dataset cifar10 --model resnet20 --width 0.5 --augment --epochs 30 --out dense
  python experiments/pruning.py --study resnet20 --from dense --epochs 10 --prune-epochs 5
  python experiments/pruning.py --study resnet20 --from dense --epochs 0 --percentiles 10,30,50,70,90      no fine-tuning
  python experiments/pruning.py --study resnet20 --dataset digits --width 0.25 --train-epochs 8 --epochs 4 --prune-epochs 2

A study that was stopped goes on when the same command is given again, with the same bits; several such commands may share
the methods of one study. Without --data-dir, data are searched in $INTNET_DATA and then downloaded once. Exit codes: 0, 2 (bad
input), 130 (Ctrl-C)."""

RESNET = ("resnet20",)
OWN = {
    **dict.fromkeys(("fraction_bits", "steps"), ("linear",)),
    **dict.fromkeys(("percentile", "percentiles", "prune_epochs", "epochs"), RESNET),
    **dict.fromkeys((*_networks.START, *_networks.TUNING), RESNET),
}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = commandline.Parser(DESCRIPTION, EPILOG)
    at_least_1 = commandline.integer(range(1, 2**31))
    add = parser.add_argument
    add("--study", choices=("linear", *RESNET), required=True, help="see above")
    add(
        "--methods",
        type=commandline.words,
        metavar="A,B",
        help="linear: gd, projected, l1, proximal, trimmed (default: all); resnet20: one-shot, one-shot-global, iterative, "
        "iterative-global (default: all but one-shot-global)",
    )
    parser.add_usual("results/pruning-STUDY")
    add = parser.add_argument_group("linear").add_argument
    add("--fraction-bits", type=commandline.integer_range, metavar="A,B", help="of all numbers, 7..47 (default: 40,16,12,8)")
    add("--steps", type=at_least_1, metavar="N", help="(default: 200)")
    add = parser.add_argument_group("resnet20").add_argument
    add("--percentile", type=commandline.number, metavar="Q", help="what is pruned in the end, 0..100 (default: 80)")
    add(
        "--percentiles",
        type=commandline.numbers,
        metavar="A,B",
        help="what is pruned without fine-tuning, too (default: 20,40,60,80,90)",
    )
    add("--epochs", type=commandline.integer(range(2**31)), metavar="N", help="of fine-tuning; 0: none (default: 20)")
    add("--prune-epochs", type=at_least_1, metavar="N", help="of them, how many iterative pruning takes (default: 10)")
    _networks.add_options(parser)
    arguments = parser.parse_args()
    parser.refuse_foreign(arguments, OWN)
    if arguments.out is None:
        arguments.out = Path("results") / f"pruning-{arguments.study}"
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Run the study."""
    commandline.finish(arguments, *(_linear if arguments.study == "linear" else _resnet)(arguments))


def _linear(arguments: argparse.Namespace) -> tuple[str, list[str]]:
    """Run the descents, and return a title and what came out."""
    from functools import partial

    from tqdm.auto import tqdm

    from intnet.studies import sparse_linear as study
    from intnet.studies import tables

    names = ("methods", "fraction_bits", "steps")
    spec = study.LinearSpec(**{name: value for name in names if (value := getattr(arguments, name)) is not None})
    commandline.begin_anew(arguments, partial(tables.set_aside, made=study.FILES))
    total = len(spec.runs()) * len(spec.fraction_bits)
    with tqdm(total=total, unit="run", disable=arguments.quiet or None, leave=False) as bar:
        rows = study.run(spec, arguments.out, progress=bar.update)
    title = "Sparse descent: three equations in five unknowns"
    return title, study.export(rows, arguments.out, plots=not arguments.no_plots)


def _resnet(arguments: argparse.Namespace) -> tuple[str, list[str]]:
    """Train, prune and fine-tune a network, and return a title and what came out."""
    from intnet import kernels
    from intnet.errors import InputError
    from intnet.studies import pruning as study

    if arguments.threads is not None:
        kernels.set_threads(arguments.threads)
    if arguments.model not in (None, "resnet20"):
        raise InputError(f"--study resnet20 prunes model resnet20, got --model {arguments.model}; leave it out")
    arguments.model = "resnet20"
    names = ("methods", "percentile", "percentiles", "prune_epochs")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    tuned = _networks.tuning(arguments, 20 if arguments.epochs is None else arguments.epochs)
    spec = study.PruningSpec(**given, tuning=tuned)
    start = _networks.start(arguments, study.STUDY, "pruning", spec.tuning.check)
    with _networks.Bar(arguments) as (show, update):
        elsewhere = study.run(
            spec, start, arguments.out, begun=lambda one: show.begun(one.name, one.trainer), progress=update,
            after=lambda row: show.line(row.method, row.epoch, row.test_accuracy),
        )  # fmt: skip
    others = [f"Trained by another command meanwhile: {', '.join(elsewhere)}."] if elsewhere else []
    sentences = study.export(spec, start, arguments.out, plots=not arguments.no_plots)
    return f"Pruning: {start.title}", [*sentences, *others]


def interrupted(arguments: argparse.Namespace) -> str:
    """Say how to go on."""
    return commandline.how_to_go_on(arguments, "Finished runs" if arguments.study == "linear" else "Finished epochs")


if __name__ == "__main__":
    commandline.run(parse, main, interrupted)
