"""Which layers an adapter goes to: name suffixes, a regular expression, "all", "all-linear" or "all-conv"."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from torch import nn
from torch.nn.parameter import UninitializedParameter

from shared_peft.errors import TargetError
from shared_peft.layer import AdapterLayer
from shared_peft.layer_kind import Category, LayerKind, kind_of
from shared_peft.method import AdapterConfig
from shared_peft.patterns import or_suffix

V = TypeVar("V")
_KEYWORDS = {
    "all": get_args(Category),
    "all-linear": ("linear", "attention"),
    "all-conv": ("conv",),
}


def matches(name: str, pattern: str | Sequence[str]) -> bool:
    """Tell whether a name is meant: the whole of it by a regular expression, or its end by a list of suffixes."""
    if isinstance(pattern, str):
        return _compiled(pattern).fullmatch(name) is not None
    return any(name == suffix or name.endswith(f".{suffix}") for suffix in pattern)


def value_for(name: str, patterns: Mapping[str, V], default: V) -> V:
    """Return the value of the first pattern (name, suffix, or regular expression for either) that fits a layer."""
    for pattern, value in patterns.items():
        if _compiled(or_suffix(pattern)).fullmatch(name):
            return value
    return default


def resolve_targets(model: nn.Module, config: AdapterConfig) -> dict[str, nn.Module]:
    """Return the layers a configuration means, by full name, in the model's order; the model is not changed.

    Layers that already carry another adapter are returned as their base layer. Modules trained in full
    (``modules_to_save``) and what lies inside an adapted MultiheadAttention are left out. A layer used under several
    names is meant, or excluded, by any of them and returned once, under its first.

    Raises:
        TargetError: nothing matches, a matched module cannot be adapted, or its weight is shared with another module.
    """
    names = _all_names(model)
    candidates = _candidates(model, names, config.modules_to_save or ())
    pattern = config.target_modules
    keyword = isinstance(pattern, str) and pattern in _KEYWORDS
    if keyword:  # an attention module stands for the projections inside it, adapted or excluded
        outer = [name for name, layer in candidates.items() if isinstance(layer, nn.MultiheadAttention)]
        candidates = {n: layer for n, layer in candidates.items() if not any(n.startswith(f"{o}.") for o in outer)}
    chosen = {
        name: layer
        for name, layer in candidates.items()
        if (_by_keyword(layer, str(pattern)) if keyword else _any_matches(names[name], pattern))
        and not (config.exclude_modules and _excluded(names[name], layer, config.exclude_modules))
    }
    if not chosen:
        raise TargetError("target_modules", "must match at least one layer", repr(pattern), _suggestion(candidates))
    for name, layer in chosen.items():
        _check(name, layer)
    _check_tied(model, chosen)
    return chosen


def _all_names(model: nn.Module) -> dict[str, list[str]]:
    """Return every name of each module, by its first one."""
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    return {known[0]: known for known in names.values()}


def _candidates(model: nn.Module, names: Mapping[str, Sequence[str]], saved: Sequence[str]) -> dict[str, nn.Module]:
    """Return every module an adapter could be asked for, adapted ones as their base layer."""
    found: dict[str, nn.Module] = {}
    wrapped: list[str] = []
    for name, module in model.named_modules():
        if not name or any(name.startswith(f"{outer}.") for outer in wrapped):
            continue
        if saved and _any_matches(names[name], list(saved)) or type(module).__name__ == "SavedModule":
            wrapped.append(name)
        elif isinstance(module, AdapterLayer):
            wrapped.append(name)
            found[name] = module.base_layer
        else:
            found[name] = module
    return found


def _by_keyword(layer: nn.Module, keyword: str) -> bool:
    kind = kind_of(layer)
    return kind is not None and kind.category(layer) in _KEYWORDS[keyword]


def _any_matches(names: Sequence[str], pattern: str | Sequence[str]) -> bool:
    return any(matches(name, pattern) for name in names)


def _excluded(names: Sequence[str], layer: nn.Module, pattern: str | list[str]) -> bool:
    if isinstance(pattern, str) and pattern in _KEYWORDS:
        return _by_keyword(layer, pattern)
    return _any_matches(names, pattern)


def _check(name: str, layer: nn.Module) -> None:
    kind = kind_of(layer)
    fix = "Exclude it, or target the layers inside it"
    if kind is None:
        raise TargetError(name, "must be a layer that can be adapted", type(layer).__name__, fix)
    if any(isinstance(parameter, UninitializedParameter) for parameter in layer.parameters()):
        raise TargetError(name, "must know its shape", f"{type(layer).__name__} before its first input", "Run it once")
    reason = kind.refusal(layer) or _computed_weight(kind, layer)
    if reason:
        raise TargetError(name, f"cannot be adapted: {reason}", type(layer).__name__, "Exclude it")


def _computed_weight(kind: LayerKind, layer: nn.Module) -> str | None:
    """Return why a weight that is no parameter cannot be adapted (weight norm, spectral norm), or None."""
    own = {name for name, _ in layer.named_parameters()}
    computed = [slot.parameter for slot in kind.slots(layer) if slot.parameter not in own]
    return f"{computed[0]} is computed from other parameters at every call" if computed else None


def _check_tied(model: nn.Module, chosen: Mapping[str, nn.Module]) -> None:
    """Refuse weights that two modules share: each would be changed without the other."""
    holders: dict[int, list[str]] = {}
    for module_name, module in model.named_modules():  # a module used under two names comes once
        for key, parameter in module.named_parameters(module_name, recurse=False, remove_duplicate=False):
            holders.setdefault(id(parameter), []).append(key)
    for name, layer in chosen.items():
        for parameter in layer.parameters():
            names = holders.get(id(parameter), [])
            if len(names) > 1:
                fix = "Exclude all of them, or untie them first"
                raise TargetError(name, "its weight must belong to it alone", f"shared by {', '.join(names)}", fix)


def _suggestion(candidates: Mapping[str, nn.Module]) -> str:
    usable = [name for name, layer in candidates.items() if kind_of(layer) is not None]
    shown = ", ".join(usable[:8]) + (", ..." if len(usable) > 8 else "")
    return f"Layers that can be adapted: {shown}" if usable else "The model has no layer that can be adapted"


def _compiled(pattern: str) -> Any:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise TargetError(
            repr(pattern), "must be a regular expression", str(error), "Correct it, or give a list"
        ) from error
