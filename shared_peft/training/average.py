"""Exponential moving average of the trained weights (Polyak and Juditsky 1992, doi:10.1137/0330046), warmed up."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from shared_peft.errors import ConfigError


class WeightAverage:
    """The average of a model's trained parameters over the steps made; buffers stay those of the model.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that the first steps are soon forgotten (the
    warm-up of TensorFlow's ExponentialMovingAverage).

    Args:
        model: the model; parameters with ``requires_grad`` are averaged, from the values they have now.
        decay: largest part of the average kept at an update, in (0, 1).

    Raises:
        ConfigError: a decay outside (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ConfigError("ema_decay", "must be in (0, 1), or 0 for no average", decay, "Use 0.999")
        self.decay, self.updates = decay, 0
        self._live = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._mean = {name: parameter.detach().clone() for name, parameter in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the model's weights, once a step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in self._live.items():
            self._mean[name].lerp_(parameter, 1 - decay)
        self.updates += 1

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Let the model have the averaged weights inside the block, its own again after it."""
        own = {name: parameter.detach().clone() for name, parameter in self._live.items()}
        self.give()
        try:
            yield
        finally:
            self._fill(own)

    def give(self) -> None:
        """Leave the averaged weights in the model."""
        self._fill(self._mean)

    def state_dict(self) -> dict[str, Any]:
        """Return what goes on in a resumed run."""
        return {"updates": self.updates, "mean": self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a stored state of the same parameters."""
        self.updates = int(state["updates"])
        for name, mean in self._mean.items():
            mean.copy_(state["mean"][name])

    @torch.no_grad()
    def _fill(self, values: dict[str, torch.Tensor]) -> None:
        for name, parameter in self._live.items():
            parameter.copy_(values[name])
