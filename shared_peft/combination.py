"""Several adapters as one: weights on the active ones, or a plain LoRA that holds their weighted sum."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from shared_peft.errors import AdapterError
from shared_peft.factors import Factors, added
from shared_peft.fused_qkv import chosen_slots
from shared_peft.inject import adapter_layers, plan, saved_modules
from shared_peft.layer import AdapterLayer
from shared_peft.layer_kind import WeightSlot
from shared_peft.method import AdapterConfig, AdapterMethod
from shared_peft.methods.lora import Lora, LoraConfig
from shared_peft.plain_lora import exact_ranks, exact_targets, narrowed

Combination = Literal["cat", "svd", "linear"]


def activate(model: nn.Module, names: Sequence[str], weights: Sequence[float] | None, *, inference_mode: bool) -> None:
    """Use these adapters, each change times its weight, and train them unless ``inference_mode``; freeze all others."""
    strengths = {} if weights is None else weighted(names, weights)
    for _, layer in adapter_layers(model):
        layer.active, layer.strengths = tuple(names), strengths
        for name, methods in layer.adapters.items():
            methods.requires_grad_(name in names and not inference_mode)
    for _, module in saved_modules(model):
        module.active = next((name for name in reversed(names) if name in module.copies), None)
        for name, copy in module.copies.items():
            copy.requires_grad_(name == module.active and not inference_mode)


def weighted(names: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    """Return the weight of each adapter.

    Raises:
        AdapterError: another number of weights than names, a name given twice, or a weight that is not finite.
    """
    if len(names) != len(weights) or len(set(names)) < len(names) or not names:
        got = f"{len(weights)} weights for {', '.join(names) or 'none'}"
        raise AdapterError("weights", "must be one for each adapter, each named once", got, "Give as many weights")
    if not all(math.isfinite(weight) for weight in weights):
        raise AdapterError("weights", "must be finite", list(weights), "Correct them")
    return {name: float(weight) for name, weight in zip(names, weights, strict=True)}


@dataclass(frozen=True)
class _Part:
    """One adapter's change of one weight: its factor in the sum, where it lies, and where the sum's weight does."""

    weight: float
    method: AdapterMethod
    source: WeightSlot
    target: WeightSlot
    layer: AdapterLayer

    def chain(self) -> Factors | None:
        """Return the change as a chain, the weight not included."""
        factors = self.method.factors() if self.method.mergeable else None
        return factors if factors is None or not self._is_slice() else factors.in_rows(*self._place())

    def change(self) -> Tensor:
        """Return the change times its weight."""
        change = self.weight * self.method.delta_weight(self.layer.frozen_weight(self.source))
        if not self._is_slice():
            return change
        start, size = self._place()
        after = size - start - change.shape[0]
        return functional.pad(change, (*(0, 0) * (change.dim() - 1), start, after))

    def _is_slice(self) -> bool:
        return self.target.rows is None and self.source.rows is not None

    def _place(self) -> tuple[int, int]:
        assert self.source.rows is not None
        return self.source.rows[0], self.layer.base_layer.get_parameter(self.source.parameter).shape[0]


def combined(
    model: nn.Module,
    configs: Mapping[str, AdapterConfig],
    weights: Mapping[str, float],
    combination_type: Combination,
    svd_rank: int | None,
) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Return the weighted sum of adapters as a plain LoRA of scale 1: its configuration, and tensors as in its file.

    Args:
        model: the adapted model, which is not changed.
        configs: configuration of each adapter to combine.
        weights: factor on each adapter's change.
        combination_type: "cat" lays the chains side by side (exact), "svd" takes the best rank-``svd_rank`` sum,
            "linear" adds A's and B's apart as Hugging Face peft does (not the sum of the changes).
        svd_rank: rank for "svd"; by default the largest rank among the adapters of a layer.

    Raises:
        AdapterError: a method or rank that the combination cannot take, or two trained copies of one module.
    """
    names = [name for name, layer in adapter_layers(model) if any(adapter in layer.adapters for adapter in weights)]
    parts = [configs[adapter].qkv_parts for adapter in weights]
    saved = _saved(model, weights)
    shared = parts[0] if all(part == parts[0] for part in parts) else None
    fields: dict[str, Any] = {"target_modules": exact_targets(model, names), "modules_to_save": list(saved) or None}
    draft = LoraConfig(r=1, qkv_parts=shared, **fields)
    chains: dict[str, dict[str, Factors]] = {}
    for planned in plan(model, draft):
        pieces = list(_parts(model, planned.layer, planned.slot, draft, weights))
        chain = _COMBINE[combination_type](planned.spec.name, pieces, svd_rank) if pieces else None
        if chain is None:  # an adapter left this weight of the layer alone
            out, *rest = planned.spec.shape
            chain = Factors(torch.zeros(1, *rest), torch.zeros(out, 1))
        chains.setdefault(planned.layer, {})[planned.slot] = chain
    ranks = {name: max(chain.core.shape[0] for chain in slots.values()) for name, slots in chains.items()}
    tensors = {f"modules_to_save.{name}.{key}": t for name, state in saved.items() for key, t in state.items()}
    for name, slots in chains.items():
        for slot, chain in slots.items():
            missing = ranks[name] - chain.core.shape[0]
            core = functional.pad(chain.core, (*(0, 0) * (chain.core.dim() - 1), 0, missing))
            tensors[f"{name}.{slot}.lora_A"] = core.detach()
            tensors[f"{name}.{slot}.lora_B"] = functional.pad(chain.out_factor, (0, missing)).detach()
    return LoraConfig(qkv_parts=shared, **fields, **exact_ranks(ranks)), tensors


