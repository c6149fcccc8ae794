"""Sweeps as they are specified: their cells and shards, and TOML files with every mistake told at its line."""

import json
import pickle
from itertools import product

import pytest

from intnet.errors import InputError
from intnet.recipe import RECIPES
from intnet.sweeps import GridSpec, SweepSpec, load_spec, parse_spec
from intnet.sweeps.toml import RANGE_MAX
from intnet.sweeps.trainings import CELLS_MAX

SPEC = SweepSpec({"weight.word_bits": range(6, 9), "rate": ["2^-3", 0.5], "seed": [1, 0]}, {"dataset": "digits", "epochs": 5})


def one_line(error):
    return "\n" not in str(error.value) and str(error.value)


# 1. Cells -----------------------------------------------------------------------------------------------------------------


def test_cells_are_all_combinations_in_the_order_of_the_axes():
    assert SPEC.cells() == list(product((6, 7, 8), ("2^-3", "0.5"), (1, 0)))
    training = SPEC.training((7, "0.5", 1))
    assert (training.dataset, training.epochs, float(training.rate), training.seed) == ("digits", 5, 0.5, 1)
    assert training.recipe.weight.format.word_bits == 7
    assert SPEC.name_of((7, "0.5", 1)) == "weight.word_bits 7, rate 0.5, seed 1"


