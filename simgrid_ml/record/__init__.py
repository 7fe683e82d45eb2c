"""The run directory: the one place where driver, ranks, checks and command line meet.

Standard library and Python 3.8 only, because it also runs inside the user's environment.
"""
