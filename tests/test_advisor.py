"""The advisor: bounds of accumulators by brute force, the search on made-up landscapes, and real advices on a few digits."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

import intnet
from intnet.advisor import accumulator_bounds, advise, search, trials
from intnet.errors import InputError, StudyError
from intnet.formats import Fixed
from intnet.layers import Conv2D, Dense, Flatten, ReLU, Sequential
from intnet.recipe import RECIPES, Role

SMALL = {"epochs": 3, "hidden": [24], "samples": 500, "rate": "2^-1"}


# Bounds -----------------------------------------------------------------------------------------------------------------


def held(magnitude):
    """Return the narrowest two's complement word that holds -magnitude .. magnitude."""
    return next(bits for bits in range(1, 200) if magnitude <= 2 ** (bits - 1) - 1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("weight", "activation", "error"), [(3, 2, 5), (8, 7, 4), (2, 9, 6)])
def test_bounds_of_dense_layers_are_the_largest_sums_there_are(bias, weight, activation, error):
    fraction = 1  # of activations
    recipe = dataclasses.replace(
        RECIPES["fixed16"], weight=f"fxp-s{weight}/1", activation=f"fxp-s{activation}/{fraction}", error=f"fxp-s{error}/2"
    )
    layers = Sequential(Flatten(), Dense(4, bias=bias), ReLU(), Dense(3, bias=bias))
    network = intnet.Network(layers, (2, 3, 1), recipe)
    batch = 5
    w, a, e = (-(2 ** (bits - 1)) for bits in (weight, activation, error))  # the largest magnitudes
    found = {(one.layer, one.sums): one for one in accumulator_bounds(network, batch)}
    assert ("dense1", "backward") not in found  # nobody asks for the gradient of the inputs
    for name, inputs, outputs in (("dense1", 6, 4), ("dense2", 4, 3)):
        forward = sum(w * a for _ in range(inputs)) + (2 ** (weight - 1) * 2**fraction if bias else 0)
        assert found[name, "forward"].bits == held(forward)
        assert found[name, "forward"].bias is (True if bias else None)
        assert found[name, "gradient"].bits == held(sum(a * e for _ in range(batch)))
        if name == "dense2":
            assert found[name, "backward"].bits == held(sum(w * e for _ in range(outputs)))


def test_bounds_of_convolutions_count_channels_positions_and_kernels():
    recipe = RECIPES["fixed16"]
    layers = Sequential(
        Conv2D(4, 3, padding=1, bias=False), ReLU(), Conv2D(6, (3, 2), stride=2, groups=2, bias=False), Flatten(), Dense(3)
    )
    network = intnet.Network(layers, (7, 9, 2), recipe)
    found = {(one.layer, one.sums): one for one in accumulator_bounds(network, 8)}
    assert found["conv1", "forward"].terms == 3 * 3 * 2
    assert found["conv1", "gradient"].terms == 8 * 7 * 9
    # the second convolution sees 7 x 9 pixels of 4 channels in 2 groups; its outputs are 3 x 4
    assert found["conv2", "forward"].terms == 3 * 2 * 2
    assert found["conv2", "backward"].terms == 3 * 2 * 3
    assert found["conv2", "gradient"].terms == 8 * 3 * 4
    for one in found.values():
        if one.bias is None:
            assert one.bits == held(one.terms * 2 ** (sum(one.word_bits) - 2))


def test_sums_within_the_bounds_never_leave_such_an_accumulator():
    """Extreme numbers through a layer whose accumulator is as wide as the bound, and an error in one bit less."""
    for less, fails in ((0, False), (1, True)):
        recipe = dataclasses.replace(
            RECIPES["fixed16"], weight="fxp-s4/3", activation="fxp-s5/3", error="fxp-s6/3", accumulator_overflow="error"
        )
        wide = intnet.Network(Sequential(Dense(2, bias=False)), (8,), recipe)
        bits = max(one.bits for one in accumulator_bounds(wide, 1) if one.sums == "forward")
        network = intnet.Network(
            Sequential(Dense(2, bias=False)), (8,), dataclasses.replace(recipe, accumulator_bits=bits - less)
        )
        weight = network.parameters[0]
        weight.value = intnet.QTensor(np.full((2, 8), -8, np.int8), np.full((1, 1), -3), Fixed(4, 3))
        x = intnet.QTensor(np.full((1, 8), -16, np.int8), np.full((1, 1), -3), Fixed(5, 3))
        if fails:
            with pytest.raises(InputError, match="leave the accumulator"):
                network.forward(x)
        else:
            network.forward(x)


