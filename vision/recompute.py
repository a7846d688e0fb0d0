"""Gradient checkpointing (Chen et al. 2016, arXiv:1604.06174): blocks run again in the backward to hold less memory."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from vision.depth import chained_blocks


@contextlib.contextmanager
def recomputed_blocks(model: nn.Module) -> Iterator[int]:
    """Let every block of a model keep only its input for the backward, inside the block of code.

    Dropout draws the same numbers again, and BatchNorm takes each batch into its statistics once.

    Args:
        model: the model, without a wrapper around it; adapters may sit in it.

    Yields:
        The number of blocks; 0 for a model that is no chain of blocks, which then runs as it did.
    """
    blocks = [block for _, block in chained_blocks(model)]
    for block in blocks:
        block.forward = functools.partial(_run, block, block.forward)
    try:
        yield len(blocks)
    finally:
        for block in blocks:
            vars(block).pop("forward")


def _run(block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not block.training:
        return forward(*args, **kwargs)

    def contexts() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
        return contextlib.nullcontext(), _unrecorded(block)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextlib.contextmanager
def _unrecorded(block: nn.Module) -> Iterator[None]:
    """Keep batch statistics as they are while a block runs for the second time."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]  # noqa: SLF001
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # no running statistics at all would save other tensors than the first run did
        norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
