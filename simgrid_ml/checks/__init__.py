"""JUDGE a finished run: checks read the run directory and nothing else, and can be repeated."""
