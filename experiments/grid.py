"""The cliff study: accuracy over learning rate and fraction bits, every training in integers.

    python experiments/grid.py                                       # DIGITS, 240 trainings, seconds
    python experiments/grid.py --dataset mnist --data-dir DATA       # MNIST from a folder

Expected: DIGITS 75 % and MNIST 93 % at best; the left cliff at 2^-9 and 2^-8, the diagonal at one bit a halving.
"""

import argparse
import functools
from pathlib import Path

from intnet import commandline  # all else is imported in main, where Ctrl-C is answered from the first moment on

DESCRIPTION = """\
Train one small network in integers for every learning rate and number of fraction bits, and show where training fails:
the left cliff (the rate is too high) and the diagonal cliff (too few bits to carry the updates of that rate).

The learning rate is 2^-shift. A number with f fraction bits is an integer that counts steps of 2^-f."""

EPILOG = """\
what you get in --out:
  report.html               all of it on one page, for a browser: sentences, pictures, a table to sort, settings
  cliffs.png, surface.png   the pictures
  cliffs.json               where the cliffs are, with sentences
  grid.csv, grid.nc         every cell: accuracy, update size, quantization error, updates lost to rounding, overflows
  grid.sqlite, config.json  the store that a later run continues, and the settings

examples:
  python experiments/grid.py                                    the published DIGITS grid
  python experiments/grid.py --dataset mnist --data-dir DATA    MNIST from the four files in DATA or DATA/mnist
  python experiments/grid.py --seeds 10                         ten draws of weights and order; the cliffs get intervals
  python experiments/grid.py --lr-shifts 9 --fraction-bits 8:24 one row of the grid
  python experiments/grid.py --seeds 1000 --device gpu          a thousand draws, each in one launch on an NVIDIA GPU

A training gives the same bits on every device, so a folder that was begun on one can be continued on another. --device gpu
needs NVIDIA's driver and intnet[cuda12] or intnet[cuda13]; --device auto takes the CPU where no GPU can be used. A GPU
trains all cells of a draw at once, but compiles its kernels first: for one draw, which takes a CPU less than a second, it
does not pay.

A run that was stopped continues where it was when the same command is given again; a finished one returns at once.
Without --data-dir, MNIST is searched in $INTNET_DATA and then downloaded once. Exit codes: 0, 2 (bad input), 130 (Ctrl-C)."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = commandline.Parser(DESCRIPTION, EPILOG)
    add, integer = parser.add_argument, commandline.integer
    add("--dataset", choices=("digits", "mnist"), default="digits", help="what to learn (default: digits)")
    add("--data-dir", type=commandline.folder, metavar="DIR", help="folder of the MNIST files; DIR and DIR/mnist are searched")
    add("--lr-shifts", type=commandline.integer_range, default="5:20", metavar="A:B", help="half-open (default: 5:20)")
    add("--fraction-bits", type=commandline.integer_range, default="8:24", metavar="A:B", help="(default: 8:24)")
    add("--iterations", type=integer(), default=10_000, metavar="N", help="samples per training (default: 10000)")
    add("--seeds", type=integer(range(1, 2**22 + 1)), default=1, metavar="N", help="how many draws (default: 1)")
    add("--seed", type=integer(), default=0, metavar="S", help="the first draw; 0 is the published one (default: 0)")
    add("--threads", type=integer(range(1, 1025)), metavar="N", help="the bits are the same (default: all cores)")
    add("--device", choices=("cpu", "gpu", "auto"), default="cpu", help="where to train: the bits are the same (default: cpu)")
    add("--out", type=commandline.folder, metavar="DIR", help="results folder (default: results/DATASET)")
    add("--fresh", action="store_true", help="set an old folder aside under a dated name and begin anew")
    add("--no-plots", action="store_true", help="write no pictures")
    add("--quiet", action="store_true", help="no progress bar, no report")
    arguments = parser.parse_args()
    if arguments.out is None:
        arguments.out = Path("results") / arguments.dataset
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Run the study."""
    from intnet.kernels import resolve_device
    from intnet.sweeps import GridSpec, GridStore, set_aside

    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    spec = GridSpec(arguments.dataset, arguments.lr_shifts, arguments.fraction_bits, seeds, arguments.iterations)
    device = resolve_device(arguments.device)  # before a folder is made or set aside for a run that cannot begin

    @functools.cache
    def load():
        from intnet import datasets

        if arguments.dataset == "digits":
            return datasets.load_digits()
        return datasets.load_mnist(arguments.data_dir, order="mldata")

    if arguments.fresh:
        load()  # first, as without data the old results should stay where they are
        if (aside := set_aside(arguments.out)) and not arguments.quiet:
            print(f"The old results are in {aside}", flush=True)
    with GridStore(arguments.out, spec.study()) as store:
        from intnet.studies import cliffs

        if missing := len(store.missing(spec.cells())):
            from tqdm.auto import tqdm

            load()  # before the bar, so that an error is a line of its own
            with tqdm(total=missing, unit="cell", disable=arguments.quiet, leave=False) as bar:
                cliffs.run_grid(spec, store, load, threads=arguments.threads, device=device, progress=bar.update)
        found = cliffs.export(store, plots=not arguments.no_plots)
    title = f"Cliffs: {arguments.dataset}, one dense layer, {arguments.iterations:,} samples a training"
    commandline.finish(arguments, title, found["sentences"])


def interrupted(arguments: argparse.Namespace) -> str:
    """Say how to go on."""
    command = "the same command without --fresh" if arguments.fresh else "the same command"
    return f"Interrupted. Finished cells are kept in {arguments.out}; {command} goes on from there."


if __name__ == "__main__":
    commandline.run(parse, main, interrupted)
