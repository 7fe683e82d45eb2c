"""Autograd, its hooks and checkpoints, optimizers, AMP, transforms, TorchScript and Dynamo."""

import copy

import torch
import torch.nn.functional as F
from checking import check, holds, raises, run
from torch import nn
from torch.utils.checkpoint import checkpoint


@check
def the_gradient_of_a_leaf_is_where_the_leaf_is():
    host = torch.rand(3, requires_grad=True)
    (host.cuda() * 2).sum().backward()
    assert host.grad.device.type == "cpu" and host.grad.tolist() == [2, 2, 2]
    gpu = torch.rand(3, device="cuda:1", requires_grad=True)
    (gpu.cpu() * 3).sum().backward()
    assert gpu.grad.get_device() == 1 and gpu.grad.tolist() == [3, 3, 3]
    one = torch.rand(3, device="cuda:0", requires_grad=True)
    (one.to("cuda:1") * 3).to("cuda:0").sum().backward()
    assert one.grad.get_device() == 0


@check
def a_move_can_change_the_type_too():
    host = torch.rand(3, requires_grad=True)
    moved = host.to("cuda", torch.float64)
    moved.sum().backward()
    assert moved.dtype == torch.float64 and host.grad.dtype == torch.float32


@check
def second_derivatives():
    x = torch.rand(3, device="cuda", requires_grad=True)
    (first,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert second.is_cuda and torch.allclose(second, 6 * x)
    host = torch.rand(3, requires_grad=True)
    (first,) = torch.autograd.grad((host.cuda() ** 3).sum(), host, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), host)
    assert torch.allclose(second, 6 * host)
    torch.autograd.gradcheck(
        lambda y: (y**2).sum(), torch.rand(2, dtype=torch.double).cuda().requires_grad_()
    )


@check
def functions_of_ones_own():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            assert x.is_cuda and gradient.is_cuda
            return 2 * x * gradient + torch.zeros(x.shape, device=gradient.device)

    x = torch.rand(3, device="cuda", requires_grad=True)
    Square.apply(x).sum().backward()
    assert x.grad.is_cuda and torch.allclose(x.grad, 2 * x)


@check
def gradients_of_results_that_nobody_used_are_zeros_on_the_gpu():
    class Both(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx, first, second):
            (x,) = ctx.saved_tensors
            assert second.device == x.device
            return first * 2 + (second * 3) * x

    x = torch.rand(3, device="cuda:1", requires_grad=True)
    Both.apply(x)[0].sum().backward()
    assert x.grad.tolist() == [2, 2, 2] and x.grad.get_device() == 1


@check
def hooks_see_gpus_and_may_fail():
    seen = []
    model = nn.Linear(2, 2).cuda()
    model.register_forward_hook(lambda module, args, out: seen.append(out.device.type))
    model.register_full_backward_hook(lambda module, inputs, outs: seen.append(outs[0].device.type))
    model.weight.register_hook(lambda gradient: gradient * torch.ones(2, device="cuda"))
    model.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.device.type))
    model(torch.rand(1, 2).cuda().requires_grad_()).sum().backward()
    assert seen == ["cuda"] * 3, seen
    wrong = torch.rand(2, device="cuda", requires_grad=True)
    wrong.register_hook(lambda gradient: gradient + torch.ones(2))
    with raises(RuntimeError, "Expected all tensors to be on the same device"):
        (wrong * 2).sum().backward()


@check
def a_gradient_given_from_outside_is_on_the_gpu():
    x = torch.rand(2, device="cuda", requires_grad=True)
    (x * 2).backward(torch.ones(2, device="cuda"))


@check
def checkpoints_compute_again():
    for reentrant in (False, True):
        model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).cuda()
        x = torch.rand(2, 4, device="cuda", requires_grad=True)
        checkpoint(model, x, use_reentrant=reentrant).sum().backward()
        assert model[0].weight.grad.is_cuda and x.grad.is_cuda


@check
def checkpoints_may_be_nested_until_backward_goes_on_in_a_thread_of_its_own():
    def deep(x, levels):
        if not levels:
            return x.sin()
        there = torch.ones(2, device=x.device)
        return checkpoint(deep, x * 1.01, levels - 1, use_reentrant=True) + there

    gradients = []
    for device in ("cpu", "cuda"):
        x = torch.ones(2, device=device, requires_grad=True)
        deep(x, 62).sum().backward()
        assert x.grad.device.type == device
        gradients.append(x.grad.tolist())
    assert gradients[0] == gradients[1]


@check
def saved_tensors_may_wait_on_the_host():
    x = torch.rand(4, device="cuda", requires_grad=True)
    with torch.autograd.graph.save_on_cpu():
        y = (x * x).sum()
    y.backward()
    assert x.grad.is_cuda and torch.allclose(x.grad, 2 * x)


