"""An advice: the search, run and stored like a sweep, and what it says."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from intnet import files
from intnet.advisor.bounds import AccumulatorBound, accumulator_bounds
from intnet.advisor.search import Found, Neighbour, search
from intnet.advisor.trials import Trial, Trials, check_roles
from intnet.errors import InputError
from intnet.formats import Overflow
from intnet.optimizers import SGD, Schedule
from intnet.recipe import Recipe
from intnet.sweeps import storage
from intnet.sweeps.axes import COMMON_ROLES, axis_of, label_of, training_of
from intnet.sweeps.execution import Executors, Here, loader
from intnet.sweeps.storage import Store
from intnet.trainings import TrainingSpec, prepare

EXPORTS = ("config.json", "runs.csv", "advice.json", "advice.png", "recipe.json", files.REPORT)


@dataclass(frozen=True)
class Advice:
    """How few bits are enough, and what proves it.

    Attributes
    ----------
    target, tolerance : float
        A recipe reaches the target if its mean test accuracy is at least their difference.
    reached : bool
        Whether the base recipe reaches it; if not, there is no advice.
    recipe : Recipe
        The one that is advised; the base, if it does not reach the target.
    base, final : Trial
    trimmed : Trial or None
        The base without bits at the top of its words that no number used.
    alone : dict
        By role, the trials of its bisection with the others as in the base.
    neighbours : list of Neighbour
        One bit less of one role.
    accumulators : list of AccumulatorBound
        Widths that are certain to suffice for the advised recipe.
    accumulators_proved : bool or None
        Whether one training with the widest of them, where a sum that leaves is an error, gave the same bits.
    runs : int
        Trainings that were looked at.
    sentences : list of str
    """

    target: float
    tolerance: float
    reached: bool
    recipe: Recipe
    base: Trial
    final: Trial | None
    trimmed: Trial | None
    alone: dict[str, list[Trial]]
    neighbours: list[Neighbour]
    accumulators: list[AccumulatorBound]
    accumulators_proved: bool | None
    runs: int
    sentences: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return it as `advice.json` has it."""
        return {**asdict(replace(self, recipe=None)), "recipe": self.recipe.to_dict()}  # type: ignore[arg-type]


def _nothing(_: Any) -> None:
    """Take what nobody wants to be told."""


def advise(
    dataset: str = "digits",
    model: str | None = None,
    *,
    target: float,
    tolerance: float = 0.0,
    recipe: Recipe | str | None = None,
    roles: Sequence[str] = COMMON_ROLES,
    seeds: int = 3,
    seeds_max: int | None = None,
    settings: Mapping[str, Any] | None = None,
    workers: Here | Executors | None = None,
    data_dir: Path | str | None = None,
    out: Path | str | None = None,
    progress: Callable[[int], object] = _nothing,
    say: Callable[[str], object] = _nothing,
) -> Advice:
    """Find the fewest bits of each role with which a network still trains to a target.

    Parameters
    ----------
    dataset, model : str
        As of :class:`intnet.trainings.TrainingSpec`.
    target : float
        Test accuracy after the last epoch, a fraction of 1, that the mean over the seeds is to reach.
    tolerance : float
        How far below the target a mean may be.
    recipe : Recipe or str, optional
        What is begun with: its roundings, overflow modes and accumulators are kept; words are shortened.
    roles : sequence of str
        Whose words are shortened.
    seeds, seeds_max : int
        Seeds of each recipe that counts; up to the second (by default twice the first) while the 95 % interval of the mean
        holds the target.
    settings : mapping, optional
        What else all trainings share: names of :data:`intnet.sweeps.axes.NAMES`, such as ``{"epochs": 5, "hidden": [32]}``.
    workers : Here, Pool or Dask, optional
        Who trains; by default this process.
    data_dir : path, optional
    out : path, optional
        A folder that keeps every run, so that a later call goes on from there. By default nothing is kept.
    progress : function of an int, optional
        Told how many more trainings have ended.
    say : function of a str, optional
        Told where the search is.

    Returns
    -------
    Advice
        ``reached`` is False if the base recipe does not reach the target.

    Raises
    ------
    InputError
        If something is unknown or out of range; StudyError if `out` cannot be used.

    Examples
    --------
    >>> found = advise("digits", target=0.5, seeds=2, roles=["weight"],
    ...                settings={"epochs": 3, "hidden": [24], "samples": 500, "rate": "2^-1"})
    >>> found.reached, found.final.bits["weight"] < 16
    (True, True)
    """
    options: dict[str, Any] = {"tolerance": tolerance, "recipe": recipe, "roles": roles, "seeds": seeds, "seeds_max": seeds_max}
    trials = check(dataset, model, target=target, settings=settings, **options)
    workers = Here() if workers is None else workers
    with ExitStack() as stack:
        if not isinstance(workers, Here):
            stack.enter_context(workers)  # once for all that is run
        folder = stack.enter_context(tempfile.TemporaryDirectory()) if out is None else out
        store = stack.enter_context(Store(folder, {**trials.spec.study(), "study": "advice"}, _schema(trials)))
        trials.use(store, workers, data_dir, progress, say)
        found = search(trials, say)
        advice = _advice(trials, found, target, tolerance, store, data_dir, say)
        if out is not None:
            _write(store, advice)
    return advice


