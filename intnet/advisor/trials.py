"""Trials of an advice: recipes that differ in the formats of their roles, each trained with several seeds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from intnet.errors import InputError
from intnet.formats import BlockFloat, Fixed
from intnet.recipe import ROLES, Recipe, Role
from intnet.sweeps.axes import COMMON_ROLES
from intnet.sweeps.execution import Executors, Here, run_sweep
from intnet.sweeps.reading import group_of, reason
from intnet.sweeps.storage import Store
from intnet.sweeps.trainings import SweepSpec

Formats = tuple[str, ...]
"""A role's text for each role that is searched, in the order of :attr:`Trials.roles`."""

NEAR, NEAR_DEVIATIONS = 0.005, 4
"""How far from the threshold an accuracy must be for one seed to decide, while the search is looking: half a point, and so many
standard deviations of the base's accuracies."""

REACHES, FAILS = "reaches", "fails"


@dataclass(frozen=True)
class Trial:
    """A recipe and how it trained.

    Attributes
    ----------
    formats : dict
        The text of each role that is searched.
    bits : dict
        The word length of each.
    accuracies : tuple of float
        Test accuracy after the last epoch, seed by seed.
    mean : float
    interval : (float, float) or None
        95 %, by Student's t; None of one seed, which was far from the target.
    verdict : {"reaches", "fails"}
    certain : bool
        Whether the interval lies on one side of the target: else the mean decided.
    reason : str
        What of the telemetry stands out.
    lost, left, bits_used : dict
        By role: shares of numbers that rounding made zero, that did not fit, and the shortest word that holds all.
    lost_updates : float
        Share of the updates that moved no weight.
    died : int
        With how many seeds the network died.
    weights_sha256 : tuple of str
        Of each seed.
    """

    formats: dict[str, str]
    bits: dict[str, int]
    accuracies: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None
    verdict: str
    certain: bool
    reason: str
    lost: dict[str, float]
    left: dict[str, float]
    bits_used: dict[str, int]
    lost_updates: float
    died: int
    weights_sha256: tuple[str, ...]

    @property
    def reaches(self) -> bool:
        """Whether it reaches the target."""
        return self.verdict == REACHES


