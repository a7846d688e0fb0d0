"""Recurrent layers: every input, hidden and projection weight of nn.RNN, nn.LSTM, nn.GRU and of their cells."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from shared_peft.layer_kind import LAYER_KINDS, Category, LayerKind, WeightSlot

_CELL_WEIGHTS = ("weight_ih", "weight_hh")
_SCATTERED = "RNN module weights are not part of single contiguous chunk of memory"


class RecurrentKind(LayerKind):
    """nn.RNN, nn.LSTM, nn.GRU (any depth, direction, projection, packed input) and one-step cells.

    The output is not linear in the weights, so only the weight path holds: no dropout on the change.
    """

    module_types = (nn.RNNBase, nn.RNNCellBase)

    def category(self, layer: nn.Module) -> Category:
        """Covered by "all" only."""
        return "recurrent"

    def slots(self, layer: Any) -> tuple[WeightSlot, ...]:
        """One slot for each weight matrix, the gates stacked in its rows: weight_ih_l0, weight_hh_l0, ..."""
        names = _CELL_WEIGHTS if isinstance(layer, nn.RNNCellBase) else layer._flat_weights_names
        return tuple(WeightSlot(name, name) for name in names if name.startswith("weight_"))

    def run(self, layer: Any, weights: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the layer with other weights in the list its kernel reads, which is put back whatever happens."""
        if isinstance(layer, nn.RNNCellBase):
            return functional_call(layer, dict(weights), args, kwargs)
        with _flat_weights(layer, weights):
            return layer(*args, **kwargs)


@contextlib.contextmanager
def _flat_weights(layer: Any, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Exchange tensors in the list of weights that torch keeps beside the parameters.

    The parameters stay in place, so that torch neither rebuilds the list nor moves W + dW into cuDNN's own buffer,
    an operation in place that autograd does not see; cuDNN then gathers the weights itself, with a note left out here.
    """
    layer._update_flat_weights()  # parameters assigned since the last call are in the list from here on
    kept = layer._flat_weights
    layer._flat_weights = [weights.get(n, t) for n, t in zip(layer._flat_weights_names, kept, strict=True)]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_SCATTERED)
            yield
    finally:
        layer._flat_weights = kept


LAYER_KINDS.register("recurrent")(RecurrentKind())
