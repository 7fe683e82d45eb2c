"""What single operations cost: in plain torch, and in a process that uses a virtual GPU.

Runs in the job's environment; prints one line of JSON, microseconds by side and operation. The
sides are as in ``steps``; what a process that uses a GPU pays for its CPU tensors is a third.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from benchmarks.virtual_gpu.sides import fork, install

SIDES = ("plain", "virtual", "cpu tensors beside a virtual GPU")


def operations(device):
    """By name: a call that is made over and over."""
    a, b = torch.ones(4, device=device), torch.ones(4, device=device)
    matrix = torch.ones(64, 64, device=device)
    weight = torch.ones(64, 64, device=device, requires_grad=True)
    many = [torch.ones(4, device=device) for _ in range(20)]
    return {
        "a + b, 4 elements": lambda: a + b,
        "a.add_(b), 4 elements": lambda: a.add_(b),
        "a.view(2, 2)": lambda: a.view(2, 2),
        "torch.empty(4)": lambda: torch.empty(4, device=device),
        "torch.cat of 20": lambda: torch.cat(many),
        "a.device": lambda: a.device,
        "a.to(its device)": lambda: a.to(device),
        "matrix @ matrix, 64 x 64": lambda: matrix @ matrix,
        "forward and backward of a matrix product": lambda: (matrix @ weight).sum().backward(),
        "a.sum().item()": lambda: a.sum().item(),
    }


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--calls", type=int, required=True)
    asked.add_argument("--rounds", type=int, required=True)
    given = asked.parse_args()
    torch.set_num_threads(1)
    sides = {name: fork(serve, name, given.calls) for name in SIDES}
    taken = {name: [] for name in SIDES}
    for _ in range(given.rounds + 1):
        for name, pipe in sides.items():
            pipe.send("measure")
            taken[name].append(pipe.recv())
    for pipe in sides.values():
        pipe.send("end")
    print(json.dumps({name: times[1:] for name, times in taken.items()}))


def serve(side, calls, pipe):
    if side != "plain":
        install()
        torch.ones(1, device="cuda")
    called = operations(torch.device("cuda" if side == "virtual" else "cpu"))
    while pipe.recv() == "measure":
        pipe.send({name: microseconds(call, calls) for name, call in called.items()})


def microseconds(call, calls):
    begun = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - begun) / calls * 1e6


if __name__ == "__main__":
    main()
