"""Trains a small network on the second GPU, as on the workstation that the script comes from."""

import torch
import torch.nn.functional as F

device = torch.device("cuda:1")

torch.manual_seed(1)
model = torch.nn.Linear(64, 10).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
inputs = torch.randn(256, 64, device=device)
labels = torch.randint(0, 10, (256,), device=device)
for step in range(5):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    print(f"step {step}: loss {loss.item():.4f}", flush=True)
