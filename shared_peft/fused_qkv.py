"""Fused query-key-value weights: which of a layer's weights a configuration adapts, the whole or some parts (ours)."""

from torch import nn

from shared_peft.errors import ConfigError, TargetError
from shared_peft.layer_kind import QKV, WeightSlot, kind_of
from shared_peft.method import METHODS, AdapterConfig, method_name

FUSED_NAMES = frozenset({"qkv", "in_proj", "to_qkv", "Wqkv", "c_attn", "qkv_proj"})


def chosen_slots(model: nn.Module, name: str, layer: nn.Module, config: AdapterConfig) -> tuple[WeightSlot, ...]:
    """Return the weights of one layer that a configuration adapts.

    With ``qkv_parts`` a fused weight, whose rows are those of q, then k, then v, gives one slot for each named part.
    Fused are nn.MultiheadAttention and linear layers called one of FUSED_NAMES; other layers keep all their weights.

    Args:
        model: the model that holds the layer.
        name: the layer's full name.
        layer: the layer itself, unwrapped.
        config: the adapter's configuration.

    Raises:
        ConfigError: ``qkv_parts`` is empty, names a part twice, or one there is not.
        TargetError: a fused weight that cannot be cut into equal q, k and v, or a method that cannot be merged on one.
    """
    kind = kind_of(layer)
    assert kind is not None
    slots, wanted = kind.slots(layer), config.qkv_parts
    if wanted is None:
        return slots
    if not wanted or len(set(wanted)) < len(wanted) or not set(wanted) <= set(QKV):
        raise ConfigError("qkv_parts", "must name one or more of 'q', 'k', 'v', each once", wanted, "Correct the list")
    fused = name.rpartition(".")[2] in FUSED_NAMES
    if not fused and not isinstance(layer, nn.MultiheadAttention):
        return slots
    parts = kind.parts(layer)
    if not parts or _by_heads(model, name):
        got = "rows in turn by head" if parts else _shape_in_words(layer)
        fix = "Exclude it, or leave qkv_parts at None to adapt it as one weight"
        raise TargetError(name, "to be cut into q, k and v its weight must stack three of equal size", got, fix)
    if not METHODS.get(method_name(config)).mergeable:
        must, fix = "a method that cannot be merged needs the layer's whole output", "Leave qkv_parts at None"
        raise TargetError(name, must, f"qkv_parts {wanted}", fix)
    keys, parameters = {part.key for part in parts}, {part.parameter for part in parts}
    others = [slot for slot in slots if slot.key not in keys and slot.parameter not in parameters]
    return (*(part for part in parts if part.key in wanted), *others)


def _by_heads(model: nn.Module, name: str) -> bool:
    """Tell whether the attention reads q, k and v of the first head, then of the second, ... (timm's MaxViT family)."""
    return bool(getattr(model.get_submodule(name.rpartition(".")[0]), "head_first", False))


def _shape_in_words(layer: nn.Module) -> str:
    weight = layer._parameters.get("weight")
    return type(layer).__name__ if weight is None else f"{type(layer).__name__} with weight {tuple(weight.shape)}"
