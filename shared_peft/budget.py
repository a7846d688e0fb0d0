"""How many parameters an adapter has on a model, and the largest rank within a budget."""

import dataclasses
from typing import Any

import torch
from torch import nn

from shared_peft.errors import ConfigError, RankError
from shared_peft.inject import Planned, build_method, plan
from shared_peft.method import AdapterConfig


def count_parameters(model: nn.Module, config: AdapterConfig) -> int:
    """Return the number of trainable values of an adapter, modules trained in full not counted.

    The methods themselves are built without memory and counted, so the number is theirs by construction.

    Args:
        model: the model, which is not changed.
        config: the adapter's configuration.

    Raises:
        TargetError, RankError: as `get_peft_model` would.
    """
    return sum(_size(planned) for planned in plan(model, config))


def largest_rank(model: nn.Module, config: Any, budget: int) -> Any:
    """Return ``config`` with the largest ``r`` whose parameters fit the budget.

    Args:
        model: the model, which is not changed.
        config: a configuration with a field ``r``; its other fields stay.
        budget: largest number of trainable values, modules trained in full not counted.

    Returns:
        A configuration of the same class.

    Raises:
        RankError: even rank 1 has more parameters than the budget.
        ConfigError: the method has no rank.
    """
    if not hasattr(config, "r"):
        raise ConfigError(type(config).__name__, "must have a rank r", "none", "Choose a method with a rank")
    if count_parameters(model, dataclasses.replace(config, r=1)) > budget:
        least = count_parameters(model, dataclasses.replace(config, r=1))
        raise RankError("budget", f"must allow rank 1, {least} parameters", budget, "Raise it, or target fewer layers")
    low, high = 1, 2
    while _fits(model, config, high, budget):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(model, config, middle, budget) else (low, middle)
    return dataclasses.replace(config, r=low)


def _fits(model: nn.Module, config: Any, rank: int, budget: int) -> bool:
    largest = max(max(planned.spec.shape) for planned in plan(model, config))
    if rank > largest:
        return False
    try:
        return count_parameters(model, dataclasses.replace(config, r=rank)) <= budget
    except RankError:
        return False


def _size(planned: Planned) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_method(planned).parameters())
