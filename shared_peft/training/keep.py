"""Which weights a run keeps: the last ones, their average, or those that scored best on data held out (ours)."""

import contextlib
from collections.abc import Callable

import torch
from torch import nn

from shared_peft.training.average import WeightAverage
from shared_peft.training.checkpoint import Resumable
from shared_peft.training.early_stop import EarlyStop

Validate = Callable[[nn.Module], float]


class Keeper:
    """Averages and validates after each step as asked, and says when to end.

    Args:
        model: the model, on its device.
        ema_decay: decay of the average of the weights; 0 keeps the weights themselves.
        validate: called with the model in eval mode, as it would be kept; returns a score, lower is better.
        every: steps between validations.
        patience: validations without a better score after which training ends; 0 never ends it.
        agree: makes one score of those of all processes.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        ema_decay: float,
        validate: Validate | None,
        every: int,
        patience: int,
        agree: Callable[[float], float],
    ) -> None:
        self.model, self.validate, self.every, self.agree = model, validate, every, agree
        self.average = WeightAverage(model, ema_decay) if ema_decay else None
        self.stop = EarlyStop(patience) if validate else None

    def parts(self) -> dict[str, Resumable]:
        """Return what has a state to resume from, by name."""
        found = {"average": self.average, "early_stop": self.stop}
        return {name: part for name, part in found.items() if part is not None}

    @property
    def over(self) -> bool:
        """Whether training ends before its last step."""
        return self.stop is not None and self.stop.over

    def after_step(self, done: int, *, last: bool) -> dict[str, float]:
        """Take the weights after ``done`` steps into account; return numbers to log."""
        if self.average is not None:
            self.average.update()
        if self.stop is None or self.validate is None or (done % self.every and not last):
            return {}
        modes = [(module, module.training) for module in self.model.modules()]
        with self.average.lent() if self.average else contextlib.nullcontext(), torch.no_grad():
            score = self.agree(self.validate(self.model.eval()))
            self.stop.judge(score, done, self.model)
        for module, training in modes:  # outer ones first, so that inner ones have the last word
            module.train(training)
        return {"validation": score}

    def finish(self) -> None:
        """Leave in the model what is kept."""
        if self.stop is not None and self.stop.best_step:
            self.stop.give(self.model)
        elif self.average is not None:
            self.average.give()
