"""Directions in which the loss of a network falls whose activations have steps, and so no useful derivative.

Every estimator is called with a network and a batch and gives a :class:`Direction`; :func:`step` goes along it.
"""

from intnet.gradients.differences import CDG, NES, Around, MaxPoint
from intnet.gradients.direction import Direction, Estimator, Landscape, step
from intnet.gradients.part import FirstLayers
from intnet.gradients.perceptron import LEVELS, Batch, Perceptron, gaussian_inputs
from intnet.gradients.straight_through import DERIVATIVES, STE

__all__ = [
    "CDG",
    "DERIVATIVES",
    "LEVELS",
    "NES",
    "STE",
    "Around",
    "Batch",
    "Direction",
    "Estimator",
    "FirstLayers",
    "Landscape",
    "MaxPoint",
    "Perceptron",
    "gaussian_inputs",
    "step",
]
