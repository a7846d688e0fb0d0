"""Adapters on disk: adapter_model.safetensors and adapter_config.json, checked whole before anything is changed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared_peft import stock
from shared_peft.adapter_files import CONFIG_NAME, WEIGHTS_NAME, read_values, read_weights
from shared_peft.atomic import write_json
from shared_peft.config import from_json, to_json
from shared_peft.errors import AdapterError, CheckpointError
from shared_peft.inject import adapter_layers, adapter_names, attach, build_method, plan, saved_modules, saved_names
from shared_peft.method import METHODS, AdapterConfig, method_name
from shared_peft.patterns import check_patterns
from shared_peft.weights import write_tensors

SCHEMA_VERSION = 1
SAVED_PREFIX = "modules_to_save."


def save(
    model: nn.Module, config: AdapterConfig, adapter_name: str, directory: Path, *, as_stock: bool = False
) -> None:
    """Write one adapter's tensors and configuration; each file appears whole or not at all.

    Args:
        model: the adapted model.
        config: the adapter's configuration.
        adapter_name: its name.
        directory: where to write.
        as_stock: write a LoRA adapter for stock Hugging Face peft.
    """
    if as_stock:
        values, tensors = stock.from_own(model, config, adapter_name)
    else:
        tensors = adapter_state(model, adapter_name)
        values = {"schema_version": SCHEMA_VERSION, "peft_type": method_name(config).upper(), **to_json(config)}
    write_tensors(directory / WEIGHTS_NAME, tensors)
    write_json(directory / CONFIG_NAME, values)


def load(model: nn.Module, directory: Path, adapter_name: str) -> AdapterConfig:
    """Attach the adapter stored in ``directory``, inactive.

    Returns:
        Its configuration.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit; the model is then unchanged.
        ConfigError: the configuration has unknown keys or values; the model is then unchanged.
    """
    config, tensors = read(model, directory)
    attach(model, config, adapter_name, start=False)
    fill(model, tensors, adapter_name, directory / WEIGHTS_NAME)
    return config


def read(model: nn.Module, directory: Path) -> tuple[AdapterConfig, dict[str, torch.Tensor]]:
    """Return the configuration and tensors stored in ``directory``, checked to fit ``model``, which is not changed.

    A file without a schema version is read as one of stock Hugging Face peft.

    Raises:
        CheckpointError, ConfigError: see `load`.
    """
    values, tensors = read_values(directory), read_weights(directory)
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    check_patterns(values, names, directory / CONFIG_NAME)
    if "schema_version" in values:
        config = _own_config(values, directory / CONFIG_NAME)
    else:
        config, tensors = stock.to_own(model, values, tensors, directory)
    _check(_expected(model, config), tensors, directory / WEIGHTS_NAME)
    return config, tensors


def _own_config(values: dict[str, Any], path: Path) -> AdapterConfig:
    """Return the configuration in a file of this library."""
    version = values.pop("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        must, fix = f"schema_version must be {SCHEMA_VERSION}", "Save the adapter again with this version"
        raise CheckpointError(path, must, version, fix)
    method = METHODS.get(str(values.pop("peft_type", "")).lower())
    return from_json(method.config_class, values, str(path))


def adapter_state(model: nn.Module, adapter_name: str) -> dict[str, torch.Tensor]:
    """Return one adapter's tensors by file name: LAYER.SLOT.TENSOR and modules_to_save.MODULE.TENSOR.

    Raises:
        AdapterError: no such adapter.
    """
    if adapter_name not in adapter_names(model):
        must = f"must be one of {', '.join(adapter_names(model))}"
        raise AdapterError("adapter_name", must, repr(adapter_name), "Add or load it first")
    return {
        f"{prefix}.{name}": tensor
        for prefix, module in _holders(model, adapter_name)
        for name, tensor in module.state_dict().items()
    }


def fill(model: nn.Module, tensors: Mapping[str, torch.Tensor], adapter_name: str, where: object) -> None:
    """Copy tensors into an attached adapter after checking all names and shapes.

    Raises:
        AdapterError: no such adapter.
        CheckpointError: names, shapes or types that do not fit; the model is then unchanged.
    """
    _check(adapter_state(model, adapter_name), tensors, where)
    for prefix, module in _holders(model, adapter_name):
        module.load_state_dict({name: tensors[f"{prefix}.{name}"] for name in module.state_dict()})


def _holders(model: nn.Module, adapter_name: str) -> Iterator[tuple[str, nn.Module]]:
    for layer_name, layer in adapter_layers(model):
        for slot, method in layer.methods(adapter_name):
            yield f"{layer_name}.{slot.key}", method
    for module_name, module in saved_modules(model):
        if adapter_name in module.copies:
            yield f"{SAVED_PREFIX}{module_name}", module.copies[adapter_name]


def _expected(model: nn.Module, config: AdapterConfig) -> dict[str, torch.Tensor]:
    """Return tensors like those an adapter of this configuration has on this model, without touching the model."""
    expected: dict[str, torch.Tensor] = {}
    with torch.device("meta"):
        for planned in plan(model, config):
            method = build_method(planned)
            expected |= {f"{planned.layer}.{planned.slot}.{name}": t for name, t in method.state_dict().items()}
    for name in saved_names(model, config):
        module = model.get_submodule(name)
        original: Any = getattr(module, "original_module", module)
        expected |= {f"{SAVED_PREFIX}{name}.{key}": tensor for key, tensor in original.state_dict().items()}
    return expected


def _check(expected: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor], where: object) -> None:
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    both = [(name, tensors[name], expected[name]) for name in expected if name in tensors]
    misshaped = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(wanted.shape)}"
        for name, tensor, wanted in both
        if tensor.shape != wanted.shape
    ]
    mistyped = [
        f"{name} {tensor.dtype} instead of {wanted.dtype}"
        for name, tensor, wanted in both
        if tensor.dtype != wanted.dtype and not (tensor.is_floating_point() and wanted.is_floating_point())
    ]
    parts = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped, "of another type": mistyped}
    if any(parts.values()):
        got = "; ".join(f"{len(names)} {word}: {', '.join(names[:5])}" for word, names in parts.items() if names)
        must = "tensors must be those of this adapter on this model"
        raise CheckpointError(where, must, got, "Load it on the model it was trained on")
