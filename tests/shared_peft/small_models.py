"""timm models of a size that tests can afford; importing this makes timm and stock peft importable anywhere."""

import torch
from torch import nn

from vision.torchvision_ops import declare_missing_operators

declare_missing_operators()

import timm  # noqa: E402

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def vit(**options: object) -> nn.Module:
    """Two blocks of 24 channels on 16 patches."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **sizes, **options).eval()


def resnet() -> nn.Module:
    """The smallest ResNet of timm."""
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=5).eval()


def swin() -> nn.Module:
    """Two stages whose attention runs on windows, more of them than samples."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 16, "depths": (2, 1), "num_heads": (2, 4)}
    return timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, drop_path_rate=0.0, **sizes).eval()
