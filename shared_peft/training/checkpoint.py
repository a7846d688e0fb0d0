"""checkpoint.pt: everything a killed run needs to go on as if it had not been killed, written whole or not at all."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from shared_peft.atomic import replacing
from shared_peft.errors import TrainingError
from shared_peft.weights import READ_ERRORS, load_torch

CHECKPOINT = "checkpoint.pt"
_FIX = "Remove it and restart"


class Resumable(Protocol):
    """Something with a state of tensors and plain values: an optimiser, an average, an early stop."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Take a stored state."""
        ...


def trained_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what training can change: parameters with a gradient, and buffers."""
    kept = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    kept |= {name for name, _ in model.named_buffers()}
    return {name: tensor for name, tensor in model.state_dict().items() if name in kept}


def save(path: Path, step: int, loss: float, model: nn.Module, parts: Mapping[str, Resumable]) -> None:
    """Write the state after ``step`` steps.

    Args:
        path: the file.
        step: optimiser steps done.
        loss: the last one, which the result of a run that is over tells.
        model: the model.
        parts: what else has a state, by name.
    """
    state = {name: part.state_dict() for name, part in parts.items()}
    with replacing(path) as temporary, temporary.open("wb") as stream:
        torch.save({"step": step, "loss": loss, "model": trained_state(model), **state}, stream)


def restore(path: Path, model: nn.Module, parts: Mapping[str, Resumable]) -> tuple[int, float]:
    """Fill the model and the parts from the file, if there is one; return the steps done and the last loss.

    Raises:
        TrainingError: a damaged file, a checkpoint of another model, or of a run with other parts.
    """
    if not path.exists():
        return 0, math.nan
    try:
        return _restored(path, load_torch(path), model, parts)
    except READ_ERRORS as error:
        got = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise TrainingError(path, "must be a checkpoint as a run writes it", got, _FIX) from error


def _restored(path: Path, saved: Any, model: nn.Module, parts: Mapping[str, Resumable]) -> tuple[int, float]:
    expected = trained_state(model)
    if {name: tensor.shape for name, tensor in saved["model"].items()} != {n: t.shape for n, t in expected.items()}:
        raise TrainingError(path, "must be a checkpoint of this model", "other parameter names or shapes", _FIX)
    stored = saved.keys() - {"step", "loss", "model"}
    if stored != set(parts):
        got = ", ".join(sorted(stored))
        raise TrainingError(path, f"must hold the state of {', '.join(sorted(parts))}", got, _FIX)
    step, loss = int(saved["step"]), float(saved.get("loss", math.nan))
    model.load_state_dict(saved["model"], strict=False)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return step, loss
