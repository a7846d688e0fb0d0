"""The contract of an encoder: windows in SI units in, tokens out; the network's own scaling lives inside."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from imu_saga.card import WEIGHTS, ModelCard, read_card
from imu_saga.input_spec import InputSpec
from imu_saga.shipped import checkpoint_path
from shared_peft.config import from_json, to_json
from shared_peft.described import load_described
from shared_peft.errors import CheckpointError, DataError
from shared_peft.registry import Registry
from shared_peft.weights import read_tensors

if TYPE_CHECKING:
    from typing_extensions import Self

STANDARD_GRAVITY = 9.80665  # [m/s^2]


class Encoder(nn.Module, ABC):
    """Windows to tokens. Subclasses are final and register themselves in ENCODERS.

    Args:
        spec: the windows that will come.
        slots: the channels the network has weights for; ``spec.channels`` fill theirs, the others stay 0.
        width: size of a token.

    ``config`` holds the options with everything derived from the windows written out: it rebuilds the same weights.
    """

    config_class: ClassVar[type]
    citation: ClassVar[str]
    gravity: ClassVar[float] = STANDARD_GRAVITY
    spec: InputSpec
    slots: tuple[str, ...]
    width: int
    config: Any
    placement: Tensor
    columns: Tensor

    def __init__(self, spec: InputSpec, slots: tuple[str, ...], width: int, config: Any) -> None:
        super().__init__()
        unknown = [name for name in spec.channels if name not in slots]
        if unknown or not spec.channels:
            must = f"channels must be among {', '.join(slots)}"
            raise DataError(f"encoder {type(self).__name__}", must, list(spec.channels), "Select those channels")
        self.spec, self.slots, self.width, self.config = spec, slots, width, config
        columns = torch.tensor([slots.index(name) for name in spec.channels])
        placement = torch.zeros(len(spec.channels), len(slots))
        for row, name in enumerate(spec.channels):
            placement[row, slots.index(name)] = 1 / self.gravity if name.startswith("acc") else 1.0
        self.register_buffer("placement", placement, persistent=False)
        self.register_buffer("columns", columns, persistent=False)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return tokens, shape (windows, tokens, width), of windows in SI, shape (windows, samples, channels)."""

    @abstractmethod
    def make_decoder(self) -> nn.Module:
        """Return a new network from tokens to samples in the network's units, shape (windows, samples, slots)."""

    @classmethod
    def from_pretrained(cls, checkpoint: Path | str, spec: InputSpec | None = None) -> "Self":
        """Return the encoder of a pre-training run.

        Args:
            checkpoint: a run folder, or the name of a checkpoint that comes with the package, such as "saga-small".
            spec: the windows that will come, at the checkpoint's rate; None takes those it was trained on.

        Raises:
            CheckpointError: a checkpoint of another encoder or sampling rate.
            RunError: no such run.
        """
        path = checkpoint_path(checkpoint)
        name, encoder, _ = load_encoder(path, "", {}, spec or read_card(path).input)
        if not isinstance(encoder, cls):
            must = f"must hold the encoder of {cls.__name__}"
            raise CheckpointError(path, must, name, f"Use {type(encoder).__name__}.from_pretrained")
        return encoder.eval()

    def scaled(self, x: Tensor) -> Tensor:
        """Return ``x`` in the network's units and slots: shape (windows, samples, channels) to (..., slots).

        Raises:
            DataError: windows of another length or other channels than the encoder was built for.
        """
        expected = (self.spec.samples, len(self.spec.channels))
        if x.ndim != 3 or tuple(x.shape[1:]) != expected:
            must = f"windows must be (windows, {expected[0]} samples, {expected[1]} channels)"
            fix = f"Resample to {self.spec.rate_hz:g} Hz and cut windows of {self.spec.seconds:g} s"
            raise DataError(f"encoder {type(self).__name__}", must, tuple(x.shape), fix)
        return x @ self.placement

    @classmethod
    def convert(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a published checkpoint under the names "encoder.*" and "decoder.*"; ours has them already."""
        return dict(tensors)


ENCODERS: Registry[type[Encoder]] = Registry("encoder")


def encoder_class(name: str) -> type[Encoder]:
    """Return the encoder registered as ``name``.

    Raises:
        UnknownNameError: no such encoder.
    """
    import imu_saga.encoders  # noqa: F401, PLC0415  (the entries import this file)

    return ENCODERS.get(name)


def build_encoder(name: str, spec: InputSpec, options: Mapping[str, Any] | None = None) -> Encoder:
    """Return a freshly initialised encoder.

    Args:
        name: a name from ENCODERS.
        spec: the windows that will come.
        options: fields of the encoder's own configuration.

    Raises:
        UnknownNameError: no such encoder.
        ConfigError: no such option.
        DataError: windows the encoder cannot read.
    """
    kind = encoder_class(name)
    return kind(spec, from_json(kind.config_class, options or {}, f"encoder {name}"))  # type: ignore[call-arg]


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


def card_of(name: str, encoder: Encoder, classes: tuple[str, ...] = (), *, statistics: bool = False) -> ModelCard:
    """Return the card of an encoder built under ``name``, or of a classifier on it."""
    return ModelCard(name, encoder.spec, to_json(encoder.config), classes, statistics)
