"""The contract of partial-label learning: from candidate sets and a network's answers to a loss."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from imu_saga.partial_labels.belief import uniform
from shared_peft.errors import DataError
from shared_peft.registry import Registry


class PartialLabels(nn.Module, ABC):
    """A loss over windows of which one candidate is true. Subclasses are final and stand in PARTIAL_LABEL_METHODS.

    What is believed of each training window lies in buffers, and a second classifier, where there is one, is trained
    beside the network and dropped with this module in the end. It reads the features without bending them (ours), so
    that with one candidate a window every method gives the network the gradients of plain training.

    Args:
        candidates: which classes each training window may be, bool, shape (n, classes); one or more in every row.
        width: number of features the network's last layer reads.
        label_smoothing: share of every target spread over all classes, in [0, 1).

    Raises:
        DataError: a window without a candidate.
    """

    citation: ClassVar[str]
    candidates: Tensor
    confidence: Tensor

    def __init__(self, candidates: Tensor, width: int, label_smoothing: float = 0.0) -> None:
        super().__init__()
        empty = int((~candidates.any(1)).sum())
        if empty:
            raise DataError("candidates", "every window must have one or more", f"{empty} without", "Leave those out")
        self.width, self.label_smoothing = width, label_smoothing
        self.register_buffer("candidates", candidates, persistent=False)
        self.register_buffer("confidence", uniform(candidates))

    def forward(self, features: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        """Return the scalar loss of a batch, then revise what is believed of its windows.

        Args:
            features: what the network's last layer reads, shape (batch, width).
            logits: the network's class scores, shape (batch, classes).
            rows: each one's place among the training windows, int64, shape (batch,); places may repeat.
        """
        target = self.confidence[rows]
        loss = functional.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
        return loss + self.revise(features.detach(), logits.detach(), rows)

    @abstractmethod
    def revise(self, features: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        """Change ``confidence`` of the batch's windows; return the second classifier's loss, 0 where there is none.

        Args:
            features: shape (batch, width), without gradient.
            logits: shape (batch, classes), without gradient.
            rows: shape (batch,).
        """


PARTIAL_LABEL_METHODS: Registry[type[PartialLabels]] = Registry("partial-label method")


def second_classifier(width: int, n_classes: int) -> nn.Linear:
    """Return a linear layer that starts at zero, undecided about every class: its problem is convex (ours)."""
    layer: Any = torch.nn.utils.skip_init(nn.Linear, width, n_classes)  # skipped: nobody's random numbers move
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