def test_a_value_alone_is_one_and_the_same_value_counts_once():
    assert SweepSpec({"seed": 3}).cells() == [(3,)]
    assert SweepSpec({"rate": "2^-3"}).cells() == [("2^-3",)]
    assert SweepSpec({"seed": (i // 2 for i in range(6))}).cells() == [(0,), (1,), (2,)]
    assert SweepSpec([("seed", [0]), ("epochs", [1])]).cells() == [(0, 1)]


def test_specifications_are_frozen_equal_hashable_and_sent_without_their_cells():
    again = SweepSpec(dict(SPEC.axes), dict(SPEC.settings))
    assert (again, hash(again)) == (SPEC, hash(SPEC))
    assert SweepSpec(dict(SPEC.axes), {"dataset": "digits"}) != SPEC
    many = SweepSpec({"seed": range(50_000), "recipe": ["fixed16", "int8"]})
    sent = pickle.dumps(many)
    assert len(sent) < 1_000_000
    copied = pickle.loads(sent)
    assert (copied, hash(copied), copied.cells()) == (many, hash(many), many.cells())
    few = SweepSpec({"seed": [0], "word_bits": range(6, 17)})
    assert few.cells()
    assert len(pickle.dumps(few)) < 2000
    with pytest.raises(AttributeError):
        SPEC.axes = ()


def test_the_study_is_what_makes_cells_comparable():
    study = SPEC.study()
    more = SweepSpec({**dict(SPEC.axes), "weight.word_bits": range(4, 17)}, dict(SPEC.settings))
    assert more.study() == study
    assert SweepSpec(dict(SPEC.axes), dict(reversed(SPEC.settings))).study() == study
    for axes, settings in (
        (dict(reversed(SPEC.axes)), SPEC.settings),
        ({"seed": [0]}, SPEC.settings),
        (SPEC.axes, {"dataset": "digits", "epochs": 6}),
        (SPEC.axes, {"dataset": "digits"}),
        (SPEC.axes, {"dataset": "digits", "epochs": 5, "recipe": "fixed16"}),
    ):
        assert SweepSpec(axes, settings).study() != study


def test_a_recipe_in_a_file_is_known_by_its_contents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    studies = []
    for name in ("fixed16", "niti8"):
        recipe = RECIPES[name].to_dict() | {"name": "mine"}
        (tmp_path / "mine.json").write_text(json.dumps(recipe))
        spec = SweepSpec({"seed": [0]}, {"recipe": "mine.json"})
        assert spec.training((0,)).recipe.to_dict() == recipe
        studies.append(spec.study())
    assert studies[0] != studies[1]
    (tmp_path / "mine.json").unlink()
    assert pickle.loads(pickle.dumps(spec)).training((0,)).recipe.to_dict() == recipe  # a worker has no such file
    with pytest.raises(InputError, match="cannot be read"):
        SweepSpec({"seed": [0]}, {"recipe": "mine.json"})


def test_impossible_combinations_are_refused_or_skipped():
    axes = {"weight.word_bits": range(3, 7), "weight.fraction_bits": [2, 4], "master.format": ["none", "fxp-s5/4"]}
    with pytest.raises(InputError) as error:
        SweepSpec(axes)
    assert "weight.word_bits 6, weight.fraction_bits 2, master.format fxp-s5/4" in one_line(error)
    assert 'leave it out, or say impossible = "skip"' in str(error.value)
    skipped = SweepSpec(axes, impossible="skip")
    possible = [(w, f, m) for w, f, m in product(range(3, 7), (2, 4), axes["master.format"]) if m == "none" or w <= 5]
    assert [(w, f, m[:8]) for w, f, m in skipped.cells()] == possible
    with pytest.raises(InputError, match="is impossible") as error:
        SweepSpec({"rate": ["0"]}, impossible="skip")
    assert "skip" not in one_line(error)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (({},), "a sweep needs at least one axis"),
        (({"seed": []},), "axis seed is empty"),
        (({"sed": [0]},), "there is no axis 'sed'; did you mean 'seed'?"),
        (({"seed": [0]}, {"epoch": 3}), "there is no axis 'epoch'; did you mean 'epochs'?"),
        (({"seed": [0]}, {"seed": 1}), "seed is both an axis and a setting"),
        (([("seed", [0]), ("seed", [1])],), "axes name something twice"),
        (({"weight.word_bits@A": [8], "weight.word_bits@a": [8]},), "axes name something twice"),
        ((5,), "axes are a table of names, got int"),
        (("seed",), "axes are a table of names, got str"),
        (({"seed": [0]}, (), "maybe"), "impossible is refuse or skip, got 'maybe'"),
        (({"seed": range(CELLS_MAX), "epochs": [1, 2]},), f"at most {CELLS_MAX} cells, got {2 * CELLS_MAX}"),
        (({"seed": range(10**15)},), f"at most {CELLS_MAX} cells"),
        (({"dataset": ["imagenet"]},), "there is no data set 'imagenet'; there are digits"),
        (({"model": ["alexnet"]},), "model 'alexnet' is unknown; choose one of mlp"),
        (({"recipe": ["fixed17"]},), "recipe 'fixed17' is unknown; choose one of fixed16"),
        (({"schedule": ["cosine"]},), "a schedule is"),
        (({"momentum": [0.9]}, {"recipe": "niti8"}), "is impossible"),
    ],
)
def test_what_is_no_sweep(arguments, part):
    with pytest.raises(InputError) as error:
        SweepSpec(*arguments)
    assert part in one_line(error)


# 2. Shards ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [1, 2, 5, 12, 13, 40])
@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        GridSpec("digits", range(9, 11), range(12, 15), range(2)),
        GridSpec("digits", range(9, 10), range(12, 14), range(7)),
    ],
    ids=["sweep", "grid", "seeds"],
)
def test_shards_part_the_cells(spec, of):
    shards = [spec.shard(number, of) for number in range(1, of + 1)]
    cells = [cell for shard in shards for cell in shard]
    assert sorted(cells) == sorted(spec.cells())
    assert len(set(cells)) == len(cells)
    if spec is SPEC:
        assert max(map(len, shards)) - min(map(len, shards)) <= 1
    elif of <= len(spec.seeds):
        seeds = [{cell.seed for cell in shard} for shard in shards]
        assert all(not one & other for i, one in enumerate(seeds) for other in seeds[:i])


# 3. TOML ------------------------------------------------------------------------------------------------------------------

