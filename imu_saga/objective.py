"""The contract of a pre-training objective: what an encoder must tell of a window of which a mask hides a part."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from imu_saga.encoder import Encoder
from shared_peft.registry import Registry


class Objective(nn.Module, ABC):
    """An encoder and what is trained beside it. Subclasses are final and register themselves in OBJECTIVES.

    Args:
        encoder: the backbone.
    """

    citation: ClassVar[str]

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def prepare(self, truth: Tensor) -> None:
        """Look at training windows, shape (windows, samples, channels) in SI, before the first step."""

    @abstractmethod
    def forward(self, shown: Tensor, mask: Tensor, valid: Tensor, truth: Tensor) -> Tensor:
        """Return each window's loss, shape (windows,).

        Args:
            shown: windows in SI as the encoder may see them, augmented, shape (windows, samples, channels).
            mask: entries hidden from the encoder, bool, the same shape.
            valid: samples that were measured, bool, shape (windows, samples).
            truth: the windows as they were recorded.
        """


OBJECTIVES: Registry[type[Objective]] = Registry("objective")
