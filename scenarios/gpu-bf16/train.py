"""Trains a small network on a GPU in mixed precision."""

import torch
import torch.nn.functional as F

torch.manual_seed(1)
model = torch.nn.Linear(64, 10).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
inputs = torch.randn(256, 64).cuda()
labels = torch.randint(0, 10, (256,)).cuda()
for step in range(5):
    optimizer.zero_grad()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = F.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    print(f"step {step}: loss {loss.item():.4f}", flush=True)
