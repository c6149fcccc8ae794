"""Few-bit weights: a trained network as it comes, and fine-tuned straight through.

    python experiments/quantization.py --data-dir DATA                            # CIFAR-10: trained first, an hour and more
    python experiments/quantization.py --from CHECKPOINT --data-dir DATA          # minutes
    python experiments/quantization.py --from CHECKPOINT --finetune 20 --data-dir DATA

Expected: 6 and 5 bits cost next to nothing, 2 bits everything; fine-tuned, 4 bits cost nothing and 2 bits some points.
docs/studies/compression has tables.
"""

import argparse
from pathlib import Path

import _networks

from intnet import commandline  # all else is imported in main, where Ctrl-C is answered from the first moment on

DESCRIPTION = """\
How few bits can a weight have? Every layer with weights but the first and the last multiplies by codes of n bits: affine ones,
which span a tensor's least to its greatest weight in 2^n levels, or symmetric ones. Products are those of the codes, corrected
for the zero point, exact until they are rounded once. Fine-tuning takes the gradient of the coded weights for that of the
stored ones. Masks of a pruned checkpoint hold on: its zeros stay exactly zero."""

EPILOG = """\
what you get in --out:
  report.html         all of it on one page, for a browser: sentences, picture, tables to sort, settings
  quantization.csv    scheme, bits, finetuned (epochs of fine-tuning; 0: none), test_loss, test_accuracy; the row "none" is the
                      network as it is stored
  quantization.png    accuracy against bits; table.md: drops from the start, beside those of a course
  dense/, runs/       checkpoints: of the network trained here, and of each scheme and number of bits

examples:
  python experiments/quantization.py --from dense --bits 8,7,6,5,4,3,2,1 --schemes affine,symmetric --scale power
  python experiments/quantization.py --from results/pruning-resnet20/runs/iterative-global-80 --bits 4,3 --finetune 10
  python experiments/quantization.py --from dense --bits 6,5,4,3,2 --tune-bits 4,3,2 --finetune 10
  python experiments/quantization.py --from dense --bits 4 --input-bits 4
  python experiments/quantization.py --dataset digits --model resnet20 --width 0.25 --train-epochs 8

A study that was stopped goes on when the same command is given again, with the same bits; several such commands may share
the trainings of one study. Without --data-dir, data are searched in $INTNET_DATA and then downloaded once. Exit codes: 0, 2
(bad input), 130 (Ctrl-C)."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = commandline.Parser(DESCRIPTION, EPILOG)
    add = parser.add_argument
    add("--bits", type=commandline.integer_range, metavar="A,B", help="of weights, 1..8 (default: 6,5,4,3,2)")
    add("--finetune", type=commandline.integer(range(2**31)), default=0, metavar="N", help="epochs (default: 0, none)")
    add("--tune-bits", type=commandline.integer_range, metavar="A,B", help="which are fine-tuned (default: all)")
    add("--schemes", type=commandline.words, metavar="A,B", help="affine, symmetric (default: affine)")
    add("--scale", choices=("ratio", "power"), help="a ratio of integers, or a power of two (default: ratio)")
    add(
        "--layers",
        type=commandline.words,
        metavar="A,B",
        help="names, or patterns as '*/body/*' (default: all with weights but the first and the last)",
    )
    add(
        "--input-bits",
        type=commandline.integer(range(1, 9)),
        metavar="N",
        help="round what these layers multiply by to so many bits, too (default: as the recipe has it)",
    )
    parser.add_usual("results/quantization")
    _networks.add_options(parser)
    arguments = parser.parse_args()
    if arguments.out is None:
        arguments.out = Path("results/quantization")
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Run the study."""
    from intnet import kernels
    from intnet.studies import quantization as study

    if arguments.threads is not None:
        kernels.set_threads(arguments.threads)
    names = ("bits", "schemes", "scale", "layers", "input_bits", "tune_bits")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    spec = study.QuantizationSpec(**given, tuning=_networks.tuning(arguments, arguments.finetune))

    def check(network) -> None:
        spec.apply(network, spec.codings(spec.bits)[0])
        spec.tuning.check(network)

    start = _networks.start(arguments, study.STUDY, "quantization", check)
    with _networks.Bar(arguments) as (show, update):
        elsewhere = study.run(
            spec, start, arguments.out, begun=lambda one: show.begun(one.name, one.trainer), progress=update,
            after=lambda row: show.line(f"{row.scheme}, {row.bits} bits", row.finetuned, row.test_accuracy),
        )  # fmt: skip
    sentences = study.export(spec, start, arguments.out, plots=not arguments.no_plots)
    others = [f"Trained by another command meanwhile: {', '.join(elsewhere)}."] if elsewhere else []
    commandline.finish(arguments, f"Few-bit weights: {start.title}{', pruned' if start.masked else ''}", [*sentences, *others])


def interrupted(arguments: argparse.Namespace) -> str:
    """Say how to go on."""
    return commandline.how_to_go_on(arguments, "Finished epochs")


if __name__ == "__main__":
    commandline.run(parse, main, interrupted)
