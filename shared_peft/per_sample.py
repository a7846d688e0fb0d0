"""An adapter for each sample of a batch, in peft's notation: ``model(x, adapter_names=["a", "b", "__base__"])``.

Ours: where every adapted layer sees the batch as the first dimension of its input, the frozen model runs once and each
layer adds the adapters' changes to their own rows. That is found out on shapes alone, with one sample more, and
remembered. Any other model (windows as samples, attention in one module) is run once for each adapter, on its samples.
"""

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from shared_peft.errors import AdapterError
from shared_peft.inject import adapter_layers, adapter_names, saved_modules
from shared_peft.layer import AdapterLayer
from shared_peft.sample_rows import BASE, NotRowWiseError, joined_rows, rows_of
from shared_peft.saved_module import SavedModule

Holder = AdapterLayer | SavedModule


def run(
    model: nn.Module,
    names: Sequence[str],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    row_wise: dict[Hashable, frozenset[str]],
) -> Any:
    """Run the model with one adapter for each sample.

    Args:
        model: the adapted model, in evaluation or with frozen batch norms: samples must not depend on each other.
        names: adapter of each sample, "__base__" for none; weights given to `set_adapter` do not count here.
        args: positional arguments; a tensor whose first dimension is the number of samples holds one row for each.
        kwargs: keyword arguments, likewise.
        row_wise: what earlier calls found out, by shape; added to.

    Returns:
        The model's output, row by row what the sample's adapter alone gives.

    Raises:
        AdapterError: an unknown name, another number of names than samples, a merged model, or heads whose outputs
            have different shapes.
    """
    _check(model, names, args, kwargs)
    key = (_shapes(args, kwargs), torch.is_grad_enabled(), model.training, len(names))
    if key not in row_wise:
        row_wise[key] = _row_wise_holders(model, len(names), args, kwargs)
    needed = {name for name, holder in _holders(model) if not _own(holder).isdisjoint(names)}
    if needed <= row_wise[key]:
        try:
            with _rows(model, needed, names):
                return model(*args, **kwargs)
        except NotRowWiseError:  # a weight that is read past its layer, which shapes do not show
            row_wise[key] = frozenset()
    return _by_passes(model, names, args, kwargs)


def _check(model: nn.Module, names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    known = (*adapter_names(model), BASE)
    for name in names:
        if name not in known:
            raise AdapterError("adapter_names", f"must be of {', '.join(known)}", repr(name), "Add or load it first")
    if any(layer.merged for _, layer in adapter_layers(model)):
        fix = "Call unmerge_adapter first"
        raise AdapterError("adapter_names", "needs an unmerged model", "merged weights", fix)
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor) and leaf.dim()]
    samples = tensors[0].shape[0] if tensors else 0
    if not names or samples != len(names):
        must = "must be one for each sample of the first input"
        raise AdapterError("adapter_names", must, f"{len(names)} for {samples} samples", "Give one name a sample")


def _holders(model: nn.Module) -> list[tuple[str, Holder]]:
    return [*adapter_layers(model), *saved_modules(model)]


def _own(holder: Holder) -> set[str]:
    """Return the adapters a layer or module has."""
    return set(holder.adapters if isinstance(holder, AdapterLayer) else holder.copies)


