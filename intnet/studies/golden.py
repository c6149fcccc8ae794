"""Golden vectors: what a trained network, or the published 30 x 30 case, is as integers that other tools take and check.

1. Cases            GoldenSpec, make, breast_cancer
2. Writing          opened, write, describe
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from intnet import checkpoint, export, files
from intnet._version import __version__
from intnet.errors import InputError, StudyError
from intnet.export.traces import Builder, Trace
from intnet.formats import Fixed
from intnet.inputs import Inputs
from intnet.network import Network
from intnet.optimizers import SGD, Factor, Schedule
from intnet.recipe import Recipe
from intnet.studies import golden_c
from intnet.tensor import Counters, QTensor, requantize
from intnet.training import Trainer
from intnet.trainings import TrainingSpec, prepare

CASES = ("breast-cancer", "mlp", "lenet5")
MANIFEST, README = "manifest.json", "README.md"
FOLDERS = ("vectors", "traces", "verilog", "c")

WORD, GRADIENT, LR_SHIFT = Fixed(20, 16), Fixed(20, 7), 9
"""The published case: words of 20 bits with 16 fraction bits; ``(delta outer x) >> 25`` has 7 before the rate 2^-9."""

PUBLISHED = """\
One linear layer of 30 inputs and 30 outputs, one sample a step, words of 20 bits with 16 fraction bits. The published sheet
gives the layer, the words, the rate and the update, and not the targets: here the layer is to give back its inputs. For a
sample x, integers all:

    acc = W x;   a = acc >> 16;   delta = x - a;   W += ((delta outer x) >> 16) >> 9

