"""`python -m vision features`."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from shared_peft.command import Command
from shared_peft.errors import ConfigError
from vision.backbones import build_backbone
from vision.features import features_of_backbone, features_of_run, write_features


@dataclass(frozen=True)
class FeaturesConfig:
    """Options of `python -m vision features`."""

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of images (with subfolders), images, or csv files with a column "path"."""
    run: Path | None = None
    """A finished run folder, whose model is taken with its adapter."""
    backbone: str | None = None
    """Or a model name: resnet20, vit_cifar10, timm/convnext_atto, torchvision/resnet18, ..."""
    checkpoint: Path | None = None
    """Weight file of --backbone (.safetensors, or torch with tensors only), or the folder of a run."""
    pretrained: bool = False
    """Fetch the published weights of --backbone instead (needs a network)."""
    image_size: int | None = None
    """Input height and width of --backbone [px]; its own if not given."""
    out: Path = Path("features.npz")
    """NPZ file to write: features (images, width), float32, and paths in the same order."""
    skip_broken: bool = False
    """Leave unreadable images out, instead of stopping."""


def run(config: FeaturesConfig) -> None:
    """Write what a model's head sees of each image."""
    if (config.run is None) == (config.backbone is None):
        got = "neither" if config.run is None else "both"
        raise ConfigError("--run, --backbone", "exactly one must be given", got, "Give --run RUN, or --backbone NAME")
    if config.run is not None:
        features, pixels = features_of_run(config.run, config.images, skip_broken=config.skip_broken, progress=True)
    else:
        assert config.backbone is not None
        if config.checkpoint is None and not config.pretrained:
            fix = "Give --checkpoint FILE, or --pretrained where there is a network"
            raise ConfigError("--checkpoint", "features must come from trained weights", "none", fix)
        backbone = build_backbone(
            config.backbone,
            1,
            image_size=config.image_size,
            checkpoint=config.checkpoint,
            pretrained=config.pretrained,
            new_head=True,
        )
        features, pixels = features_of_backbone(backbone, config.images, skip_broken=config.skip_broken, progress=True)
    write_features(config.out, features, pixels.names)
    sys.stderr.write("".join(f"skipped {reason}\n" for reason in pixels.skipped))
    sys.stdout.write(f"{len(features)} images, {features.shape[1]} features each, in {config.out}\n")


COMMAND = Command(
    name="features",
    config=FeaturesConfig,
    run=run,
    summary="Write the features of images, what a model's head sees, into an npz file.",
    example="python -m vision features FOLDER --backbone resnet20 --checkpoint resnet20_cifar10.th --out features.npz",
    place=35,
)
