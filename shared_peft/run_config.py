"""A method's configuration for one training run: what was given, completed by what the run and the model ask (ours)."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from shared_peft.budget import count_parameters, largest_rank
from shared_peft.errors import RankError
from shared_peft.inject import plan
from shared_peft.layer_kind import kind_of
from shared_peft.low_rank import LowRankConfig
from shared_peft.method import METHODS, AdapterConfig, make_config
from shared_peft.plain_lora import exact_pattern, exact_targets
from shared_peft.targets import resolve_targets


def config_for_run(
    model: nn.Module, method: str, fields: Mapping[str, Any], *, steps: int, budget: int | None = None
) -> AdapterConfig:
    """Return a method's configuration for one training run: what was given, completed by what run and model ask (ours).

    Phases follow the run's steps (see `_scheduled`). Where no rank is given, the method's own is lowered for weights
    that cannot have it. Of the layers a keyword such as "all" means, those that a method which cannot be merged cannot
    run beside are left out. A warning names what was lowered or left out.

    Args:
        model: the model to adapt, which is not changed.
        method: a name from METHODS.
        fields: fields of the configuration that were asked for.
        steps: optimiser steps of the run.
        budget: largest number of trainable values, modules trained in full not counted; sets the rank.

    Raises:
        UnknownNameError, ConfigError, TargetError: what was given cannot be used.
        RankError: a budget that rank 1, or a method without ranks, does not fit.
    """
    given = {**fields, **_runnable_targets(model, method, fields, steps)}
    config: Any = make_config(method, **_scheduled(method, given, steps))
    if budget is None:
        return config if given.keys() & {"r", "init_r", "rank_pattern"} else _lowered(model, config)
    if hasattr(config, "r"):
        without = {name: value for name, value in given.items() if name != "init_r"}
        rank = largest_rank(model, config, budget).r
        return make_config(method, **_scheduled(method, {**without, "r": rank}, steps))
    if (count := count_parameters(model, config)) > budget:
        must = f"must allow {method}, which has {count} parameters here and no rank"
        raise RankError("budget", must, budget, "Raise it, or target fewer layers")
    return config


def _scheduled(method: str, given: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Return the fields given, completed by phases that fit the run (ours).

    A warm-up takes the method's own number of steps, at most a quarter of the run. A budget that shrinks does so from
    a tenth of the run on, and stays for the last fifth; ranks fall to two thirds, as with the method's defaults.
    """
    known = METHODS.get(method).config_class.__dataclass_fields__
    added: dict[str, Any] = {}
    if "warmup_steps" in known:
        added["warmup_steps"] = max(1, min(known["warmup_steps"].default, steps // 4))
    if "total_step" in known and "total_step" not in given:
        interval = max(1, min(known["deltaT"].default, steps // 20))
        added |= {"total_step": steps, "tinit": steps // 10, "tfinal": steps // 5, "deltaT": interval}
    rank = given.get("init_r") or given.get("r")
    if "target_r" in known and isinstance(rank, int):
        added["target_r"] = max(1, 2 * rank // 3)
    return {**added, **given}


def _runnable_targets(model: nn.Module, method: str, given: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Return ``target_modules`` without layers the method cannot run beside, or nothing where it can stay."""
    pattern = given.get("target_modules", "all")
    if METHODS.get(method).mergeable or not (isinstance(pattern, str) and pattern.startswith("all")):
        return {}
    layers = resolve_targets(model, make_config(method, **_scheduled(method, given, steps)))
    kinds = {name: (kind_of(layer), layer) for name, layer in layers.items()}
    runs = [name for name, (kind, layer) in kinds.items() if kind is not None and kind.runs_chain(layer)]
    left_out = [name for name in layers if name not in runs]
    if not left_out or not runs:
        return {}
    warnings.warn(f"{method} runs beside dense layers only and leaves out {_some(left_out)}", stacklevel=4)
    return {"target_modules": exact_targets(model, runs)}


def _lowered(model: nn.Module, config: Any) -> AdapterConfig:
    """Return a low-rank configuration with ranks lowered where a weight, read as a matrix, cannot have them."""
    if not isinstance(config, LowRankConfig):
        return config
    largest: dict[str, int] = {}
    for planned in plan(model, config):
        limit = min(planned.spec.matrix_shape)
        if limit < config.r:
            largest[planned.layer] = min(limit, largest.get(planned.layer, limit))
    if not largest:
        return config
    changed = [f"{name} {config.r} -> {rank}" for name, rank in largest.items()]
    warnings.warn(f"ranks lowered to what the weight allows in {_some(changed)}", stacklevel=4)
    ranks = {planned.layer: largest.get(planned.layer, config.r) for planned in plan(model, config)}
    return dataclasses.replace(config, rank_pattern=exact_pattern(ranks))


def _some(words: Sequence[str]) -> str:
    return f"{len(words)} layers: {', '.join(words[:5])}" + (", ..." if len(words) > 5 else "")