Shifts round to minus infinity; sums are exact; a, delta, the update and W wrap into 20 bits, and that is counted. Inputs are
those of scikit-learn's load_breast_cancer, each column divided by its largest value, times 2^16, to nearest. Weights begin as
the cliff study's: RandomState(0xdeadbeec).normal(0, 500, (30, 30)), rounded to integers. Step i takes sample i modulo their
number.
"""

_FEATURES = 30
_SUFFIXES = (".md", ".mem", ".npz", ".v", ".c", ".h")
_SEED = 0xDEADBEEC
_DEVIATION = 500
_BENCH_WEIGHTS = 100_000  # more take minutes in a simulator
_DATASETS = {"mlp": "digits", "lenet5": "mnist"}


# 1. Cases ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GoldenSpec:
    """What is asked for; what is None is what suits the case.

    Parameters
    ----------
    case : {"breast-cancer", "mlp", "lenet5"}
    checkpoint : path, optional
        Of a trained mlp or lenet5 (``checkpoint.npz`` of ``experiments/train.py``); else one is trained for `epochs`.
    dataset, recipe, epochs : optional
        As of :class:`intnet.trainings.TrainingSpec`; not with a checkpoint, which knows them, and by default one epoch.
    steps : int
        Training steps that are traced: 10 of breast-cancer, else 2, from the trained weights on.
    batch : int
        Samples of a traced step.
    samples : int
        Samples of the inference; of breast-cancer the rows of the inputs' vectors.
    seed : int
        Of a training.
    """

    case: str = "breast-cancer"
    checkpoint: str | None = None
    dataset: str | None = None
    recipe: Recipe | str | None = None
    epochs: int | None = None
    steps: int | None = None
    batch: int | None = None
    samples: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.case not in CASES:
            raise InputError(f"case {self.case!r} is unknown; choose one of {', '.join(CASES)}")
        published = self.case == "breast-cancer"
        foreign = ("checkpoint", "dataset", "recipe", "epochs", "batch", "seed") if published else (
            ("dataset", "recipe", "epochs", "seed") if self.checkpoint is not None else ())  # fmt: skip
        for name in foreign:
            if getattr(self, name) is not None:
                why = "the published case has none" if published else "the checkpoint knows it"
                raise InputError(f"{name} was given as {getattr(self, name)!r}, and {why}; leave it out")
        usual = {"steps": 10, "samples": 569} if published else {"steps": 2, "samples": 8, "batch": 8}
        if not published and self.checkpoint is None:
            usual |= {"epochs": 1, "seed": 0}
            object.__setattr__(self, "dataset", self.dataset or _DATASETS[self.case])
        for name, value in usual.items():
            given = getattr(self, name)
            if given is None:
                object.__setattr__(self, name, value)
            elif isinstance(given, bool) or not isinstance(given, int) or given < (name != "seed"):
                raise InputError(f"{name} must be an integer of at least 1, got {given!r}")
        if published and not 1 <= int(self.samples or 0) <= 569:
            raise InputError(f"breast-cancer has 569 samples, got samples {self.samples}")


@dataclass(frozen=True, eq=False)
class Golden:
    """What is written: traces, the network if there is one, the inputs of the published case, and what left its word."""

    spec: GoldenSpec
    steps: Trace
    inference: Trace | None = None
    network: Network | None = None
    trained: Network | None = None  # before the traced steps
    inputs: QTensor | None = None
    overflows: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)


def make(spec: GoldenSpec, data_dir: Path | str | None = None, folder: Path | None = None) -> Golden:
    """Compute a case.

    Parameters
    ----------
    spec : GoldenSpec
    data_dir : path, optional
        Of the data set.
    folder : path, optional
        Where the C sources go, which are of the weights before the traced steps.

    Raises
    ------
    InputError
        If data or a checkpoint are missing, or cannot be used.
    """
    if spec.case == "breast-cancer":
        return breast_cancer(spec)
    training = prepare(_training(spec), data_dir)
    network, notes = training.trainer.network, []
    wanted, train, batch = int(spec.steps or 2) * int(spec.batch or 8), training.trainer.train, int(spec.batch or 8)
    assert isinstance(train, Inputs)
    if wanted > len(train):
        raise InputError(f"{spec.steps} steps of {spec.batch} samples need {wanted}, and there are {len(train)}; ask for fewer")
    if int(spec.samples or 8) > len(training.test):
        raise InputError(f"there are {len(training.test)} test samples, and {spec.samples} are asked for; ask for fewer")
    if spec.checkpoint is None:
        training.trainer.run(training.test)
        last = training.trainer.history[-1]
        notes.append(
            f"After {spec.epochs} epoch(s) {last.test_accuracy:.2%} of the {len(training.test)} test samples are right."
        )
    else:
        network.load_state(checkpoint.load(spec.checkpoint).arrays)
    inference = export.trace_inference(network, training.test.batch(np.arange(int(spec.samples or 8))))
    few = Inputs(train.codes[:wanted], train.labels[:wanted], train.encoder, train.classes)
    rate = Schedule(Factor.of(training.spec.rate), "constant")
    trainer = Trainer(network, SGD(rate), few, epochs=1, batch=batch, watch=False)
    skipped = {} if folder is None else golden_c.write(network, inference, SGD(rate), batch, trainer.seed, folder)
    steps = export.record_trace(trainer, range(int(spec.steps or 2)))
    left = {f"{one.tensor} {one.role}": one.saturated + one.wrapped for one in trainer.readings if one.saturated + one.wrapped}
    return Golden(spec, steps, inference, network, overflows=left, notes=tuple(notes), skipped=skipped)


def _training(spec: GoldenSpec) -> TrainingSpec:
    if spec.checkpoint is None:
        return TrainingSpec(spec.dataset or "digits", spec.case, spec.recipe, spec.epochs, seed=int(spec.seed or 0))
    config = checkpoint.load(spec.checkpoint).config
    try:
        model, recipe = config["model"], Recipe.from_dict(config["recipe"])
        if model["name"] != spec.case:
            raise InputError(f"{spec.checkpoint} holds a {model['name']}, and case {spec.case} is asked for; name that case")
        hidden = None if model.get("hidden") is None else tuple(model["hidden"])
        return TrainingSpec(
            config["dataset"]["name"], model["name"], recipe, width=model["width"], hidden=hidden, loss=config["loss"],
            standardize=config["standardize"], seed=config["initial_seed"],
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{spec.checkpoint} does not say what was trained ({error}); give the checkpoint.npz of experiments/train.py"
        ) from None


def breast_cancer(spec: GoldenSpec) -> Golden:
    """Return the published 30 x 30 case, by the rule of `PUBLISHED`, with what left its word counted."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer().data[: spec.samples]
    codes = np.rint(data / load_breast_cancer().data.max(axis=0) * 2**WORD.fraction_bits).astype(np.int64)
    start = np.rint(np.random.RandomState(_SEED).normal(0, _DEVIATION, (_FEATURES, _FEATURES))).astype(np.int64)
    inputs, weights = _words(codes), _words(start)
    builder = Builder({
        "kind": "training", "sample_shape": [_FEATURES], "layers": ["linear Dense(outputs=30, has_bias=False)"],
        "kinds": {"linear": "dense"}, "parameters": {"linear.weight": [_FEATURES, _FEATURES]}, "seed": 0, "batch": 1,
        "rule": "acc = W x; a = acc >> 16; delta = x - a; W += ((delta outer x) >> 16) >> 9",
    })  # fmt: skip
    left: dict[str, int] = {}
    for step in range(int(spec.steps or 10)):
        sample = step % len(codes)
        weights = _linear_step(builder, step, QTensor.trusted(inputs.mantissa[sample : sample + 1], -16, WORD), weights, left)
    return Golden(spec, builder.trace(), inputs=inputs, overflows=left)


