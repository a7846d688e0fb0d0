"""Adapters on disk: adapter_model.safetensors and adapter_config.json, checked whole before anything is changed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared_peft.atomic import write_json
from shared_peft.config import from_json, loads_json, to_json
from shared_peft.errors import AdapterError, CheckpointError, ConfigError
from shared_peft.inject import adapter_layers, adapter_names, attach, build_method, plan, saved_modules
from shared_peft.method import METHODS, AdapterConfig, method_name
from shared_peft.targets import matches
from shared_peft.weights import read_tensors, write_tensors

SCHEMA_VERSION = 1
WEIGHTS_NAME, CONFIG_NAME = "adapter_model.safetensors", "adapter_config.json"
_SAVED_PREFIX = "modules_to_save."


def save(model: nn.Module, config: AdapterConfig, adapter_name: str, directory: Path) -> None:
    """Write one adapter's tensors and configuration; each file appears whole or not at all."""
    write_tensors(directory / WEIGHTS_NAME, adapter_state(model, adapter_name))
    described = {"schema_version": SCHEMA_VERSION, "peft_type": method_name(config).upper(), **to_json(config)}
    write_json(directory / CONFIG_NAME, described)


def load(model: nn.Module, directory: Path, adapter_name: str) -> AdapterConfig:
    """Attach the adapter stored in ``directory``, inactive.

    Returns:
        Its configuration.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit; the model is then unchanged.
        ConfigError: the configuration has unknown keys or values; the model is then unchanged.
    """
    config = read_config(directory)
    path = directory / WEIGHTS_NAME
    tensors = read_tensors(path)
    _check(_expected_shapes(model, config), tensors, path)
    attach(model, config, adapter_name, start=False)
    fill(model, tensors, adapter_name, path)
    return config


def read_config(directory: Path) -> AdapterConfig:
    """Return the configuration stored in a folder.

    Raises:
        CheckpointError: no such file, or another schema version.
        ConfigError: not JSON, an unknown method, key or value.
    """
    path = directory / CONFIG_NAME
    if not path.is_file():
        raise CheckpointError(directory, f"must hold {CONFIG_NAME}", "no such file", "Point at an adapter folder")
    values = loads_json(path.read_bytes(), str(path))
    if not isinstance(values, dict):
        raise ConfigError(path, "must be a JSON object", type(values).__name__, "Replace the file")
    version = values.pop("schema_version", None)
    if version != SCHEMA_VERSION:
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
    _check({name: tensor.shape for name, tensor in adapter_state(model, adapter_name).items()}, tensors, where)
    for prefix, module in _holders(model, adapter_name):
        module.load_state_dict({name: tensors[f"{prefix}.{name}"] for name in module.state_dict()})


def _holders(model: nn.Module, adapter_name: str) -> Iterator[tuple[str, nn.Module]]:
    for layer_name, layer in adapter_layers(model):
        for slot, method in layer.methods(adapter_name):
            yield f"{layer_name}.{slot.key}", method
    for module_name, module in saved_modules(model):
        if adapter_name in module.copies:
            yield f"{_SAVED_PREFIX}{module_name}", module.copies[adapter_name]


def _expected_shapes(model: nn.Module, config: AdapterConfig) -> dict[str, torch.Size]:
    """Return the shapes an adapter of this configuration has on this model, without touching the model."""
    expected: dict[str, torch.Size] = {}
    with torch.device("meta"):
        for planned in plan(model, config):
            method = build_method(planned)
            expected |= {f"{planned.layer}.{planned.slot}.{n}": t.shape for n, t in method.state_dict().items()}
    for name, module in model.named_modules():
        if name and config.modules_to_save and matches(name, config.modules_to_save):
            original: Any = getattr(module, "original_module", module)
            expected |= {f"{_SAVED_PREFIX}{name}.{n}": t.shape for n, t in original.state_dict().items()}
    return expected


def _check(expected: Mapping[str, torch.Size], tensors: Mapping[str, torch.Tensor], where: object) -> None:
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    misshaped = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name])}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name]
    ]
    if missing or unexpected or misshaped:
        parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
        got = "; ".join(f"{len(names)} {word}: {', '.join(names[:5])}" for word, names in parts if names)
        must = "tensors must be those of this adapter on this model"
        raise CheckpointError(where, must, got, "Load it on the model it was trained on")
