"""The models whose steps are measured, in plain torch: no torchvision, nothing to download.

Runs in the job's environment. A model comes with its batch, so that a step is a call: see
``MODELS``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["MODELS", "resnet18", "resnet50"]


class Cnn(nn.Module):
    """The convolutional network of the MNIST examples."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(self.dropout1(x), 1)
        return self.fc2(self.dropout2(F.relu(self.fc1(x))))


class Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    widening = 1

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""

    widening = 4

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = _shortcut(inputs, 4 * width, stride)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


def _shortcut(inputs, outputs, stride):
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """A residual network for images of 224 x 224 and 1000 classes (He et al., 2015)."""

    def __init__(self, block, blocks):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        layers, inputs = [], 64
        for stage, count in enumerate(blocks):
            width = 64 * 2**stage
            for number in range(count):
                layers.append(block(inputs, width, 2 if stage and not number else 1))
                inputs = width * block.widening
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(inputs, 1000)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        x = F.adaptive_avg_pool2d(self.layers(x), 1)
        return self.fc(torch.flatten(x, 1))


def resnet18():
    """11.7 million parameters."""
    return ResNet(Basic, (2, 2, 2, 2))


def resnet50():
    """25.6 million parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3))


class Transformer(nn.Module):
    """A small language model: 4 causal layers of width 256."""

    def __init__(self, words=1000, width=256, length=64, layers=4):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(torch.zeros(length, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(width, words)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        x = self.layers(self.words(x) + self.places, mask=mask, is_causal=True)
        return self.out(x).transpose(1, 2)


class Mlp(nn.Sequential):
    """784-256-256-10: a step so short that it is nearly all Python."""

    def __init__(self):
        super().__init__(
            *(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()), nn.Linear(256, 10)
        )


def _images(*shape, classes):
    def batch(size):
        return torch.randn(size, *shape), torch.randint(classes, (size,))

    return batch


def _texts(size):
    words = torch.randint(1000, (size, 65))
    return words[:, :-1], words[:, 1:]


MODELS = {
    "mlp": (Mlp, _images(784, classes=10), 64),
    "cnn": (Cnn, _images(1, 28, 28, classes=10), 64),
    "transformer": (Transformer, _texts, 8),
    "resnet18": (resnet18, _images(3, 224, 224, classes=1000), 8),
    "resnet50": (resnet50, _images(3, 224, 224, classes=1000), 8),
}
"""Name: the model, what makes a batch of a size, and that size."""
