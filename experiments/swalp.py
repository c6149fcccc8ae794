"""SWALP: train in low precision, average the weights (Yang et al. 2019).

    python experiments/swalp.py --study linear                          # a quadratic, half a minute
    python experiments/swalp.py --study logistic                        # DIGITS: how many fraction bits, a minute
    python experiments/swalp.py --study preresnet --data-dir DATA       # a network on CIFAR-10, hours

Expected: the average of 8/6-bit weights ends about 80 times nearer to the optimum of the quadratic than the weights themselves;
on DIGITS the average with 4 fraction bits has fewer training errors than the last weights with 6. docs/studies/swalp has more.
"""

import argparse
import sys
from pathlib import Path

from intnet import commandline  # all else is imported in main, where Ctrl-C is answered from the first moment on

DESCRIPTION = """\
Train with every weight rounded to few bits after every step, and average the weights over the end of the training. Rounded
weights end in a cloud around the optimum whose size the grid decides; their average lies far nearer than the grid is fine.
Averages are exact: integers, added up without any rounding.

studies (--study):
  linear     least squares in 256 dimensions: squared distance to the optimum, weights of 10, 8 and 6 bits, and wide
  logistic   softmax regression on digits or mnist: gradient, loss and errors against the fraction bits of the weights
  vgg        VGG16 without batch normalization on CIFAR: 8-bit training against its average, and both in wide words
  preresnet  PreResNet, likewise"""

EPILOG = """\
what you get in --out:
  report.html                              all of it on one page, for a browser: sentences, picture, table to sort, settings
  linear.csv, logistic.csv or epochs.csv   every number; errors are fractions of 1, distances are squared, losses in nats
  a picture, config.json                   and of a network runs/, with a checkpoint of each recipe and seed, and table.md

examples:
  python experiments/swalp.py --study linear --formats fxp-s12/10,fxp-s8/6 --seeds 3
  python experiments/swalp.py --study logistic --dataset mnist --data-dir DATA --fraction-bits 2,4,6,8
  python experiments/swalp.py --study vgg --dataset cifar10 --data-dir DATA --samples 5000 --epochs 3      a quick look
  python experiments/swalp.py --study preresnet --recipes bfp8,bfp8-big,bfp8-mixed --seeds 3 --data-dir DATA
  python experiments/swalp.py --study preresnet --width 1 --depth 164 --epochs 225 --device gpu --data-dir DATA
                                           the published setting (vgg: --width 1 --dropout 0.5 --epochs 300)

recipes of the networks, all stochastic: bfp8 has an exponent a row of weights and a sample of activations and errors (small
blocks), bfp8-big one a tensor, bfp8-mixed rows of weights and whole tensors of the rest, as in the released code; any other of
experiments/train.py, or a .json file, will do. A row of a vector is one number, so vectors have one exponent.

A study that was stopped goes on when the same command is given again, with the same bits. The networks of one study may be
trained by several such commands at once: each takes what no other is training. Without --data-dir, data are searched in
$INTNET_DATA and then downloaded once. Exit codes: 0, 2 (bad input), 130 (Ctrl-C)."""

