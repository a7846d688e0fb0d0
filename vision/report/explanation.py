"""The contract of an explanation: which pixels of an image a classifier's answer rests on."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from shared_peft.errors import UnknownNameError
from shared_peft.registry import Registry

AUTO = "auto"


class Explanation(ABC):
    """One way to explain an answer. Subclasses are final and register themselves in EXPLANATIONS."""

    cost: ClassVar[int]
    """Of those that suit a model, "auto" takes the one of the lowest cost."""
    title: ClassVar[str]
    """Its name on a page."""

    @abstractmethod
    def suits(self, model: nn.Module, image: torch.Tensor) -> bool:
        """Tell whether this model can be explained.

        Args:
            model: a classifier in eval mode.
            image: one preprocessed image, shape (1, channels, height, width).
        """

    @abstractmethod
    def explain(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return how much each pixel speaks for its image's target class.

        Args:
            model: a classifier in eval mode; it is left as it was.
            images: preprocessed, shape (n, channels, height, width).
            targets: the class to explain for each image, int64, shape (n,).

        Returns:
            Heat without a unit, at least 0, float32, shape (n, height, width).

        Raises:
            ConfigError: the model is not one this explanation suits.
        """


EXPLANATIONS: Registry[Explanation] = Registry("explanation")


def choose_explanation(name: str, model: nn.Module, image: torch.Tensor) -> str:
    """Return the name of the explanation to use.

    Args:
        name: a registered one, or "auto" for the cheapest that suits the model.
        model: a classifier in eval mode.
        image: one preprocessed image, shape (1, channels, height, width).

    Raises:
        UnknownNameError: no such explanation; the message lists them.
    """
    check_explanation(name)
    if name != AUTO:
        return name
    return min((e.cost, key) for key, e in EXPLANATIONS.items() if e.suits(model, image))[1]


def check_explanation(name: str) -> None:
    """Raise UnknownNameError, listing the explanations, unless ``name`` is one or "auto"."""
    if name != AUTO and name not in EXPLANATIONS:
        must = f"name must be one of {', '.join((AUTO, *EXPLANATIONS.names()))}"
        raise UnknownNameError(EXPLANATIONS.kind, must, repr(name), "Correct the name")


def enlarged(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize heat maps (n, rows, columns) to ``size`` (height, width) [px] by bilinear interpolation."""
    return functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
