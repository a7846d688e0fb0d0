"""nn.GRU as one operator of the exported graph: torch's exporter unrolls it step by step and bakes the time in (ours).

The operator is ONNX's GRU with linear_before_reset=1, one layer of one or two directions. ONNX orders the rows of its
weights by the gates update, reset, new ("z, r, h"), torch by reset, update, new ("r, z, n"); nn.GRU applies the reset
gate after the product with the hidden state and its bias, which is what linear_before_reset=1 says.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from shared_peft import AdapterLayer
from shared_peft.errors import ExportError

GATES = 3
_INPUT_DIMS = 3  # time, batch, features


@torch.library.custom_op("saga_peft::gru", mutates_args=())
def gru_layer(x: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Run one recurrent layer in one or two directions, from a state of zeros.

    Args:
        x: shape (time, batch, features).
        weight: rows by gate z, r, h; shape (directions, 3 * hidden, features).
        recurrence: shape (directions, 3 * hidden, hidden).
        bias: that of ``weight``, then that of ``recurrence``; shape (directions, 6 * hidden).

    Returns:
        All states, shape (time, directions, batch, hidden), and the last ones, shape (directions, batch, hidden).
    """
    directions, rows, hidden = recurrence.shape
    stored = (swapped_gates(part) for part in (weight, recurrence, bias[:, :rows], bias[:, rows:]))
    weights = [part.contiguous() for parts in zip(*stored, strict=True) for part in parts]
    start = x.new_zeros(directions, x.shape[1], hidden)
    states, last = torch.gru(x, start, weights, True, 1, 0.0, False, directions > 1, False)
    return states.unflatten(2, (directions, hidden)).transpose(1, 2).contiguous(), last.clone()


@gru_layer.register_fake
def _(x: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    directions, _, hidden = recurrence.shape
    return x.new_empty(x.shape[0], directions, x.shape[1], hidden), x.new_empty(directions, x.shape[1], hidden)


def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the ONNX form of the operator, for `torch.onnx.export`'s custom_translation_table."""
    from onnxscript import opset18 as op  # noqa: PLC0415  (an extra)

    def translated(x: Any, weight: Any, recurrence: Any, bias: Any) -> Any:
        directions, _, hidden = recurrence.shape
        direction = "bidirectional" if directions > 1 else "forward"
        return op.GRU(x, weight, recurrence, bias, direction=direction, hidden_size=hidden, linear_before_reset=1)

    return {torch.ops.saga_peft.gru.default: translated}


def swapped_gates(rows: Tensor) -> Tensor:
    """Exchange the first two of three equal parts along dimension 1: from torch's order of gates to ONNX's, or back."""
    first, second, third = rows.chunk(GATES, dim=1)
    return torch.cat([second, first, third], dim=1)


class ExportedGru(nn.Module):
    """What `nn.GRU` answers without a first state, computed by the operator, its weights in its order.

    Args:
        layer: the layer it stands for, in eval mode; its weights are copied.
    """

    def __init__(self, layer: nn.GRU) -> None:
        super().__init__()
        self.batch_first = layer.batch_first
        ends = ("", "_reverse") if layer.bidirectional else ("",)
        self.layers = nn.ModuleList(
            _arranged(layer, [f"l{depth}{end}" for end in ends]) for depth in range(layer.num_layers)
        )

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return all states of the last layer and the last states of all layers, both as nn.GRU does."""
        if state is not None or x.dim() != _INPUT_DIMS:
            must = "must be called with a batch of sequences alone, its first state zeros"
            raise ExportError("nn.GRU", must, "a first state, or no batch", "Call it with one input of 3 dimensions")
        x = x.transpose(0, 1) if self.batch_first else x
        ended = []
        for layer in self.layers:
            states, last = torch.ops.saga_peft.gru(x, layer["weight"], layer["recurrence"], layer["bias"])  # type: ignore[index]
            x = states.transpose(1, 2).flatten(2)
            ended.append(last)
        return (x.transpose(0, 1) if self.batch_first else x), torch.cat(ended)


def _arranged(layer: nn.GRU, names: list[str]) -> nn.ParameterDict:
    """Return one layer's weights as the operator takes them; ``names`` are the ends of its parameters' names."""

    def stacked(kind: str) -> Tensor:
        return swapped_gates(torch.stack([getattr(layer, f"{kind}_{name}").detach() for name in names]))

    weight, recurrence = stacked("weight_ih"), stacked("weight_hh")
    bias = weight.new_zeros(len(names), 2 * weight.shape[1])
    if layer.bias:
        bias = torch.cat([stacked("bias_ih"), stacked("bias_hh")], dim=1)
    tensors = {"weight": weight, "recurrence": recurrence, "bias": bias}
    return nn.ParameterDict({name: nn.Parameter(tensor, requires_grad=False) for name, tensor in tensors.items()})


def with_operators(model: nn.Module) -> nn.Module:
    """Return the model with every nn.GRU computed by the operator; itself where it has none.

    A layer that still holds an adapter is left: the adapter exchanges its weights in every call.

    Args:
        model: in eval mode; left as it is.
    """
    adapted = [name for name, module in model.named_modules() if isinstance(module, AdapterLayer)]
    names = [
        name
        for name, module in model.named_modules()
        if type(module) is nn.GRU and not any(name.startswith(f"{each}.") for each in adapted)
    ]
    if not names:
        return model
    if isinstance(model, nn.GRU):
        return ExportedGru(model).eval()
    twin = copy.deepcopy(model)
    for name in names:
        parent, _, last = name.rpartition(".")
        setattr(twin.get_submodule(parent), last, ExportedGru(twin.get_submodule(name)).eval())  # type: ignore[arg-type]
    return twin
