"""To and from stock Hugging Face peft: LoRA adapters as peft 0.21 writes and reads them.

Stock peft knows one change, (alpha / r) B A, on Linear, Conv1d/2d/3d and Embedding. Every chain of ours is of that form
(FLoRA without groups has rank r_out, LoRA-TSD rank r + |I|), so it can be written; the scale is multiplied into B, and
alpha equals the rank. Layers that stock peft runs wrongly are refused, because the file would not mean the same there.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from shared_peft.config import from_json
from shared_peft.errors import AdapterError, CheckpointError
from shared_peft.factors import Factors, added
from shared_peft.inject import Planned, adapter_layers, plan, saved_modules
from shared_peft.layer import AdapterLayer
from shared_peft.layer_kind import kind_of
from shared_peft.method import METHODS, AdapterConfig, AdapterMethod
from shared_peft.plain_lora import exact_pattern, exact_ranks, exact_targets, narrowed

_PREFIX = "base_model.model."
_SAVED_PREFIX = "modules_to_save."
_KEY = re.compile(
    r"base_model\.model\.(?P<layer>.+)\."
    r"(?P<tensor>lora_[AB](?=\.weight)|lora_embedding_[AB]|lora_magnitude_vector)(\.weight)?"
)
_FIELDS = ("r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern", "exclude_modules")
_HARMLESS = {  # options that say where the file comes from, or how it was started, and change no answer
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "target_modules", "modules_to_save", "use_dora", "megatron_core", "megatron_config"),
    *("qalora_group_size", "runtime_config", "eva_config", "ensure_weight_tying"),
}
_HARMLESS_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


def refusal(model: nn.Module, name: str, layer: nn.Module) -> str | None:
    """Return why stock peft 0.21 would not run a LoRA on this layer rightly, or None.

    Args:
        model: the model, to see what the layer is part of.
        name: the layer's full name.
        layer: the layer itself, without adapters.
    """
    kind: Any = kind_of(layer)
    if not isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)):
        return f"it has no right LoRA for {type(layer).__name__}"
    parent: Any = model.get_submodule(name.rpartition(".")[0])
    if isinstance(getattr(parent, "base_layer", parent), nn.MultiheadAttention):
        return "MultiheadAttention reads the weight past its adapter"
    if not kind.is_plain(layer):
        return f"{type(layer).__name__} has a forward of its own, which its convolution or product leaves out"
    if isinstance(layer, (nn.Linear, nn.Embedding)):
        return None
    if layer.groups > 1:
        return "it cannot merge grouped convolutions"
    if any(step > 1 and size > 1 for step, size in zip(layer.dilation, layer.kernel_size, strict=True)):
        return "it drops the dilation"
    if layer.padding_mode != "zeros" and any(layer._reversed_padding_repeated_twice):
        return f"it pads with zeros where the layer pads by {layer.padding_mode!r}"
    return None


def from_own(model: nn.Module, config: AdapterConfig, adapter_name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return an attached adapter as the configuration and tensors of a stock LoRA file.

    Raises:
        AdapterError: a layer that stock peft runs wrongly, or a method that has no low-rank chain.
    """
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for name, layer in adapter_layers(model):
        if adapter_name in layer.adapters:
            factors = _chain(model, name, layer, adapter_name)
            ranks[name] = factors.core.shape[0]
            tensors |= {f"{_PREFIX}{name}.{key}": tensor for key, tensor in _named(layer.base_layer, factors).items()}
    saved = {name: module for name, module in saved_modules(model) if adapter_name in module.copies}
    for name, module in saved.items():
        for swallowed in ranks:
            if re.match(rf"(^|.*\.){re.escape(name)}($|\..*)", swallowed):
                must = f"stock peft would leave it out: its name ends like modules_to_save {name!r}"
                raise AdapterError(swallowed, must, "both", "Save it with stock=False")
        state = module.copies[adapter_name].state_dict()
        tensors |= {f"{_PREFIX}{name}.{key}": tensor for key, tensor in state.items()}
    values = {
        **{"peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "inference_mode": True},
        **{"target_modules": exact_targets(model, ranks), "modules_to_save": list(saved) or None, **exact_ranks(ranks)},
        **{"lora_dropout": getattr(config, "lora_dropout", 0.0), "bias": "none", "fan_in_fan_out": False},
        **{"use_rslora": False, "use_dora": False, "init_lora_weights": True},
    }
    return values, tensors


def to_own(
    model: nn.Module, values: Mapping[str, Any], tensors: Mapping[str, Tensor], directory: Path
) -> tuple[AdapterConfig, dict[str, Tensor]]:
    """Return a stock LoRA file as a configuration and tensors of ours; the model is not changed.

    Names and shapes are not compared with the model's here: the caller does, as for any file.

    Raises:
        CheckpointError: no LoRA, an option that we do not have, or a layer that stock peft runs wrongly.
        ConfigError, TargetError: a value of another type; a layer the model does not have.
    """
    _check_options(values, directory)
    found = {name: _KEY.fullmatch(name) for name in tensors}
    layers = list(dict.fromkeys(match["layer"] for match in found.values() if match))
    targets = values.get("target_modules")
    if targets is None or targets == "all-linear":
        targets = exact_targets(model, layers)
    fields = {key: values[key] for key in _FIELDS if values.get(key) is not None}
    method = METHODS.get("dora" if values.get("use_dora") else "lora")
    fields |= {"target_modules": targets, "modules_to_save": values.get("modules_to_save")}
    config: Any = from_json(method.config_class, fields, str(directory))
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own, first = _own_name(name, found[name])
        if own in renamed:
            must = "must hold every tensor once"
            raise CheckpointError(directory, must, f"{own} under two names", "Save the adapter again")
        renamed[own] = tensor if first is None else tensor.flatten(first)
    return _narrow_wide_layers(model, config, renamed, directory)


def _own_name(name: str, match: re.Match[str] | None) -> tuple[str, int | None]:
    """Return our name for a stock tensor, and the dimension from which ours is flat."""
    if match is None:
        return (_SAVED_PREFIX + name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else name), None
    key = match["tensor"].replace("embedding_", "")
    own, first = {"lora_B": ("lora_B", 1), "lora_magnitude_vector": ("magnitude", 0)}.get(key, (key, None))
    return f"{match['layer']}.weight.{own}", first


def _check_options(values: Mapping[str, Any], directory: Path) -> None:
    """Refuse by name what a LoRA of ours does not have."""
    kind = values.get("peft_type")
    if kind != "LORA":
        must = "must be of this library (with a schema_version) or a stock LoRA (peft_type LORA)"
        raise CheckpointError(directory, must, f"peft_type {kind!r}", "Convert the adapter to LoRA first")
    if values.get("use_dora") and "dora" not in METHODS:
        raise CheckpointError(directory, "must be an adapter method we have", "use_dora", "Convert it to plain LoRA")
    start = values.get("init_lora_weights", True)
    if not any(start is known or start == known for known in _HARMLESS_STARTS):
        fix = "Save it in peft with path_initial_model_for_weight_conversion, which makes it plain LoRA"
        raise CheckpointError(directory, "must not rest on a changed base weight", f"init_lora_weights {start!r}", fix)
    for name, value in values.items():
        plain = name in _HARMLESS or name in _FIELDS or name == "init_lora_weights" or (name, value) == ("bias", "none")
        if not plain and value not in (None, False, [], {}):
            raise CheckpointError(directory, f"must be read without {name!r}", value, "Convert it to plain LoRA first")


def _narrow_wide_layers(
    model: nn.Module, config: Any, tensors: dict[str, Tensor], directory: Path
) -> tuple[AdapterConfig, dict[str, Tensor]]:
    """Refuse layers that stock peft runs wrongly, and give those whose rank exceeds the weight's the weight's own."""
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    changed = False
    for planned in plan(model, config):
        layer: Any = model.get_submodule(planned.layer)
        reason = refusal(model, planned.layer, getattr(layer, "base_layer", layer))
        if reason:
            fix = "Train this layer's adapter with this library"
            raise CheckpointError(f"{directory}: {planned.layer}", f"stock peft is wrong there: {reason}", "LoRA", fix)
        ranks[planned.layer] = planned.config.r  # type: ignore[attr-defined]
        alphas[planned.layer] = planned.config.lora_alpha  # type: ignore[attr-defined]
        largest = min(planned.spec.matrix_shape)
        if ranks[planned.layer] > largest and _fits(planned, tensors):
            names = [f"{planned.layer}.weight.lora_{part}" for part in "AB"]
            narrow = narrowed(Factors(tensors[names[0]], tensors[names[1]]))
            tensors |= {names[0]: narrow.core, names[1]: narrow.out_factor}
            ranks[planned.layer], alphas[planned.layer] = largest, _same_scale(planned.config, largest)
            changed = True
    if not changed:
        return config, tensors
    patterns = {"rank_pattern": exact_pattern(ranks), "alpha_pattern": exact_pattern(alphas)}
    return dataclasses.replace(config, **patterns), tensors


def _fits(planned: Planned, tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether a layer's factors are there, of the shapes its rank says."""
    rank, shape = planned.config.r, planned.spec.shape  # type: ignore[attr-defined]
    down, up = (tensors.get(f"{planned.layer}.weight.lora_{part}") for part in "AB")
    if down is None or up is None or f"{planned.layer}.weight.magnitude" in tensors:
        return False
    return down.shape == (rank, *shape[1:]) and up.shape == (shape[0], rank) and down.dtype == up.dtype


def _same_scale(config: Any, rank: int) -> float:
    """Return the alpha that keeps the scale at another rank."""
    ratio = rank / config.r
    return config.lora_alpha * (ratio**0.5 if config.use_rslora else ratio)


def _chain(model: nn.Module, name: str, layer: AdapterLayer, adapter_name: str) -> Factors:
    """Return an adapter's whole change of a layer's weight as one chain; slices of rows are 0 elsewhere."""
    reason = refusal(model, name, layer.base_layer)
    parts = []
    for slot, method in layer.methods(adapter_name):
        factors = _factors(method)
        reason = reason or (f"{type(method).__name__} is no low-rank change" if factors is None else None)
        if factors is not None and slot.rows is not None:
            factors = factors.in_rows(slot.rows[0], layer.base_layer.get_parameter(slot.parameter).shape[0])
        parts.append(factors)
    if reason:
        must, fix = f"cannot be written for stock peft: {reason}", "Save it with stock=False, or merge it"
        raise AdapterError(name, must, type(layer.base_layer).__name__, fix)
    return narrowed(added(parts))


def _factors(method: AdapterMethod) -> Factors | None:
    return method.factors() if method.mergeable else None


def _named(layer: nn.Module, factors: Factors) -> dict[str, Tensor]:
    """Return a chain under stock peft's names and in its shapes."""
    down, up = factors.core, factors.out_factor
    if isinstance(layer, nn.Embedding):
        return {"lora_embedding_A": down, "lora_embedding_B": up}
    return {"lora_A.weight": down, "lora_B.weight": up.reshape(*up.shape, *(1,) * (down.dim() - 2))}
