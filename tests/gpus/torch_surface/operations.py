"""Whatever is made of a GPU's tensors is on that GPU, and nothing of it is taken for a mistake."""

import _thread
import threading
from pathlib import Path

import torch
import torch.nn.functional as F
from checking import check, holds, raises, run
from torch import nn

for line in Path(__file__).with_name("on_gpu.txt").read_text().splitlines():
    holds(line, lambda line=line: _on_gpu(eval(line)))


def _on_gpu(tensor):
    assert tensor.is_cuda and tensor.device.type == "cuda" and not tensor.is_cpu
    assert tensor.get_device() == tensor.device.index


@check
def what_is_on_the_host_stays_there():
    for made in (
        *(torch.zeros(2), torch.zeros(2).cuda().cpu(), torch.zeros(2).cuda().to("cpu")),
        *(torch.zeros(2).new_zeros(2), torch.tensor([1]), torch.ones(2, device="cpu") * 2),
        *(torch.zeros(2).cuda().new_zeros(2, device="cpu"), torch.nonzero(torch.ones(2))),
        *(torch.empty(2, pin_memory=True), torch.zeros(2).copy_(torch.ones(2).cuda())),
        torch.nn.utils.rnn.pack_padded_sequence(torch.rand(3, 1, 2).cuda(), [3]).batch_sizes,
    ):
        assert made.device == torch.device("cpu") and not made.is_cuda and made.is_cpu
        assert made.get_device() == -1


@check
def the_second_gpu_is_the_second():
    x = torch.rand(2, 2, device="cuda:1")
    for made in (x, x + x, x[0], x.new_zeros(1), torch.zeros_like(x), x.half(), F.softmax(x, 0)):
        assert str(made.device) == "cuda:1" and made.device.index == 1


@check
def the_current_gpu_is_what_cuda_means():
    with torch.cuda.device(1):
        assert torch.zeros(1, device="cuda").get_device() == 1
        assert torch.zeros(1).cuda().get_device() == 1
        assert nn.Linear(1, 1).cuda().weight.get_device() == 1
        assert torch.zeros(1, device="cuda:0").get_device() == 0
        assert (torch.zeros(1, device="cuda:0") + 1).get_device() == 0
    assert torch.zeros(1, device="cuda").get_device() == 0


@check
def a_default_device_is_taken_by_all_constructors():
    torch.set_default_device("cuda:1")
    try:
        for made in (
            *(torch.zeros(2), torch.tensor([1.0]), torch.as_tensor([1.0]), torch.rand(2)),
            *(nn.Linear(2, 2).weight, torch.arange(3), torch.randn(2) + torch.ones(2)),
        ):
            assert str(made.device) == "cuda:1", made
        assert torch.zeros(1, device="cpu").device.type == "cpu"
    finally:
        torch.set_default_device(None)
    assert torch.zeros(1).device.type == "cpu" and torch.tensor([1]).device.type == "cpu"


@check
def a_device_is_a_context():
    with torch.device("cuda:1"):
        assert str(torch.zeros(2).device) == str(torch.tensor([1.0]).device) == "cuda:1"
        assert str(nn.Linear(2, 2).weight.device) == "cuda:1"
    assert torch.zeros(1).device.type == "cpu"


@check
def the_default_type_of_old_scripts():
    torch.set_default_tensor_type("torch.cuda.FloatTensor")
    try:
        assert torch.zeros(2).is_cuda and torch.tensor([1.0]).is_cuda
        assert torch.zeros(2).dtype == torch.float32
    finally:
        torch.set_default_tensor_type("torch.FloatTensor")
    assert not torch.zeros(2).is_cuda


@check
def types_say_where_a_tensor_is():
    gpu, host = torch.zeros(1).cuda(), torch.zeros(1)
    assert gpu.type() == "torch.cuda.FloatTensor" and host.type() == "torch.FloatTensor"
    assert gpu.half().type() == "torch.cuda.HalfTensor"
    assert isinstance(gpu, torch.cuda.FloatTensor) and not isinstance(host, torch.cuda.FloatTensor)
    assert not isinstance(gpu, torch.cuda.LongTensor)
    assert not gpu.type("torch.FloatTensor").is_cuda
    assert gpu.type(torch.cuda.LongTensor).dtype == torch.int64


