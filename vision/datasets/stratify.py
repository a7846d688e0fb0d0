"""Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, ECML PKDD, Algorithm 1): samples of several classes.

The class with the fewest samples left deals them first, each to the part that still lacks most of that class: a rare
class could not be made even any more once the frequent ones have been dealt.
"""

import torch


def deal_evenly(labels: torch.Tensor, shares: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Deal samples to parts so that every part gets its share of every class, as near as can be.

    Args:
        labels: 0 and 1, shape (samples, classes).
        shares: what each part is to get of all samples, adding up to 1, shape (parts,).
        generator: decides between parts that lack the same.

    Returns:
        The part of each sample, int64, shape (samples,).
    """
    has = labels > 0
    lacking = torch.outer(shares.double(), has.sum(0).double())  # c_j^i: samples of class i that part j still lacks
    room = shares.double() * len(labels)  # c_j: samples of any kind that part j still lacks
    part_of = torch.full((len(labels),), -1)
    left = torch.ones(len(labels), dtype=torch.bool)
    while left.any():
        counts = has[left].sum(0)
        rarest = int(torch.where(counts > 0, counts, len(labels) + 1).argmin()) if counts.any() else None
        rows = torch.nonzero(left if rarest is None else left & has[:, rarest]).flatten()
        for row in rows[torch.randperm(len(rows), generator=generator)].tolist():
            wants = room if rarest is None else lacking[:, rarest]
            part = _neediest(wants, room, generator)
            part_of[row] = part
            lacking[part, has[row]] -= 1
            room[part] -= 1
        left[rows] = False
    return part_of


def _neediest(wants: torch.Tensor, room: torch.Tensor, generator: torch.Generator) -> int:
    """Return the part that wants most; of equals the one with most room; of those any."""
    most = torch.nonzero(wants >= wants.max() - 1e-9).flatten()
    roomiest = most[room[most] >= room[most].max() - 1e-9]
    return int(roomiest[torch.randint(len(roomiest), (), generator=generator)])
