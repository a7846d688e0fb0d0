"""Early stop: keep the weights that scored best on data held out, end when nothing better comes (Prechelt 1998).

"Early stopping, but when?", doi:10.1007/3-540-49430-8_3: the criterion UP, counted from the best score.
"""

import math
from typing import Any

import torch
from torch import nn

from shared_peft.training.checkpoint import trained_state


class EarlyStop:
    """The best score so far, the weights that made it, and how many checks ago that was.

    Args:
        patience: checks without a better score after which training ends; 0 never ends it, but keeps the best.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best, self.best_step, self.misses = math.inf, 0, 0
        self._weights: dict[str, torch.Tensor] = {}

    def judge(self, score: float, step: int, model: nn.Module) -> None:
        """Take note of the score of ``model`` after ``step`` steps; lower is better."""
        if score < self.best:
            self.best, self.best_step, self.misses = score, step, 0
            self._weights = {name: tensor.detach().clone() for name, tensor in trained_state(model).items()}
        else:
            self.misses += 1

    @property
    def over(self) -> bool:
        """Whether training ends here."""
        return 0 < self.patience <= self.misses

    def give(self, model: nn.Module) -> None:
        """Leave the best weights in ``model``; without any finite score it keeps its own."""
        model.load_state_dict(self._weights, strict=False)

    def state_dict(self) -> dict[str, Any]:
        """Return what goes on in a resumed run."""
        return {"best": self.best, "best_step": self.best_step, "misses": self.misses, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a stored state."""
        self.best, self.best_step, self.misses = float(state["best"]), int(state["best_step"]), int(state["misses"])
        self._weights = dict(state["weights"])
