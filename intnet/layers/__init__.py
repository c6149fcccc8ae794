"""Layers: what a network is made of. Each has an exact forward and backward pass on integers, rounded once by its recipe."""

from intnet.layers._base import Build, Layer, Parameter, Quantizer, Seen, Step
from intnet.layers.activation import HardTanh, LeakyReLU, ReLU, Sigmoid, Sign, Tanh
from intnet.layers.container import Residual, Sequential
from intnet.layers.initial import SCHEMES
from intnet.layers.normalization import BatchNorm
from intnet.layers.product import BinaryConv2D, Conv2D, Dense
from intnet.layers.shape import AvgPool2D, Dropout, Flatten, GlobalAvgPool, MaxPool2D

__all__ = [
    "SCHEMES",
    "AvgPool2D",
    "BatchNorm",
    "BinaryConv2D",
    "Build",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "HardTanh",
    "Layer",
    "LeakyReLU",
    "MaxPool2D",
    "Parameter",
    "Quantizer",
    "ReLU",
    "Residual",
    "Seen",
    "Sequential",
    "Sigmoid",
    "Sign",
    "Step",
    "Tanh",
]
