"""Rank by importance within one budget for all layers (AdaLoRA, Zhang et al. 2023, arXiv:2303.10512, Sec. 3.2-3.3).

Every process of a distributed run decides the same without talking: importances come from parameters and from gradients
that are already averaged over the processes, so they are equal bit for bit, and the sort is stable.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared_peft.errors import TrainingError
from shared_peft.inject import adapter_layers
from shared_peft.method import AdapterMethod


@dataclass(frozen=True)
class RankSchedule:
    """When the budget shrinks, and to what.

    Args:
        target_r: ranks kept at the end, on average over the adapted weights.
        budget_parameters: trainable values kept at the end, instead of ``target_r``; None counts ranks.
        tinit: optimiser steps before the budget starts to shrink.
        tfinal: optimiser steps trained with the final ranks.
        interval: optimiser steps between decisions.
        total_step: optimiser steps of the whole training.
    """

    target_r: int
    budget_parameters: int | None
    tinit: int
    tfinal: int
    interval: int
    total_step: int

    @property
    def final_step(self) -> int:
        """The step whose decision stays."""
        return self.total_step - self.tfinal

    def decides_at(self, step: int) -> bool:
        """Tell whether ranks are chosen after ``step`` optimiser steps."""
        return step >= self.final_step or (step > self.tinit and step % self.interval == 0)

    def budget(self, step: int, first: int, last: int) -> int:
        """Return the budget after ``step`` steps, between ``first`` and ``last`` (Sec. 3.3, a cubic, rounded down)."""
        if step <= self.tinit:
            return first
        if step >= self.final_step:
            return last
        left = 1 - (step - self.tinit) / (self.final_step - self.tinit)
        return int(last + (first - last) * left**3)


class RankedMethod(AdapterMethod, ABC):
    """A method made of ranks that can be switched off one by one.

    Its buffer ``kept``, shape (r,), is all True until the final decision; afterwards its change is exactly 0 where
    ``kept`` is False.
    """

    schedule: RankSchedule
    kept: Tensor
    decided: Tensor  # whether ``kept`` is final

    @property
    @abstractmethod
    def parameters_per_rank(self) -> int:
        """Trainable values of one rank."""

    @abstractmethod
    def importance(self) -> Tensor:
        """Return how much the loss depends on each rank: shape (r,), not negative."""

    @abstractmethod
    def keep(self, kept: Tensor) -> None:
        """Set the ranks where ``kept``, shape (r,), is False to 0, free to grow again until the final decision."""


def allocate(methods: Iterable[AdapterMethod], step: int) -> None:
    """Choose the ranks one adapter keeps, over all its weights together, if its schedule decides at ``step``.

    Args:
        methods: the adapter's methods; those without ranks to choose from are left alone.
        step: optimiser steps done so far.

    Raises:
        TrainingError: a decision is due and no gradient was ever seen.
    """
    ranked = [method for method in methods if isinstance(method, RankedMethod) and not method.decided]
    if not ranked or not ranked[0].schedule.decides_at(step):
        return
    schedule = ranked[0].schedule
    importances = [method.importance().double().cpu() for method in ranked]
    if not any(bool(importance.any()) for importance in importances):
        fix = "Call it after optimizer.step() and before optimizer.zero_grad()"
        raise TrainingError("update_and_allocate", "gradients must still be in place", "none", fix)
    counts_parameters = schedule.budget_parameters is not None
    prices = [method.parameters_per_rank if counts_parameters else 1 for method in ranked]
    first = sum(price * len(method.kept) for price, method in zip(prices, ranked, strict=True))
    last = schedule.budget_parameters if counts_parameters else schedule.target_r * len(ranked)
    chosen = choose(importances, prices, schedule.budget(step, first, min(first, last or 0)))
    for method, kept in zip(ranked, chosen, strict=True):
        method.keep(kept.to(method.kept.device))
        if step >= schedule.final_step:
            method.kept.copy_(kept)
            method.decided.fill_(True)  # noqa: FBT003  (a tensor's value)


def choose(importances: Sequence[Tensor], prices: Sequence[int], budget: int) -> list[Tensor]:
    """Return which ranks to keep: by falling importance per price, each one that still fits.

    With equal prices these are the most important ones (Sec. 3.2); prices are ours. Equal importances go by layer, then
    by rank.

    Args:
        importances: for each weight, shape (ranks,).
        prices: for each weight, what one of its ranks costs.
        budget: the most that may be spent.

    Returns:
        For each weight a mask, shape (ranks,).
    """
    worth = torch.cat([importance / price for importance, price in zip(importances, prices, strict=True)])
    sizes = [len(importance) for importance in importances]
    cost = [price for price, size in zip(prices, sizes, strict=True) for _ in range(size)]
    kept = torch.zeros(len(cost), dtype=torch.bool)
    for index in worth.argsort(descending=True, stable=True).tolist():
        if cost[index] <= budget:
            kept[index] = True
            budget -= cost[index]
    return list(kept.split(sizes))


def allocated_ranks(model: nn.Module, adapter_name: str = "default") -> dict[str, int]:
    """Return the rank every weight was given, by its name; its start rank until the final decision.

    Args:
        model: a model that carries the adapter.
        adapter_name: the adapter.

    Returns:
        Ranks by layer name, in the model's order: a ``rank_pattern`` for a plain LoRA, layers with rank 0 excluded.
    """
    return {
        layer.spec(slot).name: int(method.kept.sum())
        for _, layer in adapter_layers(model)
        for slot, method in layer.methods(adapter_name)
        if isinstance(method, RankedMethod)
    }
