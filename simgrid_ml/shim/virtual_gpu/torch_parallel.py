"""Copies between GPUs, as DataParallel makes them."""

__all__ = ["install"]


def install(gpus):
    torch = gpus.torch
    from torch.nn.parallel import comm

    def dst(d):
        return torch.device("cuda", gpus.index_of(d)) if d != -1 else torch.device("cpu")

    def broadcast(tensor, devices=None, *, out=None):
        return (
            tuple(tensor.to(dst(d)) for d in devices)
            if out is None
            else tuple(o.copy_(tensor) for o in out)
        )

    def broadcast_coalesced(tensors, devices, buffer_size=0):
        return [[t.detach().to(dst(d)) for t in tensors] for d in devices]

    def scatter(tensor, devices=None, chunk_sizes=None, dim=0, streams=None, *, out=None):
        devices = [gpus.index_of(d) for d in devices]
        parts = (
            tensor.chunk(len(devices), dim)
            if chunk_sizes is None
            else tensor.split(chunk_sizes, dim)
        )
        return tuple(p.contiguous().to(dst(d)) for p, d in zip(parts, devices))

    def gather(tensors, dim=0, destination=None, *, out=None):
        d = dst(gpus.index_of(destination) if destination != -1 else -1)
        tensors = [t.view(1) if t.dim() == 0 else t for t in tensors]
        return torch.cat([t.to(d) for t in tensors], dim)

    def reduce_add(inputs, destination=None):
        d = dst(destination if destination is not None else gpus.thread.current)
        r = inputs[0].to(d).clone()
        for x in inputs[1:]:
            r += x.to(d)
        return r

    def reduce_add_coalesced(inputs, destination=None, buffer_size=0):
        return tuple(reduce_add(ts, destination) for ts in zip(*inputs))

    for f in (broadcast, broadcast_coalesced, scatter, gather, reduce_add, reduce_add_coalesced):
        setattr(comm, f.__name__, f)
