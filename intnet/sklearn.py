"""A scikit-learn classifier that trains in integers: word lengths, rounding and rate are hyperparameters to search over.

The floats are at the edge alone. Before training, features are standardized in float64 and quantized once; after it, the
integer outputs are read as real numbers. Needs the extra ``intnet[sklearn]``.
"""

import warnings
from collections.abc import Sequence
from inspect import signature
from math import inf, prod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intnet.errors import InputError
from intnet.formats import Fixed, Overflow, Rounding
from intnet.inputs import ArrayInputs
from intnet.layers import Dense, Layer, ReLU
from intnet.network import Network
from intnet.optimizers import SGD, Factor, Schedule
from intnet.recipe import RECIPES, ROLES, Recipe, Role
from intnet.telemetry import Reading
from intnet.tensor import dequantize, quantize
from intnet.training import Trainer

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state, column_or_1d
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        'intnet.sklearn needs scikit-learn 1.6 or later, which is not installed: pip install "intnet[sklearn]"', name="sklearn"
    ) from error

CLIP = float(np.nextafter(8, 0))
"""Standardized features end just below 8 standard deviations, so that a rare value does not cost all the others their bits."""

_TEMPLATE = RECIPES["fixed16"]
_BUILDS_RECIPE = (
    "word_bits", *(f"{role}_fraction_bits" for role in ROLES if role != "master"), "accumulator_bits", "rounding", "overflow"
)  # fmt: skip
_CHUNK_VALUES = 1 << 22  # of the widest layer, predicted at a time


class IntegerMLPClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A multi-layer perceptron with ReLU whose training and prediction run in integers.

    Every number of the training is a word of the lengths below. The same data, parameters and integer `random_state` give the
    same bits, on any number of threads.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int, or int
        Units of the hidden layers; ``()`` is logistic regression.
    recipe : Recipe or str, optional
        Every format at once: a :class:`intnet.recipe.Recipe`, the name of a ready-made one (``"int8"``, ``"bfp8"``,
        ``"niti8"``, ``"wide"``, ...), or a JSON file. Then `word_bits` and the parameters after it, to `overflow`, must be left
        as they are. By default fixed-point words are built from these:
    word_bits : int
        Length of every stored number: weights, activations, errors, gradients, momentum.
    weight_fraction_bits, activation_fraction_bits, error_fraction_bits : int, optional
    gradient_fraction_bits, momentum_fraction_bits : int, optional
        By default the ranges are those of the recipe ``"fixed16"`` whatever the word length is: shorter words are coarser.
    accumulator_bits : int, optional
        Width of the sums of products; by default 32, or 64 for words of more than 16 bits.
    rounding : str
        A name of :class:`intnet.Rounding`. Activations are not rounded stochastically, but then to nearest, ties to even.
    overflow : {"saturate", "wrap", "saturate_symmetric", "error"}
        What becomes of a number that leaves its word. Accumulators follow, but saturate for "saturate_symmetric".
    learning_rate : float or str, optional
        Of the mean gradient: ``0.1``, or as text ``"2^-3"``; powers of two cost a shift. By default ``2^-3``. For recipes with
        normalized updates a power of two (see :class:`intnet.optimizers.SGD`), by default ``2^3``.
    momentum, decay : float or str
        Factors of momentum, below 1, and of weight decay (scikit-learn's `alpha`).
    schedule : str
        ``"constant"``, ``"linear"`` (falling to zero at `max_iter`), or ``"step:100=2^-4,150=2^-5"``.
    loss : {"cross_entropy", "squared_error", "niti_cross_entropy"}, optional
        By default the recipe's.
    batch_size : int
        At most; of fewer samples, all.
    max_iter : int
        Epochs.
    tol : float
    n_iter_no_change : int, optional
        Training ends when for so many epochs the loss has not fallen by more than `tol` below the least so far; None: at
        `max_iter` alone.
    standardize : bool
        Whether every feature's mean is subtracted and the result divided by its standard deviation, both of the training data,
        and clipped to +-8; else features are taken as they are, and should lie in about -1..1. Either way they are then
        quantized to nearest, ties to even, saturating, to the activation's word; for block formats with the one exponent that
        holds the training data.
    random_state : int, RandomState or None
        Of the initial weights, the order of the samples and stochastic rounding. An int is the seed of the network itself.
    device : {"cpu", "gpu", "auto"}
        Where to train. The bits are the same; predictions are made on the CPU.

    Attributes
    ----------
    classes_ : array
        The class labels, sorted.
    n_features_in_ : int
    feature_names_in_ : array of str
        Where X had such names.
    n_iter_ : int
        Epochs run.
    loss_curve_ : list of float
        Mean loss of every epoch, in nats or squared error, of the outputs as they were trained.
    died_ : str or None
        Why training stopped before its end, if the network died; that warns, unless it has learned all the training data.
    telemetry_ : list of intnet.telemetry.Reading
        What became of the numbers, tensor by tensor and epoch by epoch; ``intnet.telemetry.to_csv`` writes them.
    recipe_ : Recipe
    network_ : Network
        As trained.
    mean_, scale_ : arrays of float, or None
        Of the features; None without standardization.
    input_format_ : Fixed
        Of the quantized features.

    Notes
    -----
    In prediction a sample's outputs do not depend on those it comes with: where training shares an exponent over the
    activations of a batch, prediction finds one for each sample, as a batch of one would; and nothing is drawn: where a recipe
    rounds activations stochastically, prediction rounds them to nearest, ties to even. With ``overflow="error"`` it raises too.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = IntegerMLPClassifier((20,), word_bits=12, max_iter=20, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.9, str(model.recipe_.weight.format)
    (True, 'fxp-s12/10')
    """

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] | int = (100,),
        *,
        recipe: Recipe | str | None = None,
        word_bits: int = 16,
        weight_fraction_bits: int | None = None,
        activation_fraction_bits: int | None = None,
        error_fraction_bits: int | None = None,
        gradient_fraction_bits: int | None = None,
        momentum_fraction_bits: int | None = None,
        accumulator_bits: int | None = None,
        rounding: str = "stochastic",
        overflow: str = "saturate",
        learning_rate: float | str | None = None,
        momentum: float | str = 0,
        decay: float | str = 0,
        schedule: str = "constant",
        loss: str | None = None,
        batch_size: int = 32,
        max_iter: int = 100,
        tol: float = 1e-4,
        n_iter_no_change: int | None = 10,
        standardize: bool = True,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.recipe = recipe
        self.word_bits = word_bits
        self.weight_fraction_bits = weight_fraction_bits
        self.activation_fraction_bits = activation_fraction_bits
        self.error_fraction_bits = error_fraction_bits
        self.gradient_fraction_bits = gradient_fraction_bits
        self.momentum_fraction_bits = momentum_fraction_bits
        self.accumulator_bits = accumulator_bits
        self.rounding = rounding
        self.overflow = overflow
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.decay = decay
        self.schedule = schedule
        self.loss = loss
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.standardize = standardize
        self.random_state = random_state
        self.device = device

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train from the start.

        Parameters
        ----------
        X : (n_samples, n_features) real numbers
        y : (n_samples,) class labels

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or the data cannot be used (mostly an `intnet.InputError`); one line says which.

        Warns
        -----
        ConvergenceWarning
            If the network died: all outputs were zero, or no weight moved.
        """
        hidden = self._checked()
        recipe = self._recipe()
        features, targets = validate_data(self, X, y, dtype=np.float64, order="C")
        check_classification_targets(targets)
        classes, labels = np.unique(column_or_1d(targets, warn=True), return_inverse=True)
        if len(classes) < 2:
            raise InputError(f"a classifier needs samples of at least 2 classes, got 1 class: {classes[0]!r}")
        seed = self._seed()
        optimizer = self._optimizer(recipe)
        optimizer.check(recipe)
        trained = self._network(hidden, len(classes), recipe, seed)
        mean, scale = _standardization(features) if self.standardize else (None, None)
        scaled = _standardized(features, mean, scale)
        form = _input_format(recipe, scaled)
        values = quantize(scaled, form, "ties_even", "saturate")
        inputs = ArrayInputs(values, labels, len(classes))
        trainer = Trainer(trained, optimizer, inputs, epochs=self.max_iter, batch=self.batch_size, device=self.device)
        self._run(trainer)

        self.classes_, self.recipe_ = classes, recipe
        self.mean_, self.scale_, self.input_format_ = mean, scale, form
        self.n_iter_, self.died_ = trainer.epoch, trainer.died
        self.loss_curve_ = [row.train_loss for row in trainer.history]
        self.telemetry_: list[Reading] = trainer.readings
        # A new network with the state alone: layers keep what their backward pass needs, the last batch of the training data.
        self.network_ = self._network(hidden, len(classes), recipe, seed)
        self.network_.load_state(trained.state())
        if self.died_ is not None and trainer.history[-1].train_accuracy < 1:
            warnings.warn(self.died_, ConvergenceWarning, stacklevel=2)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the outputs as real numbers, exactly.

        Parameters
        ----------
        X : (n_samples, n_features) real numbers

        Returns
        -------
        (n_samples, n_classes) float64
            For two classes (n_samples,): the second output less the first; the second class is predicted where it is positive.
        """
        outputs = self._outputs(X)
        return outputs[:, 1] - outputs[:, 0] if outputs.shape[1] == 2 else outputs

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class of the greatest output of every sample, the first one of equals.

        Parameters
        ----------
        X : (n_samples, n_features) real numbers

        Returns
        -------
        (n_samples,) array of class labels
        """
        outputs = self._outputs(X)
        return self.classes_[outputs.argmax(axis=1)]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the softmax of the outputs, in float64.

        Parameters
        ----------
        X : (n_samples, n_features) real numbers

        Returns
        -------
        (n_samples, n_classes) float64
        """
        outputs = self._outputs(X)
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if network := state.get("network_"):
            # What joblib maps from a file is read-only, and Numba would compile every kernel anew for such arrays.
            network.load_state({name: np.array(array) for name, array in network.state().items()})

    # What the parameters mean

    def _checked(self) -> tuple[int, ...]:
        """Refuse numbers that cannot be used; return the hidden layers."""
        sizes: Any = self.hidden_layer_sizes
        try:
            hidden = (sizes,) if isinstance(sizes, (int, np.integer)) else tuple(sizes)
        except TypeError:
            hidden = (None,)
        for size in hidden:
            if not _is_count(size):
                raise InputError(f"hidden_layer_sizes must be integers of at least 1, got {sizes!r}")
        for name in ("batch_size", "max_iter", "n_iter_no_change"):
            value = getattr(self, name)
            if not (_is_count(value) or (value is None and name == "n_iter_no_change")):
                raise InputError(f"{name} must be an integer of at least 1, got {value!r}")
        if isinstance(self.tol, bool) or not isinstance(self.tol, (int, float, np.number)) or not 0 <= self.tol < inf:
            raise InputError(f"tol must be a number of at least 0, got {self.tol!r}")
        if not isinstance(self.standardize, (bool, np.bool_)):
            raise InputError(f"standardize must be True or False, got {self.standardize!r}")
        if not isinstance(self.schedule, str):
            raise InputError(f"schedule must be a text such as 'constant' or 'linear', got {self.schedule!r}")
        return tuple(int(size) for size in hidden)

    def _recipe(self) -> Recipe:
        """Return the recipe given, or the one that the other parameters describe."""
        if self.recipe is not None:
            defaults = signature(IntegerMLPClassifier).parameters
            for name in _BUILDS_RECIPE:
                if getattr(self, name) != defaults[name].default:
                    raise InputError(
                        f"recipe {getattr(self.recipe, 'name', self.recipe)!r} names every format itself; leave {name} at its "
                        f"default, or build a recipe of your own"
                    )
            return Recipe.load(self.recipe)
        word_bits: Any = self.word_bits
        overflow, rounding = Overflow.parse(self.overflow), Rounding.parse(self.rounding)
        if not _is_count(word_bits) or word_bits < 2:
            raise InputError(f"word_bits must be an integer of at least 2, got {word_bits!r}")
        roles: dict[str, Any] = {}
        for name in ROLES:
            was = getattr(_TEMPLATE, name)
            if was is None:
                continue
            fraction = getattr(self, f"{name}_fraction_bits", None)
            if fraction is None:
                fraction = int(word_bits) - was.format.word_bits + was.format.fraction_bits
            try:
                form = Fixed(int(word_bits), fraction)
            except InputError as error:
                raise InputError(f"the {name}'s format: {error}") from None
            mode = Rounding.TIES_EVEN if name == "activation" and rounding is Rounding.STOCHASTIC else rounding
            roles[name] = Role(form, mode, overflow, was.random_bits)
        accumulators = (32 if word_bits <= 16 else 64) if self.accumulator_bits is None else self.accumulator_bits
        return Recipe(
            f"fixed{word_bits}",
            **roles,
            accumulator_bits=accumulators,
            accumulator_overflow=Overflow.SATURATE if overflow is Overflow.SATURATE_SYMMETRIC else overflow,
        )

    def _optimizer(self, recipe: Recipe) -> SGD:
        rate = self.learning_rate
        if rate is None:
            rate = "2^3" if recipe.update == "normalized" else "2^-3"
        factors = {}
        for name, value in (("learning_rate", rate), ("momentum", self.momentum), ("decay", self.decay)):
            try:
                factors[name] = Factor.of(value)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
        if not factors["learning_rate"].mantissa:
            raise InputError(f"learning_rate must be greater than 0, got {rate!r}")
        return SGD(Schedule.parse(self.schedule, factors["learning_rate"]), factors["momentum"], factors["decay"])

    def _network(self, hidden: tuple[int, ...], classes: int, recipe: Recipe, seed: int) -> Network:
        layers: list[Layer] = []
        for units in hidden:
            layers += [Dense(units, initial="xavier_uniform"), ReLU()]  # scikit-learn's scheme; He's leaves +-2 for one feature
        layers.append(Dense(classes, initial="xavier_uniform"))
        return Network(layers, (self.n_features_in_,), recipe, seed, self.loss)

    def _seed(self) -> int:
        random = check_random_state(self.random_state)
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(random.randint(0, 2**32, dtype=np.uint64))

    # Training and prediction

    def _run(self, trainer: Trainer) -> None:
        """Train to the end, or until the loss stays where it is."""
        best, waited = inf, 0
        while trainer.epoch < trainer.epochs and trainer.died is None:
            loss = trainer.run_epoch().train_loss
            waited = 0 if loss < best - self.tol else waited + 1
            best = min(best, loss)
            if self.n_iter_no_change is not None and waited >= self.n_iter_no_change:
                break

    def _outputs(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the outputs (n_samples, n_classes)."""
        check_is_fitted(self)
        values = validate_data(self, X, dtype=np.float64, order="C", reset=False)
        network = self.network_
        widest = max(self.n_features_in_, *(one.shape[0] for one in network.parameters))
        rows = max(1, _CHUNK_VALUES // widest)
        outputs = np.empty((len(values), prod(network.output_shape)))
        for first in range(0, len(values), rows):
            part = _standardized(values[first : first + rows], self.mean_, self.scale_)
            x = quantize(part, self.input_format_, "ties_even", "saturate")
            outputs[first : first + rows] = dequantize(network.forward(x))
        return outputs


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 1)


def _standardization(X: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return every feature's mean and standard deviation; 1 where it does not vary."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = X.mean(axis=0), X.std(axis=0)
    finite = np.isfinite(mean) & np.isfinite(scale)
    if not finite.all():
        feature = int(np.argmin(finite))
        largest = np.abs(X[:, feature]).max()
        raise InputError(f"feature {feature} reaches {largest:.3g}, too much to be standardized; scale it first")
    # The mean of a constant may be off by the roundings of its sum, which are no spread.
    scale[scale <= len(X) * np.finfo(np.float64).eps * np.abs(mean)] = 1
    return mean, scale


def _standardized(
    X: NDArray[np.float64], mean: NDArray[np.float64] | None, scale: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return the features as they are quantized."""
    if mean is None or scale is None:
        return X
    with np.errstate(over="ignore"):
        return np.clip((X - mean) / scale, -CLIP, CLIP)


def _input_format(recipe: Recipe, X: NDArray[np.float64]) -> Fixed:
    """Return the format of the features: the activation's; for blocks, words with the exponent that holds these features."""
    form = recipe.activation.format
    if isinstance(form, Fixed):
        return form
    return Fixed(form.word_bits, -form.exponent(float(np.abs(X).max())))
