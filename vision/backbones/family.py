"""What a backbone is, and what a family of backbones registers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from shared_peft.registry import Registry

Interpolation = Literal["nearest", "bilinear", "bicubic"]
CropMode = Literal["center", "squash", "border"]
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class DataConfig:
    """What a backbone expects of an image.

    Args:
        size: height and width of the input [px].
        mean: per channel, subtracted after scaling the pixels to [0, 1].
        std: per channel, divided by after subtracting the mean.
        interpolation: how images are resized (antialiased).
        crop_fraction: share of the resized side that the centre crop keeps, in (0, 1].
        crop_mode: what becomes of an image that is no square: "center" loses what is outside the middle square,
            "squash" changes its proportions, "border" adds a border of the mean colour (timm's words).
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bilinear"
    crop_fraction: float = 1.0
    crop_mode: CropMode = "center"

    @property
    def channels(self) -> int:
        """Number of input channels: 1 is grey, 3 is RGB."""
        return len(self.mean)


@dataclass(frozen=True)
class BackboneSpec:
    """All it takes to build an architecture again.

    Args:
        name: "family/member", or a member's bare name.
        num_classes: outputs of the classifier.
        image_size: height and width [px]; None is the member's own.
        in_chans: input channels; None is the member's own.
        options: further constructor arguments of the member (timm's `embed_dim`, ...).
        label_correlation: what the logits of several labels pass through, of `vision.correlations`; None is nothing.
    """

    name: str
    num_classes: int
    image_size: int | None = None
    in_chans: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    label_correlation: str | None = None


@dataclass(frozen=True)
class Backbone:
    """A built classifier.

    Args:
        spec: what it was built from, with the full "family/member" name.
        model: maps images (batch, channels, size, size) to logits (batch, num_classes).
        data: what it expects of an image.
        head: names of the modules that make the logits.
        new_parameters: state names that no checkpoint filled.
    """

    spec: BackboneSpec
    model: nn.Module
    data: DataConfig
    head: tuple[str, ...]
    new_parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A group of backbones built by one function.

    Args:
        summary: one line for the list of backbones.
        example: a small member, used by the test battery.
        names: lists the members.
        build: builds a member from a spec whose name is the bare member; with `pretrained` fetches its weights.
        translate: adapts a checkpoint's tensors to the built model (position embeddings of another size, ...).
    """

    summary: str
    example: str
    names: Callable[[], Sequence[str]]
    build: Callable[[BackboneSpec, bool], Backbone]
    translate: Callable[[Tensors, nn.Module], Tensors] = lambda tensors, model: tensors


BACKBONES: Registry[Family] = Registry("backbone family")


def fit_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Return per-channel statistics for another number of channels: their mean, repeated."""
    if len(values) == channels:
        return tuple(float(value) for value in values)
    return (float(sum(values) / len(values)),) * channels


def name_of_module(model: nn.Module, wanted: nn.Module) -> str:
    """Return the dotted name of ``wanted`` inside ``model``; empty if it is not there."""
    return next((name for name, module in model.named_modules() if module is wanted), "")
