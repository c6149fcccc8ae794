"""A sweep of trainings: every combination of what a TOML file names, here, on all cores, or on a cluster.

    python experiments/sweep.py experiments/sweeps/words.toml --workers 2        # a minute
    python experiments/sweep.py experiments/sweeps/words.toml --dry-run          # what it would take

Expected of words.toml: with 8 bits of activations, or 6 of weights, the MLP reaches 95 % of its best accuracy on DIGITS; with 7
bits of activations it does not.
"""

import argparse
import contextlib
import functools
from pathlib import Path

from intnet import commandline  # all else is imported in main, where Ctrl-C is answered from the first moment on

DESCRIPTION = """\
Train a network for every combination of values along axes, and keep a row for each: accuracy, and what rounding did to weights,
activations, errors and gradients. The axes are named in a TOML file:

  impossible = "skip"             # combinations that no training can have; "refuse" is the default

  [settings]                      # one value for all; what is not named is as in experiments/train.py
  dataset = "digits"
  recipe = "fixed16"
  epochs = 10

  [axes]                          # every combination
  weight.word_bits = "6:14"       # a half-open range, or a list
  rate = ["2^-3", "2^-5"]
  seed = [0, 1, 2]

names, of settings and of axes alike:
  dataset model recipe epochs batch rate lr_shift momentum decay schedule loss width hidden
  augmentation standardize samples seed
  accumulator_bits accumulator_overflow alignment_bits update biases
  word_bits fraction_bits block rounding overflow random_bits      of weights, activations, errors and gradients alike
  ROLE.word_bits, ROLE.rounding, ..., ROLE.format                  of weight, activation, error, gradient, momentum or master
  "ROLE.word_bits@dense1", ...                                     of the layers whose name matches, in quotes
A fixed-point word of another length keeps its range: fraction bits follow, unless they are given too.

With study = "cliffs" it is the grid of experiments/grid.py: axes lr_shift, fraction_bits and seed, settings dataset and
iterations."""

EPILOG = """\
what you get in --out:
  report.html                     all of it on one page, with a table that can be sorted
  sweep.png, sweep-telemetry.png  accuracy over the axes; where numbers were lost
  sweep.csv, sweep.json           every cell; means over the seeds, with 95 % intervals and sentences
  sweep.sqlite, config.json       the store that a later run continues, and the settings
(of the cliff study, the files of experiments/grid.py)

examples:
  python experiments/sweep.py SPEC.toml                           in this process
  python experiments/sweep.py SPEC.toml --workers 8               in eight processes, one thread each
  python experiments/sweep.py SPEC.toml --scheduler tcp://HOST:8786
                                                                  on a Dask cluster (intnet[dist]); its workers are started with
                                                                  dask worker tcp://HOST:8786 --nthreads 1
  python experiments/sweep.py SPEC.toml --shard 3/8               a part, into OUT/shard-3-of-8: for SLURM,
                                                                  sbatch --array=1-8 ... --shard $SLURM_ARRAY_TASK_ID/8
  python experiments/sweep.py SPEC.toml --merge                   then join the parts in OUT

However it is run, the table is the same, bit for bit. A run that was stopped goes on where it was when the same command is
given again; a later one may name more values of the same axes. Workers that die, and a scheduler that is started again, are
waited for. Workers need the driver's versions of intnet, NumPy and Numba, and the data, in the same folder or by $INTNET_DATA.
Exit codes: 0, 2 (bad input), 130 (Ctrl-C)."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = commandline.Parser(DESCRIPTION, EPILOG)
    add = parser.add_argument
    add("spec", type=Path, metavar="SPEC.toml", help="what to run, see above")
    how = parser.add_workers()
    how.add_argument("--merge", action="store_true", help="join the shards in --out, and run nothing")
    add("--shard", type=shard, metavar="I/N", help="only part I of N, from 1 on")
    add("--dry-run", action="store_true", help="say how many cells there are, about how long they take and how much memory")
    add("--data-dir", type=commandline.folder, metavar="DIR", help="folder of the data sets' files, as in experiments/train.py")
    parser.add_usual("results/sweep-NAME of NAME.toml")
    arguments = parser.parse_args()
    if arguments.out is None:
        arguments.out = Path("results") / f"sweep-{arguments.spec.stem}"
    for other in ("shard", "fresh", "dry_run"):
        if arguments.merge and getattr(arguments, other):
            option = other.replace("_", "-")
            parser.error(f"--merge joins the shards that are in --out, got it with --{option}; leave one out")
    return arguments


def shard(text: str) -> tuple[int, int]:
    """Read ``3/8``."""
    number, _, of = text.partition("/")
    if number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of) <= 2**20:
        return int(number), int(of)
    raise argparse.ArgumentTypeError(f"got {text!r}; allowed is I/N with I from 1 to N, such as 3/8")


def main(arguments: argparse.Namespace) -> None:
    """Run the sweep."""
    from intnet import sweeps
    from intnet.studies import sweeps as study

    spec = sweeps.load_spec(arguments.spec)
    out = sweeps.shard_folder(arguments.out, *arguments.shard) if arguments.shard else arguments.out
    cells = spec.shard(*arguments.shard) if arguments.shard else spec.cells()
    workers = sweeps.workers_of(arguments.workers, arguments.scheduler, arguments.threads)
    if arguments.dry_run:
        say = (lambda _: None) if arguments.quiet else functools.partial(print, flush=True)
        print(*study.plan(spec, cells, out, workers, arguments.data_dir, arguments.fresh, say).describe(), sep="\n")
        return
    if arguments.fresh:
        spec.facts(sweeps.loader(arguments.data_dir))  # first, as without data the old results should stay where they are
        if (aside := sweeps.set_aside(out, spec.schema)) and not arguments.quiet:
            print(f"The old results are in {aside}", flush=True)
    if arguments.merge:
        sweeps.check_shards(out)
    with contextlib.ExitStack() as stack:
        if study.missing(spec, cells, out) and arguments.scheduler is not None:
            stack.enter_context(workers)  # before a folder is made for a run that cannot begin
        store = stack.enter_context(sweeps.Store(out, spec.study(), spec.schema))
        _fill(arguments, spec, store, cells, workers, sweeps)
        sentences = study.export(store, spec, plots=not arguments.no_plots)
    arguments.out = out
    commandline.finish(arguments, study.title(spec), sentences)


def _fill(arguments: argparse.Namespace, spec, store, cells, workers, sweeps) -> None:
    """Run what is missing, or copy it from the shards, behind a progress bar."""
    from tqdm.auto import tqdm

    missing = len(store.missing(cells))
    if not missing:
        return
    with tqdm(total=missing, unit="cell", disable=arguments.quiet or None, leave=False) as bar:
        if arguments.merge:
            sweeps.merge(spec, store, progress=bar.update)
            return
        say = (lambda _: None) if arguments.quiet else bar.write
        sweeps.run_sweep(spec, store, workers, cells=cells, data_dir=arguments.data_dir, progress=bar.update, say=say)


def interrupted(arguments: argparse.Namespace) -> str:
    """Say how to go on."""
    if arguments.shard:
        folder = arguments.out / "shard-{}-of-{}".format(*arguments.shard)
        arguments = argparse.Namespace(out=folder, fresh=arguments.fresh)
    return commandline.how_to_go_on(arguments, "Finished cells")


if __name__ == "__main__":
    commandline.run(parse, main, interrupted)
