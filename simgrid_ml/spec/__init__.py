"""WHAT is to be run, as frozen values and pure functions: no I/O, no clock, no chance."""
