"""Which way does the loss fall of a network of signs, whose gradient is zero nearly everywhere? Estimators compared.

    python experiments/binary_gradients.py --study rosenbrock             # coordinate differences on a smooth function, seconds
    python experiments/binary_gradients.py --study cosine                 # straight-through estimators against them, minutes
    python experiments/binary_gradients.py --study loss-decrease          # one step along each, for many rates, an hour
    python experiments/binary_gradients.py --study stochastic-rounding    # activations drawn in the backward pass, minutes
    python experiments/binary_gradients.py --study thin-resnet --data-dir DIR    # a layer at a time, an hour

Expected: straight-through estimators point within 30 degrees of coordinate differences, the smoother the nearer; more levels
help far more.
"""

import argparse
from functools import partial
from pathlib import Path

from intnet import commandline  # all else is imported in main, where Ctrl-C is answered from the first moment on

DESCRIPTION = """\
A network of signs has a loss that is flat but for steps, so its gradient is zero nearly everywhere. Estimators:

  STE    backpropagation with a derivative that the sign does not have: vanilla, steep, swish, polynomial
  CDG    coordinate discrete gradient: the loss with one weight a little more, less that with it a little less, for every weight
  NES    evolution strategy: the same in random directions, averaged; or of single evaluations, without a difference
  best points, of random directions or around STE; and STE with activations that are drawn, or with a random derivative

studies (--study):
  rosenbrock           CDG on a smooth function of 100 coordinates: with rate and epsilon falling, and constant
  cosine               between STE and CDG, by layer, activation (binary, ternary, 2bit, full), epsilon and samples
  loss-decrease        how much one step along each direction lowers the loss, for many rates and dimensions, before and after
                       training
  stochastic-rounding  the best loss after one step along the mean of 1 to 10 drawn gradients, against that of plain STE
  thin-resnet          one step along STE and CDG of a single convolution of a ResNet-18 of 8 to 64 channels, after training

The toy: inputs N(0, 1), three hidden layers as wide as the inputs, one output; the targets are those of another such network.
All arithmetic is exact in integers: weights of 20 fraction bits, inputs of 12; a loss is a sum in two words."""

EPILOG = """\
what you get in --out: a table as CSV, the findings as JSON, pictures, config.json, and all of it on one page for a browser:
report.html
thin-resnet, binary weights: epsilon acts on the weights behind the signs; rows of CDG with epsilon 0 change every sign

examples:
  python experiments/binary_gradients.py --study cosine --activations binary,ternary --samples 300000,4000 --seeds 10
  python experiments/binary_gradients.py --study loss-decrease --dim 8,16 --samples 500,5000 --epsilon 0.1 --sigma 1,0.1
  python experiments/binary_gradients.py --study thin-resnet --data-dir DIR --weights full --convolutions 1,16 --epochs 2

A study that was stopped goes on when the same command is given again, with the same bits. Exit codes: 0, 2 (bad input), 130
(Ctrl-C)."""

