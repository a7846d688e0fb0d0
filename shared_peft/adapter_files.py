"""The two files of an adapter folder, read so that a hostile one costs an error and nothing else."""

from pathlib import Path
from typing import Any

from torch import Tensor

from shared_peft.config import read_json
from shared_peft.errors import CheckpointError, ConfigError
from shared_peft.weights import read_tensors

WEIGHTS_NAME, CONFIG_NAME = "adapter_model.safetensors", "adapter_config.json"
_LARGEST_CONFIG = 4 << 20  # bytes


def read_values(directory: Path) -> dict[str, Any]:
    """Return the JSON object of a folder's adapter_config.json.

    Raises:
        CheckpointError: no such file, or a link that leaves the folder.
        ConfigError: more than 4 MiB, not JSON, no object, a key given twice, or a number that is not finite.
    """
    path = _inside(directory, CONFIG_NAME)
    values = read_json(path, finite=True, largest=_LARGEST_CONFIG)
    if not isinstance(values, dict):
        raise ConfigError(path, "must be a JSON object", type(values).__name__, "Replace the file")
    return values


def read_weights(directory: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder's adapter_model.safetensors.

    Raises:
        CheckpointError: no such file, a link that leaves the folder, or a file that is damaged.
    """
    path = _inside(directory, WEIGHTS_NAME)
    try:
        return read_tensors(path)
    except KeyError as error:  # an element type that safetensors knows and torch does not
        fix = "Save the adapter as float32, float16 or bfloat16"
        raise CheckpointError(path, "must hold element types torch has", str(error), fix) from error


def _inside(directory: Path, name: str) -> Path:
    """Return the path of a file of the folder; it may be a link only to the folder or to its hub cache's blobs."""
    path = directory / name
    if not path.is_file():
        raise CheckpointError(directory, f"must hold {name}", "no such file", "Point at an adapter folder")
    folder, target = directory.resolve(), path.resolve()
    homes = [folder, *(parent.parent / "blobs" for parent in folder.parents if parent.name == "snapshots")]
    if not any(target.is_relative_to(home) for home in homes):
        raise CheckpointError(
            path, "must not be a link that leaves its folder", target, "Copy the file into the folder"
        )
    return path
