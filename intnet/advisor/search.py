"""The search of the fewest bits: every role alone by bisection, all together, and bit by bit until none can be taken away.

1. Base          does the recipe reach the target at all?
2. Ranges        bits at the top of fixed-point words that no number used are cut; the training stays the same, bit for bit.
3. Alone         for each role, the others as they are: bisection between a word that reaches the target and one that fails.
                 Telemetry says where to look: far down where little was lost, close by where much was.
4. Together      every role at its own fewest; if that fails, each gets a bit more, then two, four, ...
5. Descent       one bit less of one role, from either end of its word; the best of those that still reach the target is
                 taken, until none does. These last neighbours, with all seeds, are the proof.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from intnet.advisor.trials import Formats, Trial, Trials, severity, what_is_worse
from intnet.formats import Fixed
from intnet.recipe import Role

FLOOR = 2
"""The shortest word that is tried."""

Words = dict[str, tuple[int, int]]
"""Word length and fraction bits by role; of blocks the second is 0."""


@dataclass(frozen=True)
class Neighbour:
    """A recipe with one bit less of one role.

    Attributes
    ----------
    role : str
    end : {"low", "high"}
        Whether it is a fraction bit, which costs precision, or the top bit, which costs range. Blocks have no end: "low".
    trial : Trial or None
        None where no recipe can have it.
    why : str
        Why it cannot, or what of its telemetry stands out.
    """

    role: str
    end: str
    trial: Trial | None
    why: str


@dataclass
class Found:
    """What a search has found.

    Attributes
    ----------
    base : Trial
    final : Trial or None
        None if the base does not reach the target.
    trimmed : Trial or None
        The base without the bits at the top that it did not use.
    alone : dict
        By role, the trials of its bisection.
    neighbours : list of Neighbour
        Of the final recipe.
    """

    base: Trial
    final: Trial | None = None
    trimmed: Trial | None = None
    alone: dict[str, list[Trial]] = field(default_factory=dict)
    neighbours: list[Neighbour] = field(default_factory=list)


def search(trials: Trials, say: Callable[[str], object]) -> Found:
    """Find the fewest bits with which the target is reached; `say` is told where the search is."""
    say(f"base: {_written(trials, trials.base)}")
    base = trials.prove([trials.base])[0]
    found = Found(base)
    if not base.reaches:
        return found
    trials.know_noise(base)
    start = _words(trials, trials.base)
    trimmed = {role: _without_top(words, base.bits_used[role], trials, role) for role, words in start.items()}
    if trimmed != start and trials.possible(trials.formats_with(trimmed)):
        say(f"ranges: {_written(trials, trials.formats_with(trimmed))}")
        found.trimmed = trials.prove([trials.formats_with(trimmed)])[0]
        start = trimmed if found.trimmed.reaches else start
    alone = _alone(trials, start, found, say)
    words = _together(trials, start, alone, say)
    words, found.neighbours = _descent(trials, start, words, say)
    found.final = trials.prove([trials.formats_with(words)])[0]
    return found


def _words(trials: Trials, formats: Formats) -> Words:
    words = {}
    for role, text in zip(trials.roles, formats, strict=True):
        form = Role.parse(text).format
        words[role] = (form.word_bits, form.fraction_bits if isinstance(form, Fixed) else 0)
    return words


def _fixed(trials: Trials, role: str) -> bool:
    return isinstance(getattr(trials.recipe, role).format, Fixed)


def _without_top(words: tuple[int, int], used: int, trials: Trials, role: str) -> tuple[int, int]:
    """Return a role's word without the bits at its top that no number used."""
    word, fraction = words
    return (max(FLOOR, min(word, used)), fraction) if _fixed(trials, role) else words


def _cut(trials: Trials, role: str, words: tuple[int, int], low: int, high: int = 0) -> tuple[int, int] | None:
    """Return a word with so many bits less at each end; None below the shortest."""
    word, fraction = words
    if word - low - high < FLOOR:
        return None
    return (word - low - high, fraction - low if _fixed(trials, role) else 0)


def _alone(trials: Trials, start: Words, found: Found, say: Callable[[str], object]) -> Words:
    """Bisect every role with the others as they are; all roles' next words are tried together."""
    at = trials.prove([trials.formats_with(start)])[0]
    least = {role: start[role][0] for role in trials.roles}  # reaches the target
    fails = dict.fromkeys(trials.roles, FLOOR - 1)
    last = dict.fromkeys(trials.roles, at)
    found.alone = {role: [at] for role in trials.roles}
    while open_roles := [role for role in trials.roles if least[role] - fails[role] > 1]:
        tries: dict[str, tuple[int, Formats]] = {}
        for role in open_roles:
            word = least[role] - max(1, min(least[role] - fails[role] - 1, _step(least[role] - fails[role], last[role], role)))
            cut = _cut(trials, role, start[role], start[role][0] - word)
            formats = None if cut is None else trials.formats_with({**start, role: cut})
            if formats is None or not trials.possible(formats):
                fails[role] = word
            else:
                tries[role] = (word, formats)
        if not tries:
            continue
        say("alone: " + ", ".join(f"{role} {word}" for role, (word, _) in tries.items()))
        for (role, (word, _)), trial in zip(tries.items(), trials.look([one for _, one in tries.values()]), strict=True):
            found.alone[role].append(trial)
            if trial.reaches:
                least[role], last[role] = word, trial
            else:
                fails[role] = word
    cuts = {role: _cut(trials, role, start[role], start[role][0] - least[role]) for role in trials.roles}
    return {role: cut for role, cut in cuts.items() if cut is not None}


