"""Where tensors may meet and where not, how they move, and what of them may become an array."""

import threading
import warnings

import numpy
import torch
import torch.nn.functional as F
from checking import check, raises, run
from torch import nn

MIXED = "Expected all tensors to be on the same device"


@check
def a_gpu_beyond_the_node_is_none():
    for use in (
        lambda: torch.cuda.set_device(2),
        lambda: torch.zeros(1).to("cuda:5"),
        lambda: torch.zeros(1).to(7),
        lambda: torch.zeros(1, device="cuda:2"),
        lambda: torch.zeros(1).cuda(3),
        lambda: torch.tensor([1], device="cuda:2"),
        lambda: torch.as_tensor([1], device="cuda:2"),
        lambda: nn.Linear(1, 1).cuda(2),
        lambda: nn.Linear(1, 1).to("cuda:2"),
        lambda: torch.zeros(1, device="cuda").new_zeros(1, device="cuda:2"),
        lambda: torch.cuda.device(2).__enter__(),
    ):
        with raises(RuntimeError, "CUDA error: invalid device ordinal", "this node has 2 GPUs"):
            use()


@check
def the_ordinal_of_a_negative_device_is_refused():
    with raises((RuntimeError, AssertionError, ValueError)):
        torch.zeros(1, device="cuda:-1")


@check
def host_and_gpu_do_not_meet():
    gpu, host = torch.zeros(2, device="cuda:1"), torch.zeros(2)
    for use in (
        lambda: host + gpu,
        lambda: gpu + host,
        lambda: gpu.add_(host),
        lambda: host.add_(gpu),
        lambda: torch.cat([gpu, host]),
        lambda: torch.stack([host, gpu]),
        lambda: torch.dot(gpu, host),
        lambda: torch.where(gpu > 0, gpu, host),
        lambda: F.mse_loss(gpu, host),
        lambda: torch.add(gpu, 1, out=host),
        lambda: nn.Linear(2, 2).cuda(1)(host),
        lambda: nn.Linear(2, 2)(gpu),
        lambda: nn.Linear(2, 2).cuda(1)(torch.zeros(3, 4, 2)),
        lambda: nn.Conv2d(1, 1, 1).cuda(1)(torch.zeros(1, 1, 2, 2)),
        lambda: nn.BatchNorm1d(2).cuda(1)(torch.zeros(3, 2)),
        lambda: nn.LayerNorm(2).cuda(1)(host),
        lambda: nn.Embedding(3, 2).cuda(1)(torch.tensor([1])),
        lambda: nn.LSTM(2, 2).cuda(1)(torch.zeros(3, 1, 2)),
        lambda: nn.MultiheadAttention(2, 1).cuda(1)(*[torch.zeros(3, 1, 2)] * 3),
        lambda: F.cross_entropy(torch.zeros(2, 3).cuda(1), torch.tensor([0, 1])),
        lambda: F.cross_entropy(
            torch.zeros(2, 3).cuda(1), torch.tensor([0, 1]).cuda(1), host[[0, 0, 0]]
        ),
        lambda: F.scaled_dot_product_attention(
            *[torch.zeros(1, 1, 2, 2).cuda(1)] * 2, torch.zeros(1, 1, 2, 2)
        ),
        lambda: torch.einsum("i,i->", gpu, host),
        lambda: torch.matmul(torch.zeros(3, 2, 2), torch.zeros(2, 2).cuda(1)),
        lambda: gpu.scatter(0, torch.tensor([0]), 1.0),
        lambda: gpu.gather(0, torch.tensor([0])),
        lambda: gpu.index_select(0, torch.tensor([0])),
        lambda: gpu.masked_fill(torch.tensor([True, False]), 1),
        lambda: torch._foreach_add([gpu, gpu], [gpu, host]),
        lambda: (
            F.ctc_loss(torch.zeros(5, 1, 4).cuda(1), torch.zeros(1, 2).long(), (5,), (2,)) and None
        ),
        lambda: torch.autocast("cuda", torch.float16).__call__(nn.Linear(2, 2).cuda(1))(host[None]),
    ):
        with raises(RuntimeError, MIXED, "cuda:1", "cpu", "[simgrid-ml]"):
            use()


@check
def two_gpus_do_not_meet():
    one, other = torch.zeros(2, device="cuda:0"), torch.zeros(2, device="cuda:1")
    for use in (
        lambda: one + other,
        lambda: other.mul_(one),
        lambda: torch.cat([one, other]),
        lambda: one + torch.tensor(1.0, device="cuda:1"),
        lambda: nn.Linear(2, 2).cuda(1)(one),
        lambda: torch.addcmul(one, one, other),
    ):
        with raises(RuntimeError, MIXED, "cuda:0", "cuda:1"):
            use()


@check
def a_number_of_the_host_meets_everything():
    gpu = torch.ones(2, device="cuda")
    for made in (torch.tensor(2.0) * gpu, gpu + torch.tensor(1), gpu.pow(torch.tensor(2.0))):
        assert made.is_cuda
    assert not torch.tensor(2.0).is_cuda
    scalar = torch.tensor(2.0)
    gpu * scalar
    assert not scalar.is_cuda and (scalar + 1).device.type == "cpu"
    gpu.fill_(scalar)


