"""How much of a GPU is taken, by whom, and what happens when there is no more."""

import gc
import resource

import torch
from checking import check, raises, run
from torch import nn

MIB = 2**20
TOTAL = 11441 * MIB


def allocated(device=0):
    return torch.cuda.memory_allocated(device)


@check
def what_finds_no_room_is_not_written():
    """The first of all: the most that was ever resident is compared."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        for make in (
            lambda: torch.ones(2 << 30, dtype=torch.uint8, device="cuda"),
            lambda: torch.ones(1).expand(1 << 29).to("cuda"),
        ):
            with raises(torch.cuda.OutOfMemoryError, "Tried to allocate 2.00 GiB"):
                make()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20, "KiB"


@check
def a_tensor_is_counted_as_long_as_its_memory_lives():
    before = allocated()
    x = torch.empty(MIB, device="cuda")
    assert allocated() - before == 4 * MIB
    view = x[:10]
    del x
    assert allocated() - before == 4 * MIB
    del view
    assert allocated() == before


@check
def sizes_are_rounded_as_cuda_rounds_them():
    before = allocated(1)
    kept = [torch.empty(1, device="cuda:1"), torch.empty(129, device="cuda:1")]
    assert allocated(1) - before == 512 + 1024
    assert kept and torch.cuda.memory_reserved(1) % (2 * MIB) == 0


@check
def each_gpu_has_its_own_count():
    before = allocated(0), allocated(1)
    kept = torch.empty(MIB, dtype=torch.uint8, device="cuda:1")
    assert (allocated(0), allocated(1)) == (before[0], before[1] + MIB)
    moved = kept.to("cuda:0")
    assert (allocated(0), allocated(1)) == (before[0] + MIB, before[1] + MIB)
    host = moved.cpu()
    del kept, moved
    assert (allocated(0), allocated(1)) == before and not host.is_cuda


@check
def views_and_changes_in_place_take_nothing():
    x = torch.empty(MIB, device="cuda")
    before = allocated()
    kept = [x.view(-1, 2), x[::2], x.t(), x.detach(), x.add_(1), x.requires_grad_(), x.to("cuda")]
    assert allocated() == before and kept


@check
def a_tensor_that_grows_is_counted_as_large_as_it_is():
    x = torch.empty(0, device="cuda")
    before = allocated()
    x.resize_(MIB)
    assert allocated() - before == 4 * MIB
    torch.cat([torch.zeros(2 * MIB, device="cuda")], out=x)
    assert allocated() - before == 8 * MIB
    torch.cuda.set_per_process_memory_fraction(0.01)
    try:
        with raises(torch.cuda.OutOfMemoryError, "Tried to allocate 128.00 MiB"):
            torch.empty(0, device="cuda").resize_(32 * MIB)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    x.set_()
    del x
    assert allocated() == before


@check
def a_storage_that_shrinks_gives_back_as_fsdp_frees():
    x = torch.empty(MIB, device="cuda")
    before = allocated()
    x.untyped_storage().resize_(0)
    assert before - allocated() == 4 * MIB
    with raises(torch.cuda.OutOfMemoryError, "Tried to allocate 12.00 GiB"):
        x.untyped_storage().resize_(12 << 30)
    x.untyped_storage().resize_(4 * MIB)
    assert allocated() == before and x.is_cuda


@check
def peaks_begin_again_when_they_are_reset():
    torch.cuda.reset_peak_memory_stats()
    before = allocated()
    torch.empty(8 * MIB, dtype=torch.uint8, device="cuda")
    assert torch.cuda.max_memory_allocated() == before + 8 * MIB
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() == before


@check
def a_training_takes_weights_gradients_and_state():
    before = allocated()
    model = nn.Linear(1024, 1024, bias=False).cuda()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 1024, device="cuda")).sum().backward()
    optimizer.step()
    assert 16 * MIB <= allocated() - before < 17 * MIB
    optimizer.zero_grad(set_to_none=True)
    assert 12 * MIB <= allocated() - before < 13 * MIB
    del model, optimizer
    gc.collect()
    assert allocated() == before


@check
def a_full_gpu_says_what_the_cloud_says():
    with raises(
        torch.cuda.OutOfMemoryError,
        "CUDA out of memory. Tried to allocate 12.00 GiB. GPU 1 has a total capacity of 11.17 GiB",
        "[simgrid-ml]",
        "Tesla K80",
    ):
        torch.empty(12 << 30, dtype=torch.uint8, device="cuda:1")
    assert issubclass(torch.cuda.OutOfMemoryError, RuntimeError)
    assert torch.cuda.memory_stats(1)["num_ooms"] >= 1
    assert torch.zeros(3, device="cuda:1").sum() == 0, "the GPU goes on"


@check
def room_is_looked_for_before_the_host_is_written_to():
    """None of these touches 40 GiB."""
    for make in (
        lambda: torch.zeros(40 << 30, dtype=torch.uint8, device="cuda"),
        lambda: torch.ones(5 << 30, dtype=torch.float64, device="cuda"),
        lambda: torch.full((1 << 20, 10 << 10), 1.0, device="cuda"),
        lambda: torch.zeros(1, device="cuda").new_zeros((40 << 30,), dtype=torch.uint8),
        lambda: torch.zeros(1).expand(10 << 30).to("cuda"),
        lambda: torch.zeros(1, device="cuda").expand(10 << 30).clone(),
        lambda: torch.randn(10 << 30, device="cuda"),
        lambda: torch.arange(10 << 30, device="cuda"),
        lambda: torch.zeros_like(torch.zeros(1, device="cuda").expand(10 << 30)),
        lambda: torch.zeros(1, device="cuda").expand(40 << 30).half(),
        lambda: torch.zeros(1, device="cuda").expand(10 << 30) + 1,
        lambda: torch.zeros(1, 1, device="cuda").expand(1 << 17, 1 << 17) * torch.zeros(1).cuda(),
        lambda: torch.rand(1 << 17, 1, device="cuda") * torch.rand(1, 1 << 17, device="cuda"),
        lambda: torch.rand(1 << 17, 1, device="cuda") @ torch.rand(1, 1 << 17, device="cuda"),
    ):
        before = allocated()
        with raises(torch.cuda.OutOfMemoryError, "CUDA out of memory"):
            make()
        assert allocated() == before


@check
def a_process_may_limit_itself():
    torch.cuda.set_per_process_memory_fraction(0.01)
    try:
        with raises(torch.cuda.OutOfMemoryError, "CUDA out of memory"):
            torch.empty(200 * MIB, dtype=torch.uint8, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    torch.empty(200 * MIB, dtype=torch.uint8, device="cuda")


@check
def free_memory_is_what_nobody_has():
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(0)
    kept = torch.empty(100 * MIB, dtype=torch.uint8, device="cuda")
    assert total == TOTAL and free - torch.cuda.mem_get_info(0)[0] >= 98 * MIB
    del kept
    assert torch.cuda.memory_reserved() >= 100 * MIB
    torch.cuda.empty_cache()
    assert torch.cuda.mem_get_info(0)[0] == free


@check
def cycles_are_found_by_the_collector():
    before = allocated()

    class Node:
        pass

    for _ in range(3):
        node = Node()
        node.itself, node.x = node, torch.empty(MIB, device="cuda")
        node.x.node = node
    del node
    gc.collect()
    assert allocated() == before


run()
