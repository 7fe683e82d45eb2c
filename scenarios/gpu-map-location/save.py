"""Has written `checkpoint.pt`: simgrid-ml run --vm-size Standard_NC12 --framework pytorch …"""

import os

import torch

os.makedirs("outputs", exist_ok=True)
torch.manual_seed(1)
torch.save(torch.nn.Linear(64, 10).to("cuda:1").state_dict(), "outputs/checkpoint.pt")
