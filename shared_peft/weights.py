"""Weight files that cannot run code: safetensors, or torch files read with weights_only=True."""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from shared_peft.atomic import replacing
from shared_peft.errors import CheckpointError

_LARGEST_HEADER = 8 << 20  # bytes; a network of 50,000 tensors needs 5 MiB
_CONTAINER_KEYS = ("state_dict", "model_state_dict", "model")
READ_ERRORS = (  # what a broken or hostile file makes of its reader
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(TypeError, ValueError, Warning, SafetensorError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile),
)
_PREFIXES = ("module.", "_orig_mod.", "model.")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a flat name-to-tensor mapping from a .safetensors or torch file, without unpickling objects.

    Args:
        path: a file; torch files may nest the mapping under ``state_dict``, ``model_state_dict`` or ``model``.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        CheckpointError: the file is missing, truncated, holds anything but tensors, or is no weight file.
    """
    if not path.is_file():
        raise CheckpointError(path, "must be a weight file", "no such file", "Check the path")
    try:
        if path.suffix == ".safetensors":
            _check_header(path)
            return load_file(path)
        loaded = load_torch(path)
    except READ_ERRORS as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        must = "must be safetensors, or a torch file that loads with weights_only=True"
        raise CheckpointError(path, must, reason, "Save the state dict again, best as .safetensors") from error
    for key in _CONTAINER_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    plain = isinstance(loaded, Mapping) and all(isinstance(name, str) for name in loaded)
    if not plain or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        must = "must map names to tensors"
        raise CheckpointError(path, must, type(loaded).__name__, "Save model.state_dict() alone")
    return dict(loaded)


def load_torch(path: Path) -> Any:
    """Return what a torch file holds, on the CPU: tensors and plain values only, and no more than the file's size.

    Raises:
        Exception: one of READ_ERRORS, where the file is damaged, packed, or asks for code to be run.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise ValueError("it is packed, or its parts overlap, as torch.save writes none")
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_header(path: Path) -> None:
    """Raise ValueError where a safetensors file describes more tensors than a network has."""
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
    if size > _LARGEST_HEADER:
        raise ValueError(f"a header of {size} bytes, more than {_LARGEST_HEADER}")


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, whole or not at all; tensors that share memory are written apart."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(plain, temporary, metadata=dict(metadata or {}))


def check_rows(rows: torch.Tensor, shape: tuple[int, ...], where: object) -> None:
    """Raise CheckpointError unless stored inputs are float32, at least one, each of the given shape."""
    if rows.shape[1:] != shape or not len(rows) or rows.dtype != torch.float32:
        got = f"{rows.dtype} {tuple(rows.shape)}"
        raise CheckpointError(where, f"must hold float32 (rows, {', '.join(map(str, shape))})", got, "Run again")


def strip_prefixes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Remove wrappers' prefixes (DataParallel, torch.compile) that every name carries."""
    names = dict(tensors)
    while names:
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in names)), None)
        if prefix is None:
            break
        names = {name.removeprefix(prefix): tensor for name, tensor in names.items()}
    return names


def load_checked(
    model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], where: object, *, optional: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Load ``tensors`` into ``model`` after checking every name and shape; a misfit leaves the model untouched.

    Args:
        model: the model to fill.
        tensors: weights by the model's own names.
        where: the file's path, for the error message.
        optional: name prefixes that may be missing, left over or of another shape (a classifier head); such
            tensors are skipped.

    Returns:
        The model's names under ``optional`` that were not filled.

    Raises:
        CheckpointError: names or shapes that do not fit, listed (first five of each).
    """
    fits = check_fits(model, tensors, where, optional=optional)
    model.load_state_dict(fits, strict=False)
    return tuple(name for name in model.state_dict() if name not in fits)


def check_fits(
    model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], where: object, *, optional: tuple[str, ...] = ()
) -> dict[str, torch.Tensor]:
    """Return those of ``tensors`` that fill ``model``, which may be on the meta device; see `load_checked`."""
    expected = model.state_dict()
    fits = {
        name: tensor for name, tensor in tensors.items() if name in expected and tensor.shape == expected[name].shape
    }

    def free(name: str) -> bool:
        return bool(optional) and name.startswith(optional)

    missing = [name for name in expected if name not in tensors and not free(name)]
    unexpected = [name for name in tensors if name not in expected and not free(name)]
    misshaped = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in tensors
        if name in expected and name not in fits and not free(name)
    ]
    if missing or unexpected or misshaped:
        parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
        got = "; ".join(f"{len(names)} {word}: {', '.join(names[:5])}" for word, names in parts if names)
        must = f"names and shapes must be those of {type(model).__name__}"
        raise CheckpointError(where, must, got, "Choose the backbone this file was made for")
    return fits
