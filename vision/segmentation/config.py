"""Options of a segmentation run."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from vision.finetune import parse_fields, target_pattern
from vision.segmentation.fit import SegmentSettings


@dataclass(frozen=True)
class SegmentConfig:
    """Options of `python -m vision segment train`."""

    data: str
    """Folder with train/images, train/masks, test/images and test/masks, or "shapes"."""
    out: Path
    """Run folder to write."""
    backbone: str = "test_resnet"
    """timm model that gives feature maps: resnet18, convnext_atto, vit_tiny_patch16_224, ..."""
    checkpoint: Path | None = None
    """Weights of the backbone: a file, or the folder of a run. Without, only --method full makes sense."""
    pretrained: bool = False
    """Fetch the published weights instead (needs a network)."""
    incremental: Path | None = None
    """Finished segment run to teach --classes, which it does not know, from image-level labels alone."""
    method: str = "full"
    """full, probe, or an adapter method for the backbone: lora, flora, ...; the head is always trained."""
    adapter: tuple[str, ...] = ()
    """Fields of the adapter's config, as key=value: r=8 lora_alpha=16 ..."""
    target_modules: tuple[str, ...] = ("all",)
    """Layers to adapt: all, all-linear, all-conv, a regular expression, or several name endings."""
    budget: int | None = None
    """Largest number of adapter parameters, the head not counted; chooses the rank."""
    classes: tuple[str, ...] = ()
    """Classes to learn, the background aside; the others become background. All if not given."""
    images: int = 0
    """Training images to use, the first ones; 0 uses all."""
    image_size: int = 64
    """Height and width images and masks are stretched to [px]."""
    epochs: int = 20
    """Passes over the training images."""
    batch_size: int = 16
    """Images per step."""
    learning_rate: float | None = None
    """Of the adapter, or of the backbone with full; the method's default if not given."""
    head_learning_rate: float | None = None
    """Of the pyramid and the classifier; the default if not given."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    augment: str = "flip"
    """none, flip (left to right), or crop (60 to 100 % of the side, and flip)."""
    dice: float = 0.5
    """Weight of the Dice loss beside cross-entropy; 0 turns it off."""
    seed: int = 0
    """Draws the order, the augmentation and the first weights."""
    resume: bool = False
    """Go on with the run that is in the folder."""


def segment_settings(config: SegmentConfig) -> SegmentSettings:
    """Return the part of the options that training needs.

    Raises:
        ConfigError: an adapter field that is not key=value.
        UnknownNameError: no such augmentation.
    """
    fields = parse_fields(config.adapter)
    if config.method not in ("full", "probe") and "target_modules" not in fields:
        fields["target_modules"] = target_pattern(config.target_modules)
    names = {one.name for one in dataclasses.fields(SegmentSettings)} - {"adapter"}
    return SegmentSettings(adapter=fields, **{name: getattr(config, name) for name in names})
