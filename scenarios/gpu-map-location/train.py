"""Goes on from a checkpoint that the second GPU of a larger node has written."""

import torch
import torch.nn.functional as F

model = torch.nn.Linear(64, 10).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model.load_state_dict(torch.load("checkpoint.pt"))

torch.manual_seed(1)
inputs = torch.randn(256, 64).cuda()
labels = torch.randint(0, 10, (256,)).cuda()
for step in range(5):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    print(f"step {step}: loss {loss.item():.4f}", flush=True)
