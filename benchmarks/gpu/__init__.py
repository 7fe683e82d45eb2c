"""Experiments on one real GPU: what the GPU paths rely on, each with its prediction."""
