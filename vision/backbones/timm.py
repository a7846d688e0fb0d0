"""Every classifier of timm (Wightman 2019, github.com/huggingface/pytorch-image-models), by its timm name."""

import functools
from typing import Any

from torch import nn

from shared_peft.errors import CheckpointError, ConfigError
from vision.backbones.family import (
    BACKBONES,
    Backbone,
    BackboneSpec,
    DataConfig,
    Family,
    Tensors,
    fit_channels,
    name_of_module,
)
from vision.torchvision_ops import declare_missing_operators


@functools.cache
def _names() -> tuple[str, ...]:
    declare_missing_operators()
    import timm  # noqa: PLC0415  (slow to import)

    return tuple(timm.list_models())


def _build(spec: BackboneSpec, pretrained: bool) -> Backbone:
    declare_missing_operators()
    from timm.data.config import resolve_model_data_config  # noqa: PLC0415  (slow to import)

    arguments = dict(spec.options)
    if spec.in_chans is not None:
        arguments["in_chans"] = spec.in_chans
    model = _create(spec, arguments, pretrained)
    config = resolve_model_data_config(model)
    channels = spec.in_chans or config["input_size"][0]
    known = config["interpolation"] in ("nearest", "bilinear", "bicubic")
    data = DataConfig(
        size=spec.image_size or config["input_size"][-1],
        mean=fit_channels(config["mean"], channels),
        std=fit_channels(config["std"], channels),
        interpolation=config["interpolation"] if known else "bicubic",
        crop_fraction=1.0 if spec.image_size else float(config["crop_pct"]),
        crop_mode=config["crop_mode"],
    )
    return Backbone(spec, model, data, _head_of(model, spec))


def _create(spec: BackboneSpec, arguments: dict[str, Any], pretrained: bool) -> nn.Module:
    """Create the model; `img_size` goes only to those that take it (a ConvNet takes any size as it is)."""
    import timm  # noqa: PLC0415

    sized = {"img_size": spec.image_size} if spec.image_size else {}
    for attempt in ({**arguments, **sized}, arguments):
        try:
            return timm.create_model(spec.name, pretrained=pretrained, num_classes=spec.num_classes, **attempt)
        except TypeError as error:
            if "img_size" in str(error) and attempt is not arguments:
                continue
            fix = "Correct the options"
            raise ConfigError(f"timm/{spec.name}", "options must be the model's own", error, fix) from error
        except (OSError, RuntimeError) as error:
            if not pretrained:
                raise
            got = str(error).splitlines()[0][:200]
            fix = "Give a local file with --checkpoint"
            raise CheckpointError(f"timm/{spec.name}", "published weights must be reachable", got, fix) from error
    raise AssertionError("unreachable: the second attempt returns or raises")


def _head_of(model: Any, spec: BackboneSpec) -> tuple[str, ...]:
    declared = model.pretrained_cfg.get("classifier") if getattr(model, "pretrained_cfg", None) else None
    names = (declared,) if isinstance(declared, str) else tuple(declared or ())
    present = tuple(name for name in names if name in dict(model.named_modules()))
    found = present or tuple(filter(None, [name_of_module(model, model.get_classifier())]))
    if not found:
        fix = "Choose a model with a classifier"
        raise ConfigError(f"timm/{spec.name}", "the model must have a classifier layer", "none", fix)
    return found


def resize_position_embedding(tensors: Tensors, model: nn.Module) -> Tensors:
    """Resample a ViT's position embedding to the model's image size (timm's bicubic resampling)."""
    stored, wanted = tensors.get("pos_embed"), getattr(model, "pos_embed", None)
    if stored is None or wanted is None or stored.shape == wanted.shape:
        return tensors
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if grid is None or stored.dim() != 3 or stored.shape[-1] != wanted.shape[-1]:
        return tensors
    from timm.layers.pos_embed import resample_abs_pos_embed  # noqa: PLC0415

    prefix = int(getattr(model, "num_prefix_tokens", 1))
    side = round((stored.shape[1] - prefix) ** 0.5)
    if side * side + prefix != stored.shape[1]:
        return tensors
    resized = resample_abs_pos_embed(stored, new_size=list(grid), old_size=[side, side], num_prefix_tokens=prefix)
    return {**tensors, "pos_embed": resized}


BACKBONES.register("timm")(Family("any timm classifier", "test_vit", _names, _build, resize_position_embedding))
