"""model.json: what a stored imu_saga network is, enough to build it again and to feed it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imu_saga.input_spec import InputSpec
from shared_peft.config import from_json, read_json, to_json
from shared_peft.errors import RunError

CARD, WEIGHTS = "model.json", "model.safetensors"


@dataclass(frozen=True)
class ModelCard:
    """Architecture and input of a stored network.

    Args:
        encoder: name in ENCODERS.
        options: fields of the encoder's configuration.
        input: channels, rate and samples of a window, SI units.
        classes: class names; empty for a pre-trained encoder.
        statistics: whether the head sees the window's statistics beside the tokens.
    """

    encoder: str
    input: InputSpec
    options: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    statistics: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values: the card, and units and scale for whoever feeds the network without us."""
        return {**to_json(self), "units": list(self.input.units), "scale_inside": True, "seconds": self.input.seconds}


def read_card(folder: Path) -> ModelCard:
    """Read model.json of a run folder.

    Raises:
        RunError: the folder has none.
        ConfigError: it is damaged.
    """
    path = folder / CARD
    if not path.is_file():
        raise RunError(folder, f"must hold {CARD}", "no such file", "Point at a finished pretrain or finetune run")
    values = read_json(path)
    if not isinstance(values, Mapping):
        raise RunError(path, "must be an object", type(values).__name__, "Run again")
    derived = ("units", "scale_inside", "seconds")
    return from_json(ModelCard, {key: value for key, value in values.items() if key not in derived}, str(path))