def _words(values: Any) -> QTensor:
    return QTensor.trusted(values.astype(WORD.storage), -WORD.fraction_bits, WORD)


def _linear_step(builder: Builder, step: int, x: QTensor, weights: QTensor, left: dict[str, int]) -> QTensor:
    """Add a step of the published case to a trace, and return the weights after it."""
    builder.begin(step)
    accumulator = {"accumulator_bits": 64, "accumulator_overflow": "wrap"}

    def rounded(owner: str, name: str, exact: QTensor, form: Fixed, role: str, made_from: dict[str, Any]) -> QTensor:
        counters = Counters()
        made = requantize(exact, form, "floor", "wrap", counters=counters)
        key = f"{name} of {owner}"
        left[key] = left.get(key, 0) + counters.wrapped
        how = {"role": role, "rounding": "floor", "overflow": "wrap"}
        builder.add_rounded(owner, name, exact, made, made_from, **how)
        return made

    before = builder.add("linear.weight", "before", weights, role="weight")
    came = builder.add("", "input", x)
    wide_x, wide_w = x.mantissa.astype(np.int64), weights.mantissa.astype(np.int64)
    sums = QTensor.trusted(wide_x @ wide_w.T, -32)  # 20 + 20 + 5 bits
    a = rounded(
        "linear", "forward", sums, WORD, "activation", {"product": "forward", "x": came, "weight": before, **accumulator}
    )
    delta = rounded("loss", "backward", QTensor.trusted(wide_x - a.mantissa, -16), WORD, "error", {})
    products = QTensor.trusted(delta.mantissa.astype(np.int64).T @ wide_x, -32)
    from_ = {"product": "gradient", "x": came, "dy": builder.key("loss", "backward"), **accumulator}
    update = rounded("linear.weight", "gradient", products, GRADIENT, "gradient", from_)
    moved = QTensor.trusted(wide_w + update.mantissa, -16)
    factors = {"factor": [-1, LR_SHIFT], "decay": [0, 0], "momentum": [0, 0]}
    return rounded("linear.weight", "after", moved, WORD, "weight", factors)


# 2. Writing --------------------------------------------------------------------------------------------------------------


def set_aside(folder: Path | str) -> Path | None:
    """Rename a folder of golden vectors to a dated name: see :func:`intnet.files.set_aside`."""
    with files.explained(Path(folder)):
        return files.set_aside(folder, MANIFEST, (README, *FOLDERS))


