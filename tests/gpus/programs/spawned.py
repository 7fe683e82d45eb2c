"""A process per GPU by ``mp.spawn``, as in the ImageNet example, over NCCL."""

import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler


class Pictures(Dataset):
    def __len__(self):
        return 32

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randn(3, 16, 16, generator=generator), index % 10


def hits(output, target, topk):
    with torch.no_grad():
        _, found = output.topk(max(topk), 1, True, True)
        right = found.t().eq(target.view(1, -1).expand_as(found.t()))
        return [right[:k].reshape(-1).float().sum(0, keepdim=True) for k in topk]


def worker(gpu, gpus, url):
    dist.init_process_group("nccl", init_method=url, world_size=gpus, rank=gpu)
    assert dist.get_backend() == "nccl"
    torch.manual_seed(gpu)
    torch.cuda.set_device(gpu)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
    )
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model).cuda(gpu)
    model = nn.parallel.DistributedDataParallel(model, device_ids=[gpu])
    model.register_comm_hook(None, fp16_compress_hook)
    criterion = nn.CrossEntropyLoss().cuda(gpu)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    sampler = DistributedSampler(Pictures())
    loader = DataLoader(Pictures(), batch_size=8, sampler=sampler, pin_memory=True)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        total = torch.zeros(2, device="cuda")
        for images, target in loader:
            images = images.cuda(gpu, non_blocking=True)
            target = target.cuda(gpu, non_blocking=True)
            output = model(images)
            loss = criterion(output, target)
            total += torch.cat([loss.detach().view(1), hits(output, target, (1, 5))[1]])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        dist.all_reduce(total)
        pictures = torch.tensor(len(sampler) + gpu, device="cuda")
        dist.all_reduce(pictures, op=dist.ReduceOp.AVG)
        assert pictures.item() == len(sampler)  # NCCL averages integers, too
        dist.barrier()
    weight = model.module[5].weight.detach()
    others = [torch.zeros_like(weight) for _ in range(gpus)]
    dist.all_gather(others, weight)
    assert all(torch.equal(other, weight) for other in others)
    known = [None] * gpus
    dist.all_gather_object(known, str(weight.device))
    if gpu == 0:
        torch.save(model.state_dict(), "model.pt")
    dist.barrier()
    model.load_state_dict(torch.load("model.pt", map_location=f"cuda:{gpu}"))
    if gpu == 0:
        print(*known, f"{total[0].item():.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    count = torch.cuda.device_count()
    mp.spawn(worker, nprocs=count, args=(count, sys.argv[1]))
