"""What a sweep may vary: every name means what it says, values have one label each, and mistakes are told in a line."""

import pytest

from intnet.errors import InputError
from intnet.optimizers import Factor
from intnet.recipe import RECIPES, ROLES, Recipe
from intnet.sweeps.axes import NAMES, axis_of, label_of, order_of, training_of
from intnet.trainings import TrainingSpec

OF_ROLES = ("word_bits", "fraction_bits", "block", "rounding", "overflow", "random_bits")
BLOCKS = Recipe("blocks", *["bfp-s8/tensor ties_even"] * 4)

# A value for every name, and the entry of the training or of the recipe that it becomes.
VALUES = {
    "dataset": ("mnist", "mnist"),
    "model": ("lenet5", "lenet5"),
    "recipe": ("int8", RECIPES["int8"]),
    "epochs": (3, 3),
    "batch": (7, 7),
    "schedule": ("constant", "constant"),
    "loss": ("squared_error", "squared_error"),
    "width": (0.5, 0.5),
    "hidden": ([30, 20], (30, 20)),
    "standardize": (True, True),
    "samples": (100, 100),
    "seed": (9, 9),
}
FACTORS = {"rate": ("2^-3", 0.125), "momentum": (0.5, 0.5), "decay": ("3/128", 3 / 128)}
OF_RECIPE = {
    "accumulator_bits": (40, 40),
    "accumulator_overflow": ("wrap", "wrap"),
    "alignment_bits": (24, 24),
    "update": ("normalized", "normalized"),
    "biases": (False, False),
}


def training(given, **recipes):
    """Return the training of some values, as a sweep makes it: by their labels."""
    labels = {name: label_of(axis_of(name), value) for name, value in given.items()}
    return training_of(labels, {**RECIPES, **recipes})


def reference(text, word=None, fraction=None, block=None, **words):
    """Return what a role's text becomes; of fixed point, a word of another length keeps its range."""
    form, *modes = str(text).split()
    kind, last = form.split("/")
    bits = int(kind[5:])
    new = bits if word is None else word
    if kind.startswith("fxp"):
        last = int(last) + new - bits if fraction is None else fraction
    elif block is not None:
        last = block
    modes = [words.get("rounding", modes[0]), words.get("overflow", modes[1]), *modes[2:]]
    return " ".join((f"{kind[:5]}{new}/{last}", *modes))


def texts(recipe):
    return {role: None if getattr(recipe, role) is None else str(getattr(recipe, role)) for role in ROLES}


# 1. Names -----------------------------------------------------------------------------------------------------------------


def test_every_name_is_listed_once():
    of_trainings = {*VALUES, *FACTORS, "lr_shift", "augmentation"}
    with_roles = {f"{role}.{entry}" for role in ROLES for entry in (*OF_ROLES, "format")}
    assert set(NAMES) == of_trainings | set(OF_RECIPE) | set(OF_ROLES) | with_roles
    assert len(NAMES) == len(set(NAMES))
    for name in NAMES:
        axis = axis_of(name)
        assert axis.name == name
        assert axis.kind in (int, float, str)
        assert axis.description


@pytest.mark.parametrize("name", VALUES)
def test_entries_of_trainings(name):
    value, meant = VALUES[name]
    assert getattr(training({name: value}), name) == meant


@pytest.mark.parametrize("name", FACTORS)
def test_factors(name):
    value, meant = FACTORS[name]
    assert float(Factor.of(getattr(training({name: value}), name))) == meant


def test_a_shift_is_a_rate_and_augmentation_that_of_the_data():
    assert float(training({"lr_shift": 5}).rate) == 2**-5
    assert float(training({"lr_shift": -2}).rate) == 4
    assert training({"augmentation": True}).augmentation == TrainingSpec(augmentation=True).augmentation
    assert training({"augmentation": False}).augmentation is None


@pytest.mark.parametrize("name", OF_RECIPE)
def test_entries_of_recipes(name):
    value, meant = OF_RECIPE[name]
    recipe = training({name: value, "schedule": "constant"}).recipe
    found = getattr(recipe, name)
    assert getattr(found, "value", found) == meant
    assert texts(recipe) == texts(RECIPES["fixed16"])


def test_what_depends_on_the_recipe_is_chosen_for_the_changed_one():
    spec = training({"update": "normalized"})
    assert (str(spec.rate), spec.schedule) == ("2^4", "constant")


