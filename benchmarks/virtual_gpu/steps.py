"""The same training twice, on the CPU and on a virtual GPU, a step of each in turns.

Runs in the job's environment; prints one line of JSON: seconds and losses of each side's steps.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
import torch.nn.functional as F

from benchmarks.virtual_gpu.models import MODELS
from benchmarks.virtual_gpu.sides import fork, install, keep_freed

SIDES = ("plain", "kept", "virtual")
"""Kept: plain, but for the one thing that a GPU's allocator does better."""


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("model", choices=MODELS)
    asked.add_argument("--steps", type=int, required=True)
    asked.add_argument("--warm-up", type=int, required=True)
    asked.add_argument("--batch", type=int)
    given = asked.parse_args()
    torch.set_num_threads(1)
    sides = {name: fork(train, name, given) for name in SIDES}
    taken = {name: [] for name in SIDES}
    for number in range(given.warm_up + given.steps):
        for name in SIDES if number % 2 == 0 else SIDES[::-1]:
            sides[name].send("step")
            taken[name].append(sides[name].recv())
    told = {}
    for name, steps in taken.items():
        sides[name].send("end")
        told[name] = sides[name].recv()
        told[name]["losses"] = [loss for _, _, loss in steps]
        told[name]["cpu_s"] = [cpu for cpu, _, _ in steps[given.warm_up :]]
        told[name]["wall_s"] = [wall for _, wall, _ in steps[given.warm_up :]]
    print(json.dumps(told))


def train(side, given, pipe):
    device = torch.device("cpu")
    if side == "virtual":
        install()
        device = torch.device("cuda")
    elif side == "kept":
        keep_freed()
    make, batch_of, size = MODELS[given.model]
    torch.manual_seed(0)
    model = make().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    batches = [batch_of(given.batch or size) for _ in range(4)]
    number = 0

    def step():
        nonlocal number
        inputs, labels = batches[number % len(batches)]
        number += 1
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
        return loss.item()

    while pipe.recv() == "step":
        wall, cpu = time.perf_counter(), time.process_time()
        loss = step()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        pipe.send((cpu, wall, loss))
    if side == "virtual":
        pipe.send({"peak_bytes": torch.cuda.max_memory_allocated()})
    else:
        pipe.send({"operators": operators_of(step)})


def operators_of(step):
    """How many ATen operators a step is."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += 1
            return function(*args, **(kwargs or {}))

    with Counter() as counter:
        step()
    return counter.count


if __name__ == "__main__":
    main()
