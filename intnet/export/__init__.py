"""Trained networks as integers that other tools take: programs of integer operations, and C."""

from intnet.export.c import write_c
from intnet.export.operations import Program
from intnet.export.program import program_of

__all__ = ["Program", "program_of", "write_c"]
