"""Several processes of one node: forks, spawned children, tensors that are passed on."""

import os
import subprocess
import sys

import torch
import torch.multiprocessing as mp
from checking import check, raises, run

MIB = 2**20


def forked(function):
    """What ``function`` returns, or raises, in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = str(function())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return text


@check
def a_child_forked_before_cuda_is_used_may_use_it():
    assert not torch.cuda.is_initialized()
    assert forked(lambda: torch.ones(2, device="cuda").sum().item()) == "2.0"


@check
def a_child_forked_afterwards_may_not():
    x = torch.ones(2, device="cuda")
    for use in (
        lambda: torch.ones(2, device="cuda"),
        lambda: torch.ones(2).cuda(),
        lambda: torch.ones(2).to("cuda:1"),
        lambda: torch.cuda.set_device(1),
    ):
        said = forked(use)
        assert "Cannot re-initialize CUDA in forked subprocess" in said, said
        assert "'spawn' start method" in said
    assert forked(lambda: torch.ones(2).sum().item()) == "2.0", "the host's are for all"
    assert x.sum() == 2


@check
def a_forked_child_takes_nothing_from_the_parents_row():
    kept = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
    forked(lambda: None)
    free = torch.cuda.mem_get_info()[0]
    forked(lambda: sys.stdout.flush())
    assert torch.cuda.mem_get_info()[0] == free and kept.is_cuda


def train(index, queue):
    torch.cuda.set_device(index)
    x = torch.full((2,), float(index), device="cuda")
    queue.put((index, str(x.device), (x * 2).sum().item()))


@check
def spawned_children_use_gpus():
    queue = mp.get_context("spawn").SimpleQueue()
    mp.spawn(train, (queue,), nprocs=2)
    answers = sorted(queue.get() for _ in range(2))
    assert answers == [(0, "cuda:0", 0.0), (1, "cuda:1", 4.0)], answers


def change(tensors, queue):
    x, parameter = tensors.get()
    x += 1
    queue.put((str(x.device), str(parameter.device), torch.cuda.memory_allocated(1)))


@check
def a_tensor_that_is_passed_on_is_the_same_memory():
    context = mp.get_context("spawn")
    tensors, queue = context.Queue(), context.SimpleQueue()
    x = torch.zeros(MIB, device="cuda:1")
    tensors.put((x, torch.nn.Parameter(torch.ones(2, device="cuda:0"))))
    child = context.Process(target=change, args=(tensors, queue))
    child.start()
    answer = queue.get()
    child.join()
    assert answer == ("cuda:1", "cuda:0", 0), f"{answer}: the maker pays"
    assert x.sum() == MIB


TAKE = """
import sys, torch
x = torch.empty(int(sys.argv[1]), dtype=torch.uint8, device="cuda:0")
print("taken", flush=True)
sys.stdin.read()
"""


@check
def a_gpu_is_full_when_the_processes_of_its_node_have_it_together():
    size = 7 << 30
    other = subprocess.Popen(
        [sys.executable, "-c", TAKE, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"taken\n"
    with raises(
        torch.cuda.OutOfMemoryError,
        "Tried to allocate 7.00 GiB. GPU 0 has a total capacity of 11.17 GiB",
        "Other processes of the node have 7.00 GiB memory in use",
    ):
        torch.empty(size, dtype=torch.uint8, device="cuda:0")
    assert torch.cuda.mem_get_info(0)[0] < 5 << 30
    torch.empty(size, dtype=torch.uint8, device="cuda:1")
    other.communicate()
    torch.empty(size, dtype=torch.uint8, device="cuda:0")


@check
def memory_of_a_process_that_was_killed_is_free():
    torch.cuda.empty_cache()
    other = subprocess.Popen(
        [sys.executable, "-c", TAKE, str(7 << 30)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"taken\n"
    other.kill()
    other.communicate()
    torch.empty(7 << 30, dtype=torch.uint8, device="cuda:0")


if __name__ == "__main__":
    run()
