"""A segmenter: any timm feature backbone under a feature pyramid and one classifier a pixel.

The pyramid is that of Kirillov et al. 2019 (arXiv:1901.02446) made small: every map is projected to one
width, coarse maps are added to finer ones on the way down, and one 3 x 3 convolution reads the finest.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from shared_peft.errors import CheckpointError, ConfigError, UnknownNameError
from shared_peft.weights import load_checked, read_tensors, strip_prefixes
from vision.backbones.family import Backbone, BackboneSpec, DataConfig
from vision.backbones.timm import resize_position_embedding
from vision.torchvision_ops import declare_missing_operators

HEAD = ("neck", "classifier")
WIDTH = 48  # ours: channels of the pyramid
_GROUPS = 8  # ours: GroupNorm, so that the head does not depend on the batch


class Pyramid(nn.Module):
    """Feature maps of several strides to one map of the finest stride.

    Args:
        channels: of each map, finest first.
        width: channels of the result.
    """

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.fuse = nn.Sequential(
            nn.GroupNorm(_GROUPS, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(_GROUPS, width),
            nn.ReLU(),
        )

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Map a list of (batch, channels, height, width) to (batch, width, finest height, finest width)."""
        projected = [layer(one) for layer, one in zip(self.lateral, maps, strict=True)]
        total = projected[-1]
        for finer in reversed(projected[:-1]):
            total = finer + functional.interpolate(total, size=finer.shape[-2:], mode="bilinear")
        return self.fuse(total)


class Segmenter(nn.Module):
    """Images to one logit a class and pixel.

    Args:
        features: maps images to a list of feature maps, finest first.
        channels: of each map.
        num_classes: classes, the background included.
    """

    def __init__(self, features: nn.Module, channels: list[int], num_classes: int) -> None:
        super().__init__()
        self.features, self.num_classes = features, num_classes
        self.neck = Pyramid(channels, WIDTH)
        self.classifier = nn.Conv2d(WIDTH, num_classes, 1)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, 3, height, width) to what the classifier sees, (batch, WIDTH, finest height, width)."""
        return self.neck(self.features(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, 3, height, width) to logits (batch, classes, height, width)."""
        return functional.interpolate(self.classifier(self.embed(x)), size=x.shape[-2:], mode="bilinear")


def build_segmenter(
    spec: BackboneSpec, *, checkpoint: Path | None = None, pretrained: bool = False, seed: int = 0
) -> Backbone:
    """Build a segmenter on a timm backbone.

    Args:
        spec: the backbone's timm name, with or without "timm/", the number of classes and the image size.
        checkpoint: weights for the backbone: a file, or the folder of a run (a classifier's or a segmenter's).
        pretrained: fetch the backbone's published weights (needs a network).
        seed: of the weights nothing fills; torch's global random state is left alone.

    Returns:
        The segmenter in eval mode; its ``head`` is the pyramid and the classifier.

    Raises:
        UnknownNameError: timm has no such model.
        ConfigError: a model that gives no feature maps, or both `checkpoint` and `pretrained`.
        CheckpointError: a file of another model.
    """
    if checkpoint is not None and pretrained:
        raise ConfigError("pretrained", "must be off where a checkpoint is given", "both", "Drop one of them")
    member = spec.name.removeprefix("timm/")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        features = _features(member, spec, pretrained)
        model = Segmenter(features, features.feature_info.channels(), spec.num_classes)
    if checkpoint is not None:
        _fill(features, checkpoint / "model.safetensors" if checkpoint.is_dir() else checkpoint)
    named = dataclasses.replace(spec, name=f"timm/{member}")
    return Backbone(named, model.eval(), _data_config(features, spec), HEAD)


def _features(member: str, spec: BackboneSpec, pretrained: bool) -> Any:
    declare_missing_operators()
    import timm  # noqa: PLC0415  (slow to import)

    if not timm.is_model(member.split(".", maxsplit=1)[0]):
        close = timm.list_models(f"*{member[:6]}*")[:5]
        fix = f"Did you mean {', '.join(close)}?" if close else "Correct the name"
        raise UnknownNameError("backbone", "must be the name of a timm model", repr(member), fix)
    sized = {"img_size": spec.image_size} if spec.image_size else {}
    reasons = []
    for options in ({**spec.options, **sized}, spec.options):
        try:
            return timm.create_model(member, features_only=True, pretrained=pretrained, **options)
        except TypeError as error:
            reasons.append(error)  # a ConvNet takes any size as it is, and no `img_size`
        except (RuntimeError, AssertionError, AttributeError, ValueError) as error:
            fix = "Choose another model or image size"
            raise ConfigError(f"timm/{member}", "must give feature maps", str(error)[:200], fix) from error
        except OSError as error:
            got, fix = str(error).splitlines()[0][:200], "Give a local file with --checkpoint"
            raise CheckpointError(f"timm/{member}", "published weights must be reachable", got, fix) from error
    raise ConfigError(f"timm/{member}", "must give feature maps", str(reasons[-1])[:200], "Choose another model")


def _data_config(features: Any, spec: BackboneSpec) -> DataConfig:
    from timm.data.config import resolve_model_data_config  # noqa: PLC0415  (slow to import)

    config = resolve_model_data_config(features)
    return DataConfig(spec.image_size or config["input_size"][-1], tuple(config["mean"]), tuple(config["std"]))


def _fill(features: Any, path: Path) -> None:
    """Load a classifier's or a segmenter's weights into a feature backbone, whatever timm calls its layers there."""
    inner = getattr(features, "model", features)
    stored = {_flat(name): tensor for name, tensor in strip_prefixes(read_tensors(path)).items()}
    expected = features.state_dict()
    counters = {name: tensor for name, tensor in expected.items() if name.endswith("num_batches_tracked")}
    found = {name: stored[_flat(name)] for name in expected if _flat(name) in stored}
    position = next((name for name in found if name.endswith("pos_embed")), None)
    if position is not None:
        found[position] = resize_position_embedding({"pos_embed": found[position]}, inner)["pos_embed"]
    load_checked(features, {**counters, **found}, path)


def _flat(name: str) -> str:
    """Return a layer's name as it is in every wrapper: timm joins `stages.0` to `stages_0`, or puts `model.` before."""
    return name.removeprefix("features.").removeprefix("model.").replace(".", "_")