@check
def indices_may_come_from_the_host_only_to_a_gpu():
    gpu, index = torch.arange(3.0).cuda(), torch.tensor([0, 2])
    assert gpu[index].is_cuda and gpu[index].tolist() == [0, 2]
    gpu[index] = 5.0
    gpu[index] = torch.tensor([6.0, 7.0], device="cuda")
    assert gpu.tolist() == [6, 1, 7] and not index.is_cuda
    assert gpu[torch.tensor([True, False, True])].numel() == 2
    with raises(RuntimeError, "indices should be either on cpu or on the same device"):
        torch.zeros(3)[index.cuda()]
    with raises(RuntimeError, "indices should be either on cpu or on the same device"):
        torch.zeros(3, device="cuda:1")[index.cuda(0)]
    with raises(RuntimeError):
        gpu[index] = torch.tensor([6.0, 7.0])


@check
def a_tensor_that_was_used_on_the_host_is_not_taken_to_a_gpu():
    """C++'s helpers are; a script's tensors that pass the same line of a loop are not."""

    def combine(one, other):
        return one + other

    host = combine(torch.ones(2), torch.ones(2))
    with raises(RuntimeError, MIXED):
        combine(host, torch.ones(2, device="cuda"))
    layer = nn.Linear(2, 2).cuda()
    for batch in (torch.ones(3, 2), torch.ones(3, 2).t().contiguous().t(), torch.ones(4, 3, 2)):
        with raises(RuntimeError, MIXED):
            layer(batch)
        assert not batch.is_cuda


@check
def copies_go_anywhere():
    host, one, other = torch.zeros(2), torch.ones(2, device="cuda:0"), torch.ones(2).cuda(1)
    host.copy_(one)
    assert not host.is_cuda and host.tolist() == [1, 1]
    one.copy_(other * 3)
    assert one.get_device() == 0 and one.tolist() == [3, 3]
    other[:1] = host[:1] * 7
    assert other.get_device() == 1 and other.tolist() == [7, 1]
    one.data = torch.zeros(2, device="cuda:0")
    assert one.is_cuda
    torch._foreach_copy_([host], [other])
    assert host.tolist() == [7, 1]


@check
def a_move_to_where_it_is_is_no_copy():
    gpu, host = torch.zeros(2).cuda(), torch.zeros(2)
    assert gpu.to("cuda") is gpu and gpu.cuda() is gpu and gpu.to("cuda:0") is gpu
    assert host.cpu() is host and host.to("cpu") is host and gpu.to(torch.float32) is gpu
    assert gpu.to("cuda", copy=True) is not gpu and gpu.to("cuda:1") is not gpu
    assert gpu.to("cuda", torch.float64) is not gpu


@check
def a_moved_tensor_is_another_one():
    host = torch.arange(4.0)
    gpu = host.cuda()
    gpu += 1
    assert host.tolist() == [0, 1, 2, 3] and gpu.tolist() == [1, 2, 3, 4]
    back = gpu.cpu()
    back += 1
    assert gpu.tolist() == [1, 2, 3, 4]
    other = gpu.to("cuda:1")
    other.zero_()
    assert gpu.sum() == 10 and other.sum() == 0


@check
def strides_survive_a_move():
    host = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    gpu = host.cuda()
    assert gpu.stride() == host.stride() and torch.equal(gpu.cpu(), host)
    assert host.t_().cuda().stride() == host.stride() if host.dim() == 2 else True
    assert torch.rand(3, 4).t().cuda().stride() == (1, 4)
    assert torch.rand(1, 3).expand(4, 3).cuda().sum().is_cuda
    assert host.contiguous().cuda(memory_format=torch.channels_last).stride() == host.stride()


@check
def a_gpu_is_no_array():
    gpu = torch.ones(2, device="cuda:1")
    for use in (
        *(gpu.numpy, lambda: numpy.asarray(gpu), lambda: numpy.array(gpu)),
        *(lambda: numpy.sum(gpu.numpy()), lambda: gpu.detach().numpy()),
        lambda: numpy.ones(2) + numpy.asarray(gpu),
    ):
        with raises(TypeError, "can't convert cuda:1 device type tensor to numpy", "Tensor.cpu()"):
            use()
    assert gpu.cpu().numpy().tolist() == [1, 1] == gpu.numpy(force=True).tolist()
    assert gpu.tolist() == [1, 1] and float(gpu[0]) == 1 and int(gpu[0]) == 1 and bool(gpu[0])
    assert gpu[0].item() == 1 and list(gpu)[1].is_cuda and len(gpu) == 2
    with raises((TypeError, BufferError, RuntimeError, ValueError)):
        numpy.from_dlpack(gpu)


