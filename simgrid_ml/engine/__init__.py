"""THE VERB: one run from submission to its sealed directory."""
