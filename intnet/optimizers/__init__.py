"""Optimizers: how weights move, in integers."""

from intnet.optimizers.factor import Factor, Schedule
from intnet.optimizers.sgd import SGD

__all__ = ["SGD", "Factor", "Schedule"]