NETWORKS, CONVEX = ("vgg", "preresnet"), ("linear", "logistic")
OWN = {  # options that only some studies have
    "dataset": ("logistic", *NETWORKS),
    "data_dir": ("logistic", *NETWORKS),
    "samples": ("logistic", *NETWORKS),
    "decay": ("logistic", *NETWORKS),
    "iterations": CONVEX,
    "formats": ("linear",),
    "fraction_bits": ("logistic",),
    **dict.fromkeys(("recipes", "epochs", "averaging_rate", "momentum", "batch", "every", "unit", "average_bits"), NETWORKS),
    **dict.fromkeys(("width", "evaluation_samples", "device"), NETWORKS),
    "depth": ("preresnet",),
    "dropout": ("vgg",),
}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = commandline.Parser(DESCRIPTION, EPILOG)
    integer, at_least_1 = commandline.integer, commandline.integer(range(1, 2**31))
    add = parser.add_argument
    add("--study", choices=(*CONVEX, *NETWORKS), required=True, help="see above")
    add("--seeds", type=integer(range(1, 2**16 + 1)), metavar="N", help="(default: 5; networks 3)")
    add(
        "--rate",
        metavar="R",
        help="learning rate, as 2^-9, 0.01 or 3/128 (default: linear 2^-10, logistic and vgg 0.05, else 0.1)",
    )
    add(
        "--averaging-start",
        type=integer(range(2**31)),
        metavar="N",
        help="averaging begins after so many iterations, or epochs (default: linear 1/10, logistic 3/10, networks 2/3 of all)",
    )
    parser.add_usual("results/swalp-STUDY[-DATASET]")
    add = parser.add_argument_group("all but linear").add_argument
    add(
        "--dataset",
        metavar="NAME",
        help="logistic: digits, mnist, fashion-mnist (default: digits); else cifar10, cifar100, ...",
    )
    add(
        "--data-dir",
        type=commandline.folder,
        metavar="DIR",
        help="folder of the data set's files; DIR and DIR/DATASET are searched",
    )
    add("--samples", type=at_least_1, metavar="N", help="only the first N training samples, for a quick look")
    add("--decay", metavar="D", help="weight decay (default: logistic 1e-4, vgg 5e-4, preresnet 3e-4)")
    add = parser.add_argument_group("linear and logistic").add_argument
    add("--iterations", type=at_least_1, metavar="N", help="of one sample each (default: 200000; digits 800000)")
    add(
        "--formats", type=commandline.words, metavar="A,B", help="linear: of the weights (default: fxp-s10/8,fxp-s8/6,fxp-s6/4)"
    )
    add("--fraction-bits", type=commandline.integer_range, metavar="A:B", help="logistic: A to B - 1, or A,B,C (default: 2:15)")
    add = parser.add_argument_group("networks").add_argument
    add("--recipes", type=commandline.words, metavar="A,B", help="(default: bfp8-mixed,wide)")
    add("--epochs", type=at_least_1, metavar="N", help="(default: 15)")
    add("--averaging-rate", metavar="R", help="(default: 0.01)")
    add("--momentum", metavar="M", help="(default: 0.9)")
    add("--batch", type=at_least_1, metavar="N", help="samples a step (default: 128)")
    add("--unit", choices=("epoch", "step"), help="of --every (default: epoch)")
    add("--every", type=at_least_1, metavar="N", help="epochs or steps between two moments that are averaged (default: 1)")
    add(
        "--average-bits", type=integer(range(8, 17)), metavar="N", help="round the average to 8..16 bits (default: it is exact)"
    )
    add("--width", type=commandline.number, metavar="W", help="factor on the channels (default: vgg 0.25, preresnet 0.5)")
    add("--depth", type=at_least_1, metavar="N", help="preresnet: 6 n + 2, or 9 n + 2 from 56 on (default: 20)")
    add("--dropout", type=commandline.number, metavar="P", help="vgg: before dense layers (default: 0)")
    add("--evaluation-samples", type=at_least_1, metavar="N", help="training images for loss and statistics (default: 5000)")
    add("--device", choices=("cpu", "gpu", "auto"), help="where to train: the bits are the same (default: cpu)")
    arguments = parser.parse_args()
    parser.refuse_foreign(arguments, OWN)
    if arguments.out is None:
        named = ("swalp", arguments.study, arguments.dataset)
        arguments.out = Path("results") / "-".join(filter(None, named))
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Run the study."""
    given = {name: value for name, value in vars(arguments).items() if value is not None and name in OWN}
    given |= {} if arguments.rate is None else {"rate": arguments.rate}
    commandline.finish(arguments, *(_network if arguments.study in NETWORKS else _convex)(arguments, given))


def _convex(arguments: argparse.Namespace, given: dict) -> tuple[str, list[str]]:
    """Run a study of a convex problem: its runs are independent, and trained in threads. Return a title and what came out."""
    from tqdm.auto import tqdm

    from intnet import datasets
    from intnet.studies import swalp_convex
    from intnet.studies.swalp_convex_reading import export

    given |= {} if arguments.averaging_start is None else {"averaging_start": arguments.averaging_start}
    given |= {} if arguments.seeds is None else {"seeds": range(arguments.seeds)}
    data = {"data_dir": given.pop("data_dir", None)} if arguments.study == "logistic" else {}
    linear = arguments.study == "linear"
    spec = (swalp_convex.LinearSpec if linear else swalp_convex.LogisticSpec)(**given)
    commandline.begin_anew(
        arguments, swalp_convex.set_aside, lambda: linear or datasets.load(spec.dataset, **data, subset="train")
    )
    with tqdm(total=len(spec.runs()), unit="run", disable=arguments.quiet or None, leave=False) as bar:
        run = swalp_convex.run_linear if linear else swalp_convex.run_logistic
        run(spec, arguments.out, **data, threads=arguments.threads, progress=bar.update)
    title = f"SWALP: {'least squares in 256 dimensions' if linear else f'softmax regression on {spec.dataset}'}"
    return title, export(spec, arguments.out, plots=not arguments.no_plots)


def _network(arguments: argparse.Namespace, given: dict) -> tuple[str, list[str]]:
    """Run a study of a network, behind a progress bar, with a line for every row of its table."""
    from tqdm.auto import tqdm

    from intnet import kernels
    from intnet.studies import swalp

    if arguments.threads is not None:
        kernels.set_threads(arguments.threads)
    data_dir, device = given.pop("data_dir", None), given.pop("device", "cpu")
    given |= {} if arguments.averaging_start is None else {"start": arguments.averaging_start}
    spec = swalp.NetworkSpec(arguments.study, seeds=arguments.seeds or 3, **given)
    commandline.begin_anew(arguments, swalp.set_aside, lambda: next(swalp.trajectories(spec, data_dir, device)))
    with tqdm(unit="sample", unit_scale=True, disable=arguments.quiet or None, leave=False) as bar:

        def begun(trajectory) -> None:
            left = (trajectory.trainer.epochs - trajectory.trainer.epoch) * len(trajectory.trainer.train)
            bar.reset(left)
            bar.set_description(trajectory.name)

        def show(row) -> None:
            if not arguments.quiet:
                done = f"{row.recipe:>10} seed {row.seed} {row.method:>6} epoch {row.epoch:3}/{spec.epochs}"
                bar.write(f"{done}   loss {row.train_loss:7.4f}   test error {row.test_error:7.2%}")
                sys.stdout.flush()  # Ctrl-C ends the process as it stands

        elsewhere = swalp.run(spec, arguments.out, data_dir, device=device, begun=begun, progress=bar.update, after=show)
    rows = swalp.export(spec, arguments.out, plots=not arguments.no_plots)
    others = [f"Trained by another command meanwhile: {', '.join(elsewhere)}."] if elsewhere else []
    if kept := swalp.not_asked_for(spec, arguments.out):
        others.append(f"Also kept there, and not asked for, so not in the tables: {', '.join(kept)}.")
    others += [f"{name} ended early: {why}." for name, why in swalp.stored_ends(spec, arguments.out).items()]
    title = f"SWALP: {spec.dataset}, {spec.model} at width {spec.width:g}"
    return title, [swalp.table(spec, rows), *swalp.describe(spec, rows), *others]


def interrupted(arguments: argparse.Namespace) -> str:
    """Say how to go on."""
    return commandline.how_to_go_on(arguments, "Finished epochs" if arguments.study in NETWORKS else "Finished runs")


if __name__ == "__main__":
    commandline.run(parse, main, interrupted)