WHOLE = """
study = "training"   # the default
impossible = "skip"

[settings]
dataset = "digits"
hidden = [8]
augmentation = false
weight.rounding = "floor"
"error.rounding@dense*" = "floor"

[axes]
weight.word_bits = "6:8"
activation = {word_bits = [9], fraction_bits = [4]}
"weight.word_bits@dense2" = [7]
rate = ["2^-3", 0.5]
hidden_is_not_an_axis = []

[axes.error]
word_bits = 12
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_toml_file(end, mark, tmp_path):
    text = WHOLE.replace("hidden_is_not_an_axis = []\n", "").replace("\n", end)
    (tmp_path / "a sweep.toml").write_bytes((mark + text).encode())
    assert load_spec(tmp_path / "a sweep.toml") == SweepSpec(
        {
            "weight.word_bits": [6, 7],
            "activation.word_bits": [9],
            "activation.fraction_bits": [4],
            "weight.word_bits@dense2": [7],
            "rate": ["2^-3", 0.5],
            "error.word_bits": [12],
        },
        {
            "dataset": "digits",
            "hidden": [8],
            "augmentation": False,
            "weight.rounding": "floor",
            "error.rounding@dense*": "floor",
        },
        "skip",
    )
    (tmp_path / "a sweep.toml").write_bytes((mark + WHOLE.replace("\n", end)).encode())
    with pytest.raises(InputError, match=r"a sweep.toml, line 17: there is no axis 'hidden_is_not_an_axis'; ") as error:
        load_spec(tmp_path / "a sweep.toml")
    assert one_line(error)


def test_a_toml_file_of_the_cliff_study():
    text = 'study = "cliffs"\n[settings]\niterations = 2000\n[axes]\nlr_shift = "9:12"\nfraction_bits = [12, 14]\nseed = 3\n'
    assert parse_spec(text) == GridSpec("digits", (9, 10, 11), (12, 14), (3,), 2000)
    whole = parse_spec('study = "cliffs"\n[axes]\nlr_shift = "5:20"\n')
    assert whole == GridSpec("digits")


CLIFFS = 'study = "cliffs"\n'
MISTAKES = {
    "an unknown entry": ('[axes]\nseed = [0]\n[setings]\nx = 1\n', 3, "no entry 'setings'; did you mean 'settings'?"),
    "an unknown axis": ("[axes]\n# sed = 1\nsed = [0]\n", 3, "there is no axis 'sed'; did you mean 'seed'?"),
    "an unknown setting": ("[settings]\n\nepoch = 3\n[axes]\nseed = [0]\n", 3, "'epoch'; did you mean 'epochs'?"),
    "an unknown dotted axis": ("[axes]\nweight.word_bit = [3]\n", 2, "did you mean 'weight.word_bits'?"),
    "an unknown axis in a table": ("[axes.error]\nword_bits=[8]\n[axes.weight]\nword_bit=[8]\n", 4, "'weight.word_bit'"),
    "a role alone": ("[axes]\nweight = [3]\n", 2, "there is no axis 'weight'; did you mean 'weight."),
    "no layers": ('[axes]\n"weight.word_bits@a b" = [3]\n', 2, "names no layers"),
    "an empty axis": ("[axes]\nseed = [0]\nrate = [ ]\n", 3, "axis rate is empty; give it at least one value"),
    "no axes": ("[settings]\nepochs = 1\n", None, "the sweep has no axes; write [axes]"),
    "empty axes": ("[axes]\n", None, "the sweep has no axes"),
    "an empty file": ("", None, "the sweep has no axes"),
    "axes that are no table": ('axes = "seed"\n', 1, "axes is a table: write [axes] above its entries"),
    "axes in a list": ("\n[[axes]]\nseed = [0]\n", 2, "axes is a table"),
    "a range backwards": ('[axes]\nseed = "5:3"\n', 2, f"'5:3' has 0 values; allowed are 1..{RANGE_MAX}"),
    "an empty range": ('[axes]\nseed = "5:5"\n', 2, "has 0 values"),
    "a range too long": ('[axes]\nseed = "0:99999999999999999999"\n', 2, "has 99999999999999999999 values"),
    "a range of digits": (f'[axes]\nseed = "0:{"9" * 5000}"\n', 2, "takes integers"),
    "no range": ('[axes]\nepochs = "1-5"\n', 2, 'takes integers, [5, 7], or a half-open range, "5:20", got \'1-5\''),
    "a range with a step": ('[axes]\nepochs = "1:9:2"\n', 2, "got '1:9:2'"),
    "a range in a list": ('[axes]\nepochs = ["1:9"]\n', 2, "epochs takes an integer"),
    "a range of a setting": ('[settings]\nepochs = "1:3"\n[axes]\nseed = 0\n', 2, "epochs takes an integer"),
    "another type": ("[axes]\nseed = [0]\nepochs = [1.5]\n", 3, "epochs takes an integer in 1..2**63 - 1, got 1.5"),
    "another type in a table": (
        "[axes]\nerror.word_bits = [8]\n[axes.weight]\nword_bits = [true]\n", 4, "weight.word_bits takes an integer, got True",
    ),
    "another type of a seed": ('[settings]\nseed = "x"\n[axes]\nepochs = [1]\n', 2, "seed takes an integer"),
    "a date": ("[axes]\nrate = [2020-01-01]\n", 2, "rate: a factor is a number"),
    "a list of a setting": ("[settings]\nrate = [1]\n[axes]\nseed = [0]\n", 2, "rate: a factor is a number"),
    "several lines": ('[axes]\nseed = [0]\nrate = [\n  "2^-3",\n  "fast",\n]\n', 3, "rate: a factor is a number"),
    "an axis and a setting": ("[axes]\nseed = [0]\n[settings]\nseed = 1\n", 4, "seed is both an axis and a setting"),
    "an unknown model": ('[settings]\nmodel = "alexnet"\n[axes]\nseed = [0, 1]\n', 2, "model 'alexnet' is unknown"),
    "an unknown data set": ('[axes]\nseed = [0]\ndataset = ["digits", "x"]\n', 3, "there is no data set 'x'; there are digits"),
    "an impossible word": ("[axes]\nseed = [0]\nword_bits = [16, 40]\n", 3, "word_bits 40 is impossible: "),
    "impossible": ('impossible = "never"\n[axes]\nseed = [0]\n', 1, "impossible is 'refuse' or 'skip', got 'never'"),
    "a study": ('study = "clifs"\n[axes]\nseed = [0]\n', 1, "study is 'training' or 'cliffs', got 'clifs'"),
    "syntax": ("[axes]\nseed = [0\nrate = 1\n", 3, "this is not TOML: "),
    "no value": ("[axes]\nseed =\n", 2, "this is not TOML: Invalid value"),
    "an open text": ('[axes]\nrate = ["2^-3]\n', 2, "this is not TOML: "),
    "an open list": ("[axes]\nrate = [1,\n\n", 3, "this is not TOML: "),
    "a key without quotes": ("[axes]\n\nweight.word_bits@dense1 = [3]\n", 3, "this is not TOML: Expected '='"),
    "a key twice": ("[axes]\nseed = [0]\nseed = [1]\n", 3, "this is not TOML: Cannot overwrite a value"),
    "a table twice": ("[axes]\nseed = [0]\n[axes]\nrate = [1]\n", 3, "this is not TOML: Cannot declare"),
    "digits": (f"[axes]\nseed = {'9' * 5000}\n", 2, "this is not TOML: "),
    "brackets": (f"[axes]\nseed = {'[' * 5000}\n", 2, "this is not TOML: "),
    "an unknown cliff axis": (f"{CLIFFS}[axes]\nlr_shift = [9]\nrate = [1]\n", 4, "the cliff study has no 'rate'"),
    "an unknown cliff setting": (f"{CLIFFS}[settings]\niteration = 1\n[axes]\nseed = 1\n", 3, "did you mean 'iterations'?"),
    "a cliff axis that is a setting": (f"{CLIFFS}[axes]\niterations = [2000]\n", 3, "iterations belongs under [settings]"),
    "a cliff setting that is an axis": (f"{CLIFFS}[settings]\nseed = 1\n[axes]\nlr_shift = 9\n", 3, "belongs under [axes]"),
    "another cliff data set": (f'{CLIFFS}[axes]\nseed = 1\n[settings]\ndataset = "cifar10"\n', 5, "of digits or mnist"),
    "cliff words": (f'{CLIFFS}[axes]\nseed = 1\nfraction_bits = "8:40"\n', 4, "fraction bits must be in 0..31, got 39"),
    "cliff texts": (f'{CLIFFS}[axes]\nseed = 1\nlr_shift = ["a"]\n', 4, "lr_shifts must be integers"),
    "cliff flags": (f"{CLIFFS}[axes]\nseed = [true]\n", 3, "seed takes integers, got true or false"),
    "few iterations": (f"{CLIFFS}[settings]\niterations = 5\n[axes]\nseed = 1\n", 3, "iterations must be an integer of"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "part"), MISTAKES.values(), ids=MISTAKES)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["", "CRLF"])
def test_mistakes_are_told_with_their_line(text, line, part, end, tmp_path):
    path = tmp_path / "spec.toml"
    path.write_bytes(text.replace("\n", end).encode())
    with pytest.raises(InputError) as error:
        load_spec(path)
    told = one_line(error)
    assert told.startswith(f"{path}, line {line}: " if line else f"{path}: "), told
    assert part in told
    assert len(told) < 1000


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none.toml: No such file or directory; name a TOML file") as error:
        load_spec(tmp_path / "none.toml")
    assert one_line(error)
    with pytest.raises(InputError, match=r"cannot read .*: Is a directory"):
        load_spec(tmp_path)
    (tmp_path / "latin.toml").write_bytes("[axes]\n# für\nseed = [0]\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin.toml, line 2: this is no text in UTF-8") as error:
        load_spec(tmp_path / "latin.toml")
    assert one_line(error)
    (tmp_path / "image.png").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match=r"image.png, line \d+: "):
        load_spec(tmp_path / "image.png")
