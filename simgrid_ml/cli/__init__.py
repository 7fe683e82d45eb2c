"""The command line: one file per command or group, loaded when it is called.

Commands translate words into calls and results into text. What they print comes from the run
directory, so a command shows the same to the process that submitted a run and to any other.
"""
