"""A head whose logits pass through a learned correlation of the labels, and the contract of such a correlation."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from shared_peft.registry import Registry


class LabelCorrelation(nn.Module, ABC):
    """Maps the logits of a head to logits that know of each other. Subclasses are final and register themselves.

    Args:
        classes: number of labels.
    """

    @abstractmethod
    def __init__(self, classes: int) -> None: ...

    @abstractmethod
    def start(self, labels: torch.Tensor) -> None:
        """Take start values from the training labels, 0 or 1, float32, shape (images, classes)."""

    @abstractmethod
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Map logits (batch, classes, ...) to logits of the same shape."""

    @abstractmethod
    def penalty(self, labels: torch.Tensor, features: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        """Return what is added to the loss, a scalar.

        Args:
            labels: targets in [0, 1], shape (batch, classes).
            features: what the head was given, without a gradient, shape (batch, ...).
            answer: what the whole head answered, shape (batch, classes).
        """


LABEL_CORRELATIONS: Registry[type[LabelCorrelation]] = Registry("label correlation")


class CorrelatedHead(nn.Module):
    """A classifier and the correlation of its labels.

    Args:
        classifier: the module that made the logits.
        correlation: what they pass through.
    """

    def __init__(self, classifier: nn.Module, correlation: LabelCorrelation) -> None:
        super().__init__()
        self.classifier, self.correlation = classifier, correlation
        self._seen: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features to logits (batch, classes, ...); in training they are kept for `penalty`."""
        answer = self.correlation(self.classifier(features))
        if self.training:
            self._seen = features.detach(), answer
        return answer

    def penalty(self, labels: torch.Tensor) -> torch.Tensor | None:
        """Return the correlation's penalty for the last batch run in training, once; None where there was none."""
        if self._seen is None:
            return None
        (features, answer), self._seen = self._seen, None
        return self.correlation.penalty(labels, features, answer.flatten(1))


def correlate_heads(model: nn.Module, heads: Iterable[str], name: str, classes: int) -> list[CorrelatedHead]:
    """Put a label correlation behind every head of a model, in place.

    Args:
        model: the classifier.
        heads: names of the modules that make the logits.
        name: from LABEL_CORRELATIONS.
        classes: number of labels.

    Returns:
        The new heads, under the names of the old ones.

    Raises:
        UnknownNameError: no such label correlation.
    """
    made = []
    for head in heads:
        parent, _, child = head.rpartition(".")
        wrapped = CorrelatedHead(model.get_submodule(head), LABEL_CORRELATIONS.get(name)(classes))
        setattr(model.get_submodule(parent), child, wrapped)
        made.append(wrapped)
    return made


def penalties(model: nn.Module, labels: torch.Tensor) -> Any:
    """Return the sum of the penalties of a model's correlated heads, a scalar tensor, or 0.0 where it has none."""
    found = (module.penalty(labels) for module in model.modules() if isinstance(module, CorrelatedHead))
    return sum((penalty for penalty in found if penalty is not None), 0.0)