@pytest.mark.parametrize("role", ["", *ROLES[:4]])
@pytest.mark.parametrize(
    ("entry", "value", "change"),
    [
        ("word_bits", 12, {"word": 12}),
        ("word_bits", 15, {"word": 15}),
        ("fraction_bits", 7, {"fraction": 7}),
        ("rounding", "floor", {"rounding": "floor"}),
        ("overflow", "wrap", {"overflow": "wrap"}),
    ],
)
def test_entries_of_roles(role, entry, value, change):
    found = texts(training({f"{role}.{entry}" if role else entry: value}).recipe)
    before = texts(RECIPES["fixed16"])
    changed = ROLES[:4] if not role else (role,)
    assert found == {one: reference(before[one], **change) if one in changed else before[one] for one in ROLES}


@pytest.mark.parametrize(("entry", "value", "change"), [("block", "sample", {"block": "row"}), ("word_bits", 6, {"word": 6})])
def test_entries_of_roles_in_blocks(entry, value, change):
    before = texts(BLOCKS)
    assert texts(training({"recipe": "blocks", entry: value}, blocks=BLOCKS).recipe) == {
        role: before[role] and reference(before[role], **change) for role in ROLES
    }
    one = texts(training({"recipe": "blocks", f"weight.{entry}": value}, blocks=BLOCKS).recipe)
    assert one == {**before, "weight": reference(before["weight"], **change)}


def test_of_a_recipe_with_both_each_entry_finds_its_own():
    mixed = Recipe("mixed", "bfp-s8/tensor", "fxp-s12/8", "bfp-s8/tensor", "fxp-s12/8")
    recipe = training({"recipe": "mixed", "fraction_bits": 6, "block": "row", "word_bits": 9}, mixed=mixed).recipe
    assert [str(getattr(recipe, role).format) for role in ROLES[:4]] == ["bfp-s9/row", "fxp-s9/6", "bfp-s9/row", "fxp-s9/6"]


def test_word_and_fraction_bits_together():
    assert str(training({"weight.word_bits": 10, "weight.fraction_bits": 8}).recipe.weight.format) == "fxp-s10/8"


def test_what_is_more_special_wins_in_any_order():
    given = [("word_bits", 12), ("weight.word_bits", 10), ("weight.word_bits@dense1", 8), ("weight.format", "fxp-s14/11 floor")]
    for one in (given, given[::-1], given[2:] + given[:2]):
        recipe = training(dict(one)).recipe
        assert str(recipe.weight) == "fxp-s10/7 floor saturate"
        assert str(recipe.at("dense1").weight) == "fxp-s8/5 floor saturate"
        assert recipe.at("dense2").weight == recipe.weight
        assert recipe.activation.format.word_bits == 12


def test_entries_of_layers():
    recipe = training(
        {"weight.rounding@dense*": "floor", "weight.word_bits@dense*": 9, "error.format@conv1": "bfp-s8/row"}
    ).recipe
    weight = texts(RECIPES["fixed16"])["weight"]
    assert str(recipe.at("dense7").weight) == reference(weight, word=9, rounding="floor")
    assert str(recipe.at("conv1").weight) == weight
    assert str(recipe.at("conv1").error.format) == "bfp-s8/row"
    assert texts(recipe) == texts(RECIPES["fixed16"])


def test_roles_come_and_go_by_their_format():
    recipe = training({"momentum.format": "fxp-s20/12", "master.format": "fxp-s24/20"}).recipe
    assert (str(recipe.momentum.format), str(recipe.master.format)) == ("fxp-s20/12", "fxp-s24/20")
    both = Recipe("both", *["fxp-s12/8"] * 4, momentum="fxp-s16/12", master="fxp-s16/12")
    recipe = training({"recipe": "both", "momentum.format": "none", "master.word_bits": 20}, both=both).recipe
    assert (recipe.momentum, str(recipe.master.format)) == (None, "fxp-s20/16")


