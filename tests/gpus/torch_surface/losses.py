"""Trains small models; the losses tell whether GPUs and no GPUs compute the same.

``python losses.py DEVICE`` prints every loss with all its digits.
"""

import json
import sys

import torch
import torch.nn.functional as F
from torch import nn

DEVICE = torch.device(sys.argv[1])
torch.manual_seed(3)
torch.set_num_threads(1)


class Convolutions(nn.Sequential):
    def __init__(self):
        super().__init__(
            *(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten()),
            *(nn.Dropout(0.25), nn.Linear(72, 10)),
        )


class Perceptron(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(256, 64), nn.GELU(), nn.Linear(64, 10))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(16, 32) * 0.02)
        self.inner = nn.Linear(16, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.inner(x[:, 0]) + self.position
        mask = nn.Transformer.generate_square_subsequent_mask(16, device=x.device)
        return self.head(self.layers(x, mask=mask).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 8)
        self.lstm = nn.LSTM(8 * 16, 16, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        words = (x[:, 0] * 4).long().clamp(0, 4)
        return self.head(self.lstm(self.embedding(words).flatten(2))[0][:, -1])


def losses(model, optimizer, steps=5):
    model = model.to(DEVICE).train()
    optimizer = optimizer(model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    for _ in range(steps):
        x = torch.rand(6, 1, 16, 16).to(DEVICE)
        noise = torch.randn(6, 1, 16, 16, device=DEVICE)
        y = torch.randint(10, (6,)).to(DEVICE)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x + 0.1 * noise), y, label_smoothing=0.1)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield loss.item()
    yield sum(p.double().sum().item() for p in model.parameters())


for model, optimizer in (
    (Convolutions(), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-4)),
    (Perceptron(), lambda p: torch.optim.RMSprop(p, 0.001)),
    (Encoder(), lambda p: torch.optim.AdamW(p, 0.001)),
    (Recurrent(), lambda p: torch.optim.Adam(p, 0.01)),
):
    print(json.dumps({type(model).__name__: list(losses(model, optimizer))}))
print(json.dumps({"cuda": torch.cuda.is_available(), "used": torch.cuda.is_initialized()}))