def test_blocks_say_that_biases_are_not_in_the_bound():
    network = intnet.Network(Sequential(Dense(3, bias=True)), (8,), "int8")
    assert [one.bias for one in accumulator_bounds(network, 4) if one.sums == "forward"] == [False]


# The search -------------------------------------------------------------------------------------------------------------


class Landscape:
    """Recipes whose accuracy a function of the words gives, without any training."""

    def __init__(self, roles, start, reaches, used=None, block=False):
        self.roles, self.start, self.reaches, self.used = tuple(roles), start, reaches, used
        kind = "bfp-s{}/tensor" if block else "fxp-s{}/{}"
        self.base = tuple(str(Role.parse(kind.format(*start[role]))) for role in self.roles)
        self.recipe = dataclasses.make_dataclass("Recipe", self.roles)(*map(Role.parse, self.base))
        self.block, self.tried = block, []

    def formats_with(self, words):
        kind = "bfp-s{}/tensor" if self.block else "fxp-s{}/{}"
        have = {**self.start, **words}
        return tuple(str(Role.parse(kind.format(*have[role]))) for role in self.roles)

    def know_noise(self, _):
        pass

    def possible(self, _):
        return True

    def words(self, formats):
        forms = [Role.parse(text).format for text in formats]
        return {r: (f.word_bits, getattr(f, "fraction_bits", 0)) for r, f in zip(self.roles, forms, strict=True)}

    def look(self, several):
        self.tried += several
        return [self.trial(formats) for formats in several]

    prove = look

    def trial(self, formats):
        words, zeros = self.words(formats), dict.fromkeys(trials.ROLES, 0.0)
        used = {role: min(words[role][0], (self.used or {}).get(role, 99)) for role in self.roles}
        good = self.reaches(words)
        return trials.Trial(
            formats=dict(zip(self.roles, formats, strict=True)), bits={role: word for role, (word, _) in words.items()},
            accuracies=(float(good),), mean=float(good), interval=(good, good), verdict="reaches" if good else "fails",
            certain=True, reason="", lost=zeros, left=zeros, bits_used=used, lost_updates=0.0, died=0, weights_sha256=("",),
        )  # fmt: skip


def ignore(_):
    pass


@pytest.mark.parametrize("seed", range(12))
def test_the_search_ends_where_no_bit_can_be_taken_away(seed):
    random = np.random.default_rng(seed)
    roles = ("weight", "activation", "error", "gradient")
    start = {role: (16, int(random.integers(6, 14))) for role in roles}
    need = {role: (int(random.integers(0, 5)), int(random.integers(0, start[role][1]))) for role in roles}  # integer, fraction
    joint = int(random.integers(0, 6))  # together they need some more

    def reaches(words):
        spare = 0
        for role, (word, fraction) in words.items():
            integer = word - fraction
            if integer < need[role][0] + 1 or fraction < need[role][1]:
                return False
            spare += fraction - need[role][1]
        return spare >= joint

    used = {role: need[role][0] + 1 + start[role][1] for role in roles}
    landscape = Landscape(roles, start, reaches, used)
    if not reaches(start):
        assert search.search(landscape, ignore).final is None
        return
    found = search.search(landscape, ignore)
    words = landscape.words(tuple(found.final.formats.values()))
    assert reaches(words)
    for role, (low, high) in itertools.product(roles, ((1, 0), (0, 1))):
        word, fraction = words[role]
        assert word - 1 < search.FLOOR or not reaches({**words, role: (word - low - high, fraction - low)})
    assert {(one.role, one.end) for one in found.neighbours} == set(itertools.product(roles, ("low", "high")))
    assert all(one.trial is None or not one.trial.reaches for one in found.neighbours)
    assert len(set(landscape.tried)) < 150  # of 16**4


