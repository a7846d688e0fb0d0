"""CIFAR ResNets with parameter-free shortcuts (He et al. 2015, arXiv:1512.03385, Section 4.2, option A)."""

import torch
from torch import nn
from torch.nn import functional

from shared_peft.errors import ConfigError
from vision.backbones.family import BACKBONES, Backbone, BackboneSpec, DataConfig, Family, fit_channels

_BLOCKS_PER_STAGE = {"resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9}
_WIDTHS = (16, 32, 64)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution and the shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride, self.added_channels = stride, out_channels - in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, in, height, width) to (batch, out, height / stride, width / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + self._shortcut(x))

    def _shortcut(self, x: torch.Tensor) -> torch.Tensor:
        """Option A: subsample, and fill the new channels with zeros on both sides."""
        if self.stride == 1 and not self.added_channels:
            return x
        before = self.added_channels // 2
        return functional.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.added_channels - before)
        )


class CifarResNet(nn.Module):
    """ResNet for 32 x 32 images: three stages of 16, 32 and 64 channels, then the mean over the image.

    Args:
        blocks_per_stage: 3 for ResNet-20, 9 for ResNet-56.
        num_classes: outputs of the classifier.
        in_chans: input channels.
    """

    def __init__(self, blocks_per_stage: int, num_classes: int, in_chans: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.layer1 = _stage(_WIDTHS[0], _WIDTHS[0], blocks_per_stage, 1)
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], blocks_per_stage, 2)
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], blocks_per_stage, 2)
        self.linear = nn.Linear(_WIDTHS[2], num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, in_chans, height, width) to logits (batch, num_classes)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = Block(in_channels, out_channels, stride)
    return nn.Sequential(first, *(Block(out_channels, out_channels, 1) for _ in range(blocks - 1)))


def _build(spec: BackboneSpec, pretrained: bool) -> Backbone:
    if pretrained or spec.options:
        got = "pretrained" if pretrained else ", ".join(spec.options)
        fix = "Give a local file with --checkpoint and no options"
        raise ConfigError(f"cifar_resnet/{spec.name}", "takes a checkpoint file and no options", got, fix)
    channels = spec.in_chans or len(_MEAN)
    model = CifarResNet(_BLOCKS_PER_STAGE[spec.name], spec.num_classes, channels)
    data = DataConfig(spec.image_size or 32, fit_channels(_MEAN, channels), fit_channels(_STD, channels))
    return Backbone(spec, model, data, ("linear",))


BACKBONES.register("cifar_resnet")(
    Family("ResNets for 32 x 32 images", "resnet20", lambda: tuple(_BLOCKS_PER_STAGE), _build)
)
