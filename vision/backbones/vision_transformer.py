"""Small timm VisionTransformers (Dosovitskiy et al. 2020, arXiv:2010.11929) for small images, under fixed names."""

import functools
from dataclasses import dataclass
from typing import Literal

from torch import nn

from shared_peft.errors import ConfigError
from vision.backbones.family import BACKBONES, Backbone, BackboneSpec, DataConfig, Family, fit_channels
from vision.backbones.timm import resize_position_embedding
from vision.torchvision_ops import declare_missing_operators


@dataclass(frozen=True)
class Preset:
    """Sizes of one VisionTransformer, under the names of timm's arguments, and its images' statistics."""

    img_size: int
    patch_size: int
    in_chans: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_token: bool = True
    global_pool: Literal["token", "avg"] = "token"


PRESETS = {
    "vit_cifar10": Preset(32, 4, 3, 64, 4, 4, 4.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    "vit_fashion_mnist": Preset(28, 4, 1, 128, 6, 4, 2.0, mean=(0.5,), std=(0.5,)),
    "small_vit": Preset(8, 2, 1, 48, 3, 4, 2.0, mean=(0.5,), std=(0.5,), class_token=False, global_pool="avg"),
}
_ARGUMENTS = (
    "img_size",
    "patch_size",
    "in_chans",
    "embed_dim",
    "depth",
    "num_heads",
    "mlp_ratio",
    "class_token",
    "global_pool",
)


def _build(spec: BackboneSpec, pretrained: bool) -> Backbone:
    where = f"vision_transformer/{spec.name}"
    if pretrained:
        fix = "Give a local file with --checkpoint"
        raise ConfigError(where, "no published weights are known", "pretrained", fix)
    declare_missing_operators()
    from timm.models.vision_transformer import VisionTransformer  # noqa: PLC0415  (slow to import)

    preset = PRESETS[spec.name]
    arguments = {name: getattr(preset, name) for name in _ARGUMENTS}
    arguments |= {k: v for k, v in (("img_size", spec.image_size), ("in_chans", spec.in_chans)) if v is not None}
    unknown = sorted(set(spec.options) - set(_ARGUMENTS))
    if unknown:
        raise ConfigError(where, f"options must be among {', '.join(_ARGUMENTS)}", ", ".join(unknown), "Remove them")
    arguments |= spec.options
    if arguments["img_size"] % arguments["patch_size"]:
        must = f"image size must be a multiple of the patch size {arguments['patch_size']}"
        raise ConfigError(where, must, arguments["img_size"], "Change one of the two")
    norm = functools.partial(nn.LayerNorm, eps=1e-5)
    model = VisionTransformer(num_classes=spec.num_classes, norm_layer=norm, **arguments)  # type: ignore[arg-type]
    channels = arguments["in_chans"]
    data = DataConfig(arguments["img_size"], fit_channels(preset.mean, channels), fit_channels(preset.std, channels))
    return Backbone(spec, model, data, ("head",))


BACKBONES.register("vision_transformer")(
    Family("small ViTs for small images", "small_vit", lambda: tuple(PRESETS), _build, resize_position_embedding)
)
