"""Copies between the GPUs of one process: what DataParallel and ``torch.cuda.nccl`` call in C++."""

import importlib
import itertools

from . import torch_cuda, torch_private
from .torch_state import gpu_of

__all__ = ["install"]

_NCCL_VERSION = (2, 12, 12)
_SUM, _PRODUCT, _MAX, _MIN, _MEAN = range(5)  # ncclRedOp_t


def install(gpus):
    """Answer for ``torch.nn.parallel.comm`` and ``torch.cuda.nccl``."""
    torch = gpus.torch
    copies, collectives = _Copies(gpus), _Collectives(gpus)
    torch_cuda.give(
        torch,
        "_",
        {
            "broadcast": copies.broadcast,
            "broadcast_out": copies.broadcast_out,
            "broadcast_coalesced": copies.broadcast_coalesced,
            "scatter": copies.scatter,
            "scatter_out": copies.scatter_out,
            "gather": copies.gather,
            "gather_out": copies.gather_out,
        },
    )
    scatter = importlib.import_module("torch.nn.parallel._functions").Scatter
    torch_private.extend(scatter, "forward", lambda given: staticmethod(_without_streams(given)))
    major, minor, patch = _NCCL_VERSION
    torch_cuda.give(
        torch,
        "_nccl_",
        {
            "version": lambda: major << 32 | minor << 16 | patch,
            "version_suffix": lambda: b"",
            "all_reduce": collectives.all_reduce,
            "reduce": collectives.reduce,
            "broadcast": collectives.broadcast,
            "all_gather": collectives.all_gather,
            "reduce_scatter": collectives.reduce_scatter,
        },
    )


def _without_streams(original):
    """Scatters from the CPU without streams of its own, which C++ would be asked for."""
    comm = importlib.import_module("torch.nn.parallel.comm")

    def forward(ctx, target_gpus, chunk_sizes, dim, input):
        if gpu_of(input) is not None:
            return original(ctx, target_gpus, chunk_sizes, dim, input)
        ctx.dim, ctx.input_device = dim, -1
        return comm.scatter(input, target_gpus, chunk_sizes, dim)

    return forward


class _Copies:
    """As ``torch/csrc/cuda/comm.cpp``; a device of -1 is the CPU."""

    def __init__(self, gpus):
        self._gpus = gpus
        self._torch = gpus.torch

    def _device(self, number):
        if number is None:
            return self._gpus.names[self._gpus.thread.current]
        if number < 0:
            return self._torch.device("cpu")
        return self._gpus.names[self._gpus.index_of(number)]

    def broadcast(self, tensor, devices):
        return [tensor.to(self._device(device)) for device in devices]

    def broadcast_out(self, tensor, out):
        return [one if one is tensor else one.copy_(tensor) for one in out]

    def broadcast_coalesced(self, tensors, devices, buffer_size):
        # What stays where it is must not be the script's own parameter, which requires grad.
        return [
            [tensor.detach().to(self._device(device)) for tensor in tensors] for device in devices
        ]

    def scatter(self, tensor, devices, chunk_sizes, dim, streams):
        if chunk_sizes is None:
            chunks = tensor.chunk(len(devices), dim)
        else:
            chunks = tensor.split(chunk_sizes, dim)
        return [
            chunk.contiguous().to(self._device(device)) for chunk, device in zip(chunks, devices)
        ]

    def scatter_out(self, tensor, out, dim, streams):
        chunks = tensor.split([one.size(dim) for one in out], dim)
        return [one.copy_(chunk) for one, chunk in zip(out, chunks)]

    def gather(self, tensors, dim, destination):
        device = self._device(destination)
        return self._torch.cat([_as_vector(one).to(device) for one in tensors], dim)

    def gather_out(self, tensors, out, dim):
        return self._torch.cat([_as_vector(one).to(out.device) for one in tensors], dim, out=out)


def _as_vector(tensor):
    return tensor.view(1) if tensor.dim() == 0 else tensor


class _Collectives:
    """Of one process that drives several GPUs: ``inputs`` has one tensor of each."""

    def __init__(self, gpus):
        self._torch = gpus.torch

    def _reduced(self, inputs, op):
        torch = self._torch
        stacked = torch.stack([one.cpu() for one in inputs])
        if op == _SUM:
            return stacked.sum(0, dtype=stacked.dtype)
        if op == _PRODUCT:
            return stacked.prod(0, dtype=stacked.dtype)
        if op == _MEAN:
            return stacked.mean(0)
        return stacked.amax(0) if op == _MAX else stacked.amin(0)

    def all_reduce(self, inputs, outputs, op, streams, comms):
        reduced = self._reduced(inputs, op)
        for output in outputs:
            output.copy_(reduced)

    def reduce(self, inputs, output, root, op, streams, comms):
        output.copy_(self._reduced(inputs, op))

    def broadcast(self, inputs, root, streams, comms):
        for one in inputs:
            one.copy_(inputs[root])

    def all_gather(self, inputs, outputs, streams, comms):
        gathered = self._torch.cat([one.cpu().flatten() for one in inputs])
        for output in outputs:
            output.copy_(gathered.view(output.shape))

    def reduce_scatter(self, inputs, outputs, op, streams, comms):
        reduced = self._reduced(inputs, op).flatten()
        ends = itertools.accumulate(output.numel() for output in outputs)
        for output, end in zip(outputs, ends):
            output.copy_(reduced[end - output.numel() : end].view(output.shape))
