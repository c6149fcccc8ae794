"""The advisor: how few bits are enough, by role, and what proves it."""

from intnet.advisor.advice import Advice, advise, check, set_aside
from intnet.advisor.bounds import AccumulatorBound, accumulator_bounds
from intnet.advisor.search import Neighbour
from intnet.advisor.trials import Trial

__all__ = ["AccumulatorBound", "Advice", "Neighbour", "Trial", "accumulator_bounds", "advise", "check", "set_aside"]
