"""What the programs that start from a trained network share: their options, and a progress bar over their trainings."""

import argparse
import sys

from intnet import commandline

START = ("from", "dataset", "model", "width", "recipe", "train_epochs", "samples", "train_seed", "data_dir")
TUNING = ("batch", "rate", "momentum", "decay", "seed")


def add_options(parser: commandline.Parser) -> None:
    """Add the options of the network to start from, and of its fine-tuning."""
    at_least_1 = commandline.integer(range(1, 2**31))
    seed = commandline.integer(range(2**63))
    add = parser.add_argument_group("the network to start from").add_argument
    add(
        "--from",
        type=commandline.folder,
        metavar="CHECKPOINT",
        help="of experiments/train.py or experiments/pruning.py: a file, or the folder with it (default: one is trained, "
        "in OUT/dense)",
    )
    add("--data-dir", type=commandline.folder, metavar="DIR", help="folder of the data set's files; DIR and DIR/DATASET")
    add("--dataset", metavar="NAME", help="cifar10, cifar10-jpeg, ... (default: that of CHECKPOINT, else cifar10)")
    add("--model", metavar="NAME", help="see experiments/train.py (default: that of CHECKPOINT, else resnet20)")
    add("--width", type=commandline.number, metavar="W", help="factor on the channels, if it is trained (default: 0.5)")
    add("--recipe", metavar="NAME", help="or a .json file, if it is trained (default: int8)")
    add("--train-epochs", type=at_least_1, metavar="N", help="if it is trained (default: 60)")
    add("--train-seed", type=seed, metavar="S", help="if it is trained (default: 0)")
    add("--samples", type=at_least_1, metavar="N", help="if it is trained: only the first training and test samples")
    add = parser.add_argument_group("fine-tuning").add_argument
    add("--batch", type=at_least_1, metavar="N", help="samples a step (default: 256)")
    add("--rate", metavar="R", help="constant learning rate, as 2^-9, 0.01 or 3/128 (default: 0.002)")
    add("--momentum", metavar="M", help="(default: 0.875)")
    add("--decay", metavar="D", help="weight decay (default: 1e-4)")
    add("--seed", type=seed, metavar="S", help="of the order, augmentation and rounding (default: 1)")


def tuning(arguments: argparse.Namespace, epochs: int):
    """Return how the network is fine-tuned."""
    from intnet.studies.compression import FineTuning

    given = {name: value for name in TUNING if (value := getattr(arguments, name)) is not None}
    return FineTuning(epochs, **given)


def start(arguments: argparse.Namespace, study, name: str, check=lambda _: None):
    """Return the network to start from: of a checkpoint, or trained here behind a progress bar, a line an epoch.

    Whatever can be refused is refused before anything is trained, or set aside (--fresh): `check` gets a network of the kind.
    """
    from intnet.errors import InputError
    from intnet.studies import compression
    from intnet.trainings import prepare

    checkpoint, data_dir = getattr(arguments, "from"), arguments.data_dir
    if not arguments.fresh:
        study.check(arguments.out, name, checkpoint is None)
    if checkpoint is not None:
        found = _stored(arguments, checkpoint)
        check(found.network())
        if arguments.fresh and checkpoint.resolve().is_relative_to(arguments.out.resolve()):
            raise InputError(f"--from {checkpoint} is in {arguments.out}, which --fresh sets aside; choose another --out")
        commandline.begin_anew(arguments, study.set_aside)
        return found
    names = {"dataset": "dataset", "model": "model", "width": "width", "recipe": "recipe", "samples": "samples"}
    names |= {"train_epochs": "epochs", "train_seed": "seed"}
    given = {name: value for option, name in names.items() if (value := getattr(arguments, option)) is not None}
    spec = compression.dense_spec(**given)
    check(prepare(spec, data_dir).trainer.network)
    commandline.begin_anew(arguments, study.set_aside)
    with Bar(arguments) as (show, update):
        return compression.dense(
            spec, arguments.out, data_dir, begun=lambda trainer: show.begun("dense", trainer), progress=update,
            after=lambda trainer: show.line("dense", trainer.epoch, trainer.history[-1].test_accuracy or 0.0),
        )  # fmt: skip


def _stored(arguments: argparse.Namespace, checkpoint):
    """Return the network of a checkpoint, if that is what is asked for."""
    from intnet.errors import InputError
    from intnet.studies import compression

    own = ("width", "recipe", "train_epochs", "train_seed", "samples")
    if given := [name for name in own if getattr(arguments, name) is not None]:
        option = f"--{given[0].replace('_', '-')}"
        raise InputError(f"{option} is for a network that is trained here, and --from {checkpoint} is trained; leave one out")
    found = compression.load(checkpoint, arguments.data_dir, model=arguments.model)
    named = found.config["dataset"]["name"]
    if arguments.dataset not in (None, named):
        raise InputError(f"{found.path} was trained on {named}, and {arguments.dataset} is asked for; leave --dataset out")
    return found


class Bar:
    """A progress bar over samples; entered, it gives itself and its update."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from tqdm.auto import tqdm

        self.quiet = arguments.quiet
        self.tqdm = tqdm(unit="sample", unit_scale=True, disable=arguments.quiet or None, leave=False)

    def __enter__(self):
        return self, self.tqdm.update

    def __exit__(self, *_: object) -> None:
        self.tqdm.close()

    def begun(self, name: str, trainer) -> None:
        """Begin anew, for a training from wherever it is."""
        self.tqdm.reset((trainer.epochs - trainer.epoch) * len(trainer.train))
        self.tqdm.set_description(name)

    def line(self, name: str, epoch: int, accuracy: float) -> None:
        """Write what an epoch came to."""
        if not self.quiet:
            self.tqdm.write(f"{name:>24} epoch {epoch:3}   test {accuracy:7.2%}")
            sys.stdout.flush()  # Ctrl-C ends the process as it stands
