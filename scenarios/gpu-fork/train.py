"""Trains a small network on a GPU; worker processes load the data."""

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset


class Pictures(Dataset):
    def __len__(self):
        return 256

    def __getitem__(self, index):
        picture = torch.full((64,), index / 256)
        return picture.cuda(), index % 10


torch.manual_seed(1)
model = torch.nn.Linear(64, 10).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = DataLoader(Pictures(), batch_size=64, num_workers=2)
for step, (inputs, labels) in enumerate(loader):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(inputs), labels.cuda())
    loss.backward()
    optimizer.step()
    print(f"step {step}: loss {loss.item():.4f}", flush=True)