@contextmanager
def opened(spec: GoldenSpec, folder: Path | str) -> Iterator[Path]:
    """Take a folder for a case.

    Raises
    ------
    StudyError
        If it is a file, in use, not writable, or holds anything but this case.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise StudyError(f"{folder} is not a folder; --out must name a folder")
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder):
        again = "choose another --out, or set the old one aside with --fresh"
        names = {path.name for path in folder.iterdir() if path.name[0] != "."}
        if MANIFEST in names:
            try:
                asked = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["asked"]
            except (ValueError, KeyError, TypeError) as error:
                raise StudyError(f"{folder / MANIFEST} is damaged ({error}); {again}") from None
            if asked != _asked(spec):
                raise StudyError(f"{folder} holds case {asked.get('case')} of other settings: {asked}; {again}")
        elif others := sorted(names - {README, *FOLDERS}):
            raise StudyError(f"{folder} holds {others[0]} and no {MANIFEST}; {again}")
        yield folder


def _asked(spec: GoldenSpec) -> dict[str, Any]:
    recipe = spec.recipe.to_dict() if isinstance(spec.recipe, Recipe) else spec.recipe
    return json.loads(json.dumps({**asdict(spec), "recipe": recipe}))


def write(golden: Golden, folder: Path) -> dict[str, Any]:
    """Write vectors, traces, test benches, the README and, last, the manifest, which is returned."""
    with files.explained(folder):
        (folder / "traces").mkdir(exist_ok=True)
        (folder / "vectors").mkdir(exist_ok=True)
        golden.steps.save(folder / "traces" / "steps.npz")
        if golden.inference is not None:
            golden.inference.save(folder / "traces" / "inference.npz")
        vectors = _write_vectors(golden, folder / "vectors")
        skipped = golden.skipped | _write_benches(golden, folder / "verilog")
        files.write_changed(folder / README, _readme(golden, folder).encode())
        listed = [path for name in (README, *FOLDERS) for path in sorted([folder / name, *(folder / name).rglob("*")])]
        manifest = {
            "intnet": __version__,
            "case": golden.spec.case,
            "asked": _asked(golden.spec),
            "network": golden.steps.info,
            "left_their_word": golden.overflows,
            "not_written": skipped,
            "files": [_about(path, folder, vectors) for path in listed if _is_ours(path)],
        }
    files.write_json(folder / MANIFEST, manifest)
    return manifest


def _is_ours(path: Path) -> bool:
    """Tell whether a file was written here, and is not what a simulator left."""
    return path.is_file() and path.suffix in _SUFFIXES and not path.name.startswith("got_")


def _about(path: Path, folder: Path, vectors: dict[str, Any]) -> dict[str, Any]:
    name, content = path.relative_to(folder).as_posix(), path.read_bytes()
    return {"path": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **vectors.get(name, {})}


def _write_vectors(golden: Golden, folder: Path) -> dict[str, Any]:
    """Write the tensors as vector files, and return what is to be known of each."""
    about: dict[str, Any] = {}

    def one(name: str, tensor: QTensor, packed: bool) -> None:
        assert tensor.format is not None
        options: dict[str, Any] = {"radix": "hex", "words_per_line": 1}
        if packed:
            options = {"radix": "binary", "words_per_line": tensor.shape[-1]}
        export.write_mem(folder / f"{name}.mem", tensor.mantissa, tensor.format, **options)
        about[f"vectors/{name}.mem"] = {
            "format": str(tensor.format), "word_bits": tensor.format.word_bits, "shape": list(tensor.shape),
            "exponent": tensor.exponent.reshape(-1).tolist(), **options,
        }  # fmt: skip

    steps = golden.steps
    if golden.inputs is not None:  # the published case: a row a sample, as the study's own files
        one("inputs", golden.inputs, True)
        for name, key in (("outputs", "linear/forward"), ("deltas", "loss/backward")):
            rows = np.concatenate([steps[f"step{step}/{key}"].mantissa for step in steps.steps])
            one(name, _words(rows), True)
        for step in steps.steps:
            one(f"weights{step}", steps[f"step{step}/linear.weight/before"], True)
            one(f"updates{step}", steps[f"step{step}/linear.weight/gradient"], True)
        one(f"weights{steps.steps[-1] + 1}", steps[f"step{steps.steps[-1]}/linear.weight/after"], True)
        return about
    assert golden.inference is not None
    for key in golden.inference:
        if golden.inference[key].format is not None:
            one(key.removeprefix("inference/").replace("/", "."), golden.inference[key], False)
    return about


def _write_benches(golden: Golden, folder: Path) -> dict[str, str]:
    """Write a test bench for every dense layer and step, and return why which are not there."""
    trace, skipped = golden.steps, {}
    for layer, kind in trace.info["kinds"].items():
        shape = trace.info["parameters"].get(f"{layer}.weight", [0])
        if kind != "dense":
            continue
        if np.prod(shape) > _BENCH_WEIGHTS:
            skipped[f"verilog of {layer}"] = (
                f"{np.prod(shape)} weights take a simulator minutes; up to {_BENCH_WEIGHTS} are written"
            )
            continue
        for step in trace.steps:
            try:
                export.write_dense_bench(folder / f"step{step}" / layer, trace, layer, step=step)
            except InputError as error:
                try:
                    export.write_dense_bench(folder / f"step{step}" / layer, trace, layer, step=step, update=False)
                    skipped[f"the update in verilog of {layer}, step {step}"] = str(error)
                except InputError as reason:
                    skipped[f"verilog of {layer}, step {step}"] = str(reason)
    return skipped


def describe(golden: Golden, manifest: dict[str, Any]) -> list[str]:
    """Say in sentences what was written."""
    paths = [one["path"] for one in manifest["files"]]
    benches = sum(path.endswith("bench.v") for path in paths)
    vectors = sum(path.startswith("vectors/") for path in paths)
    lines = [f"{vectors} vector files, {len(golden.steps)} traced tensors of {len(golden.steps.steps)} training steps, and "
             f"{benches} test benches.", *golden.notes]  # fmt: skip
    left = sum(golden.overflows.values())
    lines.append(
        f"{left} numbers did not fit into their words: {golden.overflows}." if left else "Every number fitted into its word."
    )
    lines += [f"Not written: {name}: {why}." for name, why in manifest["not_written"].items()]
    return lines


def _readme(golden: Golden, folder: Path) -> str:
    spec = golden.spec
    if spec.case == "breast-cancer":
        said = PUBLISHED
        vectors = (
            "Binary, a packed row of 30 words of 20 bits a line, two's complement, the first word first: `inputs.mem` a row a "
            "sample (the targets too); `outputs.mem` (a) and `deltas.mem` a row a step; `weightsN.mem` before step N, a row an "
            "output; `updatesN.mem` the integers that step N adds to those of W, after the rate."
        )
        read = 'x = read_mem("vectors/inputs.mem", "fxp-s20/16", radix="binary", words_per_line=30)'
    else:
        said = f"A trained {spec.case}. The inference is of test samples; the traced steps go on from the same weights.\n"
        vectors = (
            "Hexadecimal, a word a line, C order: weights (`*.before.mem`), inputs and every layer's outputs of the inference, "
            "which `traces/inference.npz` has too."
        )
        read = 'x = read_mem("vectors/input.mem", FORMAT, shape=SHAPE)  # as manifest.json says'
    written = sorted((folder / "verilog").rglob("bench.v"))
    benches = (
        ""
        if not written
        else f"""