def _shapes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
    leaves, spec = tree_flatten((args, kwargs))
    shapes = (
        (tuple(leaf.shape), leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else repr(leaf) for leaf in leaves
    )
    return (*shapes, repr(spec))


def _row_wise_holders(model: nn.Module, samples: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> frozenset[str]:
    """Return the layers and modules whose every input is one tensor, the samples its first dimension.

    The frozen model runs on shapes, with as many samples and with one more, so that a dimension which is as long as
    the batch by chance is told apart.
    """
    found: dict[str, list[bool]] = {name: [] for name, _ in _holders(model)}
    for size in (samples, samples + 1):
        with contextlib.ExitStack() as stack:
            stack.enter_context(_switched(model, enabled=lambda _: False))
            for name, holder in _holders(model):
                note = _noting(found[name], size)
                stack.callback(holder.register_forward_pre_hook(note, with_kwargs=True).remove)
            if not _runs_on_shapes(model, samples, size, args, kwargs):
                return frozenset()
    plain = {
        name
        for name, holder in _holders(model)
        if isinstance(holder, SavedModule) or holder.kind.is_plain(holder.base_layer)
    }
    return frozenset(name for name in plain if len(found[name]) > 1 and all(found[name]))


def _noting(found: list[bool], size: int) -> Any:
    """Return a hook that notes whether a call's only input is a tensor with ``size`` rows."""

    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensor = args[0] if len(args) == 1 and not kwargs else None
        found.append(isinstance(tensor, Tensor) and tensor.dim() > 0 and tensor.shape[0] == size)

    return note


def _runs_on_shapes(model: nn.Module, samples: int, size: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Run the model without values, on ``size`` samples; return whether that is possible."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415  (slow to import)

    def resized(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        rows = size if leaf.dim() and leaf.shape[0] == samples else None
        return torch.empty(
            leaf.shape if rows is None else (rows, *leaf.shape[1:]), dtype=leaf.dtype, device=leaf.device
        )

    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            model(*tree_map(resized, args), **tree_map(resized, kwargs))
    except Exception:  # whatever a model does that needs values, or this very batch size
        return False
    return True


@contextlib.contextmanager
def _switched(model: nn.Module, *, enabled: Callable[[Holder], bool]) -> Iterator[None]:
    """Switch adapters off, but for what is on already and ``enabled`` keeps."""
    holders = [holder for _, holder in _holders(model)]
    before = [holder.enabled for holder in holders]
    for holder in holders:
        holder.enabled = holder.enabled and enabled(holder)
    try:
        yield
    finally:
        for holder, value in zip(holders, before, strict=True):
            holder.enabled = value


@contextlib.contextmanager
def _rows(model: nn.Module, needed: set[str], names: Sequence[str]) -> Iterator[None]:
    """Let each layer run every sample with its own adapter, at full strength."""
    chosen = [holder for name, holder in _holders(model) if name in needed]
    with _strengths(model), _switched(model, enabled=lambda holder: any(holder is one for one in chosen)):
        for holder in chosen:
            holder.sample_names = tuple(names)
        try:
            yield
        finally:
            for holder in chosen:
                holder.sample_names = None


@contextlib.contextmanager
def _strengths(model: nn.Module) -> Iterator[None]:
    """Give every adapter its full strength."""
    layers = [layer for _, layer in adapter_layers(model)]
    before = [layer.strengths for layer in layers]
    for layer in layers:
        layer.strengths = {}
    try:
        yield
    finally:
        for layer, strengths in zip(layers, before, strict=True):
            layer.strengths = strengths


@contextlib.contextmanager
def _alone(model: nn.Module, name: str) -> Iterator[None]:
    """Use one adapter at full strength."""
    holders = [holder for _, holder in _holders(model)]
    before = [holder.active for holder in holders]
    with _strengths(model), _switched(model, enabled=lambda _: name != BASE):
        for holder in holders:
            if isinstance(holder, AdapterLayer):
                holder.active = (name,)
            else:
                holder.active = name if name in holder.copies else None
        try:
            yield
        finally:
            for holder, active in zip(holders, before, strict=True):
                holder.active = active  # type: ignore[assignment]


def _by_passes(model: nn.Module, names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run each adapter on its own samples, and put the rows back in order."""
    samples, device = len(names), torch.device("cpu")
    outputs, order = [], []
    for name, rows in rows_of(names, device):

        def own(leaf: Any, rows: Tensor = rows) -> Any:
            batched = isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == samples
            return leaf[rows.to(leaf.device)] if batched else leaf

        with _alone(model, name):
            outputs.append(model(*tree_map(own, args), **tree_map(own, kwargs)))
        order.append(rows)
    flat = [tree_flatten(output) for output in outputs]
    joined = [joined_rows(list(leaves), order) for leaves in zip(*(leaves for leaves, _ in flat), strict=True)]
    return tree_unflatten(joined, flat[0][1])
