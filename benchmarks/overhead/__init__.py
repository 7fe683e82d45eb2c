"""What simgrid-ml costs over doing the same by hand."""
