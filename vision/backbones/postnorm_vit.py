"""A ViT (Dosovitskiy et al. 2020, arXiv:2010.11929) of torch's own nn.TransformerEncoder, post-norm.

The layers are nn.MultiheadAttention as PyTorch ships it: the query, key and value weights are one bare parameter.
"""

import torch
from torch import nn

from shared_peft.errors import ConfigError
from vision.backbones.family import BACKBONES, Backbone, BackboneSpec, DataConfig, Family, fit_channels

_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_SIZE, _PATCH, _DIM, _DEPTH, _HEADS, _HIDDEN = 32, 4, 128, 6, 8, 256


class PatchEmbedding(nn.Module):
    """Cut an image into square patches and project each.

    Args:
        in_chans: input channels.
        patch: side of a patch [px].
        dim: width of a token.
    """

    def __init__(self, in_chans: int, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, patch, stride=patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channels, height, width) to tokens (batch, patches, dim)."""
        return self.proj(x).flatten(2).transpose(1, 2)


class PostNormViT(nn.Module):
    """Patches, a class token, an nn.TransformerEncoder and a normalised linear head.

    Args:
        num_classes: outputs of the classifier.
        size: height and width of the image [px]; a multiple of 4.
        in_chans: input channels.
    """

    num_prefix_tokens = 1

    def __init__(self, num_classes: int, size: int = _SIZE, in_chans: int = 3) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, _DIM))
        self.pos_embed = nn.Parameter(torch.randn(1, (size // _PATCH) ** 2 + 1, _DIM) * 0.02)
        self.patch_embed = PatchEmbedding(in_chans, _PATCH, _DIM)
        layer = nn.TransformerEncoderLayer(_DIM, _HEADS, _HIDDEN, dropout=0.1, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, _DEPTH, enable_nested_tensor=False)
        self.mlp_head = nn.Sequential(nn.LayerNorm(_DIM), nn.Linear(_DIM, num_classes))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, in_chans, size, size) to tokens (batch, 1 + patches, dim), the class token first."""
        tokens = self.patch_embed(x)
        tokens = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), tokens], dim=1) + self.pos_embed
        return self.transformer(tokens)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, in_chans, size, size) to logits (batch, num_classes)."""
        return self.mlp_head(self.forward_features(x)[:, 0])


def _build(spec: BackboneSpec, pretrained: bool) -> Backbone:
    size, channels = spec.image_size or _SIZE, spec.in_chans or len(_MEAN)
    if pretrained or spec.options or size % _PATCH:
        got = "pretrained" if pretrained else ", ".join(spec.options) or f"image size {size}"
        must = f"takes a checkpoint file, no options and an image size that is a multiple of {_PATCH}"
        raise ConfigError(f"postnorm_vit/{spec.name}", must, got, "Give a local file with --checkpoint")
    data = DataConfig(size, fit_channels(_MEAN, channels), fit_channels(_STD, channels))
    return Backbone(spec, PostNormViT(spec.num_classes, size, channels), data, ("mlp_head.1",))


BACKBONES.register("postnorm_vit")(
    Family("post-norm ViT on nn.TransformerEncoder", "vit_cifar10_postnorm", lambda: ("vit_cifar10_postnorm",), _build)
)
