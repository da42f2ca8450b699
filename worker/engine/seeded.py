"""Random choice that depends on (seed, position) alone, whatever shares the batch."""

import torch
from torch import Tensor


def gumbel_noise(seed: int, position: int, size: int) -> Tensor:
    """Standard Gumbel noise ``[size]``, float32, on the CPU.

    Adding it to log-probabilities and taking the maximum draws from the distribution (Gumbel-max trick).
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + position) % 2**63)
    return -torch.empty(size).exponential_(generator=generator).log_()
