"""What a finished run answers on labelled images, and how right that is: one label an image, or several."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from vision.tasks import TASKS
from vision.transforms import Pixels

MOST_GROUPS = 10  # ours: combinations of labels told apart in a picture, the rarer ones together
NOTHING = "nothing"


@dataclass(frozen=True)
class Mistake:
    """One wrong answer.

    Args:
        row: of the image.
        answered: what was said.
        true: what is true.
        confidence: of the answer, in [0, 1].
    """

    row: int
    answered: str
    true: str
    confidence: float


@dataclass(frozen=True)
class Answers(ABC):
    """A model's answers on labelled images. Subclasses are final, one for each task.

    Args:
        pixels: the images with their labels.
        classes: class names in the order of the logits.
        logits: shape (images, classes).
        task: a name from `vision.tasks.TASKS`.
    """

    pixels: Pixels
    classes: tuple[str, ...]
    logits: torch.Tensor
    task: str = "single-label"

    @property
    def probabilities(self) -> torch.Tensor:
        """Probability of each class, shape (images, classes)."""
        return TASKS.get(self.task).probabilities(self.logits)

    @property
    @abstractmethod
    def truth(self) -> torch.Tensor:
        """Which classes are true of each image, bool, shape (images, classes)."""

    @property
    @abstractmethod
    def predicted(self) -> torch.Tensor:
        """Which classes are answered, bool, shape (images, classes)."""

    @property
    @abstractmethod
    def confidence(self) -> torch.Tensor:
        """Probability of each answer, in [0, 1], shape (answers,)."""

    @property
    @abstractmethod
    def right(self) -> torch.Tensor:
        """Whether each answer is true, bool, shape (answers,)."""

    @abstractmethod
    def mistake(self, answer: int) -> Mistake:
        """Return a wrong answer by its number."""

    @abstractmethod
    def groups(self) -> tuple[torch.Tensor, tuple[str, ...]]:
        """Return what each image is to be coloured by, int64, shape (images,), and the names of the colours."""

    @property
    def image_right(self) -> torch.Tensor:
        """Whether all that is answered for an image is true and all that is true is answered, bool, shape (images,)."""
        return (self.predicted == self.truth).all(dim=1)

    @property
    def targets(self) -> torch.Tensor:
        """The likeliest class of each image, shape (images,)."""
        return self.logits.argmax(dim=1)

    def scores(self) -> Any:
        """Return the scores of the task, as they stand in a run's results.json."""
        return TASKS.get(self.task).score(self.logits, self.pixels.labels, len(self.classes))

    def worst_mistakes(self, count: int) -> list[Mistake]:
        """Return up to ``count`` wrong answers, the most confident first."""
        wrong = torch.nonzero(~self.right).flatten()
        worst = wrong[self.confidence[wrong].argsort(descending=True, stable=True)][:count]
        return [self.mistake(answer) for answer in worst.tolist()]

    def names(self, shown: torch.Tensor) -> list[str]:
        """Return the classes that each row of ``shown``, bool, shape (images, classes), holds."""
        return [
            ", ".join(name for name, there in zip(self.classes, row, strict=True) if there) or NOTHING
            for row in shown.tolist()
        ]

    def take(self, rows: torch.Tensor, logits: torch.Tensor) -> "Answers":
        """Return another model's answers on some of the images.

        Args:
            rows: of the images.
            logits: of the other model, shape (rows, classes).
        """
        names = tuple(self.pixels.names[row] for row in rows.tolist())
        pixels = Pixels(self.pixels.values[rows], self.pixels.labels[rows], names)
        return dataclasses.replace(self, pixels=pixels, logits=logits)


class SingleLabelAnswers(Answers):
    """One answer an image: its likeliest class."""

    @property
    def truth(self) -> torch.Tensor:
        """The label alone."""
        return functional.one_hot(self.pixels.labels, len(self.classes)).bool()

    @property
    def predicted(self) -> torch.Tensor:
        """The likeliest class alone."""
        return functional.one_hot(self.targets, len(self.classes)).bool()

    @property
    def confidence(self) -> torch.Tensor:
        """Probability of the likeliest class."""
        return self.probabilities.max(dim=1).values

    @property
    def right(self) -> torch.Tensor:
        """Whether the likeliest class is the label."""
        return self.targets == self.pixels.labels

    def mistake(self, answer: int) -> Mistake:
        """Return the answer of an image."""
        true, said = int(self.pixels.labels[answer]), int(self.targets[answer])
        return Mistake(answer, self.classes[said], self.classes[true], float(self.confidence[answer]))

    def groups(self) -> tuple[torch.Tensor, tuple[str, ...]]:
        """Return the labels."""
        return self.pixels.labels, self.classes


class MultiLabelAnswers(Answers):
    """A yes or no for every class of every image; a class is answered where its probability is above one half."""

    @property
    def truth(self) -> torch.Tensor:
        """The labels."""
        return self.pixels.labels > 0.5

    @property
    def predicted(self) -> torch.Tensor:
        """Classes of a probability above one half."""
        return self.logits > 0

    @property
    def confidence(self) -> torch.Tensor:
        """Probability of each yes or no, image by image."""
        return torch.maximum(self.probabilities, 1 - self.probabilities).flatten()

    @property
    def right(self) -> torch.Tensor:
        """Whether each yes or no is true, image by image."""
        return (self.predicted == self.truth).flatten()

    def mistake(self, answer: int) -> Mistake:
        """Return one yes or no."""
        row, column = divmod(answer, len(self.classes))
        said = f"{'' if self.predicted[row, column] else 'no '}{self.classes[column]}"
        return Mistake(row, said, self.names(self.truth[row : row + 1])[0], float(self.confidence[answer]))

    def groups(self) -> tuple[torch.Tensor, tuple[str, ...]]:
        """Return the combinations of labels, the most frequent first, and all rarer ones as one."""
        kinds, group, counts = self.truth.unique(dim=0, return_inverse=True, return_counts=True)
        order = counts.argsort(descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        names = self.names(kinds[order])
        if len(names) > MOST_GROUPS:
            names = [*names[: MOST_GROUPS - 1], "others"]
        return rank[group].clamp_max(MOST_GROUPS - 1), tuple(names)


def answers_of(pixels: Pixels, classes: Sequence[str], logits: torch.Tensor, task: str) -> Answers:
    """Return the answers of a model for a task from `vision.tasks.TASKS`."""
    kind = MultiLabelAnswers if pixels.labels.is_floating_point() else SingleLabelAnswers
    return kind(pixels, tuple(classes), logits, task)


def spread_rows(total: int, count: int) -> torch.Tensor:
    """Return up to ``count`` rows from all over ``total``, which are usually sorted by class.

    Example:
        >>> spread_rows(10, 3).tolist()
        [0, 4, 9]
    """
    return torch.linspace(0, total - 1, min(count, total)).long()
