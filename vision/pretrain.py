"""Training of a small backbone from scratch, on all images of some classes: a start for few-shot runs."""

from dataclasses import dataclass
from pathlib import Path

from shared_peft.training import RunFolder, is_main, on_main
from vision.adapt import FULL
from vision.backbones import build_backbone
from vision.datasets import open_images
from vision.finetune import FinetuneResult, comparable, prepare
from vision.fit import FitSettings, Precision
from vision.objectives import OBJECTIVES, Pretraining
from vision.options import Augment, Data


@dataclass(frozen=True)
class PretrainConfig:
    """Options of `python -m vision pretrain`."""

    backbone: str
    """Model name: small_vit, small_conv, vit_cifar10, resnet20, ..."""
    data: Data
    out: Path
    """Run folder to write; give it to finetune as --checkpoint."""
    objective: str = "supervised"
    """supervised learns the labels; masked guesses hidden patches, for ViTs."""
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
    label_smoothing: float = 0.0
    """Share of each target spread over the classes evenly."""
    precision: Precision = "no"
    """no computes in 32 bits; bf16 and fp16 multiply matrices in 16."""
    gradient_accumulation: int = 1
    """Batches per optimiser step."""
    ema_decay: float = 0.0
    """Decay of the average of the weights, which is then kept: 0.999; 0 keeps the last weights."""
    augment: Augment = "shift"
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
    objective = OBJECTIVES.get(config.objective)
    images = open_images(config.data, config.classes)
    backbone = build_backbone(config.backbone, len(images.classes), image_size=config.image_size, seed=config.seed)
    objective.check(backbone)
    settings = FitSettings(
        method=FULL,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        head_learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        label_smoothing=config.label_smoothing,
        precision=config.precision,
        gradient_accumulation=config.gradient_accumulation,
        ema_decay=config.ema_decay,
        augment=config.augment,
        seed=config.seed,
    )
    progress = progress and is_main()
    prepared = prepare(images, backbone, 0, config.seed, skip_broken=config.skip_broken, progress=progress)
    folder = on_main(lambda: RunFolder.create(config.out, "vision.pretrain", comparable(config), resume=config.resume))
    return objective.run(folder, Pretraining(backbone, prepared, settings, config.resume, progress))
