"""HOW ranks start: pure functions from a placed job to the commands that start it."""
