"""Does a confidence of 80 % mean 80 % right? Expected calibration error (Guo et al. 2017, arXiv:1706.04599, Eq. 3)."""

import math
from dataclasses import dataclass

import torch

BINS = 15  # Guo et al., Section 5


@dataclass(frozen=True)
class Reliability:
    """Answers in bins of equal width by their confidence.

    Args:
        edges: of the bins, shape (bins + 1,).
        counts: answers in each bin, shape (bins,).
        confidence: their mean confidence, NaN in an empty bin, shape (bins,).
        accuracy: share of right ones, NaN in an empty bin, shape (bins,).
        error: expected calibration error: the mean gap between the two, weighted by the counts, in [0, 1].
    """

    edges: torch.Tensor
    counts: torch.Tensor
    confidence: torch.Tensor
    accuracy: torch.Tensor
    error: float


def reliability(confidence: torch.Tensor, right: torch.Tensor, bins: int = BINS) -> Reliability:
    """Compare confidence with accuracy.

    Args:
        confidence: of each answer, in [0, 1], shape (answers,).
        right: whether it is right, bool, shape (answers,).
        bins: how many; bin m holds confidences in ((m - 1) / bins, m / bins].

    Example:
        >>> round(reliability(torch.tensor([0.9, 0.9]), torch.tensor([True, False])).error, 6)
        0.4
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    values = confidence.double()
    place = (torch.bucketize(values, edges) - 1).clamp(0, bins - 1)
    counts = torch.bincount(place, minlength=bins)
    means, shares = (
        torch.zeros(bins, dtype=torch.float64).index_add_(0, place, summand.double()) / counts
        for summand in (values, right)
    )
    gaps = (means - shares).abs().nan_to_num() * counts
    return Reliability(edges, counts, means, shares, float(gaps.sum() / len(values)))


def wilson_interval(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Example:
        >>> [round(bound, 3) for bound in wilson_interval(8, 10)]
        [0.49, 0.943]
    """
    share, shrink = right / total, 1 + z**2 / total
    centre = (share + z**2 / (2 * total)) / shrink
    reach = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / shrink
    return max(0.0, centre - reach), min(1.0, centre + reach)
