"""model.json: what a stored imu_saga network is, enough to build it again and to feed it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from imu_saga.encoder import Encoder, InputSpec, build_encoder, encoder_class
from imu_saga.shipped import checkpoint_path
from shared_peft.config import from_json, read_json, to_json
from shared_peft.described import load_described
from shared_peft.errors import CheckpointError, RunError
from shared_peft.weights import read_tensors

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


def card_of(name: str, encoder: Encoder, classes: tuple[str, ...] = (), *, statistics: bool = False) -> ModelCard:
    """Return the card of an encoder built under ``name``, or of a classifier on it."""
    return ModelCard(name, encoder.spec, to_json(encoder.config), classes, statistics)


def load_encoder(
    checkpoint: Path, encoder: str, options: Mapping[str, Any], spec: InputSpec
) -> tuple[str, Encoder, dict[str, Tensor]]:
    """Build an encoder and fill it from a pre-training run, or from a published weight file.

    Args:
        checkpoint: a run folder of `pretrain`, a shipped one's name (imu_saga.shipped), or a weight file (LIMU-BERT's
            for the encoder "limu").
        encoder: name of the encoder; of a run folder the run's own is used.
        options: options of the encoder; of a run folder the run's own are used.
        spec: the windows that will come; they must have the checkpoint's rate, and channels it has weights for.

    Returns:
        The encoder's name, the encoder, and what the file holds beside it, such as a decoder.

    Raises:
        CheckpointError: a checkpoint of another model or sampling rate.
    """
    file = checkpoint = checkpoint_path(checkpoint)
    if checkpoint.is_dir():
        card = read_card(checkpoint)
        if abs(card.input.rate_hz - spec.rate_hz) > 1e-6 * spec.rate_hz:
            must = f"windows must have the checkpoint's rate of {card.input.rate_hz:g} Hz"
            raise CheckpointError(checkpoint, must, f"{spec.rate_hz:g} Hz", f"Use --rate-hz {card.input.rate_hz:g}")
        encoder, options, file = card.encoder, card.options, checkpoint / WEIGHTS
    tensors = encoder_class(encoder).convert(read_tensors(file))
    kept = {name.removeprefix("encoder."): t for name, t in tensors.items() if name.startswith("encoder.")}
    built = load_described(lambda: build_encoder(encoder, spec, options), kept or tensors, file)
    return encoder, built, {name: t for name, t in tensors.items() if kept and not name.startswith("encoder.")}
