"""Data-parallel training with torch.distributed and NCCL, a GPU for each rank."""

import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("nccl")
local_rank = int(os.environ["LOCAL_RANK"])

torch.manual_seed(1)
model = DistributedDataParallel(torch.nn.Linear(64, 10).cuda())
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
torch.manual_seed(dist.get_rank())
inputs = torch.randn(256, 64).cuda()
labels = torch.randint(0, 10, (256,)).cuda()
for step in range(5):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    print(f"local rank {local_rank}: step {step}: loss {loss.item():.4f}", flush=True)
dist.destroy_process_group()
