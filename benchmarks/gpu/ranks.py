"""Experiments B, D and E: N ranks on the one GPU, real reductions, replicas that agree.

``ranks.py --n N --backend gloo|nccl --identity none|rank|hostname [--mps [PERCENT]] [--several]``
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time

from benchmarks.gpu.experiment import Ranks, emit, multi_process_service, require_gpu

_SIZES = (4 * 2**10, 2**20, 64 * 2**20)
_ITERATIONS = 10


def identities(how: str, n: int) -> list[dict[str, str]]:
    """What each rank finds, so that NCCL takes it for a host of its own, or not.

    >>> identities("rank", 2)
    [{'NCCL_HOSTID': 'rank0'}, {'NCCL_HOSTID': 'rank1'}]
    """
    return [{"NCCL_HOSTID": f"rank{rank}"} if how == "rank" else {} for rank in range(n)]


def rank(backend: str, meet: str) -> None:
    """One rank; the result is printed as JSON by every one."""
    import torch
    import torch.distributed as dist

    me, n = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.cuda.set_device(0)
    begun = time.monotonic()
    dist.init_process_group(backend, f"file://{meet}", rank=me, world_size=n)
    found = {"backend": backend, "n": n}
    for size in _SIZES:
        x = torch.full((size // 4,), float(me + 1), device="cuda")
        dist.all_reduce(x)
        torch.cuda.synchronize()
        found.setdefault("first_s", round(time.monotonic() - begun, 2))
        exact = bool((x == n * (n + 1) / 2).all())
        times = []
        for _ in range(_ITERATIONS):
            before = time.perf_counter()
            dist.all_reduce(x)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - before)
        found[f"{size // 1024}K"] = {"exact": exact, "ms": 1e3 * statistics.median(times)}
    found["replicas_equal"] = _trained_equal(torch, dist, me, n)
    emit("rank", **found)
    dist.destroy_process_group()


def _trained_equal(torch, dist, me, n):
    """Whether replicas agree bit for bit after five steps."""
    torch.manual_seed(0)
    layers = (torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(*layers).cuda())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.manual_seed(me)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(64, 256, device="cuda")).square().mean().backward()
        optimizer.step()
    sums = [p.detach().double().sum().item() for p in model.parameters()]
    everybody = [None] * n
    dist.all_gather_object(everybody, sums)
    return all(one == everybody[0] for one in everybody)


def main(words: list[str]) -> int:
    asked = argparse.ArgumentParser(prog="benchmarks.gpu.ranks")
    asked.add_argument("--n", type=int, default=2)
    asked.add_argument("--backend", default="nccl", choices=("nccl", "gloo"))
    asked.add_argument("--identity", default="none", choices=("none", "rank", "hostname"))
    asked.add_argument("--mps", type=int, nargs="?", const=100, help="per cent of the SMs each")
    asked.add_argument("--several", action="store_true", help="NCCL 2.30's own way")
    asked.add_argument("--timeout", type=float, default=60.0, help="seconds")
    asked.add_argument("--rank", help=argparse.SUPPRESS)
    given = asked.parse_args(words)
    require_gpu()
    if given.rank:
        rank(given.backend, given.rank)
        return 0
    own = identities(given.identity, given.n)
    for variables in own:
        variables.setdefault("NCCL_SOCKET_IFNAME", "lo")
        variables.setdefault("GLOO_SOCKET_IFNAME", "lo")
        variables["NCCL_IB_DISABLE"] = "1"
        if given.several:
            variables.update(NCCL_MULTI_RANK_GPU_ENABLE="1", NCCL_MAX_CTAS="2")
            variables["NCCL_NVLS_ENABLE"] = "0"
    name = "E" if given.several else "B" if given.mps is None else "D"
    with tempfile.TemporaryDirectory() as folder:
        argv = ["-m", "benchmarks.gpu.ranks", *words, "--rank", os.path.join(folder, "meet")]
        told = {"backend": given.backend, "n": given.n, "identity": given.identity}
        if given.identity == "hostname":
            return _in_uts_namespaces(name, argv, own, given.timeout, told)
        if given.mps is None:
            _report(name, argv, own, given.timeout, told)
            return 0
        with multi_process_service() as pipe:
            if pipe is None:
                emit(name, **told, skipped="no Multi-Process Service can be started")
                return 0
            for variables in own:
                variables["CUDA_MPS_PIPE_DIRECTORY"] = pipe
                variables["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(given.mps)
            _report(name, argv, own, given.timeout, {**told, "mps": given.mps})
    return 0


def _report(name, argv, own, timeout_s, told):
    with Ranks(argv, own) as ranks:
        results = ranks.results(timeout_s)
    failed = [one for one in results if "failed" in one]
    emit(name, **told, **({"failed": failed} if failed else {"result": results[0]}))


def _in_uts_namespaces(name, argv, own, timeout_s, told):
    """A host name each, by ``unshare``: NCCL needs no variable then."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        emit(name, **told, skipped="host names of their own need unshare and root")
        return 0
    script = 'hostname "gpu-rank$RANK" && exec "$0" "$@"'
    code = "import os,sys; os.execvp('unshare', ['unshare', '--uts', 'sh', '-c', sys.argv[1],"
    code += " sys.executable, *sys.argv[2:]])"
    _report(name, ["-c", code, script, *argv], own, timeout_s, told)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
