"""From a pretrained backbone, images and masks to a segmenter in a run folder."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from shared_peft.config import to_json
from shared_peft.errors import ConfigError
from shared_peft.training import RunFolder, TrainResult
from vision.adapt import FULL, Trainee, check_method
from vision.backbones.family import Backbone, BackboneSpec
from vision.evaluate import predict_logits
from vision.finetune import parse_fields, target_pattern
from vision.segmentation.datasets import open_masked
from vision.segmentation.fit import SegmentSettings, fit_masks, start
from vision.segmentation.masked import MaskedPixels, SegmentationData, load_masked
from vision.segmentation.model import build_segmenter
from vision.segmentation.overlay import write_overview
from vision.segmentation.scores import SegmentationScores, score_masks
from vision.trained import SEGMENT, save_examples, save_model
from vision.transforms import normalise

EXAMPLES = 8


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


@dataclass(frozen=True)
class SegmentResult:
    """What a run came to.

    Args:
        folder: the run folder.
        classes: class names in the order of the logits.
        results: what results.json holds.
    """

    folder: Path
    classes: tuple[str, ...]
    results: dict[str, Any] = field(default_factory=dict)


def segment(config: SegmentConfig, *, progress: bool = False) -> SegmentResult:
    """Train a segmenter and write the run folder.

    Args:
        config: what to do.
        progress: show progress bars.

    Raises:
        ConfigError, UnknownNameError, CheckpointError, DataError, TargetError, RankError, RunError: what the user
            gave cannot be used; nothing is written then.
    """
    check_method(config.method)
    if config.incremental is not None:
        from vision.segmentation.incremental.run import segment_incrementally  # noqa: PLC0415  (it builds on this file)

        return segment_incrementally(config, config.incremental, progress=progress)
    if config.method != FULL and config.checkpoint is None and not config.pretrained:
        fix = "Give --checkpoint FILE, --pretrained where there is a network, or --method full"
        raise ConfigError("--checkpoint", f"{config.method} must start from trained weights", "none", fix)
    data = open_masked(config.data, config.classes)
    spec = BackboneSpec(config.backbone, len(data.classes), config.image_size)
    backbone = build_segmenter(spec, checkpoint=config.checkpoint, pretrained=config.pretrained, seed=config.seed)
    settings = segment_settings(config)
    train, test = read_sides(data, config, progress=progress)
    trainee = start(backbone, settings, len(train.names))
    folder = RunFolder.create(config.out, SEGMENT, comparable(config), resume=config.resume)
    with folder.locked():
        label = config.method if progress else None
        fitted = fit_masks(trainee, train, backbone.data, settings, folder=folder, resume=config.resume, progress=label)
        return score_and_save(folder, backbone, trainee, fitted, settings, test)


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


def read_sides(
    data: SegmentationData, config: SegmentConfig, *, progress: bool = False
) -> tuple[MaskedPixels, MaskedPixels]:
    """Read the training and the test side at the size asked for.

    Raises:
        DataError: a file that cannot be read.
    """
    train = data.train.take(range(min(config.images, len(data.train)))) if config.images else data.train
    sides = ((train, "read train images"), (data.test, "read test images"))
    first, second = (
        load_masked(side, config.image_size, progress=label if progress else None) for side, label in sides
    )
    return first, second


def score_and_save(
    folder: RunFolder,
    backbone: Backbone,
    trainee: Trainee,
    fitted: TrainResult,
    settings: SegmentSettings,
    test: MaskedPixels,
    details: dict[str, Any] | None = None,
) -> SegmentResult:
    """Score on the test side and write every file of the run.

    Args:
        folder: an open run folder.
        backbone: what the model was built from.
        trainee: the trained model; its adapter is taken off by this call.
        fitted: what training it took.
        settings: how it was trained.
        test: the test side.
        details: more for results.json, given the scores' classes.
    """
    predicted = predict_masks(trainee.model, test.values, backbone)
    scores = score_masks(predicted, test.masks, len(test.classes))
    parts = {"body": trainee.body, "head": trainee.head}
    trained = {name: sum(parameter.numel() for parameter in part) for name, part in parts.items()}
    total = sum(parameter.numel() for parameter in trainee.model.parameters())
    results = {
        **dataclasses.asdict(scores),
        **split_scores(scores, details),
        "parameters": {"trainable": sum(trained.values()), **trained, "total": total},
        "train_seconds": round(fitted.seconds, 3),
        "train_loss": fitted.loss,
        "test_images": len(test.names),
    }
    shown = torch.linspace(0, len(test.names) - 1, min(EXAMPLES, len(test.names))).long()
    save_examples(folder, normalise(test.values[shown], backbone.data))
    write_overview(folder.path / "examples.png", test.values[shown], test.masks[shown], predicted[shown], test.classes)
    save_model(folder, backbone, trainee, test.classes, method=settings.method, seed=settings.seed)
    folder.write("results.json", results)
    return SegmentResult(folder.path, test.classes, results)


def split_scores(scores: SegmentationScores, details: dict[str, Any] | None) -> dict[str, Any]:
    """Return the mean IoU of the old and of the new classes where ``details`` says how many are old."""
    if details is None:
        return {}
    old = int(details["old_classes"])
    ranges = {"old_miou": range(1, old), "new_miou": range(old, len(scores.per_class_iou))}
    return {**details, **{name: scores.mean_of(span) for name, span in ranges.items()}}


def predict_masks(model: torch.nn.Module, values: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Return the most likely class of every pixel of uint8 images at the model's size, (images, height, width)."""
    parts = [predict_logits(model, part, backbone.data).argmax(dim=1).byte() for part in values.split(64)]
    return torch.cat(parts)


def comparable(config: SegmentConfig) -> dict[str, Any]:
    """Return a config as JSON values without what may differ when a run is resumed."""
    return {key: value for key, value in to_json(config).items() if key not in ("out", "resume")}
