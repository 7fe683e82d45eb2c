"""Handwritten digits on several nodes: PyTorch and Horovod, logged to Azure ML.

The 1,797 pictures of 8 x 8 pixels that ship with scikit-learn, a small convolutional network,
synchronous data-parallel training: every rank sees its share of the pictures, gradients are
averaged over all ranks, and rank 0 logs and saves.
"""

import argparse
import json
import os
import time

import horovod.torch as hvd
import torch
import torch.nn.functional as F
from azureml.core.run import Run
from sklearn.datasets import load_digits
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


def load_data():
    """Four fifths to train on, one fifth to test on: the same split on every rank."""
    digits = load_digits()
    pictures = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16.0
    labels = torch.tensor(digits.target, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[360:], order[:360]
    return (
        TensorDataset(pictures[train], labels[train]),
        TensorDataset(pictures[test], labels[test]),
    )


def average(value, name):
    """The mean over all ranks."""
    return hvd.allreduce(torch.tensor(float(value)), name=name).item()


def evaluate(model, data):
    """Mean loss and accuracy on ``data``, each rank computing its share."""
    model.eval()
    share = torch.utils.data.Subset(data, range(hvd.rank(), len(data), hvd.size()))
    loss = correct = 0.0
    with torch.no_grad():
        for pictures, labels in DataLoader(share, batch_size=128):
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
    run = Run.get_context()
    print(
        f"rank {hvd.rank()} of {hvd.size()}, local rank {hvd.local_rank()} of {hvd.local_size()} "
        f"on {os.uname().nodename}",
        flush=True,
    )

    train, test = load_data()
    sampler = DistributedSampler(
        train, num_replicas=hvd.size(), rank=hvd.rank(), seed=args.seed, drop_last=True
    )
    loader = DataLoader(train, batch_size=args.batch_size, sampler=sampler)

    model = Net()
    # More ranks make a larger batch, and a larger batch bears a larger step.
    optimizer = torch.optim.SGD(
        model.parameters(), lr=args.learning_rate * hvd.size(), momentum=0.9
    )
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())

    first = hvd.rank() == 0
    os.makedirs("logs", exist_ok=True)
    os.makedirs("outputs", exist_ok=True)
    history = []
    for epoch in range(1, args.epochs + 1):
        began = time.time()
        model.train()
        sampler.set_epoch(epoch)
        summed, batches = 0.0, 0
        for pictures, labels in loader:
            optimizer.zero_grad()
            loss = F.nll_loss(model(pictures), labels)
            loss.backward()
            optimizer.step()
            summed, batches = summed + loss.item(), batches + 1
        train_loss = average(summed / batches, "train_loss")
        test_loss, accuracy = evaluate(model, test)
        took = time.time() - began
        with open(f"logs/rank-{hvd.rank()}.txt", "a") as log:
            log.write(f"epoch {epoch}: own loss {summed / batches:.4f} over {batches} batches\n")
        if first:
            run.log("loss", train_loss)
            run.log("test_loss", test_loss)
            run.log("accuracy", accuracy)
            history.append({"epoch": epoch, "loss": train_loss, "accuracy": accuracy})
            print(
                f"epoch {epoch}/{args.epochs}: loss {train_loss:.4f}, "
                f"test loss {test_loss:.4f}, test accuracy {accuracy:.1%}, {took:.1f} s",
                flush=True,
            )

    if first:
        run.log("test_accuracy", accuracy)
        torch.save(model.state_dict(), "outputs/model.pt")
        with open("outputs/metrics.json", "w") as stream:
            json.dump({"ranks": hvd.size(), "epochs": history}, stream, indent=1)
        print("saved outputs/model.pt and outputs/metrics.json", flush=True)


if __name__ == "__main__":
    main()
