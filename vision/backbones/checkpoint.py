"""Weight files for backbones: whatever is in them, they give usable weights or one error that names the file."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from shared_peft.errors import CheckpointError
from shared_peft.weights import READ_ERRORS, load_checked, read_tensors, strip_prefixes
from vision.backbones.family import Family

_FIX = "Save the state dict again, best as .safetensors"


def load_checkpoint(model: nn.Module, family: Family, head: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """Fill a model from a weight file; a file that does not fit leaves it untouched.

    Args:
        model: the model to fill.
        family: translates the file's tensors.
        head: names of the modules that may be missing, left over or of another shape; such tensors are skipped.
        path: the file, or the folder of a run.

    Returns:
        The model's names under the head that were not filled.

    Raises:
        CheckpointError: a file that is missing or broken, of another model, or of values no model can use.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    with _named(file):
        given = strip_prefixes(read_tensors(file))
        _check_values(given, model, file)
        tensors = family.translate({**_batch_counters(model), **given}, model)
    return load_checked(model, tensors, file, optional=tuple(f"{name}." for name in head))


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    """Turn what a broken file makes of its reader into an error that names it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except READ_ERRORS as error:
            got = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise CheckpointError(file, "must be a whole weight file of tensors", got, _FIX) from error


def _check_values(tensors: dict[str, torch.Tensor], model: nn.Module, file: Path) -> None:
    """Raise CheckpointError unless every tensor that a trained parameter takes is dense, real, there and finite."""
    for name, parameter in model.named_parameters():
        found = tensors.get(name)
        if found is None or found.shape != parameter.shape:
            continue
        plain = found.layout == torch.strided and not found.is_meta and found.is_floating_point()
        if not plain:
            kind = f"{name} of {found.dtype}, {found.layout} on {found.device}"
            raise CheckpointError(file, "weights must be dense real numbers", kind, _FIX)
        if not found.isfinite().all():
            raise CheckpointError(file, "weights must be finite", f"{name} with inf or nan", "Take an earlier file")


def _batch_counters(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return BatchNorm's step counters; files from before torch 0.4.1 lack them and inference ignores them."""
    return {name: tensor for name, tensor in model.state_dict().items() if name.endswith("num_batches_tracked")}
