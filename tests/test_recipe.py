"""Recipes and roles: what they say, what they refuse, and what their files hold."""

import json
from dataclasses import replace

import pytest

from intnet.errors import InputError
from intnet.formats import BlockFloat, Fixed, Overflow, Rounding
from intnet.recipe import RECIPES, ROLES, Recipe, Role

PLAIN = {"weight": "fxp-s8/6", "activation": "fxp-s8/4", "error": "fxp-s8/4", "gradient": "fxp-s8/4"}


# Roles ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ("fxp-s16/12", Role(Fixed(16, 12), Rounding.TIES_EVEN, Overflow.SATURATE, 32)),
        ("fxp-s16/12 stochastic wrap random:16", Role(Fixed(16, 12), Rounding.STOCHASTIC, Overflow.WRAP, 16)),
        ("bfp-s8/row random:5 saturate_symmetric floor", Role("bfp-s8/row", "floor", "saturate_symmetric", 5)),
        ("bfp-s8/sample error", Role(BlockFloat(8, "row"), "ties_even", "error")),
    ],
)
def test_roles_from_text(text, role):
    assert Role.parse(text) == role
    assert Role.parse(str(role)) == role
    assert Role.parse(role) is role
    assert repr(role) == f"Role('{role}')"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a role is written as 'fxp-s16/12 stochastic saturate' or 'bfp-s8/row ties_even', got ''"),
        (8, "a role is written as .*, got 8"),
        ("fxp-u8/4", "a role needs a signed format, got fxp-u8/4; 9 signed bits hold the same numbers"),
        ("bfp-s8/tile4@-1", "a role's blocks are a tensor or a row, got bfp-s8/tile4@-1"),
        ("bfp-s8/channel1", "a role's blocks are a tensor or a row, got bfp-s8/channel1"),
        ("fxp-s16/12 nearest", "nearest"),
        ("fxp-s16/12 stochastic random:63", "random_bits must be in 1..62, got 63"),
        ("fxp-s16", "fxp-s16"),
    ],
)
def test_what_is_no_role(text, message):
    with pytest.raises(InputError, match=message) as caught:
        Role.parse(text)
    assert "\n" not in str(caught.value)


def test_rows_of_a_vector_share_an_exponent():
    role = Role.parse("bfp-s8/row stochastic")
    assert (str(role.for_axes(1)), role.for_axes(2)) == ("bfp-s8/tensor stochastic saturate", role)
    assert Role.parse("fxp-s8/3").for_axes(1) == Role.parse("fxp-s8/3")


# Recipes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_ready_made_recipes_survive_their_files(name, tmp_path):
    recipe = Recipe.load(name)
    assert recipe.name == name
    path = tmp_path / "own.json"
    path.write_text(json.dumps(recipe.to_dict()))
    assert Recipe.load(str(path)) == recipe == Recipe.load(recipe)
    assert hash(Recipe.load(path)) == hash(recipe)
    described = "\n".join(recipe.describe())
    assert all(f"{role}: {getattr(recipe, role)}" in described for role in ROLES if getattr(recipe, role))


def test_the_promises_of_the_ready_made():
    """At most 16 bits are stored in fixed16; 8 in the others but for what they say; NITI's clip is symmetric."""
    fixed = RECIPES["fixed16"]
    roles = [fixed.weight, fixed.activation, fixed.error, fixed.gradient, fixed.momentum]
    assert max(role.format.word_bits for role in roles) == 16
    assert fixed.master is None
    assert fixed.accumulator_bits == 32
    for name in ("niti8", "bfp8", "int8"):
        recipe = RECIPES[name]
        assert {getattr(recipe, role).format.word_bits for role in ("weight", "activation", "error", "gradient")} == {8}
    assert all(getattr(RECIPES["niti8"], role).overflow is Overflow.SATURATE_SYMMETRIC for role in ROLES[:4])


def test_overrides_apply_to_the_layers_they_name_and_later_ones_win():
    recipe = Recipe("r", **PLAIN).override("conv*", activation="fxp-s8/2").override("*2", activation="fxp-s8/1", biases=False)
    assert [str(recipe.at(name).activation.format) for name in ("conv1", "conv2", "dense2", "dense1")] == [
        "fxp-s8/2", "fxp-s8/1", "fxp-s8/1", "fxp-s8/4",
    ]  # fmt: skip
    assert (recipe.at("conv2").biases, recipe.at("conv1").biases, recipe.biases) == (False, True, True)
    assert recipe.at("residual1/body/conv1").activation == recipe.activation  # a pattern is of the whole path
    assert recipe.override("*/conv1", error="fxp-s8/0").at("residual1/body/conv1").error == Role.parse("fxp-s8/0")
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    momentum = Recipe("r", **PLAIN, momentum="fxp-s8/4").override("dense1", momentum=None)
    assert (momentum.at("dense1").momentum, momentum.at("dense2").momentum) == (None, Role.parse("fxp-s8/4"))
    assert Recipe.from_dict(momentum.to_dict()) == momentum


