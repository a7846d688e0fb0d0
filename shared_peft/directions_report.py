"""Which directions of each weight a run moved, and how much of the change they carry (arXiv:2409.01035v5, Sec. 3)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared_peft.errors import AdapterError, RunError
from shared_peft.factors import Factors
from shared_peft.inject import adapter_layers
from shared_peft.method import METHODS, method_name
from shared_peft.model import PeftModel
from shared_peft.spectrum import RELATIVE_EPSILON, Basis, change_rates, core_change_rates, hosvd, singular_directions
from shared_peft.task_directions import NOT_LAUNCHED, TaskDirections


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


def directions_of_run(where: object, model: nn.Module) -> tuple[str, list[DirectionsRow]]:
    """Return the method of a run's model and its `directions_report`.

    Args:
        where: the run's folder, for the error message.
        model: the run's model, a PeftModel with one adapter where it used an adapter.

    Raises:
        RunError: the run's method chooses no directions; the message names those that do.
    """
    configs = list(model.peft_config.values()) if isinstance(model, PeftModel) else []
    method = method_name(configs[0]) if configs else "a run without adapter"
    if not isinstance(model, PeftModel) or method not in directions_methods():
        must = f"must be a run of {', '.join(directions_methods())}, which choose task-specific directions"
        raise RunError(where, must, method, "Fine-tune with --method lora_tsd")
    return method, directions_report(model, model.active_adapters[0])


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