@check
def a_tensor_shows_its_device():
    assert "device='cuda:0'" in repr(torch.zeros(2).cuda())
    assert "device='cuda:1'" in repr(torch.zeros(2, requires_grad=True, device="cuda:1"))
    assert "device='cuda:0'" in repr(torch.eye(2).to_sparse().cuda())
    assert "device=" not in repr(torch.zeros(2))
    assert f"{torch.ones(1).cuda().item()} {torch.tensor(1.5).cuda():.1f}" == "1.0 1.5"


@check
def devices_compare_and_hash():
    gpu = torch.zeros(1, device="cuda:1")
    assert gpu.device == torch.device("cuda:1") == torch.device("cuda", 1)
    assert gpu.device != torch.device("cuda:0") and gpu.device in {torch.device("cuda:1")}
    assert torch.device("cuda").index is None and torch.zeros(1, device="cuda").device.index == 0


@check
def a_number_without_type_is_a_gpu():
    assert torch.device(1) == torch.device("cuda:1")
    assert str(torch.zeros(1, device=torch.device(1)).device) == "cuda:1"
    assert isinstance(torch.device(0), torch.device)
    assert isinstance(torch.zeros(1).device, torch.device)


@check
def generators_are_of_a_device():
    generator = torch.Generator(device="cuda:1").manual_seed(3)
    first = torch.rand(3, generator=generator, device="cuda:1")
    generator.manual_seed(3)
    assert torch.equal(first, torch.rand(3, generator=generator, device="cuda:1"))
    assert generator.device == torch.device("cuda:1") and isinstance(generator, torch.Generator)
    assert isinstance(torch.default_generator, torch.Generator)
    assert torch.Generator().device == torch.device("cpu")
    torch.randperm(4, generator=torch.Generator())
    state = generator.get_state()
    value = torch.rand(1, generator=generator, device="cuda:1")
    generator.set_state(state)
    assert torch.equal(value, torch.rand(1, generator=generator, device="cuda:1"))


@check
def a_gpu_that_is_seeded_apart_draws_numbers_of_its_own():
    torch.manual_seed(1)
    torch.cuda.manual_seed(7)
    first, host = torch.rand(3, device="cuda"), torch.rand(3)
    torch.cuda.manual_seed(7)
    assert torch.equal(first, torch.rand(3, device="cuda"))
    torch.manual_seed(1)
    assert torch.equal(host, torch.rand(3)), "the host's are its own"
    torch.manual_seed(1)
    assert torch.equal(host, torch.rand(3, device="cuda").cpu()), "one seed joins them"


@check
def threads_draw_for_their_gpus_at_once_and_do_not_disturb_each_other():
    def drawn():
        torch.manual_seed(1)
        torch.cuda.manual_seed_all(7)
        sums = {}

        def draw(gpu):
            many = [torch.rand(20000, device=f"cuda:{gpu}").sum().item() for _ in range(60)]
            sums[gpu] = many[-1]

        threads = [threading.Thread(target=draw, args=(gpu,)) for gpu in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sums[0], sums[1], torch.rand(1).item()

    assert len({drawn() for _ in range(10)}) == 1


@check
def threads_that_python_knows_nothing_of_use_gpus():
    devices, done = [], threading.Event()

    def use():
        try:
            devices.append(str((torch.ones(2, device="cuda") + 1).device))
        finally:
            done.set()

    torch.ones(1, device="cuda")
    _thread.start_new_thread(use, ())
    assert done.wait(60) and devices == ["cuda:0"], devices


@check
def a_generator_of_the_host_makes_nothing_on_a_gpu():
    with raises(RuntimeError, "Expected a 'cuda' device type for generator but found 'cpu'"):
        torch.rand(3, generator=torch.Generator(), device="cuda")
    with raises(RuntimeError, "Expected a 'cpu' device type for generator but found 'cuda'"):
        torch.rand(3, generator=torch.Generator("cuda"))


@check
def named_backends_are_asked_like_the_clouds():
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.use_deterministic_algorithms(True)
    nn.LSTM(3, 4).cuda()(torch.rand(5, 2, 3).cuda())[0].sum().backward()
    torch.use_deterministic_algorithms(False)


run()