def bad(**changes):
    return lambda: Recipe("bad", **{**PLAIN, **changes})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            bad(accumulator_bits=14),
            r"recipe 'bad': an activation times a weight takes 15 bits and the accumulator has 14; give",
        ),
        (bad(error="fxp-s12/4", accumulator_bits=18), r"an error times a weight takes 19 bits and the accumulator has 18"),
        (bad(activation="fxp-s12/4", error="fxp-s12/4", accumulator_bits=22), r"an activation times an error takes 23 bits"),
        (bad(activation="fxp-s8/8"), r"recipe 'bad': activation fxp-s8/8 stays below 0.496 and inputs reach 1; use at most 7"),
        (bad(error="fxp-s8/9"), r"error fxp-s8/9 stays below 0.248 and the errors of a wrong output reach 1"),
        (
            bad(weight="fxp-s8/28"),
            r"sums of products have 32 fraction bits, so that an accumulator of 32 bits overflows below 1",
        ),
        (bad(master="fxp-s7/6"), r"the master copy has 7 bits and the weight 8; leave it out or make it wider"),
        (bad(update="adam"), r"update must be one of sgd, normalized, got 'adam'"),
        (bad(loss="hinge"), r"loss must be one of cross_entropy, niti_cross_entropy, squared_error, got 'hinge'"),
        (bad(weight=None), r"recipe 'bad' needs a role 'weight'"),
        (bad(gradient="fxp-u8/3"), r"gradient: a role needs a signed format"),
        (bad(accumulator_overflow="saturate_symmetric"), r"accumulator_overflow is saturate, wrap or error"),
        (bad(accumulator_bits=65), r"accumulator_bits must be in 2\.\.64, got 65"),
        (bad(biases=1), r"biases must be True or False, got 1"),
        (lambda: Recipe("", **PLAIN), r"a recipe needs a name, got ''"),
        (
            lambda: bad()().override("a", loss="squared_error"),
            r"layers 'a' cannot override 'loss'; they can weight, activation",
        ),
        (lambda: bad()().override("", weight="fxp-s8/6"), r"an override needs a pattern of layer names, got ''"),
        (lambda: bad()().override("a", biases="no"), r"layers 'a': biases must be True or False, got 'no'"),
        (lambda: bad()().override("a", weight="fxp"), r"^weight: "),
        (
            lambda: bad()().override("a", accumulator_bits=10),
            r"recipe \"bad for layers 'a'\": an activation times a weight takes",
        ),
        (
            lambda: bad()().override("a", activation="fxp-s16/4").override("*", weight="fxp-s20/4").at("a"),
            r"recipe \"bad for layer 'a'\": an activation times a weight takes 35 bits",
        ),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "a recipe is a table of entries, got list"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (json.dumps({"name": "x", **PLAIN, "colour": 1}).encode(), "a recipe has no entry 'colour'; it has name, weight"),
        (json.dumps({"name": "x", "weight": "fxp-s8/6"}).encode(), "the recipe lacks activation, error, gradient"),
        (
            json.dumps({"name": "x", **PLAIN, "overrides": [["a"]]}).encode(),
            r"overrides are a list of \[pattern, \{role: text\}\]",
        ),
        (json.dumps({"name": "x", **PLAIN, "overrides": 3}).encode(), r"overrides are a list of \[pattern, \{role: text\}\]"),
    ],
)
def test_files_that_hold_no_recipe(content, message, tmp_path):
    path = tmp_path / "own.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        Recipe.load(path)
    assert "\n" not in str(caught.value)


def test_unknown_names_and_missing_files(tmp_path):
    with pytest.raises(InputError, match=r"^recipe 'fixed17' is unknown; choose one of fixed16, .*, or name a \.json file$"):
        Recipe.load("fixed17")
    with pytest.raises(InputError, match=r"none\.json' cannot be read: No such file"):
        Recipe.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gradient": "fxp-s16/40"}, "gradient fxp-s16/40 stays below"),
        ({"momentum": "fxp-s16/40"}, "momentum fxp-s16/40 stays below"),
        ({"master": "fxp-s24/2"}, "master copy fxp-s24/2 has fewer fraction bits"),
        ({"weight": "fxp-s16/12 stochastic ties_even"}, "one rounding, got stochastic and ties_even"),
        ({"weight": "fxp-s16/12 wrap saturate"}, "one overflow, got wrap and saturate"),
        ({"weight": "fxp-s16/12 random:\u00b2"}, "random"),
        ({"overrides": (("dense1", (("accumulator_overflow", "saturate_symmetric"),)),)}, "saturate, wrap or error"),
    ],
)
def test_more_that_cannot_work(changes, message):
    with pytest.raises(InputError, match=message):
        replace(RECIPES["fixed16"], **changes)


def test_other_files_that_hold_no_recipe(tmp_path):
    path = tmp_path / "mine.json"
    for text, message in (
        ("{}", "lacks name, weight"),
        ("[" * 200_000, "is not JSON"),
        ("[1]", "a table"),
        ("{", "is not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message) as caught:
            Recipe.load(path)
        assert "\n" not in str(caught.value)
    path.write_text(json.dumps({"recipe": RECIPES["int8"].to_dict()}))  # the config.json of a run
    assert Recipe.load(path) == RECIPES["int8"]
