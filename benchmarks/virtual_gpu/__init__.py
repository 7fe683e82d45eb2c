"""Virtual GPUs in host memory: what they add to steps of a training, and to its start."""