@check
def memory_of_a_gpu_has_no_address_for_other_libraries():
    with raises(RuntimeError, "__cuda_array_interface__", "[simgrid-ml]"):
        torch.zeros(2, device="cuda").__cuda_array_interface__  # noqa: B018
    with raises(AttributeError):
        torch.zeros(2).__cuda_array_interface__  # noqa: B018
    assert not hasattr(torch.zeros(2), "__cuda_array_interface__")


@check
def pinned_memory_is_the_hosts():
    pinned = torch.zeros(2).pin_memory()
    assert pinned.is_pinned() and not pinned.is_cuda and not torch.zeros(2).is_pinned()
    assert pinned.pin_memory() is pinned
    assert pinned[:1].is_pinned() and torch.empty(2, pin_memory=True).is_pinned()
    assert torch.tensor([1.0], pin_memory=True).is_pinned()
    assert torch.zeros_like(torch.zeros(2), pin_memory=True).is_pinned()
    assert pinned.cuda(non_blocking=True).is_cuda and not pinned.cuda().is_pinned()
    with raises(RuntimeError, "cannot pin", "torch.cuda.FloatTensor"):
        torch.zeros(2).cuda().pin_memory()
    assert nn.utils.rnn.pack_sequence([torch.zeros(2)]).pin_memory().data.is_pinned()


@check
def packed_sequences_move():
    packed = nn.utils.rnn.pack_padded_sequence(torch.rand(3, 2, 4), torch.tensor([3, 2]))
    moved = packed.to("cuda")
    assert moved.is_cuda and moved.data.is_cuda and not moved.batch_sizes.is_cuda
    padded, lengths = nn.utils.rnn.pad_packed_sequence(moved)
    assert padded.is_cuda and not lengths.is_cuda
    for is_sorted in (True, False):
        with raises(RuntimeError, "1D CPU int64 tensor, but got 1D cuda:1 Long tensor"):
            nn.utils.rnn.pack_padded_sequence(padded, lengths.cuda(1), enforce_sorted=is_sorted)
    assert packed.cuda().data.is_cuda and not packed.is_cuda and not moved.cpu().is_cuda


@check
def modules_move_whole():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).to("cuda:1")
    assert {str(t.device) for t in (*model.parameters(), *model.buffers())} == {"cuda:1"}
    model.cuda(0)
    assert {str(t.device) for t in (*model.parameters(), *model.buffers())} == {"cuda:0"}
    model.cpu()
    assert {str(t.device) for t in (*model.parameters(), *model.buffers())} == {"cpu"}
    model.to("cuda", torch.float16)
    assert model[0].weight.dtype == torch.float16 and model[1].num_batches_tracked.is_cuda
    parameter = model[0].weight
    model.to("cuda:1")
    assert model[0].weight is parameter and parameter.get_device() == 1


@check
def gradients_move_with_their_module():
    model = nn.Linear(2, 1)
    model(torch.ones(1, 2)).backward()
    model.cuda()
    assert model.weight.grad.is_cuda
    torch.optim.SGD(model.parameters(), 0.1).step()


@check
def a_model_over_two_gpus():
    front, back = nn.Linear(2, 3).cuda(0), nn.Linear(3, 1).cuda(1)
    optimizer = torch.optim.Adam([*front.parameters(), *back.parameters()])
    for _ in range(2):
        optimizer.zero_grad()
        back(front(torch.rand(4, 2).cuda(0)).relu().to("cuda:1")).sum().backward()
        norm = nn.utils.clip_grad_norm_([*front.parameters(), *back.parameters()], 0.1)
        optimizer.step()
    assert front.weight.grad.get_device() == 0 and back.weight.grad.get_device() == 1
    assert norm.is_cuda
    state = optimizer.state[back.weight]["exp_avg"]
    assert state.get_device() == 1 and optimizer.state[front.weight]["exp_avg"].get_device() == 0


@check
def threads_see_gpus_and_have_one_of_their_own():
    seen = {}

    def work():
        seen["current"] = torch.cuda.current_device()
        torch.cuda.set_device(0)
        x = torch.zeros(2, device="cuda:1")
        seen["device"] = str((x * 2).device)
        try:
            x + torch.zeros(2)
        except RuntimeError as error:
            seen["error"] = str(error)

    with torch.cuda.device(1):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert torch.cuda.current_device() == 1
    assert seen["current"] == 0 and seen["device"] == "cuda:1" and MIXED in seen["error"]


@check
def the_data_of_a_loader_come_from_the_host():
    data = torch.utils.data.TensorDataset(torch.rand(8, 2), torch.zeros(8))
    for workers in (0, 2):
        loader = torch.utils.data.DataLoader(data, 4, pin_memory=True, num_workers=workers)
        count = 0
        for batch, label in loader:
            assert batch.is_pinned() and not batch.is_cuda, workers
            assert (batch.cuda(non_blocking=True).sum() + label.to("cuda").sum()).is_cuda
            count += 1
        assert count == 2


@check
def nothing_is_said_of_a_plain_training():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).cuda()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        x, y = torch.rand(2, 1, 4, 4).cuda(), torch.tensor([0, 1]).cuda()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


run()
