"""One adapter's tensors in memory, under the names of its file (functions as in Hugging Face peft)."""

from collections.abc import Mapping

import torch
from torch import nn

from shared_peft import storage
from shared_peft.errors import AdapterError
from shared_peft.inject import adapter_names
from shared_peft.model import PeftModel


def get_peft_model_state_dict(model: nn.Module, adapter_name: str = "default") -> dict[str, torch.Tensor]:
    """Return one adapter's tensors under the names of its file.

    Raises:
        AdapterError: no such adapter.
    """
    return storage.adapter_state(_inner(model), adapter_name)


def set_peft_model_state_dict(
    model: nn.Module, tensors: Mapping[str, torch.Tensor], adapter_name: str = "default"
) -> None:
    """Put tensors from `get_peft_model_state_dict` into an attached adapter.

    Raises:
        AdapterError: no such adapter.
        CheckpointError: names or shapes that do not fit; the model is then unchanged.
    """
    storage.fill(_inner(model), tensors, adapter_name, "state dict")


def _inner(model: nn.Module) -> nn.Module:
    inner = model.base_model if isinstance(model, PeftModel) else model
    if not adapter_names(inner):
        raise AdapterError("model", "must carry an adapter", "none", "Call get_peft_model first")
    return inner