## Test benches (`verilog/stepN/LAYER`)

    cd {written[0].parent.relative_to(folder).as_posix()}
    iverilog -g2012 -o bench bench.v intnet_dense.v && vvp bench

ends with PASS, or FAIL and exit code 1. Put your module in the place of `intnet_dense_forward` or `intnet_dense_update` and
run it again. `vvp bench +dump` writes what it gave. A bit that rounding swallows (a low one of a random word or a bias) may be
wrong without a word that differs.
"""
    )
    return f"""# Golden vectors: {spec.case}

{said}
Made by intnet {__version__}. `manifest.json` has the format, the shape and the SHA-256 of every file.

## Vectors (`vectors/`)

{vectors} In Python:

```python
from intnet.export import read_mem

{read}
```

## Traces (`traces/`)

Every tensor of the steps in the order of computation, exact accumulators included. What does a device do otherwise?

```python
from intnet.export import Trace, compare_traces

trace = Trace.load("traces/steps.npz")
names = list(trace)  # "step0/LAYER/forward", ..
device = trace.with_values({{names[-1]: trace[names[-1]].mantissa}})  # here goes what the device gave, by read_mem
difference = compare_traces(trace, device)  # None, or the first difference with the rounding or shift that explains it
```
{benches}{golden_c.readme(folder, golden.inference)}"""
