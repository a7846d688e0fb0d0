"""A network and a partial-label method trained as one; the method is dropped in the end."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from imu_saga.partial_labels.method import PARTIAL_LABEL_METHODS, PartialLabels
from shared_peft.training import Batch

LISTING_SEED = 6_700_417  # ours: keeps the draw of candidates apart from the draw of windows


class PartialTrainee(nn.Module):
    """What the training loop sees; its checkpoint holds the network, the second classifier and all beliefs.

    Args:
        network: a Classifier, or a PeftModel around one.
        method: see PartialLabels.
    """

    def __init__(self, network: nn.Module, method: PartialLabels) -> None:
        super().__init__()
        self.network, self.method = network, method

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return the scalar loss of windows (batch, samples, channels) that stand at ``rows`` of the training set."""
        classifier: Any = self.network  # a PeftModel hands attributes of its base through
        features = classifier.head_input(x)
        return self.method(features, classifier.head(features), rows)


def partial_trainee(network: Any, candidates: Tensor, name: str, label_smoothing: float) -> PartialTrainee:
    """Put a method of PARTIAL_LABEL_METHODS beside a network.

    Args:
        network: a Classifier, or a PeftModel around one.
        candidates: bool, shape (n, classes), of the training windows.
        name: the method's name.
        label_smoothing: share of every target spread over all classes, in [0, 1).
    """
    width = len(network.standardise.mean)
    return PartialTrainee(network, PARTIAL_LABEL_METHODS.get(name)(candidates, width, label_smoothing))


def partial_objective(trainee: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of a batch of windows and their places, as the training loop wants it."""
    x, rows = batch
    return trainee(x, rows), {}


def listed_classes(candidates: Tensor, seed: int) -> Callable[[int], Tensor]:
    """Return what the balanced draw takes for labels: in every batch each window stands for one of its candidates.

    So classes are drawn evenly as far as candidates tell, a window counts once however many it has, and with one
    candidate a window the draw is that of plain training.

    Args:
        candidates: bool, shape (n, classes), one or more in every row.
        seed: the run's seed.

    Returns:
        From a batch's index to int64 classes, shape (n,), each drawn uniformly from its window's candidates.
    """
    weights = candidates.to(torch.get_default_dtype())

    def listed(index: int) -> Tensor:
        generator = torch.Generator().manual_seed((seed * LISTING_SEED + index) % 2**63)
        return torch.multinomial(weights, 1, generator=generator).squeeze(1)

    return listed
