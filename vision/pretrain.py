"""Supervised training of a small backbone from scratch, on all images of some classes: a start for few-shot runs."""

from dataclasses import dataclass
from pathlib import Path

from shared_peft.training import RunFolder
from vision.adapt import FULL
from vision.backbones import build_backbone
from vision.datasets import open_images
from vision.finetune import FinetuneResult, comparable, prepare, train_and_save
from vision.fit import FitSettings, start
from vision.transforms import Augment


@dataclass(frozen=True)
class PretrainConfig:
    """Options of `python -m vision pretrain`."""

    backbone: str
    """Model name: small_vit, small_conv, vit_cifar10, resnet20, ..."""
    data: str
    """Folder of class folders (train/ and test/, or one to split), or "digits"."""
    out: Path
    """Run folder to write; give it to finetune as --checkpoint."""
    classes: tuple[str, ...] = ()
    """Classes to train on; all if not given."""
    image_size: int | None = None
    """Input height and width [px]; the backbone's own if not given."""
    epochs: int = 40
    """Passes over the training images."""
    batch_size: int = 64
    """Images per step."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.05
    """Decoupled weight decay of AdamW."""
    augment: Augment = "shift"
    """none; shift moves images by up to an eighth; light also mirrors them."""
    seed: int = 0
    """Draws the first weights, the order and the augmentation."""
    skip_broken: bool = False
    """Leave unreadable images out and report them, instead of stopping."""
    resume: bool = False
    """Go on with the run that is in the folder."""


def pretrain(config: PretrainConfig, *, progress: bool = False) -> FinetuneResult:
    """Train a backbone from scratch and write the run folder.

    Args:
        config: what to do.
        progress: show progress bars.

    Returns:
        The folder and the test scores on the same classes.

    Raises:
        UnknownNameError, ConfigError, DataError, RunError: what the user gave cannot be used.
    """
    images = open_images(config.data, config.classes)
    backbone = build_backbone(config.backbone, len(images.classes), image_size=config.image_size, seed=config.seed)
    settings = FitSettings(
        method=FULL,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        head_learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        augment=config.augment,
        seed=config.seed,
    )
    prepared = prepare(images, backbone, 0, config.seed, skip_broken=config.skip_broken, progress=progress)
    trainee = start(backbone, settings, len(prepared.train.labels))
    folder = RunFolder.create(config.out, "vision.pretrain", comparable(config), resume=config.resume)
    return train_and_save(folder, backbone, trainee, prepared, settings, resume=config.resume, progress=progress)
