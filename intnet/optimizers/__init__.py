"""Optimizers: how weights move, in integers."""

from intnet.optimizers.average import Average, ExactSum
from intnet.optimizers.factor import Factor, Schedule
from intnet.optimizers.sgd import SGD
from intnet.optimizers.swalp import SWALP, SWALPSchedule

__all__ = ["SGD", "SWALP", "Average", "ExactSum", "Factor", "SWALPSchedule", "Schedule"]
