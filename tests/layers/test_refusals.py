"""What does not fit is refused when a network is built, in one line that names the layer and what came."""

import numpy as np
import pytest

from intnet.errors import InputError, InputTypeError
from intnet.formats import Fixed
from intnet.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sign,
    Step,
)
from intnet.network import Network
from intnet.recipe import RECIPES
from intnet.tensor import QTensor

FIXED = RECIPES["fixed16"]


def network(*layers, shape=(6, 6, 2), recipe=FIXED, **options):
    return lambda: Network(list(layers), shape, recipe, **options)


def twice(layer):
    return network(layer, Dense(3), layer, Dense(3), shape=(3,))


def built_before(layer):
    Network([layer], (3,), FIXED)
    return network(Residual([layer]), shape=(3,))


CASES = {
    "dense on images": (network(Dense(3)), r"layer 'dense1' \(Dense\) needs vectors; put Flatten before it, got \(6, 6, 2\)"),
    "conv on vectors": (network(Flatten(), Conv2D(3)), r"layer 'conv1' \(Conv2D\) needs images .*, got \(72,\) a sample"),
    "groups": (network(Conv2D(3, groups=3)), r"layer 'conv1' \(Conv2D\) needs .* divisible by 3 groups\), got \(6, 6, 2\)"),
    "small image": (
        network(Conv2D(3, 5), Conv2D(3, name="x")),
        r"layer 'x' \(Conv2D\) needs images of at least the kernel's 3x3",
    ),
    "small for a pool": (
        network(MaxPool2D(7)),
        r"layer 'max_pool1' \(MaxPool2D\) needs images of at least \(7, 7\) pixels, got",
    ),
    "pool on vectors": (network(Flatten(), AvgPool2D()), r"layer 'avg_pool1' \(AvgPool2D\) needs images"),
    "global on vectors": (network(Flatten(), GlobalAvgPool()), r"layer 'global_avg_pool1' \(GlobalAvgPool\) needs images"),
    "residual": (
        network(Residual([Conv2D(3)])),
        r"layer 'residual1' \(Residual\) adds outputs of one shape, got \(4, 4, 3\) from the body and \(6, 6, 2\) from the sho",
    ),
    "inside": (network(Residual([ReLU(), Dense(2)])), r"layer 'residual1/body/dense1' \(Dense\) needs vectors"),
    "one name": (network(ReLU(name="a"), Flatten(name="a")), r"two layers are called 'a'"),
    "a name taken": (network(Flatten(), Dense(3, name="dense2"), Dense(3)), r"two layers are called 'dense2'"),
    "a slash": (network(ReLU(name="a/b")), r"two layers are called 'a/b', or its name holds a slash"),
    "the loss's name": (
        network(Flatten(), Dense(3, name="loss")),
        r"no layer can be called 'loss': that is the loss's own name",
    ),
    "a layer twice": (twice(ReLU()), r"a layer stands in this network twice; make two"),
    "weights twice": (twice(Dense(3)), r"a layer stands in this network twice; make two"),
    "a layer of another network": (built_before(Dense(3)), r"these layers were built for another network, or for one that was"),
    "no layer": (network("dense"), r"a network is made of layers, got str"),
    "nothing": (network(), r"a network needs at least one layer, got none"),
    "unknown override": (
        network(Flatten(), Dense(3), recipe=FIXED.override("conv*", accumulator_bits=48)),
        r"recipe 'fixed16' overrides 'conv\*' and no layer is called so; the layers are flatten1, dense1, loss",
    ),
    "overrides that meet": (
        network(Flatten(), Dense(3), recipe=FIXED.override("dense1", weight="fxp-s17/9").override("*", activation="fxp-s17/9")),
        r"recipe \"fixed16 for layer 'dense1'\": an activation times a weight takes 33 bits and the accumulator has 32",
    ),
    "initial weights": (
        network(Dense(3), shape=(2,), recipe=FIXED.override("dense1", weight="fxp-s16/16")),
        r"dense1\.weight: initial values deviate by 1\.\d+ and fxp-s16/16 ends at 0\.5; use fewer fraction bits",
    ),
    "scheme": (
        network(Flatten(), Dense(3, initial="best")),
        r"initial weights 'best' are unknown; choose one of zeros, ones, he_",
    ),
    "shape": (network(Dense(3), shape=()), r"a sample needs a shape of positive lengths, got \(\)"),
    "shape of a number": (network(Dense(3), shape=3), r"a sample needs a shape of positive lengths, got 3"),
    "shape of zero": (network(Dense(3), shape=(3, 0)), r"a sample needs a shape of positive lengths, got \(3, 0\)"),
    "seed": (network(Flatten(), Dense(3), seed=-1), r"seed must be an integer in 0\.\.2\*\*64 - 1, got -1"),
    "loss": (network(Flatten(), Dense(3), loss="hinge"), r"loss 'hinge' is unknown"),
    "recipe": (network(Flatten(), Dense(3), recipe="fixed17"), r"recipe 'fixed17' is unknown"),
    "outputs": (lambda: Dense(0), r"a layer needs at least 1 output, got 0"),
    "groups and outputs": (lambda: Conv2D(4, groups=3), r"groups must be an integer that divides the 4 output channels, got 3"),
    "part of a group": (
        lambda: Conv2D(3, groups=1.5),
        r"groups must be an integer that divides the 3 output channels, got 1.5",
    ),
    "kernel": (lambda: Conv2D(3, 0), r"kernel must be one or two integers of at least 1, got 0"),
    "stride": (lambda: MaxPool2D(2, stride=(1, 2, 3)), r"stride must be one or two integers"),
    "padding": (lambda: Conv2D(3, padding=-1), r"padding must be 'same', one or four integers of at least 0, got -1"),
    "pool padding": (
        lambda: AvgPool2D(2, padding=2),
        r"padding of a pool must be smaller than its window \(2, 2\), got \(2, 2",
    ),
    "kernel None": (lambda: Conv2D(3, None), r"^kernel must be one or two integers of at least 1, got None$"),
    "kernel 2.5": (lambda: Conv2D(3, 2.5), r"^kernel must be one or two integers of at least 1, got 2\.5$"),
    "kernel True": (lambda: Conv2D(3, True), r"^kernel must be one or two integers of at least 1, got True$"),
    "kernel nested": (
        lambda: Conv2D(3, ((1, 2), 3)),
        r"^kernel must be one or two integers of at least 1, got \(\(1, 2\), 3\)$",
    ),
    "padding None": (
        lambda: Conv2D(3, padding=None),
        r"^padding must be 'same', one or four integers of at least 0, got None$",
    ),
    "padding text": (
        lambda: MaxPool2D(padding="full"),
        r"^padding must be 'same', one or four integers of at least 0, got 'ful",
    ),
    "a name that is a number": (lambda: Dense(3, name=5), r"^a layer's name must be a text or None, got 5$"),
    "bias text": (lambda: Dense(3, bias="no"), r"^bias must be True, False or None, got 'no'$"),
    "initial": (lambda: Dense(3, initial=[]), r"^initial must be the name of a scheme, got \[\]$"),
    "residual of a number": (lambda: Residual(5), r"^a network is made of layers, got 5$"),
    "sequence of a number": (lambda: Sequential(5), r"^a network is made of layers, got 5$"),
    "loss in a list": (network(Flatten(), Dense(3), loss=["a"]), r"^loss \['a'\] is unknown; choose one of cross_entropy"),
    "leaky": (lambda: LeakyReLU(0), r"the shift of a leaky ReLU must be in 1\.\.62, got 0"),
    "leaky text": (lambda: LeakyReLU("2"), r"the shift of a leaky ReLU must be in 1\.\.62, got '2'"),
    "dropout": (lambda: Dropout(1), r"the rate of dropout must be at least 0 and less than 1, got 1"),
    "dropout text": (lambda: Dropout("half"), r"the rate of dropout must be at least 0 and less than 1, got 'half'"),
    "window": (lambda: Sign("gauss"), r"a straight-through window is one of identity, clip, polynomial, got 'gauss'"),
    "batch norm": (lambda: BatchNorm(63), r"epsilon_shift of batch normalization must be an integer in 0\.\.62, got 63"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_in_one_line(case):
    make, message = CASES[case]
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_samples_of_another_shape():
    x = QTensor(np.zeros((2, 5), np.int16), np.array([[-10]]), Fixed(16, 10))
    with pytest.raises(InputError, match=r"^the network takes samples of shape \(4,\), got \(5,\)$"):
        Network([Dense(3)], (4,), FIXED).forward(x)


def test_what_is_no_tensor():
    for call in (lambda n: n.forward(np.zeros((2, 4))), lambda n: n.backward(np.zeros((2, 3)), Step(0, 0, True))):
        with pytest.raises(InputTypeError, match=r" takes a QTensor.*, got ndarray$"):
            call(Network([Dense(3)], (4,), FIXED))


def test_errors_must_belong_to_the_last_outputs_in_training():
    made, step = Network([Dense(3)], (4,), FIXED), Step(0, 0, True)

    def x(count, width=4):
        return QTensor(np.ones((count, width), np.int16), np.array([[-10]]), Fixed(16, 10))

    with pytest.raises(InputError, match=r"^a backward pass needs a forward pass in training \(step\.training\) before it$"):
        made.backward(x(2, 3), step)
    made.forward(x(2), step)
    made.forward(x(5))  # an evaluation in between
    for count, width in ((5, 3), (2, 4), (1, 3)):
        message = (
            rf"^the last forward pass in training had outputs of shape \(2, 3\), got errors of shape \({count}, {width}\)$"
        )
        with pytest.raises(InputError, match=message):
            made.backward(x(count, width), step)
    made.backward(x(2, 3), step)
    assert made.parameters[0].gradient.mantissa.tolist() == [[2] * 4] * 3
    with pytest.raises(InputError, match=r"^the network takes samples"):
        made.forward(x(2, 5), step)
    made.backward(x(2, 3), step)  # what was refused at the door changed nothing


def test_an_overflow_that_is_an_error_names_the_layer():
    recipe = FIXED.override("dense1", activation="fxp-s16/15 ties_even error")
    made = Network([Dense(3, initial="ones", bias=False)], (4,), recipe)
    x = QTensor(np.full((2, 4), 1024, np.int16), np.array([[-10]]), Fixed(16, 10))
    for step in (Step(), Step(0, 0, True)):
        with pytest.raises(InputError, match=r"^dense1: 6 of 6 numbers do not fit into fxp-s16/15 \(role activation\)"):
            made.forward(x, step)


# Containers -------------------------------------------------------------------------------------------------------------


def test_names_are_paths_and_unique():
    body = [Conv2D(2, padding=1), BatchNorm(), ReLU(), Conv2D(2, padding=1, name="last")]
    sides = Conv2D(3, 1, initial="ones"), Conv2D(3, 1, initial="ones")
    made = network(Sequential(Residual(body), ReLU()), Residual(*sides), Flatten(), Dense(3))()
    names = [name for name in made.layer_names if name]
    assert len(set(names)) == len(names)
    assert "stage1/residual1/body/last" in names
    assert [parameter.name for parameter in made.parameters][-4:] == [
        "residual1/shortcut/conv1.weight", "residual1/shortcut/conv1.bias", "dense1.weight", "dense1.bias",
    ]  # fmt: skip
    streams = [quantizer.stream for quantizer in made.quantizers() if quantizer.role_name != "running"]
    assert len(set(streams)) == len(streams)
    assert "dense1: weight (3, 108), bias (3,) = 327" in repr(made)


def test_what_comes_before_the_first_weights_gets_no_gradient():
    """The first trained layer saves a product; layers before it are not run backwards, in stages neither."""
    made = network(ReLU(), Sequential(MaxPool2D(2), Conv2D(2)), Flatten(), Dense(3))()
    first = made.layers.layers[1].layers[1]
    assert not first.gives_input_gradient
    step = Step(0, 0, True)
    y = made.forward(QTensor(np.ones((2, 6, 6, 2), np.int16), np.full((1,) * 4, -10), Fixed(16, 10)), step)
    made.backward(made.loss.gradient(y, np.array([0, 2]), step), step)
    assert all(parameter.gradient is not None for parameter in made.parameters)


# State ------------------------------------------------------------------------------------------------------------------


def test_state_of_another_network_is_refused_and_changes_nothing():
    made, other = network(Conv2D(2), BatchNorm(), Flatten(), Dense(3))(), network(Conv2D(2), BatchNorm(), Flatten(), Dense(4))()
    before, state = made.digest(), made.state()
    for change, message in (
        (other.state(), r"dense1\.weight/value of shape \(4, 32\) does not belong to this network, whose shape is \(3, 32\)"),
        ({k: v for k, v in state.items() if k != "dense1.bias/value"}, r"there is no dense1\.bias/value"),
        ({k: v for k, v in state.items() if k != "batch_norm1/running_mean"}, r"there is no batch_norm1/running_mean"),
        ({**state, "dense9.bias/value": np.zeros(3)}, r"dense9\.bias/value belongs to no tensor of this network"),
        ({**state, "dense1.bias/value": np.zeros(3)}, r"dense1\.bias/value holds float64, and fxp-s16/\d+ is kept in int16"),
    ):
        with pytest.raises(InputError, match=message):
            made.load_state(change)
        assert made.digest() == before
    narrow = network(Dense(3), shape=(4,), recipe=FIXED.override("*", weight="fxp-s12/8"))()
    state = narrow.state()
    with pytest.raises(InputError, match=r"dense1\.bias/value leaves its format fxp-s12/8"):
        narrow.load_state({**state, "dense1.bias/value": np.full(3, 2048, np.int16)})


def test_a_state_does_not_change_with_the_network():
    made = network(Conv2D(2), BatchNorm(), Flatten(), Dense(3))()
    state, before = made.state(), made.digest()
    x = QTensor(np.arange(144, dtype=np.int16).reshape(2, 6, 6, 2), np.full((1,) * 4, -7), Fixed(16, 7))
    made.forward(x, Step(0, 0, True))
    assert made.digest() != before  # running statistics
    made.load_state(state)
    assert made.digest() == before
