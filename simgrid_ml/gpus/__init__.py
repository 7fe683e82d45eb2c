"""The real GPUs of this host: what there is, who has them, and whether they are still there."""
