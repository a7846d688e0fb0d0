"""Distributions over candidate sets: uniform, restricted, blurred, projected; and means over a batch's repeats."""

import torch
from torch import Tensor


def uniform(candidates: Tensor) -> Tensor:
    """Return equal shares of the candidates and 0 elsewhere, shape (n, classes), of bool sets of that shape."""
    shares = candidates.to(torch.get_default_dtype())
    return shares / shares.sum(1, keepdim=True)


def within(logits: Tensor, candidates: Tensor) -> Tensor:
    """Return the softmax over the candidates alone, 0 elsewhere.

    Args:
        logits: shape (n, classes).
        candidates: bool, shape (n, classes), one or more in every row.
    """
    return logits.masked_fill(~candidates, -torch.inf).softmax(1)


def projected(values: Tensor, candidates: Tensor) -> Tensor:
    """Return the nearest distribution over the candidates, in the Euclidean sense.

    It is max(value - threshold, 0) on the candidates, the threshold such that a row sums to 1 (Duchi et al. 2008,
    "Efficient projections onto the l1-ball", Fig. 1).

    Args:
        values: shape (n, classes), finite.
        candidates: bool, shape (n, classes), one or more in every row.
    """
    ordered = values.masked_fill(~candidates, -torch.inf).sort(1, descending=True).values
    count = torch.arange(1, values.shape[1] + 1, device=values.device)
    allowed = ordered.isfinite()
    thresholds = (ordered.masked_fill(~allowed, 0).cumsum(1) - 1) / count
    support = (allowed & (ordered > thresholds)).sum(1, keepdim=True)
    threshold = thresholds.gather(1, support - 1)
    return (values - threshold).clamp(min=0).masked_fill(~candidates, 0)


def mean_by_row(rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Average what a batch says of each window: one drawn twice, augmented in two ways, has two answers.

    Args:
        rows: place of each answer's window, int64, shape (batch,).
        values: answers, shape (batch, classes).

    Returns:
        The places, sorted, shape (k,), and their mean answers, shape (k, classes).
    """
    places, inverse, counts = rows.unique(return_inverse=True, return_counts=True)
    total = values.new_zeros(len(places), values.shape[1]).index_add_(0, inverse, values)
    return places, total / counts[:, None]
