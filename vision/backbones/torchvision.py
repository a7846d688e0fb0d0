"""Every classifier of torchvision.models, by its torchvision name."""

import functools
from typing import Any

from torch import nn

from shared_peft.errors import CheckpointError, ConfigError
from vision.backbones.family import BACKBONES, Backbone, BackboneSpec, DataConfig, Family, fit_channels
from vision.torchvision_ops import declare_missing_operators

_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
_SIZED = ("vit_",)


@functools.cache
def _names() -> tuple[str, ...]:
    declare_missing_operators()
    import torchvision  # noqa: PLC0415  (slow to import)

    return tuple(torchvision.models.list_models(module=torchvision.models))


def _build(spec: BackboneSpec, pretrained: bool) -> Backbone:
    declare_missing_operators()
    from torchvision import models  # noqa: PLC0415  (slow to import)

    weights: Any = models.get_model_weights(spec.name).DEFAULT  # type: ignore[attr-defined]
    preset = weights.transforms()
    if spec.in_chans not in (None, len(preset.mean)):
        fix = "Leave in_chans out: images are converted to the model's channels"
        raise ConfigError(f"torchvision/{spec.name}", f"in_chans must be {len(preset.mean)}", spec.in_chans, fix)
    model = _create(spec, weights if pretrained else None)
    head = _renew_head(model, spec.num_classes)
    size = spec.image_size or preset.crop_size[0]
    data = DataConfig(
        size=size,
        mean=fit_channels(preset.mean, len(preset.mean)),
        std=fit_channels(preset.std, len(preset.std)),
        interpolation="bicubic" if preset.interpolation.value == "bicubic" else "bilinear",
        crop_fraction=1.0 if spec.image_size else preset.crop_size[0] / preset.resize_size[0],
    )
    return Backbone(spec, model, data, (head,))


def _create(spec: BackboneSpec, weights: Any) -> nn.Module:
    from torchvision import models  # noqa: PLC0415

    arguments = dict(spec.options)
    if spec.image_size and spec.name.startswith(_SIZED):
        arguments["image_size"] = spec.image_size
    if spec.name in _WITH_AUXILIARY_HEADS and weights is None:
        arguments |= {"aux_logits": False, "init_weights": False}
    try:
        model = models.get_model(spec.name, weights=weights, **arguments)
    except (TypeError, ValueError) as error:
        fix = "Correct the options"
        raise ConfigError(f"torchvision/{spec.name}", "options must be the model's own", error, fix) from error
    except (OSError, RuntimeError) as error:
        if weights is None:
            raise
        got, fix = str(error).splitlines()[0][:200], "Give a local file with --checkpoint"
        raise CheckpointError(f"torchvision/{spec.name}", "published weights must be reachable", got, fix) from error
    for name in ("aux1", "aux2", "AuxLogits"):  # heads used in training only
        if hasattr(model, name):
            setattr(model, name, None)
    return model


def _renew_head(model: nn.Module, num_classes: int) -> str:
    """Replace the last layer (Linear, or SqueezeNet's 1x1 convolution) by one with ``num_classes`` outputs."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    name, last = layers[-1]
    if isinstance(last, nn.Linear):
        new: nn.Module = nn.Linear(last.in_features, num_classes, bias=last.bias is not None)
    else:
        new = nn.Conv2d(last.in_channels, num_classes, kernel_size=1)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
    if hasattr(model, "num_classes"):
        model.num_classes = num_classes  # type: ignore[assignment]
    return name


BACKBONES.register("torchvision")(Family("any torchvision classifier", "mobilenet_v3_small", _names, _build))
