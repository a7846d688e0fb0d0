"""One batch, several adapters: the frozen layer runs once, and each adapter's change is added to its own rows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shared_peft.changes import Changes
from shared_peft.errors import AdapterError

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


def run_rows(  # noqa: PLR0913  (what a layer is, and what it got)
    where: str, layer: nn.Module, changes: Mapping[str, Changes], x: Tensor, names: Sequence[str], *, training: bool
) -> Tensor:
    """Run a layer whose first dimension is the batch with one adapter for each sample.

    Args:
        where: the layer's name.
        layer: the frozen layer, a plain one: its output is linear in its weight, sample by sample.
        changes: what each adapter changes; others mean the frozen layer.
        x: the input, shape (samples, ...).
        names: adapter of each sample.
        training: whether dropout drops.

    Raises:
        NotRowWiseError: the input's first dimension is not the batch.
    """
    if x.shape[0] != len(names):
        raise NotRowWiseError(f"{where} got {x.shape[0]} rows for {len(names)} samples")
    output = layer(x)
    for name, rows in rows_of(names, x.device):
        if name in changes:
            output = output.index_add(0, rows, changes[name].of_input(x[rows], output[rows], training=training))
    return output