class Trials:
    """Runs trials, each once: what the store holds is not run again.

    Parameters
    ----------
    settings : mapping
        What all trials share: names of :data:`intnet.sweeps.axes.NAMES`.
    recipe : Recipe
        The base.
    roles : sequence of str
        Whose formats are searched.
    threshold : float
        The accuracy that a mean must have.
    seeds, seeds_max : int
        How many seeds a trial has; more, up to the second, while the interval holds the threshold.
    """

    def __init__(
        self, settings: Mapping[str, Any], recipe: Recipe, roles: Sequence[str], threshold: float, seeds: int, seeds_max: int
    ) -> None:
        self.recipe, self.roles = recipe, tuple(roles)
        self.threshold, self.seeds, self.seeds_max = threshold, seeds, seeds_max
        self.base: Formats = tuple(str(getattr(recipe, role)) for role in self.roles)
        self._label = recipe.name
        self.spec = SweepSpec(
            {**{f"{role}.format": [text] for role, text in zip(self.roles, self.base, strict=True)}, "seed": range(seeds)},
            {**settings, "recipe": self._label},
            recipes=((self._label, recipe),),
        )
        self.near = NEAR
        self._rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._run: Callable[[list[tuple[Any, ...]]], None] | None = None

    def use(
        self, store: Store, workers: Here | Executors, data_dir: Path | str | None, progress: Callable[[int], object],
        say: Callable[[str], object],
    ) -> None:  # fmt: skip
        """Keep rows in a store, and run what it lacks by some workers."""
        names = [column.name for column in store.schema.columns]
        width = len(store.schema.axes)

        def read() -> None:
            self._rows = {row[:width]: dict(zip(names, row, strict=True)) for row in store.rows()}

        def run(cells: list[tuple[Any, ...]]) -> None:
            run_sweep(self.spec, store, workers, cells=cells, data_dir=data_dir, progress=progress, say=say)
            read()

        read()
        self._run = run

    def formats_with(self, bits: Mapping[str, tuple[int, int]]) -> Formats:
        """Return the base's formats with other words: for each role its length and fraction bits (of blocks, not looked at)."""
        texts = []
        for role, text in zip(self.roles, self.base, strict=True):
            one = Role.parse(text)
            if role in bits:
                word, fraction = bits[role]
                form = Fixed(word, fraction) if isinstance(one.format, Fixed) else BlockFloat(word, one.format.block)
                one = Role(form, one.rounding, one.overflow, one.random_bits)
            texts.append(str(one))
        return tuple(texts)

    def recipe_of(self, formats: Formats) -> Recipe:
        """Return the recipe of a trial."""
        found: Any = self.spec.training((*formats, 0)).recipe
        return found

    def possible(self, formats: Formats) -> bool:
        """Tell whether a recipe can have these formats."""
        try:
            self.recipe_of(formats)
        except InputError:
            return False
        return True

    def know_noise(self, base: Trial) -> None:
        """Take from the base's accuracies how much one seed says."""
        self.near = max(NEAR, NEAR_DEVIATIONS * float(np.std(base.accuracies, ddof=1)))

    def look(self, several: Sequence[Formats]) -> list[Trial]:
        """Try recipes together: one seed each, and `seeds` of those that are not far from the threshold; the mean decides."""
        self._need([(formats, 1) for formats in several])
        first = {formats: self._trial(formats, 1) for formats in several}
        near = [formats for formats, trial in first.items() if abs(trial.accuracies[0] - self.threshold) <= self.near]
        self._need([(formats, self.seeds) for formats in near])
        return [self._trial(formats, self.seeds) if formats in near else first[formats] for formats in several]

    def prove(self, several: Sequence[Formats]) -> list[Trial]:
        """Try recipes together with all seeds, and with more while their interval holds the threshold.

        How many count follows from their accuracies alone, not from what else is stored: so a search that was stopped, or has
        another target, finds what one from nothing does.
        """
        counts = dict.fromkeys(several, self.seeds)
        self._need(list(counts.items()))
        for seeds in range(self.seeds + 1, self.seeds_max + 1):
            for formats, count in counts.items():
                if count == seeds - 1 and not self._trial(formats, count).certain:
                    counts[formats] = seeds
            self._need(list(counts.items()))
        return [self._trial(formats, counts[formats]) for formats in several]

    def _need(self, wanted: Sequence[tuple[Formats, int]]) -> None:
        cells = [(*formats, seed) for formats, seeds in dict(wanted).items() for seed in range(seeds)]
        if missing := [cell for cell in cells if cell not in self._rows]:
            assert self._run is not None
            self._run(missing)

    def _trial(self, formats: Formats, seeds: int) -> Trial:
        """Return what the first so many seeds of a recipe came to."""
        rows = [self._rows[(*formats, seed)] for seed in range(seeds)]
        group = group_of(dict(zip(self.roles, formats, strict=True)), rows)
        refused = not group.seeds
        accuracies = tuple(row["test_accuracy"] for row in rows)
        mean = 0.0 if refused else group.accuracy
        half = 0.0 if refused or len(set(accuracies)) == 1 < len(accuracies) else group.half
        reaches = not refused and mean >= self.threshold
        certain = half is not None and abs(mean - self.threshold) >= half
        return Trial(
            formats=dict(zip(self.roles, formats, strict=True)),
            bits={role: Role.parse(text).format.word_bits for role, text in zip(self.roles, formats, strict=True)},
            accuracies=accuracies,
            mean=mean,
            interval=None if half is None else (mean - half, mean + half),
            verdict=REACHES if reaches else FAILS,
            certain=certain,
            reason=group.refused if refused else reason(group),
            lost=group.lost,
            left=group.left,
            bits_used=group.bits_used,
            lost_updates=group.lost_updates,
            died=group.died,
            weights_sha256=tuple(row["weights_sha256"] for row in rows),
        )


def severity(trial: Trial, role: str) -> float:
    """Return how much a role has lost: the largest of its shares; of weights, of their updates too."""
    lost = max(trial.left.get(role, 0.0), 0.0 if role in ("weight", "master") else trial.lost.get(role, 0.0))
    value = max(lost, trial.lost_updates) if role in ("weight", "master") else lost
    return 1.0 if math.isnan(value) else value


def what_is_worse(trial: Trial, than: Trial) -> str:
    """Say which shares of a trial's telemetry are larger than another's, the two that grew most."""
    if trial.died:
        return f"the network dies with {trial.died} of {len(trial.accuracies)} seeds"
    grown = [("updates that move no weight", than.lost_updates, trial.lost_updates)]
    for role in ROLES:
        if role not in ("weight", "master"):  # of these, updates are counted
            grown.append((f"{role}s that rounding makes zero", than.lost[role], trial.lost[role]))
        grown.append((f"{role}s that do not fit", than.left[role], trial.left[role]))
    worse = sorted((one for one in grown if one[2] - one[1] >= 0.01), key=lambda one: one[1] - one[2])[:2]
    if not worse:
        return "no share that is counted grew by a point"
    return "; ".join(f"{what} grow from {_percent(before)} to {_percent(after)}" for what, before, after in worse)


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def check_roles(roles: Any, recipe: Recipe) -> tuple[str, ...]:
    """Return the roles to be searched.

    Raises
    ------
    InputError
        If one is unknown, or the recipe has none of that name.
    """
    given = (roles,) if isinstance(roles, str) else tuple(roles)
    for role in given:
        if role not in ROLES:
            raise InputError(f"roles are {', '.join(ROLES)}, got {role!r}")
        if getattr(recipe, role) is None:
            raise InputError(f"recipe {recipe.name!r} has no {role} role; leave it out of the roles")
    if not given:
        raise InputError(f"roles must not be empty; by default they are {', '.join(COMMON_ROLES)}")
    return tuple(role for role in ROLES if role in given)
