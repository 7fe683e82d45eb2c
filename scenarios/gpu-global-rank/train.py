"""Data-parallel training with Horovod, a GPU for each rank."""

import horovod.torch as hvd
import torch
import torch.nn.functional as F

hvd.init()
torch.cuda.set_device(hvd.rank())

torch.manual_seed(1)
model = torch.nn.Linear(64, 10).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
hvd.broadcast_parameters(model.state_dict(), root_rank=0)
optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
torch.manual_seed(hvd.rank())
inputs = torch.randn(256, 64).cuda()
labels = torch.randint(0, 10, (256,)).cuda()
for step in range(5):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    print(f"rank {hvd.rank()}: step {step}: loss {loss.item():.4f}", flush=True)
