"""A language model of characters and its relatives, written as in the tutorials; prints all digits.

Runs on a GPU if there is one, and must print the same without.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import (
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
)

torch.manual_seed(1)
torch.cuda.manual_seed_all(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
text = "the quick brown fox jumps over the lazy dog. " * 40
letters = sorted(set(text))


class Model(nn.Module):
    def __init__(self, kind, width=32, layers=2):
        super().__init__()
        self.kind, self.width, self.layers = kind, width, layers
        self.encoder = nn.Embedding(len(letters), width)
        self.rnn = getattr(nn, kind)(width, width, layers, dropout=0.2)
        self.decoder = nn.Linear(width, len(letters))

    def forward(self, x, hidden):
        y, hidden = self.rnn(self.encoder(x), hidden)
        return self.decoder(y.view(-1, y.size(2))), hidden

    def begin(self, batch):
        weight = next(self.parameters())
        zeros = [weight.new_zeros(self.layers, batch, self.width) for _ in range(2)]
        return tuple(zeros) if self.kind == "LSTM" else zeros[0]


def detached(hidden):
    if isinstance(hidden, torch.Tensor):
        return hidden.detach()
    return tuple(detached(one) for one in hidden)


ids = torch.LongTensor([letters.index(letter) for letter in text])
data = ids.narrow(0, 0, ids.size(0) // 10 * 10).view(10, -1).t().contiguous().to(device)
for kind in ("LSTM", "GRU", "RNN"):
    model = Model(kind).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.5)
    hidden = model.begin(10)
    for start in range(0, 100, 20):
        hidden = detached(hidden)
        model.zero_grad()
        out, hidden = model(data[start : start + 20], hidden)
        loss = nn.functional.cross_entropy(out, data[start + 1 : start + 21].reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
    said = []
    with torch.no_grad():
        x, hidden = torch.randint(len(letters), (1, 1)).to(device), model.begin(1)
        for _ in range(20):
            y, hidden = model(x, hidden)
            letter = torch.multinomial(y.squeeze().div(0.8).exp().cpu(), 1)[0]
            x.fill_(letter)
            said.append(letters[letter])
    print(kind, loss.item(), "".join(said))

sequences = [torch.randn(length, 8, device=device) for length in (7, 5, 2)]
both_ways = nn.LSTM(8, 16, bidirectional=True).to(device)
packed = pack_padded_sequence(pad_sequence(sequences), torch.tensor([7, 5, 2]))
out, (hidden, _) = both_ways(packed)
out, lengths = pad_packed_sequence(out)
assert out.device.type == hidden.device.type == device and not lengths.is_cuda
print(out.sum().item(), both_ways(pack_sequence(sequences))[0].data.sum().item())
scores = torch.randn(30, 3, 10, device=device, requires_grad=True)
targets = torch.randint(1, 10, (3, 5), device=device)
lengths = torch.full((3,), 30), torch.full((3,), 5)
loss = nn.CTCLoss()(scores.log_softmax(2), targets, *lengths)
loss.backward()
print(loss.item(), scores.grad.abs().sum().item())
