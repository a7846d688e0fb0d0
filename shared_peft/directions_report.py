"""Which directions of each weight a run moved, and how much of the change they carry (arXiv:2409.01035v5, Sec. 3).

Plain rows, a text table, csv lines, and a picture drawn on a figure that the caller brings. Below it, until it finds a
file of its own, what a training run asks of a method's configuration.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shared_peft.budget import count_parameters, largest_rank
from shared_peft.errors import AdapterError, RankError, RunError
from shared_peft.factors import Factors
from shared_peft.inject import adapter_layers, plan
from shared_peft.layer_kind import kind_of
from shared_peft.low_rank import LowRankConfig
from shared_peft.method import METHODS, AdapterConfig, make_config
from shared_peft.plain_lora import exact_pattern, exact_targets
from shared_peft.spectrum import RELATIVE_EPSILON, Basis, change_rates, core_change_rates, hosvd, singular_directions
from shared_peft.targets import resolve_targets
from shared_peft.task_directions import NOT_LAUNCHED, TaskDirections

CSV_COLUMNS = ("layer", "direction", "sigma", "change_rate", "chosen", "dsigma")


@dataclass(frozen=True)
class DirectionsRow:
    """One adapted weight.

    Args:
        layer: full name of the layer (and slot).
        basis: "matrix": singular directions by falling singular value; "hosvd": entries of the flattened HOSVD core.
        sigma: the frozen weight's coordinate along each direction, never negative.
        change_rates: how far the run's whole change moves each direction relative to ``sigma``.
        chosen: the directions the method chose, by falling change rate when it chose them; empty before the launch.
        dsigma: trained change of each chosen direction's coordinate; empty for a method that trains none.
        step: optimiser step at which the directions were chosen, None before.
        change_norm: Frobenius norm of the change.
        chosen_share: part of the change's squared norm along the chosen directions, in [0, 1]; None without a choice
            or a change.
        top_share: the same for as many directions with the largest ``sigma``, to compare with.
    """

    layer: str
    basis: Basis
    sigma: list[float]
    change_rates: list[float]
    chosen: list[int]
    dsigma: list[float]
    step: int | None
    change_norm: float
    chosen_share: float | None
    top_share: float | None


def directions_methods() -> tuple[str, ...]:
    """Return the names of the methods that choose task-specific directions."""
    return tuple(name for name, method in METHODS.items() if issubclass(method, TaskDirections))


def check_chooses_directions(where: object, method: str) -> None:
    """Raise RunError, naming the methods that will do, for a run whose ``method`` chooses no directions."""
    if method not in directions_methods():
        must = f"must be a run of {', '.join(directions_methods())}, which choose task-specific directions"
        raise RunError(where, must, method, "Fine-tune with --method lora_tsd")


def directions_report(model: nn.Module, adapter_name: str = "default") -> list[DirectionsRow]:
    """Return one row for each weight that a LoRA-Dash, LoRA-Init or LoRA-TSD adapter changes.

    Rates are those of the change as it is now, relative to the frozen weight, not those the choice was made by. The
    share of the chosen directions is ours: sum over I of (u_i^T dW v_i)^2 / ||dW||_F^2.

    Args:
        model: a model that carries the adapter, not merged.
        adapter_name: the adapter.

    Raises:
        AdapterError: no weight of the model carries such an adapter.
    """
    rows = [
        _row(layer.spec(slot).name, layer.frozen_weight(slot).detach(), method)
        for _, layer in adapter_layers(model)
        for slot, method in layer.methods(adapter_name)
        if isinstance(method, TaskDirections)
    ]
    if not rows:
        must = f"must be an adapter of {', '.join(directions_methods())}"
        raise AdapterError(adapter_name, must, "none", "Choose another adapter")
    return rows


@torch.no_grad()
def _row(name: str, weight: Tensor, method: TaskDirections) -> DirectionsRow:
    sigma, rates = _spectrum(weight, method.factors(), method.basis)
    launched = int(method.launched_at) != NOT_LAUNCHED
    change = method.delta_weight(weight).flatten(1).double()
    norm = change.square().sum()
    chosen_share = top_share = None
    if launched and norm > 0:
        along = ((method.left.double().mT @ change) * method.right.double().mT).sum(1)
        chosen_share = float(along.square().sum() / norm)
        moved = rates.double() * (sigma + RELATIVE_EPSILON * sigma.max())  # |u_i^T dW v_i| again
        top_share = float(moved[sigma.topk(len(along)).indices].square().sum() / norm)
    return DirectionsRow(
        layer=name,
        basis=method.basis if weight[0, 0].numel() > 1 else "matrix",
        sigma=sigma.tolist(),
        change_rates=rates.tolist(),
        chosen=method.indices.tolist() if launched else [],
        dsigma=method.dsigma.tolist() if launched and method.dashes else [],
        step=int(method.launched_at) if launched else None,
        change_norm=float(norm.sqrt()),
        chosen_share=chosen_share,
        top_share=top_share,
    )


def _spectrum(weight: Tensor, change: Factors, basis: Basis) -> tuple[Tensor, Tensor]:
    """Return the weight's coordinates and the change rates of all its directions, both of shape (directions,)."""
    if basis == "hosvd" and weight[0, 0].numel() > 1:
        core, factors = hosvd(weight)
        return core.abs().flatten(), core_change_rates(core, factors, change).flatten()
    left, sigma, right = singular_directions(weight)
    return sigma, change_rates(left, sigma, right, change.out_factor, change.core.flatten(1))


def csv_rows(rows: Sequence[DirectionsRow]) -> Iterator[tuple[Any, ...]]:
    """Yield one tuple of CSV_COLUMNS for each direction of each weight; dsigma is "" where none is trained."""
    for row in rows:
        dsigma = dict(zip(row.chosen, row.dsigma, strict=False))
        chosen = set(row.chosen)
        for index, (sigma, rate) in enumerate(zip(row.sigma, row.change_rates, strict=True)):
            yield row.layer, index, sigma, rate, int(index in chosen), dsigma.get(index, "")


def directions_table(rows: Sequence[DirectionsRow]) -> str:
    """Return a text table: a line a weight with the chosen directions and what they carry of the change."""
    width = max(len("layer"), *(len(row.layer) for row in rows))
    lines = [f"{'layer':<{width}}  {'step':>5}  {'carried':>8}  {'by top':>8}  {'|dW|':>9}  chosen directions"]
    for row in rows:
        step = "-" if row.step is None else str(row.step)
        shown = " ".join(map(str, row.chosen[:8])) + (" ..." if len(row.chosen) > 8 else "")
        shares = f"{_percent(row.chosen_share):>8}  {_percent(row.top_share):>8}"
        lines.append(f"{row.layer:<{width}}  {step:>5}  {shares}  {row.change_norm:>9.3g}  {shown}".rstrip())
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


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