# 2. Labels ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "label"),
    [
        ("hidden", [100, 50], "100,50"),
        ("hidden", (7,), "7"),
        ("hidden", [], "none"),
        ("hidden", "none", "none"),
        ("augmentation", True, "true"),
        ("biases", "false", "false"),
        ("rate", "2^-3", "2^-3"),
        ("rate", 0.1, "0.1"),
        ("decay", 0, "0"),
        ("width", 2, 2.0),
        ("momentum.format", None, "none"),
        ("weight.format", "fxp-s8/4", "fxp-s8/4 ties_even saturate"),
        ("seed", 2**63 - 1, 2**63 - 1),
    ],
)
def test_labels(name, value, label):
    axis = axis_of(name)
    found = label_of(axis, value)
    assert (found, type(found)) == (label, axis.kind)
    assert label_of(axis, found) == found


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("rate", ["3/128", "2^-3", "0.5", "4"]),
        ("word_bits", [8, 9, 10]),
        ("width", [0.25, 1.0, 10.0]),
        ("hidden", ["none", "9", "9,8", "100", "100,50"]),
        ("weight.format", ["fxp-s8/4 floor saturate", "bfp-s10/row floor saturate", "fxp-s16/12 floor saturate"]),
        ("momentum.format", ["none", "fxp-s9/4 floor saturate", "fxp-s16/12 floor saturate"]),
        ("weight.word_bits@dense1", [4, 16]),
        ("rounding", ["floor", "stochastic", "ties_even"]),
    ],
)
def test_labels_are_sorted_by_what_they_mean(name, labels):
    axis = axis_of(name)
    mixed = labels[1:] + labels[:1]
    assert sorted(mixed, key=lambda label: order_of(axis, label)) == labels


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("epochs", 0, "epochs takes an integer in 1.."),
        ("epochs", 2.0, "epochs takes an integer in 1..2**63 - 1, got 2.0"),
        ("batch", True, "got True"),
        ("samples", -1, "got -1"),
        ("seed", 2**63, "seed takes an integer in 0..2**63 - 1"),
        ("seed", -1, "got -1"),
        ("word_bits", "8", "word_bits takes an integer, got '8'"),
        ("width", 0, "width takes a number above 0, got 0"),
        ("width", float("nan"), "above 0, got nan"),
        ("width", float("inf"), "got inf"),
        ("width", [1], "got [1]"),
        ("augmentation", 1, "augmentation takes true or false, got 1"),
        ("biases", "yes", "got 'yes'"),
        ("hidden", 100, "a list of integers of at least 1"),
        ("hidden", [100, 0], "a list of integers of at least 1"),
        ("hidden", [1.5], "hidden takes an integer"),
        ("hidden", "100,", "or none"),
        ("loss", "hinge", "cross_entropy"),
        ("rate", "fast", "rate: a factor is"),
        ("momentum", float("nan"), "momentum: a factor is"),
        ("dataset", 5, "dataset takes a text"),
        ("weight.format", "int8?", "weight.format: unknown format"),
        ("error.format", 8, "error.format: a role is written as"),
    ],
)
def test_values_that_are_none(name, value, part):
    with pytest.raises(InputError) as error:
        label_of(axis_of(name), value)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


# 3. Refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("wordbits", "did you mean 'word_bits'?"),
        ("weigth.word_bits", "did you mean 'weight.word_bits'?"),
        ("weight.wordbits", "did you mean 'weight.word_bits'?"),
        ("Rate", "did you mean 'rate'?"),
        ("sed", "did you mean 'seed'?"),
        ("learning_rate", "there is no axis 'learning_rate'"),
        ("zzz", "there are dataset, model, recipe"),
        ("", "there are dataset, model, recipe"),
        (5, "there is no axis 5"),
        (["seed"], "there is no axis ['seed']"),
        ("weight", "did you mean 'weight."),
        ("epochs@dense1", "there is no axis 'epochs@dense1'"),
        ("word_bits@dense1", "there is no axis 'word_bits@dense1'"),
        ("weight.word_bits@", "names no layers; write, for example, 'weight.word_bits@dense1'"),
        ('weight.word_bits@a"b', "names no layers"),
        ("weight.word_bits@a;b", "names no layers"),
    ],
)
def test_unknown_names(name, part):
    with pytest.raises(InputError) as error:
        axis_of(name)
    assert part in str(error.value)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"rate": "1", "lr_shift": 3}, "rate and lr_shift are two names of one thing"),
        ({"block": "row"}, "recipe 'fixed16' is in fixed point, so it has no block"),
        ({"recipe": "blocks", "fraction_bits": 3}, "recipe 'blocks' is in block floating point, so it has no fraction_bits"),
        ({"weight.block": "row"}, "weight is fxp-s16/14, which has no block"),
        ({"recipe": "blocks", "weight.fraction_bits": 3}, "weight is bfp-s8/tensor, whose exponents move"),
        ({"momentum.word_bits": 8, "recipe": "blocks"}, "the recipe has no momentum role, so it has no word_bits"),
        ({"weight.format": None}, "every recipe has a role weight"),
        ({"fraction_bits": 20}, "fraction bits"),
        ({"word_bits": 40}, "give it at least"),
        ({"rounding": "up"}, "rounding"),
        ({"random_bits": 63}, "1..62"),
        ({"hidden": [5], "model": "lenet5"}, "hidden layers are those of an mlp"),
    ],
)
def test_what_does_not_fit_together(given, part):
    with pytest.raises(InputError) as error:
        training(given, blocks=BLOCKS)
    assert part in str(error.value)
    assert "\n" not in str(error.value)
