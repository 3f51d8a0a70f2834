"""For all tests."""

import torch

# Small networks on two threads spend most of their time waiting for one another, above all on a busy machine.
torch.set_num_threads(1)