def _step(gap: int, last: Trial, role: str) -> int:
    """Return how many bits to take away next: many where little was lost with the word that reaches, few where much was."""
    lost = severity(last, role)
    return math.ceil(gap * (0.75 if lost < 0.02 else 0.5 if lost < 0.2 else 0.25))


def _together(trials: Trials, start: Words, alone: Words, say: Callable[[str], object]) -> Words:
    """Return words for all roles together that reach the target: their own fewest, with more bits as needed."""
    more = 0
    while True:
        words = {}
        for role in trials.roles:
            cut = _cut(trials, role, start[role], max(0, start[role][0] - alone[role][0] - more))
            words[role] = start[role] if cut is None else cut
        if words == start:
            return start
        formats = trials.formats_with(words)
        say(f"together: {_written(trials, formats)}")
        if trials.possible(formats) and trials.look([formats])[0].reaches:
            return words
        more = max(1, 2 * more)


def _descent(trials: Trials, start: Words, words: Words, say: Callable[[str], object]) -> tuple[Words, list[Neighbour]]:
    """Take bits away one by one while the target is reached; return the words, and their neighbours, which all fail.

    On the way down one seed may decide. Where the proof, with all seeds, takes that back, the search goes back to where it came
    from, and never to those words again; at worst it ends at `start`, which was proved.
    """
    proving, came_from, disproved = False, list[Words](), set[Formats]()
    while True:
        here = trials.formats_with(words)
        tries, neighbours = _one_bit_less(trials, words)
        formats = {key: trials.formats_with(one) for key, one in tries.items()}
        say(f"{'proof' if proving else 'one bit less'}: {_written(trials, here)}")
        if proving and not trials.prove([here])[0].reaches:
            disproved.add(here)
            words, proving = came_from.pop() if came_from else _one_bit_more(start, words), False
            continue
        some = (trials.prove if proving else trials.look)(list(formats.values()))
        neighbours |= {key: Neighbour(*key, trial, "") for key, trial in zip(formats, some, strict=True)}
        passing = [
            (key, trial) for key, trial in zip(formats, some, strict=True) if trial.reaches and formats[key] not in disproved
        ]
        if passing:
            best, _ = max(passing, key=lambda one: one[1].mean)
            came_from.append(words)
            words, proving = tries[best], False
        elif proving:
            return words, _explained(trials, words, neighbours)
        else:
            proving = True


def _one_bit_less(trials: Trials, words: Words) -> tuple[dict[tuple[str, str], Words], dict[tuple[str, str], Neighbour]]:
    """Return the words with one bit less of one role, from either end, and neighbours that cannot be."""
    tries: dict[tuple[str, str], Words] = {}
    cannot: dict[tuple[str, str], Neighbour] = {}
    for role in trials.roles:
        for end, cut in (("low", (1, 0)), ("high", (0, 1))):
            if end == "high" and not _fixed(trials, role):
                continue
            less = _cut(trials, role, words[role], *cut)
            if less is None:
                cannot[role, end] = Neighbour(role, end, None, f"words of less than {FLOOR} bits are not tried")
            elif not trials.possible(trials.formats_with({**words, role: less})):
                cannot[role, end] = Neighbour(role, end, None, "no recipe can have it")
            else:
                tries[role, end] = {**words, role: less}
    return tries, cannot


def _one_bit_more(start: Words, words: Words) -> Words:
    """Return the words with one bit more of every role, at the bottom, or at the top where the bottom is that of the start."""
    more = {}
    for role, (word, fraction) in words.items():
        most, lowest = start[role]
        if word >= most:
            more[role] = start[role]
        else:
            more[role] = (word + 1, min(fraction + 1, lowest) if lowest else fraction)
    return more


def _explained(trials: Trials, words: Words, neighbours: dict[tuple[str, str], Neighbour]) -> list[Neighbour]:
    """Return the neighbours role by role, with what is worse in each than in the recipe itself."""
    here = trials.prove([trials.formats_with(words)])[0]
    ordered = sorted(neighbours, key=lambda one: (trials.roles.index(one[0]), one[1]))
    found = [neighbours[key] for key in ordered]
    return [one if one.trial is None else replace(one, why=what_is_worse(one.trial, here)) for one in found]


def _written(trials: Trials, formats: Formats) -> str:
    return ", ".join(f"{role} {Role.parse(text).format}" for role, text in zip(trials.roles, formats, strict=True))
