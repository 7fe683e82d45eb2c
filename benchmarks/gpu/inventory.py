"""Experiment 0: what this machine has, and so which experiments can say anything."""

from __future__ import annotations

import os
import shutil
import sys

from benchmarks.gpu.experiment import emit, require_gpu

_PROGRAMS = ("nvidia-smi", "nvidia-cuda-mps-control", "docker", "unshare", "nvcc")


def main() -> None:
    require_gpu()
    from simgrid_ml.node.cuda_driver import Driver

    driver = Driver()
    found = {"cuda": driver.version, "devices": driver.devices(context=True)}
    try:
        import torch

        found["torch"] = torch.__version__
        found["nccl"] = list(torch.cuda.nccl.version())
    except (ImportError, AttributeError, RuntimeError) as error:
        found["torch_error"] = str(error)[:200]
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        found["driver"] = str(pynvml.nvmlSystemGetDriverVersion())
        found["compute_mode"] = pynvml.nvmlDeviceGetComputeMode(handle)
        found["mig"] = list(pynvml.nvmlDeviceGetMigMode(handle))
    except Exception as error:  # whatever NVML says: it is no reason to stop
        found["nvml_error"] = str(error)[:200]
    path = os.environ.get("PATH", "") + ":/usr/local/nvidia/bin"
    emit(
        "0",
        **found,
        programs=[name for name in _PROGRAMS if shutil.which(name, path=path)],
        cgroup2=os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
        dmem=os.path.exists("/sys/fs/cgroup/dmem.capacity"),
    )


if __name__ == "__main__":
    sys.exit(main())
