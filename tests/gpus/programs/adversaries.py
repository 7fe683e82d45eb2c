"""A GAN and a variational autoencoder, on the second GPU and on both."""

import torch
import torch.nn.functional as F
from torch import nn, optim

torch.manual_seed(2)


def weights(module):
    name = module.__class__.__name__
    if name.find("Conv") != -1:
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif name.find("BatchNorm") != -1:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class Generator(nn.Module):
    def __init__(self, gpus):
        super().__init__()
        self.gpus = gpus
        self.main = nn.Sequential(
            *(nn.ConvTranspose2d(16, 32, 4, 1, 0, bias=False), nn.BatchNorm2d(32), nn.ReLU(True)),
            *(nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(True)),
            *(nn.ConvTranspose2d(16, 1, 4, 2, 1, bias=False), nn.Tanh()),
        )

    def forward(self, x):
        if x.is_cuda and self.gpus > 1:
            return nn.parallel.data_parallel(self.main, x, range(self.gpus))
        return self.main(x)


class Discriminator(nn.Sequential):
    def __init__(self):
        super().__init__(
            *(nn.Conv2d(1, 16, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)),
            *(nn.Conv2d(16, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(32, 1, 4, 1, 0, bias=False), nn.Sigmoid(), nn.Flatten(0)),
        )


def gan(device, gpus):
    generator, critic = Generator(gpus).to(device), Discriminator().to(device)
    generator.apply(weights)
    critic.apply(weights)
    criterion = nn.BCELoss()
    optimizers = [optim.Adam(m.parameters(), 2e-4, (0.5, 0.999)) for m in (critic, generator)]
    for _ in range(2):
        critic.zero_grad()
        real = torch.randn(8, 1, 16, 16).to(device)
        label = torch.full((8,), 1.0, dtype=real.dtype, device=device)
        criterion(critic(real), label).backward()
        fake = generator(torch.randn(8, 16, 1, 1, device=device))
        criterion(critic(fake.detach()), label.fill_(0)).backward()
        optimizers[0].step()
        generator.zero_grad()
        valid = torch.ones(8).type_as(fake)
        loss = criterion(critic(fake), valid)
        loss.backward()
        optimizers[1].step()
    print(f"gan on {loss.device}, {gpus} GPU: {loss.item():.4f}")


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.mean, self.spread = nn.Linear(784, 64), nn.Linear(64, 8), nn.Linear(64, 8)
        self.fc3, self.fc4 = nn.Linear(8, 64), nn.Linear(64, 784)

    def forward(self, x):
        hidden = F.relu(self.fc1(x.view(-1, 784)))
        mean, spread = self.mean(hidden), self.spread(hidden)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * spread)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mean, spread


gan(torch.device("cuda:1"), 1)
gan(torch.device("cuda:0"), 2)
with torch.cuda.device(1):
    model = Autoencoder().cuda()
    optimizer = optim.Adam(model.parameters(), 1e-3)
    for _ in range(3):
        x = torch.rand(16, 1, 28, 28).cuda()
        optimizer.zero_grad()
        out, mean, spread = model(x)
        loss = F.binary_cross_entropy(out, x.view(-1, 784), reduction="sum")
        loss -= 0.5 * torch.sum(1 + spread - mean.pow(2) - spread.exp())
        loss.backward()
        optimizer.step()
print(f"vae on {loss.device}: {loss.item():.4f}")
assert torch.cuda.memory_allocated(0) == 0 < torch.cuda.memory_allocated(1)
assert torch.cuda.max_memory_allocated(0) > 0
