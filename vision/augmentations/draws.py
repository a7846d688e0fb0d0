"""What mixing augmentations draw: how much of each image stays its own, and with which other it is mixed."""

import numpy as np
import torch


def draw_shares(count: int, alpha: float, generator: torch.Generator) -> torch.Tensor:
    """Draw shares in [0, 1] from the Beta distribution (alpha, alpha).

    torch's own Beta knows no generator; numpy's is seeded by one number drawn from it.

    Returns:
        float32, shape (count,).
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, count).astype(np.float32))


def draw_partners(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw another row for each row, every row being drawn once.

    A random order in which each row's partner is the next one: no row is its own, unless there is only one.

    Returns:
        Row numbers, int64, shape (count,).
    """
    order = torch.randperm(count, generator=generator)
    partners = torch.empty_like(order)
    partners[order] = order.roll(1)
    return partners
