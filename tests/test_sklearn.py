"""The classifier as scikit-learn's tools meet it: its checks, searches and pickles; and the bits it trains to."""

import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from intnet import datasets, kernels
from intnet.errors import InputError
from intnet.inputs import ArrayInputs, Augmentation, Encoder, Inputs
from intnet.layers import Dense, ReLU
from intnet.network import Network
from intnet.optimizers import SGD
from intnet.recipe import RECIPES, ROLES
from intnet.sklearn import IntegerMLPClassifier
from intnet.telemetry import Reading
from intnet.tensor import dequantize, quantize
from intnet.training import Trainer

X_IRIS, Y_IRIS = load_iris(return_X_y=True)
X_DIGITS, Y_DIGITS = load_digits(return_X_y=True)
FORMATS = {"16 bits": {}, "8 bits": {"word_bits": 8}, **{name: {"recipe": name} for name in RECIPES}}


def small(**changes):
    """Return a classifier that trains in an instant."""
    return IntegerMLPClassifier(**({"hidden_layer_sizes": (12,), "max_iter": 4, "random_state": 3} | changes))


@parametrize_with_checks([IntegerMLPClassifier(), IntegerMLPClassifier((30,), recipe="int8", max_iter=20)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


# Formats


def test_default_formats_are_those_of_fixed16():
    made, ready = small().fit(X_IRIS, Y_IRIS).recipe_, RECIPES["fixed16"]
    for role in ROLES:
        assert getattr(made, role) == getattr(ready, role)
    assert (made.accumulator_bits, made.accumulator_overflow, made.biases) == (32, ready.accumulator_overflow, True)


def test_shorter_words_keep_the_ranges():
    short, long = (small(word_bits=bits).fit(X_IRIS, Y_IRIS).recipe_ for bits in (10, 24))
    for role in ROLES[:5]:
        one, other = getattr(short, role).format, getattr(long, role).format
        assert (one.word_bits, other.word_bits, other.fraction_bits - one.fraction_bits) == (10, 24, 14)
    assert long.accumulator_bits == 64


def test_every_format_can_be_named():
    named = small(
        word_bits=14, weight_fraction_bits=11, activation_fraction_bits=9, error_fraction_bits=10, gradient_fraction_bits=6,
        momentum_fraction_bits=4, accumulator_bits=40, rounding="floor", overflow="wrap", momentum=0.5,
    ).fit(X_IRIS, Y_IRIS)  # fmt: skip
    assert str(named.recipe_.weight) == "fxp-s14/11 floor wrap random:16"
    assert [getattr(named.recipe_, role).format.fraction_bits for role in ROLES[:5]] == [11, 9, 10, 6, 4]
    assert (named.recipe_.accumulator_bits, named.recipe_.accumulator_overflow.value) == (40, "wrap")
    assert {one.word_bits for one in named.telemetry_} == {14, 40}


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_each_format_learns(form):
    model = small(max_iter=60, **form).fit(X_IRIS, Y_IRIS)
    assert model.score(X_IRIS, Y_IRIS) > 0.8


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_a_sample_is_predicted_as_if_it_were_alone(form):
    model = small(**form).fit(X_IRIS, Y_IRIS)
    every = model.decision_function(X_IRIS)
    assert_array_equal(every, np.concatenate([model.decision_function(row[None]) for row in X_IRIS]))
    order = np.random.default_rng(0).permutation(len(X_IRIS))
    assert_array_equal(every[order], model.decision_function(X_IRIS[order]))


# The bits


def test_an_integer_random_state_is_the_seed_of_the_network():
    model = small(standardize=False, decay="2^-10").fit(X_DIGITS / 16, Y_DIGITS)
    layers = [Dense(12, initial="xavier_uniform"), ReLU(), Dense(10, initial="xavier_uniform")]
    network = Network(layers, (64,), "fixed16", seed=3)
    data = datasets.load_digits()
    codes = Inputs(data.codes, Y_DIGITS, replace(Encoder.of(data, network.recipe), shape=(64,)), 10)
    trainer = Trainer(network, SGD("2^-3", decay="2^-10"), codes, epochs=4, batch=32)
    trainer.run()
    assert model.network_.digest() == network.digest()
    assert model.loss_curve_ == [row.train_loss for row in trainer.history]
    assert model.telemetry_ == trainer.readings


@pytest.mark.parametrize("form", [{}, {"recipe": "int8", "momentum": 0.5}, {"recipe": "bfp8"}], ids=str)
def test_same_bits_in_every_fit_and_on_any_number_of_threads(form):
    before = kernels.threads()
    models = []
    try:
        for threads in (1, 2, 2):
            kernels.set_threads(threads)
            models.append(small(**form).fit(X_DIGITS, Y_DIGITS))
    finally:
        kernels.set_threads(before)
    assert len({one.network_.digest() for one in models}) == 1
    first, *others = (one.decision_function(X_DIGITS) for one in models)
    for other in others:
        assert_array_equal(first, other)
    again = models[0].fit(X_DIGITS, Y_DIGITS)
    assert again.network_.digest() == models[1].network_.digest()
    assert small(**form, random_state=4).fit(X_DIGITS, Y_DIGITS).network_.digest() != models[0].network_.digest()


def test_random_states():
    one, two = (small(random_state=np.random.RandomState(5)).fit(X_IRIS, Y_IRIS) for _ in range(2))
    assert one.network_.digest() == two.network_.digest()
    assert (
        small(random_state=None).fit(X_IRIS, Y_IRIS).network_.seed != small(random_state=None).fit(X_IRIS, Y_IRIS).network_.seed
    )


# What fit leaves behind


def test_what_is_known_after_fit():
    model = small().fit(X_DIGITS, Y_DIGITS)
    assert (model.n_features_in_, model.n_iter_, len(model.loss_curve_), model.died_) == (64, 4, 4, None)
    assert_array_equal(model.classes_, range(10))
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    assert all(isinstance(one, Reading) for one in model.telemetry_)
    assert {one.epoch for one in model.telemetry_} == {1, 2, 3, 4}
    assert model.network_.parameter_count == 64 * 12 + 12 + 12 * 10 + 10
    assert str(model.input_format_) == "fxp-s16/9"


def test_two_classes_with_names():
    names = np.array(["versicolor", "virginica"])[Y_IRIS[50:] - 1]
    model = small(max_iter=30).fit(X_IRIS[50:], names)
    decision, shares = model.decision_function(X_IRIS), model.predict_proba(X_IRIS)
    assert (decision.shape, shares.shape, list(model.classes_)) == ((150,), (150, 2), ["versicolor", "virginica"])
    assert_array_equal(model.predict(X_IRIS), model.classes_[(decision > 0).astype(int)])
    np.testing.assert_allclose(shares[:, 1], 1 / (1 + np.exp(-decision)), rtol=1e-12)
    assert model.score(X_IRIS[50:], names) > 0.9


def test_outputs_are_exactly_those_of_the_network():
    model = small(recipe="int8").fit(X_DIGITS, Y_DIGITS)
    scaled = np.clip((X_DIGITS - model.mean_) / model.scale_, -8, 8)
    assert_array_equal(
        model.decision_function(X_DIGITS), dequantize(model.network_.forward(quantize(scaled, model.input_format_)))
    )
    assert str(model.input_format_) == "fxp-s8/4"  # just below +-8


@pytest.mark.parametrize("form", [{}, {"recipe": "bfp8", "momentum": 0.5}], ids=str)
def test_pickles(form):
    model = small(**form).fit(X_DIGITS, Y_DIGITS)
    text = pickle.dumps(model)
    again = pickle.loads(text)
    assert_array_equal(again.predict_proba(X_DIGITS), model.predict_proba(X_DIGITS), strict=True)
    assert again.network_.digest() == model.network_.digest()
    fewer = small(**form).fit(X_DIGITS[:200], Y_DIGITS[:200])
    assert abs(len(text) - len(pickle.dumps(fewer))) < 200  # no training data within


def test_clones_are_unfitted_and_equal():
    model = small(recipe=RECIPES["bfp8"], learning_rate="2^-4").fit(X_IRIS, Y_IRIS)
    copied = clone(model)
    assert repr(copied.get_params()) == repr(model.get_params())
    assert not hasattr(copied, "network_")
    assert copied.fit(X_IRIS, Y_IRIS).network_.digest() == model.network_.digest()


# In scikit-learn's tools


@pytest.mark.parametrize("form", [{}, {"word_bits": 8}], ids=str)
def test_digits(form):
    model = IntegerMLPClassifier((32,), max_iter=12, random_state=0, **form)
    assert cross_val_score(model, X_DIGITS, Y_DIGITS, cv=3).mean() >= 0.9


@pytest.mark.filterwarnings("ignore:the network has died")
def test_a_search_over_formats():
    model = small(hidden_layer_sizes=(), max_iter=30, standardize=False)
    grid = {"word_bits": [5, np.int64(16)], "rounding": ["stochastic", "ties_even"], "learning_rate": ["2^-1", 0.125]}
    named = {f"integermlpclassifier__{name}": values for name, values in grid.items()}
    search = GridSearchCV(make_pipeline(MinMaxScaler((-1, 1)), model), named, cv=3, error_score="raise")
    search.fit(X_IRIS, Y_IRIS)
    assert search.best_params_["integermlpclassifier__word_bits"] == 16
    assert len(search.cv_results_["params"]) == 8
    assert search.best_score_ > 0.8


def test_a_search_goes_on_where_formats_cannot_work():
    search = GridSearchCV(small(), {"accumulator_bits": [16, 32]}, cv=2, error_score=0)
    with pytest.warns(FitFailedWarning, match="the accumulator has 16"):
        search.fit(X_IRIS, Y_IRIS)
    assert search.best_params_ == {"accumulator_bits": 32}


# When training ends


def test_training_ends_when_the_loss_stays():
    model = small(max_iter=50, tol=1e6, n_iter_no_change=3).fit(X_IRIS, Y_IRIS)
    assert (model.n_iter_, model.died_) == (4, None)
    assert small(max_iter=12, tol=1e6, n_iter_no_change=None).fit(X_IRIS, Y_IRIS).n_iter_ == 12


def test_a_dead_network_warns():
    model = small(word_bits=8, rounding="ties_even", learning_rate="2^-20")
    with pytest.warns(ConvergenceWarning, match="no weight has moved .* try a greater rate") as caught:
        model.fit(X_IRIS, Y_IRIS)
    assert len(caught) == 1
    assert model.died_ == str(caught[0].message)
    assert model.predict(X_IRIS).shape == (150,)


# Features


def test_features_of_any_scale():
    scaled = X_IRIS * [1e-9, 1, 1e9, -1e30] + [0, 1e3, 0, 0]
    constant = np.c_[scaled, np.full(150, 0.1)]
    model = small(max_iter=30).fit(constant, Y_IRIS)
    assert model.scale_[4] == 1
    assert model.score(constant, Y_IRIS) > 0.9
    assert np.isfinite(model.decision_function(np.full((2, 5), 1e308))).all()


def test_too_large_features_are_refused():
    with pytest.raises(InputError, match=r"feature 1 reaches 1e\+300, too much to be standardized"):
        small().fit(np.c_[X_IRIS[:, 0], np.where(Y_IRIS, 1e300, -1e300)], Y_IRIS)


def test_a_rare_value_does_not_coarsen_the_others():
    rare = np.r_[X_IRIS, [[1e4] * 4]]
    assert str(small(recipe="int8").fit(rare, np.r_[Y_IRIS, 0]).input_format_) == "fxp-s8/4"


# Mistakes

MISTAKES = [
    ({"hidden_layer_sizes": (10, 0)}, r"hidden_layer_sizes must be integers of at least 1, got \(10, 0\)"),
    ({"hidden_layer_sizes": 2.5}, r"hidden_layer_sizes must be integers of at least 1, got 2.5"),
    ({"word_bits": 1}, "word_bits must be an integer of at least 2, got 1"),
    ({"word_bits": 16.0}, "word_bits must be an integer of at least 2, got 16.0"),
    ({"word_bits": 70}, "the weight's format: .*got 70"),
    ({"weight_fraction_bits": 0.5}, "the weight's format: fraction_bits .*got 0.5"),
    ({"activation_fraction_bits": 16}, "activation fxp-s16/16 .* use at most 15 fraction bits"),
    ({"accumulator_bits": 16}, "an activation times a weight takes 31 bits and the accumulator has 16"),
    ({"rounding": "nearest"}, "nearest"),
    ({"overflow": "clip"}, "clip"),
    ({"recipe": "fixed17"}, "recipe 'fixed17' is unknown; choose one of fixed16"),
    ({"recipe": "int8", "word_bits": 12}, "recipe 'int8' names every format itself; leave word_bits at its default"),
    ({"recipe": "niti8", "momentum": 0.5}, "no momentum role"),
    ({"recipe": "niti8", "learning_rate": 0.1}, "power of two"),
    ({"learning_rate": -1}, "learning_rate: a factor must be"),
    ({"learning_rate": "fast"}, "learning_rate: a factor is a number"),
    ({"learning_rate": 0}, "learning_rate must be greater than 0, got 0"),
    ({"momentum": 1}, "momentum must be less than 1"),
    ({"decay": None}, "decay: a factor is a number"),
    ({"schedule": "cosine"}, "constant, step or linear, got 'cosine'"),
    ({"schedule": 3}, "schedule must be a text"),
    ({"loss": "hinge"}, "loss 'hinge' is unknown"),
    ({"batch_size": "auto"}, "batch_size must be an integer of at least 1, got 'auto'"),
    ({"max_iter": 0}, "max_iter must be an integer of at least 1, got 0"),
    ({"n_iter_no_change": -1}, "n_iter_no_change must be an integer of at least 1, got -1"),
    ({"tol": "small"}, "tol must be a number of at least 0, got 'small'"),
    ({"standardize": "no"}, "standardize must be True or False, got 'no'"),
    ({"random_state": -1}, "Seed must be between 0"),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_mistakes_are_told_in_one_line(change, message):
    model = small(**change)  # only fit looks at parameters
    with pytest.raises(ValueError, match=message) as caught:
        model.fit(X_IRIS, Y_IRIS)
    assert "\n" not in str(caught.value)
    assert not hasattr(model, "network_")


def test_an_overflow_that_is_an_error_is_told():
    with pytest.raises(InputError, match="do not fit into fxp-s16/15"):
        small(weight_fraction_bits=15, learning_rate=16, overflow="error").fit(X_IRIS, Y_IRIS)


def test_without_scikit_learn_importing_says_what_to_install():
    code = "import sys; sys.modules['sklearn'] = None; import intnet; import intnet.sklearn"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "ImportError: intnet.sklearn needs scikit-learn 1.6 or later" in result.stderr.splitlines()[-1]
    assert 'pip install "intnet[sklearn]"' in result.stderr.splitlines()[-1]


# Inputs that are arrays

VALUES = quantize(np.linspace(-1, 1, 12).reshape(4, 3), "fxp-s8/6")


def test_array_inputs_give_their_rows():
    batch = ArrayInputs(VALUES, np.array([0, 1, 1, 0]), 2).batch(np.array([3, 1]))
    assert_array_equal(batch.mantissa, VALUES.mantissa[[3, 1]], strict=True)
    assert (batch.exponent.item(), batch.format) == (-6, VALUES.format)


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (VALUES, [0, 1], r"samples \(n, features\) and integer labels \(n,\), got \(4, 3\) and int64 \(2,\)"),
        (VALUES, [0.0, 1, 0, 1], "float64"),
        (VALUES, [0, 1, 2, 0], r"labels must be in 0\.\.1, got 0 to 2"),
        (quantize(np.ones((4, 3)), "bfp-s8/row"), [0, 1, 0, 1], r"one exponent for all, got exponents of shape \(4, 1\)"),
    ],
)
def test_array_inputs_refuse_what_does_not_fit(values, labels, message):
    with pytest.raises(InputError, match=message):
        ArrayInputs(values, np.array(labels), 2)


def test_array_inputs_are_not_augmented():
    with pytest.raises(InputError, match="augmentation needs images in codes"):
        ArrayInputs(VALUES, np.zeros(4, int), 2).batch(np.array([0]), Augmentation())
