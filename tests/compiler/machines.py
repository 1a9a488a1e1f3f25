"""A machine whose figures are easy to reckon with."""

from latentc.compiler.forecast.machine import NOMINAL, Machine

MACHINE = Machine({}, NOMINAL, memory_bytes=2**34, threads=2)
