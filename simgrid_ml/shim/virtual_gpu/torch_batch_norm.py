"""The steps of SyncBatchNorm, which only CUDA has kernels for, in tensor operations."""

from . import torch_private

__all__ = ["install"]


def install(gpus):
    """Change ``torch.batch_norm_stats`` and what goes with it, of torch's and Horovod's layers."""
    steps = _Steps(gpus.torch)
    for name in (
        *("batch_norm_stats", "batch_norm_gather_stats_with_counts", "batch_norm_elemt"),
        *("batch_norm_backward_reduce", "batch_norm_backward_elemt"),
    ):
        torch_private.replace(gpus.torch, name, getattr(steps, name))


def _but_channels(tensor):
    return [dim for dim in range(tensor.dim()) if dim != 1]


def _along(channels, tensor):
    """One value per channel, so that it can meet ``tensor`` of shape (batch, channels, ...)."""
    return channels.view([-1 if dim == 1 else 1 for dim in range(tensor.dim())])


class _Steps:
    """As in ``aten/src/ATen/native/cuda/Normalization.cuh``, statistics in float32 or more."""

    def __init__(self, torch):
        self._torch = torch

    def _precise(self, tensor):
        return tensor.to(self._torch.promote_types(tensor.dtype, self._torch.float32))

    def batch_norm_stats(self, input, eps):
        precise = self._precise(input)
        dims = _but_channels(input)
        variance = precise.var(dims, unbiased=False)
        return precise.mean(dims), (variance + eps).rsqrt()

    def batch_norm_gather_stats_with_counts(
        self, input, mean, invstd, running_mean, running_var, momentum, eps, counts
    ):
        mean, invstd = self._precise(mean), self._precise(invstd)
        shares = self._precise(counts).view(-1, 1)
        count = shares.sum()
        together = (mean * shares).sum(0) / count
        variance = invstd.pow(-2) - eps + (mean - together).square()
        variance = (variance * shares).sum(0) / count
        if running_mean is not None:
            running_mean.mul_(1 - momentum).add_(together * momentum)
        if running_var is not None:
            unbiased = variance * (count / (count - 1))
            running_var.mul_(1 - momentum).add_(unbiased * momentum)
        return together, (variance + eps).rsqrt()

    def batch_norm_elemt(self, input, weight, bias, mean, invstd, eps):
        result = (self._precise(input) - _along(mean, input)) * _along(invstd, input)
        if weight is not None:
            result = result * _along(weight, input) + _along(bias, input)
        return result.to(input.dtype)

    def batch_norm_backward_reduce(
        self, grad_out, input, mean, invstd, weight, input_g, weight_g, bias_g
    ):
        dims = _but_channels(input)
        gradient = self._precise(grad_out)
        sum_dy = gradient.sum(dims)
        sum_dy_xmu = (gradient * (self._precise(input) - _along(mean, input))).sum(dims)
        grad_weight = grad_bias = None
        if weight is not None:
            grad_weight = (sum_dy_xmu * invstd).to(weight.dtype)
            grad_bias = sum_dy.to(weight.dtype)
        return sum_dy, sum_dy_xmu, grad_weight, grad_bias

    def batch_norm_backward_elemt(
        self, grad_out, input, mean, invstd, weight, sum_dy, sum_dy_xmu, count
    ):
        count = count.sum()
        scaled = _along(invstd.square() * sum_dy_xmu / count, input)
        centred = self._precise(grad_out) - _along(sum_dy / count, input)
        result = centred - (self._precise(input) - _along(mean, input)) * scaled
        factor = invstd if weight is None else invstd * weight
        return (result * _along(factor, input)).to(input.dtype)
