"""The golden sample of a bundle with many adapters: inputs once, and the logits PyTorch gave for each task."""

from collections.abc import Sequence
from pathlib import Path

import torch

from deploy.bundle_files import GOLDEN, BundleError
from deploy.golden import GoldenSample, read_sample
from deploy.multi.manifest import MultiManifest
from deploy.multi.task import Task
from shared_peft.weights import write_tensors

_ROWS = 8
LOGITS = "logits."
"""Before a task's name: what its logits are called in the file."""
_INPUTS = "inputs"


def write_golden(folder: Path, tasks: Sequence[Task]) -> None:
    """Write up to 8 examples of the first task with the logits of every task's model."""
    inputs = tasks[0].trained.examples[:_ROWS].cpu().float()
    with torch.no_grad():
        logits = {f"{LOGITS}{task.name}": task.trained.model(inputs).float() for task in tasks}
    write_tensors(folder / GOLDEN, {_INPUTS: inputs, **logits})


def read_golden(bundle: Path, manifest: MultiManifest) -> dict[str, GoldenSample]:
    """Return the golden sample of every task.

    Raises:
        BundleError: it cannot be read, or its shapes are not the manifest's.
    """
    path, fix = bundle / GOLDEN, "Export the tasks again"
    tensors = read_sample(path, fix)
    rows = len(tensors[_INPUTS]) if _INPUTS in tensors else 0
    expected = {f"{LOGITS}{name}": (rows, len(task.classes)) for name, task in manifest.tasks.items()}
    expected |= {_INPUTS: (rows, *manifest.input.shape)}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if rows == 0 or found != expected:
        raise BundleError(path, f"must hold {expected}", found, fix)
    return {name: GoldenSample(tensors[_INPUTS], tensors[f"{LOGITS}{name}"]) for name in manifest.tasks}
