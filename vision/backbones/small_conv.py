"""A small residual ConvNet for very small images (scikit-learn's 8 x 8 digits), trainable in seconds on a CPU."""

import torch
from torch import nn
from torch.nn import functional

from shared_peft.errors import ConfigError
from vision.backbones.family import BACKBONES, Backbone, BackboneSpec, DataConfig, Family

_WIDTHS = (24, 48)


class ConvNorm(nn.Module):
    """A 3x3 convolution, BatchNorm and ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, in, height, width) to (batch, out, height / stride, width / stride)."""
        return functional.relu(self.norm(self.conv(x)))


class SmallConv(nn.Module):
    """Two stages of 24 and 48 channels, the second at half the size, then the mean over the image.

    Args:
        num_classes: outputs of the classifier.
        in_chans: input channels.
    """

    def __init__(self, num_classes: int, in_chans: int = 1) -> None:
        super().__init__()
        first, second = _WIDTHS
        self.stem = ConvNorm(in_chans, first)
        self.stage1 = ConvNorm(first, first)
        self.reduce = ConvNorm(first, second, stride=2)
        self.stage2 = ConvNorm(second, second)
        self.fc = nn.Linear(second, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, in_chans, height, width) to logits (batch, num_classes)."""
        x = self.stem(x)
        x = self.reduce(x + self.stage1(x))
        x = x + self.stage2(x)
        return self.fc(x.mean(dim=(2, 3)))


def _build(spec: BackboneSpec, pretrained: bool) -> Backbone:
    if pretrained or spec.options:
        got = "pretrained" if pretrained else ", ".join(spec.options)
        fix = "Train one with `python -m vision pretrain` and give it with --checkpoint"
        raise ConfigError(f"small_conv/{spec.name}", "takes a checkpoint file and no options", got, fix)
    channels = spec.in_chans or 1
    data = DataConfig(spec.image_size or 8, (0.5,) * channels, (0.5,) * channels)
    return Backbone(spec, SmallConv(spec.num_classes, channels), data, ("fc",))


BACKBONES.register("small_conv")(
    Family("small ConvNet for very small images", "small_conv", lambda: ("small_conv",), _build)
)