STUDIES = ("rosenbrock", "cosine", "loss-decrease", "stochastic-rounding", "thin-resnet")
OWN = {  # options that only some studies have
    "steps": ("rosenbrock",),
    "every": ("rosenbrock",),
    "activations": ("cosine",),
    "coordinates": ("cosine",),
    "epsilon": ("cosine", "loss-decrease", "thin-resnet"),
    "samples": ("cosine", "loss-decrease"),
    "seeds": ("cosine", "loss-decrease", "stochastic-rounding"),
    "layers": ("loss-decrease", "stochastic-rounding"),
    "spread": ("loss-decrease",),
    "length": ("loss-decrease",),
    "dim": ("cosine", "loss-decrease", "stochastic-rounding"),
    "sigma": ("loss-decrease",),
    "rates": ("loss-decrease", "stochastic-rounding", "thin-resnet"),
    "batch": ("loss-decrease", "stochastic-rounding", "thin-resnet"),
    "batches": ("loss-decrease", "stochastic-rounding", "thin-resnet"),
    "pretrain": ("loss-decrease", "stochastic-rounding"),
    "pretrain_steps": ("loss-decrease", "stochastic-rounding"),
    "averaged": ("stochastic-rounding",),
    "weight_bits": ("cosine", "loss-decrease", "stochastic-rounding"),
    **dict.fromkeys(("weights", "convolutions", "epochs", "train_samples", "dataset", "data_dir"), ("thin-resnet",)),
}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = commandline.Parser(DESCRIPTION, EPILOG)
    at_least_1 = commandline.integer(range(1, 2**31))
    add = parser.add_argument
    add("--study", choices=STUDIES, required=True, help="see above")
    add(
        "--dim",
        type=commandline.integers,
        metavar="A,B",
        help="inputs and hidden units (default: 32; loss-decrease 8,16,32,64)",
    )
    add(
        "--samples",
        type=commandline.integers,
        metavar="A,B",
        help="cosine: of a batch (300000,4000); loss-decrease: NES pairs (500,5000,50000)",
    )
    add("--epsilon", type=commandline.numbers, metavar="A,B", help="of CDG (default: 0.1,0.01)")
    add("--sigma", type=commandline.numbers, metavar="A,B", help="of NES (default: 0.1,0.01)")
    add(
        "--spread",
        type=commandline.numbers,
        metavar="A,B",
        help="of the steps around that of STE, the best of which counts (0.1,0.3,1)",
    )
    add("--length", type=commandline.number, metavar="R", help="of the steps of which the best is taken (default: 0.1)")
    add(
        "--layers",
        choices=("hidden", "all"),
        help="which are perturbed and moved: fc1 to fc3, or the output's too (default: loss-decrease hidden; "
        "stochastic-rounding all)",
    )
    add("--seeds", type=at_least_1, metavar="N", help="pairs of networks (default: cosine and stochastic-rounding 10, else 3)")
    add("--activations", type=commandline.words, metavar="A,B", help="binary, ternary, 2bit, full (default: all)")
    add(
        "--coordinates",
        type=commandline.integer(range(2**31)),
        metavar="N",
        help="weights of each layer that CDG takes; 0: all (default: 40)",
    )
    add(
        "--rates",
        type=commandline.numbers,
        metavar="A,B",
        help="lengths of the step; stochastic-rounding: how many, up to 1/2 (default: 500)",
    )
    add(
        "--batch",
        type=at_least_1,
        metavar="N",
        help="samples of a batch (default: loss-decrease 8000; stochastic-rounding 1024; thin-resnet 64)",
    )
    add("--batches", type=at_least_1, metavar="N", help="of each pair of networks (default: 1; thin-resnet 3)")
    add("--averaged", type=commandline.integer_range, metavar="A:B", help="drawn gradients that are averaged (default: 1:11)")
    add(
        "--weights",
        type=commandline.words,
        metavar="A,B",
        help="thin-resnet: of the convolutions that see signs (default: full,binary)",
    )
    add("--convolutions", type=commandline.integers, metavar="A,B", help="thin-resnet: which of these 16 (default: 1,8,16)")
    add("--epochs", type=at_least_1, metavar="N", help="thin-resnet: of the training before (default: 5)")
    add("--train-samples", type=at_least_1, metavar="N", help="thin-resnet: of the training part so many (default: all)")
    add("--dataset", metavar="NAME", help="thin-resnet: cifar10 or cifar10-jpeg (default: cifar10)")
    add("--data-dir", type=commandline.folder, metavar="DIR", help="thin-resnet: folder of the data set's files")
    add(
        "--pretrain",
        choices=("no", "yes", "both"),
        nargs="?",
        const="yes",
        help="whether the network was trained before; alone: yes (default: both)",
    )
    add("--pretrain-steps", type=at_least_1, metavar="N", help="(default: loss-decrease 2000; stochastic-rounding 500)")
    add("--steps", type=at_least_1, metavar="N", help="rosenbrock (default: 100000)")
    add("--every", type=at_least_1, metavar="N", help="rosenbrock: steps between two rows (default: 500)")
    add("--weight-bits", type=commandline.integer(range(8, 25)), metavar="N", help="fraction bits of weights (default: 20)")
    parser.add_usual("results/binary-STUDY")
    arguments = parser.parse_args()
    parser.refuse_foreign(arguments, OWN)
    if arguments.out is None:
        arguments.out = Path("results") / f"binary-{arguments.study}"
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Run the study behind a progress bar."""
    from tqdm.auto import tqdm

    from intnet import kernels
    from intnet.errors import InputError
    from intnet.studies import rosenbrock, tables, thin_resnet
    from intnet.studies import toy_gradients as study
    from intnet.studies.binary_gradients_reading import export

    if arguments.threads is not None:
        kernels.set_threads(arguments.threads)
    given = {name: value for name in OWN if (value := getattr(arguments, name)) is not None}
    data_dir = given.pop("data_dir", None)
    if "train_samples" in given:
        given["samples"] = given.pop("train_samples")
    if "pretrain" in given:
        given["pretrain"] = {"no": (False,), "yes": (True,), "both": (False, True)}[given["pretrain"]]
    if arguments.study in ("cosine", "stochastic-rounding") and "dim" in given:
        given["dim"] = _one("dim", given["dim"], InputError)
    if arguments.study == "stochastic-rounding" and "rates" in given:
        rates = _one("rates", given["rates"], InputError)
        if not rates.is_integer():
            raise InputError(f"--rates of this study is how many, a whole number, got {rates:g}")
        given["rates"] = int(rates)
    kinds = {
        "rosenbrock": (rosenbrock.RosenbrockSpec, rosenbrock.run, lambda s: 2 * s.steps),
        "cosine": (study.CosineSpec, study.run_cosine, lambda s: s.seeds * len(s.activations) * len(s.samples)),
        "loss-decrease": (study.DecreaseSpec, study.run_decrease, lambda s: len(s.dim) * s.seeds * len(s.pretrain) * s.batches),
        "stochastic-rounding": (study.SignsSpec, study.run_signs, lambda s: len(s.pretrain) * s.seeds * s.batches),
        "thin-resnet": (thin_resnet.ThinResNetSpec, partial(thin_resnet.run, data_dir=data_dir), thin_resnet.total),
    }
    make, run, total = kinds[arguments.study]  # type: ignore[index]
    spec = make(**given)
    made = (*study.FILES, *rosenbrock.FILES, *thin_resnet.FILES)
    commandline.begin_anew(arguments, partial(tables.set_aside, made=made))
    with tqdm(total=total(spec), disable=arguments.quiet or None, leave=False) as bar:
        rows = run(spec, arguments.out, progress=bar.update)
    sentences = export(arguments.study, rows, arguments.out, plots=not arguments.no_plots)
    where = {"rosenbrock": "the Rosenbrock function", "thin-resnet": f"ResNet-18 on {getattr(spec, 'dataset', '')}"}
    title = f"Binary gradients, {arguments.study}: {where.get(arguments.study, 'perceptrons of signs')}"
    commandline.finish(arguments, title, sentences)


def _one(name: str, values: tuple, error: type[Exception]):
    """Return the only value of an option that takes one in this study."""
    if len(values) > 1:
        raise error(f"--{name} of this study is one value, got {len(values)}; run the others apart")
    return values[0]


def interrupted(arguments: argparse.Namespace) -> str:
    """Say how to go on."""
    return commandline.how_to_go_on(arguments, "Finished parts")


if __name__ == "__main__":
    commandline.run(parse, main, interrupted)
