"""Putting adapters into a model and taking them out again; the model's class and other modules stay as they are."""

import dataclasses
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from shared_peft.errors import AdapterError, TargetError
from shared_peft.fused_qkv import chosen_slots
from shared_peft.layer import AdapterLayer, weight_spec
from shared_peft.method import METHODS, AdapterConfig, AdapterMethod, WeightSpec, method_name
from shared_peft.saved_module import SavedModule
from shared_peft.targets import matches, resolve_targets, value_for

_PATTERNS = {"rank_pattern": "r", "alpha_pattern": "lora_alpha"}


@dataclass(frozen=True)
class Planned:
    """One weight that a configuration will adapt: layer name, slot key, what methods see, configuration there."""

    layer: str
    slot: str
    spec: WeightSpec
    config: AdapterConfig


def plan(model: nn.Module, config: AdapterConfig) -> list[Planned]:
    """Return every weight ``config`` means in ``model``, with ranks and alphas resolved; the model is not changed.

    Raises:
        TargetError: see `resolve_targets` and `chosen_slots`.
    """
    return [
        Planned(name, slot.key, weight_spec(layer, slot, name), config_for(name, config))
        for name, layer in resolve_targets(model, config).items()
        for slot in chosen_slots(model, name, layer, config)
    ]


def config_for(name: str, config: AdapterConfig) -> AdapterConfig:
    """Return the configuration for one layer, its rank and alpha patterns applied."""
    changes = {
        target: value_for(name, getattr(config, pattern), getattr(config, target))
        for pattern, target in _PATTERNS.items()
        if getattr(config, pattern, None)
    }
    return dataclasses.replace(config, **changes) if changes else config


def build_method(planned: Planned, generator: torch.Generator | None = None) -> AdapterMethod:
    """Make the method for one planned weight; on the meta device it has shapes but no values."""
    method: Any = METHODS.get(method_name(planned.config))
    return method(planned.spec, planned.config, generator)


def attach(
    model: nn.Module,
    config: AdapterConfig,
    adapter_name: str,
    *,
    generator: torch.Generator | None = None,
    start: bool = True,
) -> None:
    """Attach a new adapter, inactive, to a model in place; every parameter of the model itself is frozen.

    Args:
        model: the model to change.
        config: the adapter's configuration.
        adapter_name: its name, unique in the model, without dots.
        generator: source of the random initial values.
        start: let methods take start values from the weights; not needed where a file's values follow.

    Raises:
        AdapterError: the name is taken or unusable.
        TargetError: nothing matches, or a layer cannot be adapted.
        RankError: a rank that a layer's weight cannot have. The model is unchanged after any of these.
    """
    _check_name(model, adapter_name)
    built: dict[str, dict[str, AdapterMethod]] = {}
    for planned in plan(model, config):
        built.setdefault(planned.layer, {})[planned.slot] = build_method(planned, generator)
    saved = saved_names(model, config)
    fresh = {name: _adapter_layer(model, name) for name in built}
    for name, methods in built.items():
        fresh[name].check(methods)
        if start:
            fresh[name].start(methods)
    _warn_clamped(built)
    model.requires_grad_(False)
    wrappers: dict[nn.Module, nn.Module] = {}
    for name, methods in built.items():
        module = model.get_submodule(name)
        fresh[name].add(adapter_name, methods)
        wrappers[module] = fresh[name].train(module.training)
    for name in saved:
        module = model.get_submodule(name)
        wrapper = module if isinstance(module, SavedModule) else SavedModule(module)
        wrapper.add(adapter_name)
        wrappers[module] = wrapper.train(module.training)
    _exchange(model, wrappers)


def detach(model: nn.Module) -> nn.Module:
    """Take every wrapper out: layers become their base layer, saved modules their active copy; return the model."""
    _exchange(model, {layer: layer.base_layer for _, layer in adapter_layers(model)})
    _exchange(model, {module: module.current for _, module in saved_modules(model)})
    return model


def adapter_layers(model: nn.Module) -> Iterator[tuple[str, AdapterLayer]]:
    """Iterate over (name, layer) of every adapted layer."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, AdapterLayer))


def saved_modules(model: nn.Module) -> Iterator[tuple[str, SavedModule]]:
    """Iterate over (name, module) of every module trained in full."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, SavedModule))


def adapter_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of all adapters in a model, in the order they were added."""
    return tuple(dict.fromkeys(name for _, layer in adapter_layers(model) for name in layer.adapters))


def training_penalty(model: nn.Module) -> torch.Tensor | None:
    """Return the sum of the penalties of all active adapters anywhere in ``model``, a scalar, or None."""
    active = (
        method for _, layer in adapter_layers(model) for name in layer.active for _, method in layer.methods(name)
    )
    penalties = [penalty for penalty in (method.penalty() for method in active) if penalty is not None]
    return torch.stack(penalties).sum() if penalties else None


def _check_name(model: nn.Module, adapter_name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", adapter_name) or hasattr(nn.ModuleDict, adapter_name):
        must = "adapter name must be letters, digits, '_' or '-', and no method of nn.ModuleDict"
        raise AdapterError("adapter_name", must, repr(adapter_name), "Choose another name")
    if adapter_name in adapter_names(model):
        fix = "Choose another name, or delete_adapter first"
        raise AdapterError("adapter_name", "must be new in this model", repr(adapter_name), fix)


def saved_names(model: nn.Module, config: AdapterConfig) -> list[str]:
    """Return the full names of the modules a configuration trains in full, the outermost where they lie in each other.

    Raises:
        TargetError: a suffix that names no module, or an adapted layer.
    """
    wanted = config.modules_to_save or []
    names: list[str] = []
    for suffix in wanted:
        found = [
            name
            for name, _ in model.named_modules()
            if name and matches(name, [suffix]) and not any(part in name for part in (".copies.", ".original_module"))
        ]
        if not found:
            children = ", ".join(name for name, _ in model.named_children())
            raise TargetError("modules_to_save", "must name a module", repr(suffix), f"Top-level modules: {children}")
        for name in found:
            if isinstance(model.get_submodule(name), AdapterLayer):
                fix = "Train it in full with every adapter, or with none"
                raise TargetError(name, "modules_to_save cannot hold an adapted layer", "AdapterLayer", fix)
        names += [name for name in found if not any(name.startswith(f"{outer}.") for outer in (*names, *found))]
    return list(dict.fromkeys(names))


def _adapter_layer(model: nn.Module, name: str) -> AdapterLayer:
    module = model.get_submodule(name)
    return module if isinstance(module, AdapterLayer) else AdapterLayer(module, name)


def _exchange(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    """Put modules in the place of others, under every name a shared one has."""
    for parent in list(model.modules()):
        for child, module in list(parent._modules.items()):
            if module is not None and replacements.get(module, module) is not module:
                setattr(parent, child, replacements[module])


def _warn_clamped(built: Mapping[str, Mapping[str, AdapterMethod]]) -> None:
    clamped = [method.clamped for methods in built.values() for method in methods.values() if method.clamped]
    if clamped:
        shown = "; ".join(clamped[:5]) + ("; ..." if len(clamped) > 5 else "")
        warnings.warn(f"ranks lowered to what the weight allows in {len(clamped)} layers: {shown}", stacklevel=3)