def test_words_that_only_luck_let_through_are_taken_back_by_the_proof():
    """A landscape where one seed says more than is true: looking, two bits less do; proving, they do not."""
    start = {"weight": (16, 8), "error": (16, 8)}

    class Lucky(Landscape):
        def look(self, several):
            return [self.trial(formats, 2) for formats in several]

        def prove(self, several):
            return [self.trial(formats, 0) for formats in several]

        def trial(self, formats, luck=0):
            words = {role: (word + luck, fraction + luck) for role, (word, fraction) in self.words(formats).items()}
            good = self.reaches(words)
            made = super().trial(formats)
            return dataclasses.replace(made, verdict="reaches" if good else "fails", mean=float(good))

    def reaches(words):
        return all(word - fraction >= 3 and fraction >= 5 for word, fraction in words.values())

    landscape = Lucky(start, start, reaches)
    found = search.search(landscape, ignore)
    assert landscape.words(tuple(found.final.formats.values())) == {"weight": (8, 5), "error": (8, 5)}
    assert not any(one.trial.reaches for one in found.neighbours)


def test_blocks_have_no_top_and_no_range():
    start = {"weight": (8, 0), "activation": (8, 0)}
    landscape = Landscape(start, start, lambda words: words["weight"][0] >= 4 and words["activation"][0] >= 6, block=True)
    found = search.search(landscape, ignore)
    assert found.final.bits == {"weight": 4, "activation": 6}
    assert found.trimmed is None
    assert [(one.role, one.end) for one in found.neighbours] == [("weight", "low"), ("activation", "low")]


def test_at_the_shortest_word_there_is_no_neighbour():
    start = {"weight": (8, 4)}
    found = search.search(Landscape(start, start, lambda _: True), ignore)
    assert found.final.bits == {"weight": search.FLOOR}
    assert [one.trial for one in found.neighbours] == [None, None]
    assert "not tried" in found.neighbours[0].why


def test_little_lost_looks_far_and_much_lost_looks_close():
    base = Landscape(("weight",), {"weight": (16, 8)}, lambda _: True).trial(("fxp-s16/8",))
    steps = [search._step(12, dataclasses.replace(base, lost_updates=lost), "weight") for lost in (0.0, 0.1, 0.6)]
    assert steps == [9, 6, 3]


# Real ones --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def advised(tmp_path_factory):
    folder = tmp_path_factory.mktemp("advice")
    return folder, advise("digits", target=0.6, seeds=2, settings=SMALL, out=folder)


def test_an_advice_reaches_the_target_and_its_neighbours_do_not(advised):
    folder, advice = advised
    assert advice.reached
    assert np.mean(advice.final.accuracies) >= 0.6
    assert advice.final.bits == {role: getattr(advice.recipe, role).format.word_bits for role in advice.final.bits}
    for one in advice.neighbours:
        if one.trial is not None:
            assert np.mean(one.trial.accuracies) < 0.6
            assert len(one.trial.accuracies) >= 2
            assert sum(one.trial.bits.values()) == sum(advice.final.bits.values()) - 1
    assert advice.accumulators_proved is True
    stored = json.loads((folder / "advice.json").read_text())
    assert stored["final"]["bits"] == advice.final.bits
    assert stored["sentences"] == advice.sentences
    assert intnet.Recipe.load(str(folder / "recipe.json")) == advice.recipe


def test_trimming_what_no_number_used_leaves_the_same_weights(advised):
    _, advice = advised
    shared = min(len(advice.trimmed.weights_sha256), len(advice.base.weights_sha256))
    assert shared >= 2
    assert advice.trimmed.weights_sha256[:shared] == advice.base.weights_sha256[:shared]
    assert "the same, bit for bit" in " ".join(advice.sentences)


