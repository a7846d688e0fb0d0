"""The contract of an augmentation: training images that could have been taken too, made from those that were."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from shared_peft.errors import ConfigError
from shared_peft.registry import Registry

JOINT = "+"


@dataclass(frozen=True)
class TrainingBatch:
    """Images on the CPU with what the model shall say of them.

    Args:
        values: uint8, shape (images, channels, size, size).
        targets: class indices, int64, shape (images,), or shares in [0, 1], float32, shape (images, classes).
        n_classes: number of classes.
    """

    values: torch.Tensor
    targets: torch.Tensor
    n_classes: int

    def shares(self) -> torch.Tensor:
        """Return the targets as shares, float32, shape (images, classes)."""
        if self.targets.dim() == 2:
            return self.targets
        return functional.one_hot(self.targets, self.n_classes).float()

    def mixed(self, values: torch.Tensor, partners: torch.Tensor, own: torch.Tensor) -> "TrainingBatch":
        """Return the batch with ``values`` of which a share ``own``, shape (images,), shows each image's own classes.

        Args:
            values: mixed images, uint8, shape (images, channels, size, size).
            partners: whose classes the rest of each shows, row numbers, shape (images,).
            own: in [0, 1].
        """
        shares = self.shares()
        return replace(self, values=values, targets=torch.lerp(shares[partners], shares, own[:, None]))


@dataclass(frozen=True)
class Augmentation(ABC):
    """One kind of change. Subclasses are final frozen dataclasses and register themselves in AUGMENTATIONS."""

    @abstractmethod
    def apply(self, batch: TrainingBatch, generator: torch.Generator) -> TrainingBatch:
        """Change every image of a batch, each in its own way.

        Args:
            batch: the images; left untouched.
            generator: the only source of randomness; the same state gives the same images.

        Returns:
            As many images of the same shape and type, with their targets.
        """


AUGMENTATIONS: Registry[type[Augmentation]] = Registry("augmentation")


@dataclass(frozen=True)
class Chain(Augmentation):
    """Augmentations one after the other.

    Args:
        links: what is applied, in this order.
    """

    links: Sequence[Augmentation]

    def apply(self, batch: TrainingBatch, generator: torch.Generator) -> TrainingBatch:
        """Apply every link in turn; see Augmentation."""
        for link in self.links:
            batch = link.apply(batch, generator)
        return batch


def find_augmentation(preset: str) -> Augmentation:
    """Return the augmentation a word stands for: a name of AUGMENTATIONS, or several joined by "+" ("light+mixup").

    Raises:
        UnknownNameError: a name that is not registered; the message lists those that are.
        ConfigError: a name that stands there twice.

    Example:
        >>> [type(link).__name__ for link in find_augmentation("shift+cutmix").links]
        ['Shift', 'Cutmix']
    """
    import vision.augmentations  # noqa: F401, PLC0415  (the entries import this file)

    names = preset.split(JOINT)
    if len(set(names)) != len(names):
        raise ConfigError("--augment", "must name each augmentation once", repr(preset), "Drop the second one")
    return Chain([AUGMENTATIONS.get(name)() for name in names])