def check(
    dataset: str, model: str | None, *, target: float, tolerance: float, recipe: Recipe | str | None, roles: Sequence[str],
    seeds: int, seeds_max: int | None, settings: Mapping[str, Any] | None,
) -> Trials:  # fmt: skip
    """Refuse what :func:`advise` refuses before it trains anything; return what it tries recipes with."""
    threshold = _checked(target, tolerance)
    most = 2 * seeds if seeds_max is None else seeds_max
    if any(isinstance(one, bool) or not isinstance(one, int) for one in (seeds, most)) or not 2 <= seeds <= most <= 64:
        raise InputError(f"seeds must be integers, 2 <= seeds <= seeds_max <= 64, got {seeds!r} and {most!r}")
    shared = dict(settings or {})
    for name in ("dataset", "model", "recipe", "seed"):
        if name in shared:
            raise InputError(f"{name} is an argument of advise, or searched over, got it among the settings too; leave it out")
    shared |= {"dataset": dataset} | ({} if model is None else {"model": model})
    base = _base(dataset, model, recipe)
    spec: Any = training_of({name: label_of(axis_of(name), value) for name, value in shared.items()}, {})
    SGD(Schedule.parse(spec.schedule, spec.rate), spec.momentum, spec.decay).check(base, spec.epochs)
    return Trials(shared, base, check_roles(roles, base), threshold, seeds, most)


def set_aside(folder: Path | str) -> Path | None:
    """Rename the folder of an advice to a dated name: see :func:`intnet.files.set_aside`."""
    return storage.set_aside(folder, _schema(Trials({}, Recipe.load("fixed16"), ("weight",), 0.5, 2, 2)))


