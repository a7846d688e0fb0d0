"""What a task is: how its answers are trained and scored, and which one a set of labels belongs to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch

from shared_peft.registry import Registry


class Scores(Protocol):
    """Scores of one evaluation, a dataclass with at least these fields."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def accuracy(self) -> float:
        """Share of images answered right in every label, in [0, 1]."""
        ...

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur in labels or predictions, in [0, 1]."""
        ...

    @property
    def count(self) -> int:
        """Number of images."""
        ...


@dataclass(frozen=True)
class Task:
    """One meaning of labels.

    Args:
        summary: one line on it.
        owns: tells whether labels, shape (images,) or (images, classes), are of this task.
        loss: (logits, labels or shares, label smoothing in [0, 1)) -> scalar, a mean over the rows.
        score: (logits, labels, number of classes) -> a dataclass of scores.
        probabilities: logits -> probabilities, both (images, classes).
        headline: name of the score that methods are compared by, in [0, 1].
        headline_title: that score in words.
        evidence: (logits, labels) -> what must be kept of the answers to give the headline again, shape (images, ...).
        weighted: (evidence, labels, weights of the images, float64, shape (draws, images)) -> the headline under each
            weighting, float64, shape (draws,).
    """

    summary: str
    owns: Callable[[torch.Tensor], bool]
    loss: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
    score: Callable[[torch.Tensor, torch.Tensor, int], Scores]
    probabilities: Callable[[torch.Tensor], torch.Tensor]
    headline: str
    headline_title: str
    evidence: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    weighted: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


TASKS: Registry[Task] = Registry("task")


def task_of(labels: torch.Tensor) -> str:
    """Return the name of the task that labels belong to.

    Args:
        labels: class indices, int64, shape (images,); or 0 and 1, float32, shape (images, classes).
    """
    return next(name for name, task in TASKS.items() if task.owns(labels))
