"""Handwritten digits on several nodes: PyTorch and Horovod, logged to Azure ML.

A small convolutional network, synchronous data-parallel training: every rank sees its share of the
pictures, gradients are averaged over all ranks, and rank 0 logs and saves.
"""

import argparse
import os
import time

import digits
import horovod.torch as hvd
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = torch.nn.Conv2d(16, 32, 3, padding=1)
        self.fc1 = torch.nn.Linear(32 * 4 * 4, 64)
        self.fc2 = torch.nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return F.log_softmax(self.fc2(x), dim=1)


def tensors(pictures, labels):
    return TensorDataset(torch.from_numpy(pictures).unsqueeze(1), torch.from_numpy(labels))


def average(value, name):
    """The mean over all ranks."""
    return hvd.allreduce(torch.tensor(float(value)), name=name).item()


def evaluate(model, data, device):
    """Mean loss and accuracy on ``data``, each rank computing its share."""
    model.eval()
    share = torch.utils.data.Subset(data, range(hvd.rank(), len(data), hvd.size()))
    loss = correct = 0.0
    with torch.no_grad():
        for pictures, labels in DataLoader(share, batch_size=128):
            pictures, labels = pictures.to(device), labels.to(device)
            output = model(pictures)
            loss += F.nll_loss(output, labels, reduction="sum").item()
            correct += (output.argmax(1) == labels).sum().item()
    total = hvd.allreduce(torch.tensor([loss, correct, len(share)]), name="test", op=hvd.Sum)
    return (total[0] / total[2]).item(), (total[1] / total[2]).item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32, help="per rank")
    parser.add_argument("--learning-rate", type=float, default=0.02, help="per rank")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    hvd.init()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # ranks share this machine's cores
    device = torch.device("cpu")
    if torch.cuda.is_available():  # each rank has a GPU of its node to itself
        torch.cuda.set_device(hvd.local_rank())
        device = torch.device("cuda", hvd.local_rank())
    print(
        f"rank {hvd.rank()} of {hvd.size()}, local rank {hvd.local_rank()} of {hvd.local_size()} "
        f"on {os.uname().nodename}, {device}",
        flush=True,
    )

    train, test = (tensors(*data) for data in digits.load_data())
    sampler = DistributedSampler(
        train, num_replicas=hvd.size(), rank=hvd.rank(), seed=args.seed, drop_last=True
    )
    loader = DataLoader(train, batch_size=args.batch_size, sampler=sampler)

    model = Net().to(device)
    # More ranks make a larger batch, and a larger batch bears a larger step.
    optimizer = torch.optim.SGD(
        model.parameters(), lr=args.learning_rate * hvd.size(), momentum=0.9
    )
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())

    report = digits.Report(args.epochs) if hvd.rank() == 0 else None
    for epoch in range(1, args.epochs + 1):
        began = time.time()
        model.train()
        sampler.set_epoch(epoch)
        summed, batches = 0.0, 0
        for pictures, labels in loader:
            pictures, labels = pictures.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = F.nll_loss(model(pictures), labels)
            loss.backward()
            optimizer.step()
            summed, batches = summed + loss.item(), batches + 1
        digits.note(f"rank-{hvd.rank()}", f"epoch {epoch}: own loss {summed / batches:.4f}")
        train_loss = average(summed / batches, "train_loss")
        test_loss, accuracy = evaluate(model, test, device)
        if report:
            report.epoch(train_loss, test_loss, accuracy, time.time() - began)

    if report:
        torch.save(model.cpu().state_dict(), "outputs/model.pt")
        report.end("outputs/model.pt", accuracy)


if __name__ == "__main__":
    main()