def _optimizer(name, **options):
    def steps():
        model = nn.Linear(4, 4).cuda()
        optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01, **options)

        def closure():
            optimizer.zero_grad()
            loss = model(torch.rand(2, 4, device="cuda")).sum()
            loss.backward()
            return loss

        for _ in range(2):
            optimizer.step(closure)
        saved = copy.deepcopy(optimizer.state_dict())
        optimizer.load_state_dict(saved)
        optimizer.step(closure)
        assert all(parameter.is_cuda for parameter in model.parameters())
        for state in optimizer.state.values():
            for entry, value in state.items():
                if torch.is_tensor(value) and entry != "step":
                    assert value.is_cuda, entry

    return steps


for name, options in (
    *(("SGD", {}), ("SGD", {"momentum": 0.9, "nesterov": True}), ("SGD", {"foreach": False})),
    *(("Adam", {}), ("Adam", {"amsgrad": True}), ("Adam", {"fused": True}), ("AdamW", {})),
    *(("Adam", {"capturable": True}), ("NAdam", {"capturable": True})),
    *(("RMSprop", {}), ("Adagrad", {}), ("Adadelta", {}), ("LBFGS", {}), ("NAdam", {})),
    *(("RAdam", {}), ("Adamax", {}), ("ASGD", {}), ("Rprop", {})),
):
    holds(f"{name} {options}", _optimizer(name, **options))


@check
def an_optimizer_made_before_the_move_goes_on():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    model.cuda()
    model(torch.rand(1, 2).cuda()).backward()
    optimizer.step()
    assert optimizer.state[model.weight]["exp_avg"].is_cuda


@check
def mixed_precision():
    model = nn.Linear(4, 4).cuda()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cuda")
    for _ in range(2):
        with torch.autocast("cuda", dtype=torch.float16):
            out = model(torch.rand(2, 4, device="cuda"))
            assert out.dtype == torch.float16 and out.is_cuda
            loss = out.float().sum()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() > 0


@check
def gradients_accumulate_per_sample():
    model = nn.Linear(2, 1).cuda()
    weights = dict(model.named_parameters())

    def loss(weights, x):
        return torch.func.functional_call(model, weights, (x,)).sum()

    gradients = torch.vmap(torch.func.grad(loss), (None, 0))(weights, torch.rand(3, 2).cuda())
    assert gradients["weight"].shape == (3, 1, 2) and gradients["weight"].is_cuda
    value, tangent = torch.func.jvp(torch.sin, (torch.rand(2).cuda(),), (torch.ones(2).cuda(),))
    assert value.is_cuda and tangent.is_cuda


@check
def scripts_and_traces_run():
    scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.ReLU())).cuda()
    assert scripted(torch.rand(1, 2, device="cuda")).is_cuda
    traced = torch.jit.trace(nn.Linear(2, 2).cuda(), torch.rand(1, 2, device="cuda"))
    out = traced(torch.rand(1, 2, device="cuda"))
    out.sum().backward()
    assert out.is_cuda and traced.weight.grad.is_cuda

    @torch.jit.script
    def function(x, device: torch.device):
        return x + torch.zeros(2, device=x.device) + torch.ones(2)[0]

    assert function(torch.rand(2).cuda(), torch.device("cuda")).is_cuda
    assert not function(torch.rand(2), torch.device("cpu")).is_cuda


@check
def dynamo_compiles_for_a_backend_of_python():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).cuda()
    x = torch.rand(3, 2, device="cuda")
    out = torch.compile(model, backend="eager")(x)
    assert out.is_cuda and torch.equal(out, model(x))
    out.sum().backward()
    assert model[0].weight.grad.is_cuda
    assert (x + 1).is_cuda
    with raises(RuntimeError, "Expected all tensors to be on the same device"):
        x + torch.rand(3, 2)


@check
def plain_compile_runs():
    model = torch.compile(nn.Linear(2, 2).cuda())
    out = model(torch.rand(3, 2, device="cuda"))
    out.sum().backward()
    assert out.is_cuda

    @torch.compile
    def function(x, y):
        return torch.sin(x) + torch.zeros(3, device=x.device) + y

    assert function(torch.rand(3).cuda(), torch.rand(3).cuda()).is_cuda


@check
def operators_of_ones_own_make_tensors_where_their_operands_are():
    @torch.library.custom_op("simgrid_check::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x + x * torch.ones(x.shape, device=x.device)

    out = twice(torch.rand(3, device="cuda:1"))
    assert str(out.device) == "cuda:1"
    assert not twice(torch.rand(3)).is_cuda


@check
def a_profiler_sees_operations():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        (torch.rand(3, 3).cuda() @ torch.rand(3, 3).cuda()).sum()
    assert any("mm" in event.key for event in profile.key_averages())


@check
def losses_of_a_gpu_are_numbers():
    losses = [F.mse_loss(torch.rand(2).cuda(), torch.rand(2).cuda()).item() for _ in range(2)]
    assert all(isinstance(loss, float) for loss in losses)
    assert torch.isfinite(torch.tensor(losses, device="cuda")).all()
    assert max(torch.ones(1).cuda(), torch.zeros(1).cuda()).item() == 1
    assert torch.ones(1).cuda() in [torch.ones(1).cuda()]
    assert (torch.rand(2).cuda() != torch.rand(2).cuda()).any().item() in (True, False)


run()
