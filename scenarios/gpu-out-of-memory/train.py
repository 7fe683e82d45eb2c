"""Two ranks share a GPU, so Gloo connects them; each keeps its part of the data there."""

import torch
import torch.distributed as dist
import torch.nn.functional as F

PARTS = 100  # of 60 MiB

dist.init_process_group("gloo")
torch.manual_seed(1)
model = torch.nn.Linear(64, 10).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
data = [torch.empty(60 * 2**20 // 256, 64, device="cuda") for _ in range(PARTS)]
dist.barrier()
print(f"rank {dist.get_rank()}: {torch.cuda.memory_allocated() / 2**30:.1f} GiB", flush=True)
labels = torch.randint(0, 10, (256,)).cuda()
for step in range(5):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(data[step][:256].normal_()), labels)
    loss.backward()
    optimizer.step()
    print(f"rank {dist.get_rank()}: step {step}: loss {loss.item():.4f}", flush=True)
dist.destroy_process_group()