def _checked(target: Any, tolerance: Any) -> float:
    for name, value in (("target", target), ("tolerance", tolerance)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise InputError(f"{name} is a fraction of 1, such as 0.97, got {value!r}")
    if not target - tolerance > 0:
        raise InputError(f"target minus tolerance must be above 0, got {target} and {tolerance}")
    return float(target - tolerance)


def _base(dataset: str, model: str | None, recipe: Any) -> Recipe:
    found: Any = TrainingSpec(dataset=dataset, model=model, recipe=recipe).recipe
    return found


def _schema(trials: Trials) -> Any:
    return replace(
        trials.spec.schema, database="advice.sqlite", table="runs.csv", exports=EXPORTS, program="experiments/advise.py"
    )


def _advice(
    trials: Trials, found: Found, target: float, tolerance: float, store: Store, data_dir: Path | str | None,
    say: Callable[[str], object],
) -> Advice:  # fmt: skip
    formats = tuple((found.final or found.base).formats[role] for role in trials.roles)
    recipe = trials.recipe_of(formats)
    bounds: list[AccumulatorBound] = []
    proved = None
    if found.final is not None:
        say("accumulators")
        bounds, proved = _accumulators(trials, recipe, found.final, store, data_dir)
        recipe = replace(recipe, name=f"{trials.recipe.name}-advised")
    advice = Advice(
        target, tolerance, found.final is not None, recipe, found.base, found.final, found.trimmed, found.alone,
        found.neighbours, bounds, proved, store.count(), [],
    )  # fmt: skip
    return replace(advice, sentences=describe(advice))


def _accumulators(
    trials: Trials, recipe: Recipe, final: Trial, store: Store, data_dir: Path | str | None
) -> tuple[list[AccumulatorBound], bool | None]:
    """Return the widths that suffice, and whether a training with the widest gives the same bits as that of the first seed.

    The training is run once for a folder: a note keeps what came of it.
    """
    labels = {**dict(trials.spec.settings), "seed": 0}
    spec = replace(training_of(labels, {trials.recipe.name: trials.recipe}), recipe=recipe)
    load = loader(data_dir)
    ready = prepare(spec, load=load)
    bounds = accumulator_bounds(ready.trainer.network, ready.trainer.batch)
    widest = max(bound.bits for bound in bounds)
    if widest > 64:
        return bounds, None
    key = f"accumulators {widest} {final.weights_sha256[0]}"
    if (known := store.note(key)) is None:
        narrow = replace(recipe, accumulator_bits=widest, accumulator_overflow=Overflow.ERROR, alignment_bits=recipe.alignment)
        try:
            trainer = prepare(replace(spec, recipe=narrow), load=load).trainer
            trainer.run()
            known = {"same": trainer.network.digest() == final.weights_sha256[0]}
        except InputError as error:
            known = {"same": False, "error": str(error)}
        store.set_note(key, known)
    return bounds, known["same"]


def describe(advice: Advice) -> list[str]:
    """Say in sentences what is advised, what proves it, and why less fails."""
    threshold = advice.target - advice.tolerance
    wanted = f"{advice.target:.2%}" + (f" less {advice.tolerance:.2%}" if advice.tolerance else "")
    base = advice.base
    if advice.final is None:
        why = f" ({base.reason})" if base.reason else ""
        return [
            f"The target of {wanted} is not reached: with {_formats(base)} the test accuracy is {_accuracy(base)}{why}. "
            "Train longer, use another rate or model, begin with a wider recipe (--recipe wide), or ask for less."
        ]
    final = advice.final
    sentences = [
        f"Enough for {wanted}: {_formats(final)}; {sum(final.bits.values())} bits instead of {sum(base.bits.values())}.",
        f"It reaches {_accuracy(final)}, the base {_accuracy(base)} with {_formats(base)}."
        + ("" if final.certain else " The target lies within the interval: the mean decided."),
    ]
    if advice.trimmed is not None:
        cut = sum(base.bits.values()) - sum(advice.trimmed.bits.values())
        same = (
            advice.trimmed.weights_sha256[: len(base.weights_sha256)]
            == base.weights_sha256[: len(advice.trimmed.weights_sha256)]
        )
        sentences.append(
            f"Range: {cut} bit{'s' * (cut != 1)} at the top of the base's words held nothing"
            + ("; without them the trained weights are the same, bit for bit." if same else "; without them it still trains.")
        )
    for role in final.bits:
        sentences += _of_role(advice, role)
    sentences += _of_accumulators(advice)
    undecided = [one for one in advice.neighbours if one.trial is not None and not one.trial.certain]
    if undecided:
        sentences.append(
            f"Of {len(undecided)} of the neighbours the interval holds the target ({threshold:.2%}), so the mean decided: "
            + "; ".join(_move(one)[0].lower() + _move(one)[1:] for one in undecided) + ". More seeds would tell."
        )  # fmt: skip
    return sentences


def _of_role(advice: Advice, role: str) -> list[str]:
    sentences = []
    for one in advice.neighbours:
        if one.role != role:
            continue
        if one.trial is None:
            sentences.append(f"{_move(one)} is not tried: {one.why}.")
        else:
            sentences.append(f"{_move(one)}, fails with {_accuracy(one.trial)}: {one.why}.")
    return sentences


def _move(one: Neighbour) -> str:
    """Return a neighbour in words."""
    if one.trial is None:
        return f"One bit less of {one.role} ({'precision' if one.end == 'low' else 'range'})"
    form = one.trial.formats[one.role].split()[0]
    block = form.startswith("bfp")
    return f"One bit less of {one.role}{'' if block else ' ' + ('(precision)' if one.end == 'low' else '(range)')}, {form}"


def _of_accumulators(advice: Advice) -> list[str]:
    if not advice.accumulators:
        return []
    by_pass: dict[str, AccumulatorBound] = {}
    for bound in advice.accumulators:
        if bound.sums not in by_pass or bound.bits > by_pass[bound.sums].bits:
            by_pass[bound.sums] = bound
    shown = ", ".join(f"{name} {one.bits} bits ({one.layer}, {one.terms:,} terms)" for name, one in by_pass.items())
    sentence = f"Accumulators that suffice whatever the data: {shown}."
    if any(one.bias is False for one in advice.accumulators):
        sentence = sentence[:-1] + "; of the products alone, as exponents of blocks move under the biases."
    if advice.accumulators_proved:
        sentence += " A training with the widest, where a sum that leaves it is an error, gave the same weights, bit for bit."
    elif advice.accumulators_proved is False:
        sentence += " A training with the widest did not give the same weights: look at advice.sqlite for why."
    return [sentence]


def _formats(trial: Trial) -> str:
    return ", ".join(f"{role} {text.split()[0]}" for role, text in trial.formats.items())


def _accuracy(trial: Trial) -> str:
    count = len(trial.accuracies)
    if trial.interval is None:
        return f"{trial.mean:.2%} (one seed)" if count == 1 else f"{trial.mean:.2%}"
    low, high = max(0.0, trial.interval[0]), min(1.0, trial.interval[1])
    return f"{trial.mean:.2%} (95 % interval {100 * low:.2f} to {100 * high:.2f}, {count} seeds)"


def _write(store: Store, advice: Advice) -> None:
    folder = store.folder
    store.write_csv()
    files.write_json(folder / "advice.json", advice.to_dict())
    files.write_json(folder / "recipe.json", advice.recipe.to_dict())
    shown = {"target": advice.target, "tolerance": advice.tolerance, "runs": advice.runs, "data": store.note("data")}
    files.write_json(folder / "config.json", {**store.study, **shown})
