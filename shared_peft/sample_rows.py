"""One batch, several adapters: the frozen layer runs once, and each adapter's change is added to its own rows."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from shared_peft.errors import AdapterError

if TYPE_CHECKING:
    from shared_peft.layer import AdapterLayer

BASE = "__base__"


class NotRowWiseError(Exception):
    """A layer was not used as `run_rows` needs it; whoever set the sample names runs adapter by adapter instead."""


def rows_of(names: Sequence[str], device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Iterate over each distinct name and the indices of its samples."""
    for name in dict.fromkeys(names):
        yield name, torch.tensor([row for row, own in enumerate(names) if own == name], device=device)


def joined_rows(parts: list[Any], order: list[Tensor]) -> Any:
    """Join what each adapter gave for its samples, in the samples' order; what is no tensor must be the same in all.

    Raises:
        AdapterError: outputs of different shapes, or without a row for each sample.
    """
    if not isinstance(parts[0], Tensor):
        return parts[0]
    rest = {tuple(part.shape[1:]) for part in parts}
    if len(rest) > 1 or any(part.dim() == 0 or len(part) != len(rows) for part, rows in zip(parts, order, strict=True)):
        must, fix = "outputs must be of one shape, one row a sample", "Run these adapters in batches of their own"
        raise AdapterError("adapter_names", must, ", ".join(str(tuple(part.shape)) for part in parts), fix)
    joined = torch.cat(parts)
    return joined[torch.cat(order).argsort().to(joined.device)]


def run_rows(layer: "AdapterLayer", x: Tensor, names: Sequence[str]) -> Tensor:
    """Run an adapted layer whose first dimension is the batch with one adapter for each sample.

    Args:
        layer: a layer whose frozen one is plain: its output is linear in its weight, sample by sample.
        x: the input, shape (samples, ...).
        names: adapter of each sample; names the layer does not have mean the frozen layer.

    Raises:
        NotRowWiseError: the input's first dimension is not the batch.
    """
    if x.shape[0] != len(names):
        raise NotRowWiseError(f"{layer.name} got {x.shape[0]} rows for {len(names)} samples")
    output = layer.base_layer(x)
    for name, rows in rows_of(names, x.device):
        own_input, own_output = x[rows], output[rows]
        changes = [
            layer._change(name, slot, method, _dropped(own_input, method.dropout, layer.training), own_output)
            for slot, method in layer.methods(name)
        ]
        if changes:
            output = output.index_add(0, rows, torch.stack(changes).sum(0).to(output.dtype))
    return output


def _dropped(x: Tensor, dropout: float, training: bool) -> Tensor:  # noqa: FBT001  (as in functional.dropout)
    return functional.dropout(x, dropout, training) if x.is_floating_point() else x
