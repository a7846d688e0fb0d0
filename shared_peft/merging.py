"""Merging a whole model: every adapted layer or none."""

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn

from shared_peft.inject import adapter_layers, saved_modules


def merge(model: nn.Module, names: Sequence[str], *, safe: bool) -> None:
    """Write the adapters' changes into the base weights of every layer, or of none.

    Raises:
        MergeError: see `AdapterLayer.merge`; nothing is then merged.
    """
    with contextlib.ExitStack() as undo:
        for _, layer in adapter_layers(model):
            layer.merge(tuple(names), safe=safe)
            undo.callback(layer.unmerge)
        undo.pop_all()


def unmerge(model: nn.Module) -> None:
    """Put the original base weights back, bit for bit."""
    for _, layer in adapter_layers(model):
        layer.unmerge()


@contextlib.contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Switch every adapter and trained copy off within the block; what was merged is merged again after it."""
    layers = [layer for _, layer in adapter_layers(model)]
    holders = (*layers, *(module for _, module in saved_modules(model)))
    before = [holder.enabled for holder in holders]
    merged = tuple(dict.fromkeys(name for layer in layers for name in layer.merged))
    unmerge(model)
    for holder in holders:
        holder.enabled = False
    try:
        yield
    finally:
        for holder, enabled in zip(holders, before, strict=True):
            holder.enabled = enabled
        if merged:
            merge(model, merged, safe=False)
