"""Measurements of simgrid-ml against promises and against the same thing without it."""