def test_a_trial_is_the_training_that_its_recipe_gives(advised):
    from intnet.trainings import TrainingSpec, prepare

    _, advice = advised
    spec = TrainingSpec("digits", recipe=advice.recipe, epochs=3, hidden=(24,), samples=500, rate="2^-1", seed=0)
    ready = prepare(spec)
    history = ready.trainer.run(ready.test)
    assert history[-1].test_accuracy == advice.final.accuracies[0]
    assert ready.trainer.network.digest() == advice.final.weights_sha256[0]


def test_again_it_trains_nothing_and_says_the_same(advised, monkeypatch):
    folder, advice = advised
    monkeypatch.setattr("intnet.training.Trainer.run", lambda *_, **__: pytest.fail("trained again"))
    again = advise("digits", target=0.6, seeds=2, settings=SMALL, out=folder)
    assert again == advice


def test_another_target_uses_what_is_stored(advised, tmp_path):
    folder, advice = advised
    more = advise("digits", target=0.5, seeds=2, settings=SMALL, out=folder)
    fresh = advise("digits", target=0.5, seeds=2, settings=SMALL, out=tmp_path)
    assert dataclasses.replace(more, runs=0) == dataclasses.replace(fresh, runs=0)
    assert more.runs < advice.runs + fresh.runs


def test_other_settings_do_not_share_a_folder(advised):
    folder, _ = advised
    with pytest.raises(StudyError, match="holds another study: settings"):
        advise("digits", target=0.6, seeds=2, settings={**SMALL, "epochs": 4}, out=folder)


def test_a_target_that_the_base_does_not_reach(tmp_path):
    advice = advise("digits", target=0.999, seeds=2, settings=SMALL, out=tmp_path)
    assert not advice.reached
    assert (advice.final, advice.neighbours, advice.accumulators) == (None, [], [])
    assert "is not reached" in advice.sentences[0]
    assert advice.recipe == RECIPES["fixed16"]


def test_block_floating_point_is_advised_too():
    advice = advise("digits", target=0.5, seeds=2, recipe="bfp8-big", roles=["weight", "activation"], settings=SMALL)
    assert advice.reached
    assert set(advice.final.bits) == {"weight", "activation"}
    assert advice.recipe.error == RECIPES["bfp8-big"].error
    assert {one.end for one in advice.neighbours} == {"low"}
    assert advice.accumulators_proved in (True, False)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"target": 97}, "target is a fraction of 1, such as 0.97, got 97"),
        ({"target": 0.5, "tolerance": 0.6}, "target minus tolerance must be above 0"),
        ({"target": 0.5, "tolerance": -1}, "tolerance is a fraction of 1"),
        ({"target": True}, "target is a fraction of 1"),
        ({"target": 0.5, "seeds": 1}, "2 <= seeds"),
        ({"target": 0.5, "seeds": 5, "seeds_max": 4}, "seeds <= seeds_max"),
        ({"target": 0.5, "roles": []}, "roles must not be empty"),
        ({"target": 0.5, "roles": ["weights"]}, "roles are weight, .*, got 'weights'"),
        ({"target": 0.5, "roles": ["master"]}, "has no master role"),
        ({"target": 0.5, "recipe": "fixed17"}, "'fixed17' is unknown"),
        ({"target": 0.5, "model": "mlq"}, "'mlq' is unknown"),
        ({"target": 0.5, "settings": {"seed": 1}}, "seed is an argument of advise, or searched over"),
        ({"target": 0.5, "settings": {"epoch": 1}}, "there is no axis 'epoch'; did you mean 'epochs'"),
        ({"target": 0.5, "settings": {"epochs": "x"}}, "epochs takes an integer"),
    ],
)
def test_what_cannot_be_asked_for(options, match):
    with pytest.raises(InputError, match=match):
        advise("digits", **options)


def test_an_unknown_data_set():
    with pytest.raises(InputError, match="no data set 'digitz'"):
        advise("digitz", target=0.5)
