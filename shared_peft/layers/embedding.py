"""Embeddings: the weight is a table (entries x features), the transpose of a linear layer's."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from shared_peft.factors import Factors
from shared_peft.layer_kind import LAYER_KINDS, Category, LayerKind, WeightSlot


class EmbeddingKind(LayerKind):
    """nn.Embedding; methods see (features, entries)."""

    module_types = (nn.Embedding,)

    def category(self, layer: nn.Module) -> Category:
        """Covered by "all" only."""
        return "embedding"

    def slots(self, layer: nn.Module) -> tuple[WeightSlot, ...]:
        """One weight, stored (entries, features)."""
        return (WeightSlot("weight", "weight", transposed=True),)

    def refusal(self, layer: Any) -> str | None:
        """max_norm rewrites the frozen table in every forward; sparse gradients do not pass through W + dW."""
        if layer.max_norm is not None:
            return "max_norm rewrites the frozen table while it is used"
        return "sparse gradients do not pass through a weight change" if layer.sparse else None

    def is_plain(self, layer: nn.Module) -> bool:
        """Only where forward is nn.Embedding's own."""
        return type(layer).forward is nn.Embedding.forward

    def narrow(self, layer: Any, x: Tensor, core: Tensor) -> Tensor:
        """Look the entries up in a table of narrow features, (rank, entries)."""
        return functional.embedding(x, core.mT, padding_idx=layer.padding_idx)

    def run_chain(self, layer: Any, x: Tensor, factors: Factors) -> Tensor:
        """Look the entries up in the smallest table first, then map to features."""
        if factors.in_factor is None:
            return super().run_chain(layer, x, factors)
        narrow = self.mix(layer, self.narrow(layer, x, factors.in_factor), factors.core)
        return self.mix(layer, narrow, factors.out_factor)


LAYER_KINDS.register("embedding")(EmbeddingKind())
