"""nn.MultiheadAttention: query, key and value projections as slices of in_proj_weight, and the output projection."""

from typing import Any

from torch import nn

from shared_peft.layer_kind import LAYER_KINDS, Category, LayerKind, WeightSlot

_PARTS = ("q", "k", "v")


class AttentionKind(LayerKind):
    """nn.MultiheadAttention with one or three input projections."""

    module_types = (nn.MultiheadAttention,)

    def category(self, layer: nn.Module) -> Category:
        """Its projections are linear layers, but the module is one; covered by "all" and "all-linear"."""
        return "attention"

    def slots(self, layer: Any) -> tuple[WeightSlot, ...]:
        """Four weights: q, k, v and out_proj."""
        width = layer.embed_dim
        if layer.in_proj_weight is None:
            parts = [WeightSlot(part, f"{part}_proj_weight") for part in _PARTS]
        else:
            parts = [
                WeightSlot(part, "in_proj_weight", rows=(i * width, (i + 1) * width)) for i, part in enumerate(_PARTS)
            ]
        return (*parts, WeightSlot("out_proj", "out_proj.weight"))


LAYER_KINDS.register("attention")(AttentionKind())
