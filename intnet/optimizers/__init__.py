"""Optimizers: how weights move, in integers."""

from intnet.optimizers.average import Average, ExactSum
from intnet.optimizers.factor import Factor, Schedule
from intnet.optimizers.halp import HALP, BitCentering, Scale
from intnet.optimizers.sgd import SGD
from intnet.optimizers.svrg import SVRG
from intnet.optimizers.swalp import SWALP, SWALPSchedule

__all__ = [
    "HALP",
    "SGD",
    "SVRG",
    "SWALP",
    "Average",
    "BitCentering",
    "ExactSum",
    "Factor",
    "SWALPSchedule",
    "Scale",
    "Schedule",
]