def _parts(
    model: nn.Module, name: str, slot: str, config: AdapterConfig, weights: Mapping[str, float]
) -> Iterator[_Part]:
    """Iterate over what the adapters change of one weight of the sum."""
    layer = model.get_submodule(name)
    assert isinstance(layer, AdapterLayer)
    target = next(known for known in chosen_slots(model, name, layer.base_layer, config) if known.key == slot)
    for adapter, weight in weights.items():
        for source, method in layer.methods(adapter):
            if source.parameter == target.parameter and target.rows in (None, source.rows):
                yield _Part(weight, method, source, target, layer)


def _cat(name: str, parts: Sequence[_Part], svd_rank: int | None) -> Factors:
    """Lay the chains side by side."""
    chains = []
    for part in parts:
        chain = part.chain()
        if chain is None:
            raise _unfit(name, "'cat' needs methods that are low-rank chains", part, "Use combination_type='svd'")
        chains.append(chain.scaled(part.weight))
    return narrowed(added(chains))


def _svd(name: str, parts: Sequence[_Part], svd_rank: int | None) -> Factors:
    """Take the largest singular triples of the summed change; by default as many as the widest chain has."""
    unfit = next((part for part in parts if not part.method.mergeable), None)
    if unfit is not None:
        raise _unfit(name, "'svd' needs methods that are weight changes", unfit, "Leave this adapter out")
    change = torch.stack([part.change() for part in parts]).sum(0)
    rank = svd_rank
    if rank is None:
        chains = [part.chain() for part in parts]
        if any(chain is None for chain in chains):
            raise _unfit(name, "svd_rank must be given for methods without a rank", parts[0], "Give svd_rank")
        rank = max(chain.without_in_factor().core.shape[0] for chain in chains if chain is not None)
    left, sigma, right = torch.linalg.svd(change.flatten(1).float(), full_matrices=False)
    rank = min(rank, len(sigma))
    root = sigma[:rank].sqrt()
    core = (root[:, None] * right[:rank]).reshape(rank, *change.shape[1:])
    return Factors(core, left[:, :rank] * root)


def _linear(name: str, parts: Sequence[_Part], svd_rank: int | None) -> Factors:
    """Add sqrt(w s) A and sqrt(w s) B apart, a negative sign on A's side, as peft's add_weighted_adapter does."""
    downs, ups = [], []
    for part in parts:
        method, chain = part.method, part.chain()
        if not isinstance(method, Lora) or chain is None or chain.core.shape != method.lora_A.shape:
            raise _unfit(name, "'linear' needs plain LoRA", part, "Use combination_type='cat' or 'svd'")
        scale: Any = method.scale
        factor = part.weight * scale
        downs.append(math.copysign(math.sqrt(abs(factor)), factor) * chain.core)
        ups.append(math.sqrt(abs(factor)) / scale * chain.out_factor)
    ranks = sorted({down.shape[0] for down in downs})
    if len(ranks) > 1:
        must, fix = "'linear' needs adapters of one rank", "Use combination_type='cat' or 'svd'"
        raise AdapterError(name, must, f"ranks {ranks}", fix)
    return Factors(torch.stack(downs).sum(0), torch.stack(ups).sum(0))


_COMBINE = {"cat": _cat, "svd": _svd, "linear": _linear}


def _unfit(name: str, must: str, part: _Part, fix: str) -> AdapterError:
    return AdapterError(name, must, type(part.method).__name__, fix)


def _saved(model: nn.Module, adapters: Mapping[str, float]) -> dict[str, dict[str, Tensor]]:
    """Return the trained copy of every module that one of the adapters trained in full."""
    saved: dict[str, dict[str, Tensor]] = {}
    for name, module in saved_modules(model):
        holders = [adapter for adapter in adapters if adapter in module.copies]
        if len(holders) > 1:
            fix = "Combine adapters of which at most one trained this module"
            raise AdapterError(name, "must be trained in full by one of the adapters", ", ".join(holders), fix)
        if holders:
            saved[name] = module.copies[holders[0]].state_dict()
    return saved
