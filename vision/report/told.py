"""What a run's own files say of it, checked: a report of a damaged run is an error, not a traceback."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared_peft.config import from_json
from shared_peft.errors import ConfigError
from shared_peft.training import RunFolder

RESULTS = "results.json"


@dataclass(frozen=True)
class Told:
    """What results.json says.

    Args:
        steps: optimiser steps.
        train_images: images trained on.
        train_seconds: time taken [s].
        trainable: parameters trained.
        total: all parameters.
        accuracy: on the run's own test images, in [0, 1]; None where it was not scored.
    """

    steps: int
    train_images: int
    train_seconds: float
    trainable: int
    total: int
    accuracy: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.trainable <= self.total or self.total == 0:
            must = "trained parameters must be some of all, of which there are some"
            raise ConfigError(RESULTS, must, f"{self.trainable} of {self.total}", "Run again")


def read_told(folder: RunFolder) -> Told:
    """Return what a run's results.json says.

    Raises:
        RunError: the run did not write it, or it is no object.
        ConfigError: something is missing, or of another type.
    """
    found = folder.read_object(RESULTS)
    parameters = found.get("parameters")
    flat = {**found, **(parameters if isinstance(parameters, Mapping) else {})}
    values: dict[str, Any] = {name: flat[name] for name in Told.__dataclass_fields__ if name in flat}
    return from_json(Told, values, str(folder.path / RESULTS))


def read_origin(folder: RunFolder) -> tuple[list[str], dict[str, str]]:
    """Return the command that made a run, word by word, and the versions it ran with; empty where they are not told."""
    asked = folder.describe("vision")
    command, versions = asked.get("command"), asked.get("versions")
    words = [str(word) for word in command] if isinstance(command, list) else []
    named = {name: str(version) for name, version in versions.items()} if isinstance(versions, dict) else {}
    return words, named
