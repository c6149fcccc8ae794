"""Write golden vectors for hardware: vector files, traces, test benches and sources that agree with intnet bit for bit.

python experiments/golden.py                                  # the published 30 x 30 case, a second
python experiments/golden.py --case mlp                       # an MLP trained on DIGITS
python experiments/golden.py --case lenet5 --data-dir DATA    # LeNet-5, trained on MNIST for an epoch
"""

import argparse
from pathlib import Path

from intnet import commandline  # all else is imported in main, where Ctrl-C is answered from the first moment on

DESCRIPTION = """\
Write a folder that hands a network over to hardware: its integers as vector files for $readmemh and $readmemb, every tensor of
some training steps as traces, self-checking Verilog test benches of its dense layers, C sources, and a manifest with formats,
shapes and hashes.

cases (--case):
  breast-cancer  the 30 x 30 linear layer of the published study's FPGA check: words of 20 bits with 16 fraction bits, learning
                 rate 2^-9, one sample a step, floor shifts; the layer is to give back its inputs
  mlp, lenet5    a network that is trained here for --epochs, or comes from a checkpoint of experiments/train.py (--from)"""

EPILOG = """\
what you get in --out:
  README.md      how to use it
  manifest.json  of every file the SHA-256; of vectors format, shape, radix and words a line; what left its word
  vectors/       .mem files: words in two's complement, hexadecimal one a line, or (breast-cancer) packed rows in binary
  traces/        steps.npz and inference.npz: every tensor, for intnet.compare_traces
  verilog/       stepN/LAYER: bench.v, intnet_dense.v, vectors: iverilog -g2012 -o bench bench.v intnet_dense.v && vvp bench
  c/             C99 sources of the trained network
  report.html    what was written, on one page

examples:
  python experiments/golden.py                                      10 steps of the published case
  python experiments/golden.py --steps 100 --out golden-100
  python experiments/golden.py --case mlp --recipe fixed16 --steps 3 --batch 4 --samples 16
  python experiments/golden.py --case mlp --from results/train-digits/checkpoint.npz

The same command gives the same bytes. Test benches are written for fixed-point layers without momentum or a master copy of the
weights; the manifest says which were left out, and why. Exit codes: 0, 2 (bad input), 130 (Ctrl-C)."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = commandline.Parser(DESCRIPTION, EPILOG)
    add, integer = parser.add_argument, commandline.integer
    at_least_1 = integer(range(1, 2**31))
    add("--case", choices=("breast-cancer", "mlp", "lenet5"), default="breast-cancer", help="(default: breast-cancer)")
    add("--from", dest="checkpoint", metavar="FILE", help="checkpoint.npz of a trained network, instead of training one")
    add("--dataset", metavar="NAME", help="what to train on (default: digits; lenet5: mnist)")
    add("--recipe", metavar="NAME", help="see experiments/train.py, or a .json file (default: fixed16)")
    add("--epochs", type=at_least_1, metavar="N", help="of the training (default: 1)")
    add("--steps", type=at_least_1, metavar="N", help="training steps to trace (default: 10 of breast-cancer, else 2)")
    add("--batch", type=at_least_1, metavar="N", help="samples of a traced step (default: 8; breast-cancer: always 1)")
    add("--samples", type=at_least_1, metavar="N", help="samples of the inference (default: 8), or rows of inputs (569)")
    add("--seed", type=integer(range(2**64)), metavar="S", help="of the training (default: 0)")
    add(
        "--data-dir",
        type=commandline.folder,
        metavar="DIR",
        help="folder of the data set's files; DIR and DIR/DATASET are searched",
    )
    add("--threads", type=integer(range(1, 1025)), metavar="N", help="the bits are the same (default: all cores)")
    add("--out", type=commandline.folder, metavar="DIR", help="results folder (default: results/golden-CASE)")
    add("--fresh", action="store_true", help="set an old folder aside under a dated name and begin anew")
    add("--quiet", action="store_true", help="no report")
    arguments = parser.parse_args()
    if arguments.out is None:
        arguments.out = Path("results") / f"golden-{arguments.case}"
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Compute and write."""
    from intnet import kernels
    from intnet.studies import golden

    if arguments.threads is not None:
        kernels.set_threads(arguments.threads)
    names = ("case", "checkpoint", "dataset", "recipe", "epochs", "steps", "batch", "samples", "seed")
    spec = golden.GoldenSpec(**{name: getattr(arguments, name) for name in names})
    commandline.begin_anew(arguments, golden.set_aside)
    with golden.opened(spec, arguments.out) as folder:
        made = golden.make(spec, arguments.data_dir, folder)
        manifest = golden.write(made, folder)
    commandline.finish(arguments, f"Golden vectors: {arguments.case}", golden.describe(made, manifest))


def interrupted(arguments: argparse.Namespace) -> str:
    """Say how to go on."""
    return f"Interrupted. {arguments.out} is not complete before manifest.json is; the same command writes it anew."


if __name__ == "__main__":
    commandline.run(parse, main, interrupted)
