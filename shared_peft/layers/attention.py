"""nn.MultiheadAttention: query, key and value projections as slices of in_proj_weight, and the output projection."""

from typing import Any

from torch import nn

from shared_peft.layer_kind import LAYER_KINDS, QKV, Category, LayerKind, WeightSlot, stacked_parts


class AttentionKind(LayerKind):
    """nn.MultiheadAttention with one or three input projections."""

    module_types = (nn.MultiheadAttention,)

    def category(self, layer: nn.Module) -> Category:
        """Its projections are linear layers, but the module is one; covered by "all" and "all-linear"."""
        return "attention"

    def slots(self, layer: Any) -> tuple[WeightSlot, ...]:
        """Four weights: q, k, v and out_proj."""
        return (*self.parts(layer), WeightSlot("out_proj", "out_proj.weight"))

    def parts(self, layer: Any) -> tuple[WeightSlot, ...]:
        """The input projections, three parameters where keys or values have another width."""
        width = layer.embed_dim
        if layer.in_proj_weight is None:
            return tuple(WeightSlot(part, f"{part}_proj_weight") for part in QKV)
        return stacked_parts("in_proj_weight", width)


LAYER_KINDS.register("attention")(AttentionKind())
