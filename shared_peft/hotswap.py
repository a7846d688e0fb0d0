"""Hot swap: another file's values in an attached adapter's own tensors, so that nothing is traced or compiled again."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from shared_peft import storage
from shared_peft.errors import CheckpointError
from shared_peft.inject import adapter_layers, build_method, plan
from shared_peft.layer import AdapterLayer
from shared_peft.layer_kind import WeightSlot
from shared_peft.method import AdapterConfig, AdapterMethod, method_name


def swap(model: nn.Module, config: AdapterConfig, adapter_name: str, directory: Path) -> None:
    """Copy the values of the adapter stored in ``directory`` into an attached one, in place.

    The stored adapter must be of the same method on the same layers; ranks may be smaller and scales may differ. Ours:
    missing rank is filled with zeros and the ratio of the scales is multiplied into one factor, and both are accepted
    only where the change that results is seen to be the stored one. The attached configuration stays true as it is.

    Args:
        model: the adapted model.
        config: the attached adapter's configuration.
        adapter_name: its name.
        directory: the folder of the other adapter, ours or stock.

    Raises:
        CheckpointError, ConfigError: the files are damaged, or hold an adapter that does not fit; nothing is changed.
    """
    stored_config, tensors = storage.read(model, directory)
    if type(stored_config) is not type(config):
        fix = "Load it as another adapter with load_adapter"
        must = f"must be a {method_name(config)} adapter like {adapter_name!r}"
        raise CheckpointError(directory, must, method_name(stored_config), fix)
    fitted = {name: tensor for name, tensor in tensors.items() if name.startswith(storage.SAVED_PREFIX)}
    stored = _stored_methods(model, stored_config, tensors)
    for prefix, layer, slot, attached in _attached_methods(model, adapter_name):
        if prefix not in stored:
            fix = "Load it as another adapter with load_adapter"
            raise CheckpointError(directory, f"must adapt {prefix}, as {adapter_name!r} does", "other layers", fix)
        state = _fitted(attached, stored.pop(prefix), layer.frozen_weight(slot), f"{directory}: {prefix}")
        fitted |= {f"{prefix}.{name}": tensor for name, tensor in state.items()}
    if stored:
        fix = "Load it as another adapter with load_adapter"
        must = f"must adapt no layer that {adapter_name!r} does not"
        raise CheckpointError(directory, must, ", ".join(list(stored)[:5]), fix)
    storage.fill(model, fitted, adapter_name, directory)


def _attached_methods(
    model: nn.Module, adapter_name: str
) -> Iterator[tuple[str, AdapterLayer, WeightSlot, AdapterMethod]]:
    for name, layer in adapter_layers(model):
        for slot, method in layer.methods(adapter_name):
            yield f"{name}.{slot.key}", layer, slot, method


def _stored_methods(model: nn.Module, config: AdapterConfig, tensors: Mapping[str, Tensor]) -> dict[str, AdapterMethod]:
    """Return the methods a file holds, built beside the model and filled."""
    methods = {}
    for planned in plan(model, config):
        prefix = f"{planned.layer}.{planned.slot}"
        method = build_method(planned, torch.Generator().manual_seed(0))
        method.load_state_dict({name: tensors[f"{prefix}.{name}"] for name in method.state_dict()})
        methods[prefix] = method
    return methods


@torch.no_grad()
def _fitted(attached: AdapterMethod, stored: AdapterMethod, weight: Tensor, where: str) -> dict[str, Tensor]:
    """Return the stored values in the attached method's shapes and scale.

    Raises:
        CheckpointError: the attached method cannot make the same change with any such values.
    """
    state = {name: _padded(stored.state_dict().get(name), own, where) for name, own in attached.state_dict().items()}
    ratio = _scale(stored) / _scale(attached)
    if not attached.mergeable:
        same = ratio == 1 and all(tensor.shape == stored.state_dict()[name].shape for name, tensor in state.items())
        if same:
            return state
        raise _no_fit(where, "a method that runs beside the layer", "another rank or scale")
    scratch = copy.deepcopy(attached).to(weight.device)
    expected = stored.to(weight.device).delta_weight(weight)
    for scaled in _candidates(attached) if ratio != 1 else [()]:
        trial = {name: tensor * ratio if name in scaled else tensor for name, tensor in state.items()}
        scratch.load_state_dict(trial)
        lost = (scratch.delta_weight(weight) - expected).norm()
        if lost <= 1e-5 * expected.norm():
            return trial
    raise _no_fit(where, f"the change of a {type(attached).__name__}", "another rank, scale or option")


def _candidates(method: AdapterMethod) -> Iterator[tuple[str, ...]]:
    """Iterate over tensors that may carry a factor on the change: none, one parameter, or one with its start values."""
    yield ()
    names, parameters = list(method.state_dict()), [name for name, _ in method.named_parameters()]
    yield from ((name,) for name in parameters)
    yield from (tuple(n for n in names if n[-2:] == name[-2:]) for name in parameters)  # lora_B with start_B


def _padded(tensor: Tensor | None, like: Tensor, where: str) -> Tensor:
    """Return a tensor filled with zeros up to the shape of another."""
    if tensor is None or tensor.dim() != like.dim():
        raise _no_fit(where, "the same tensors", "others")
    missing = [wanted - size for wanted, size in zip(like.shape, tensor.shape, strict=True)]
    if min(missing, default=0) < 0:
        raise _no_fit(where, f"at most shape {tuple(like.shape)}", tuple(tensor.shape))
    widths = [width for amount in reversed(missing) for width in (0, amount)]
    return functional.pad(tensor, widths) if any(missing) else tensor


def _scale(method: AdapterMethod) -> float:
    scale = getattr(method, "scale", 1.0)
    return scale if isinstance(scale, float | int) else 1.0


def _no_fit(where: str, must: str, got: object) -> CheckpointError:
    return CheckpointError(where, f"must fit the attached tensors: {must}", got, "Load it with load_adapter instead")
