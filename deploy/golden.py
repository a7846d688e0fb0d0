"""The golden sample: inputs with the logits PyTorch gave, to test a bundle wherever it runs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from deploy.bundle_files import GOLDEN, BundleError
from deploy.manifest import Manifest
from shared_peft.errors import CheckpointError
from shared_peft.weights import read_tensors, write_tensors

_LARGEST_SAMPLE = 8


@dataclass(frozen=True)
class GoldenSample:
    """Inputs, shape (n, *input_shape), of the input's type, and the expected logits, float32, shape (n, classes)."""

    inputs: np.ndarray
    logits: np.ndarray


def write_golden(folder: Path, model: nn.Module, examples: torch.Tensor) -> None:
    """Write up to 8 examples with the logits of ``model`` (adapted, eval mode) into ``folder``."""
    inputs = examples[:_LARGEST_SAMPLE].cpu()
    with torch.no_grad():
        write_tensors(folder / GOLDEN, {"inputs": inputs, "logits": model(inputs).float()})


def read_sample(path: Path, fix: str) -> dict[str, np.ndarray]:
    """Return a sample's arrays by name.

    Raises:
        BundleError: it cannot be read.
    """
    try:
        return {name: tensor.numpy() for name, tensor in read_tensors(path).items()}
    except (CheckpointError, KeyError, TypeError) as error:  # the last two: types that torch or numpy does not have
        raise BundleError(path, "must be a safetensors file", error, fix) from error


def read_golden(bundle: Path, manifest: Manifest) -> GoldenSample:
    """Read a bundle's golden sample.

    Raises:
        BundleError: it cannot be read, or its shapes are not the manifest's.
    """
    path = bundle / GOLDEN
    fix = "Export the run again"
    tensors = read_sample(path, fix)
    rows = len(tensors["inputs"]) if "inputs" in tensors else 0
    shapes = {"inputs": (manifest.input.dtype, rows, *manifest.input.shape)}
    expected = {**shapes, "logits": ("float32", rows, len(manifest.classes))}
    found = {name: (str(tensor.dtype), *tensor.shape) for name, tensor in tensors.items()}
    if rows == 0 or found != expected:
        raise BundleError(path, f"must hold {expected}", found, fix)
    return GoldenSample(tensors["inputs"], tensors["logits"])
