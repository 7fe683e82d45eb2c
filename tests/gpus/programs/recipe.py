"""The recipe of mixed precision, with what training scripts put around it."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.backends.cudnn.benchmark = True


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = checkpoint(self.body, self.stem(x), use_reentrant=False)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


data = TensorDataset(torch.randn(64, 3, 16, 16), torch.randint(10, (64,)))
loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=1, pin_memory=True)
model = Net().to(device, memory_format=torch.channels_last)
criterion = nn.CrossEntropyLoss(label_smoothing=0.1).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=8)
scaler = torch.amp.GradScaler("cuda")
start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
for epoch in range(2):
    start.record()
    for images, labels in loader:
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        labels = labels.to(device, non_blocking=True)
        with torch.autocast("cuda", dtype=torch.float16):
            loss = criterion(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    end.record()
    torch.cuda.synchronize()
    print(f"epoch {epoch}: loss {loss.item():.3f}, scale {scaler.get_scale():.0f}")
assert start.elapsed_time(end) > 0 and norm.is_cuda

torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "checkpoint.pt")
here = torch.load("checkpoint.pt", map_location="cuda:1", weights_only=True)
assert {value.device for value in here["model"].values()} == {torch.device("cuda:1")}
host = torch.load("checkpoint.pt", map_location="cpu", weights_only=True)
assert not any(value.is_cuda for value in host["model"].values())
model.load_state_dict(host["model"])
optimizer.load_state_dict(host["optimizer"])
moments = [state["exp_avg"] for state in optimizer.state.values()]
assert all(moment.is_cuda for moment in moments)

before = torch.cuda.memory_allocated()
assert 0 < before <= torch.cuda.max_memory_allocated() <= torch.cuda.max_memory_reserved()
del here, host, images, labels, loss, moments, norm
optimizer.zero_grad(set_to_none=True)
torch.cuda.empty_cache()
kept = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
assert kept < torch.cuda.memory_allocated() < before


def resident():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * 4096


size = 48 * 2**20
begun = resident()
activations = [torch.ones(size // 6 // 4, device="cuda") for _ in range(6)]
del activations
kept = resident()  # as by CUDA's allocator, so that the next step has it at once
torch.cuda.empty_cache()
assert begun + size // 2 < kept and resident() < kept - size // 2, (begun, kept, resident())
print("done")
