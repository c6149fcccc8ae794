"""Optimizers: how weights move, in integers."""

from intnet.optimizers.average import Average, ExactSum
from intnet.optimizers.factor import Factor, Schedule
from intnet.optimizers.halp import BitCentering, Scale
from intnet.optimizers.sgd import SGD
from intnet.optimizers.swalp import SWALP, SWALPSchedule

__all__ = ["SGD", "SWALP", "Average", "BitCentering", "ExactSum", "Factor", "SWALPSchedule", "Scale", "Schedule"]
