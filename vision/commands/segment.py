"""`python -m vision segment train | predict | evaluate`."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from shared_peft.atomic import write_json
from shared_peft.command import Command
from vision.segmentation.config import SegmentConfig
from vision.segmentation.predict import evaluate_masks, predict_folder
from vision.segmentation.segment import segment


@dataclass(frozen=True)
class SegmentPredictConfig:
    """Options of `python -m vision segment predict`."""

    run: tyro.conf.Positional[Path]
    """A finished segment run."""
    images: tyro.conf.Positional[Path]
    """A folder of images, or one image."""
    out: Path = Path("masks")
    """Folder to write: NAME.png (class indices, with a palette) and NAME_overlay.png."""
    skip_broken: bool = False
    """Leave unreadable images out and report them, instead of stopping."""


@dataclass(frozen=True)
class SegmentEvaluateConfig:
    """Options of `python -m vision segment evaluate`."""

    run: tyro.conf.Positional[Path]
    """A finished segment run."""
    data: str
    """Folder of images and masks, or "shapes"; the test side is scored."""
    out: Path | None = None
    """JSON file to write the scores to."""


@tyro.conf.configure(tyro.conf.OmitSubcommandPrefixes)
@dataclass(frozen=True)
class SegmentAction:
    """What `python -m vision segment` does."""

    action: (
        Annotated[SegmentConfig, tyro.conf.subcommand("train")]
        | Annotated[SegmentPredictConfig, tyro.conf.subcommand("predict")]
        | Annotated[SegmentEvaluateConfig, tyro.conf.subcommand("evaluate")]
    )


def run(chosen: SegmentAction) -> None:
    """Train, predict or evaluate, and print what came of it."""
    config = chosen.action
    if isinstance(config, SegmentConfig):
        result = segment(config, progress=True)
        sys.stdout.write(f"{_scores_text(result.classes, result.results)}{result.folder}\n")
    elif isinstance(config, SegmentPredictConfig):
        written, skipped = predict_folder(
            config.run, config.images, config.out, skip_broken=config.skip_broken, progress=True
        )
        for reason in skipped:
            sys.stderr.write(f"skipped {reason}\n")
        sys.stdout.write(f"{written} masks in {config.out}\n")
    else:
        classes, scores = evaluate_masks(config.run, config.data, progress=True)
        values = dataclasses.asdict(scores)
        sys.stdout.write(_scores_text(classes, values))
        if config.out is not None:
            write_json(config.out, {**values, "classes": list(classes)})


def _scores_text(classes: Sequence[str], scores: Mapping[str, Any]) -> str:
    """Return mean IoU and pixel accuracy, then a line a class."""
    lines = [f"mIoU {100 * scores['miou']:.1f} %, pixel accuracy {100 * scores['pixel_accuracy']:.1f} %"]
    for name in ("old_miou", "new_miou"):
        lines += [f"{name.replace('_miou', '')} classes: mIoU {100 * scores[name]:.1f} %"] if name in scores else []
    width = max(len(name) for name in classes)
    for name, value in zip(classes, scores["per_class_iou"], strict=True):
        lines.append(f"{name:<{width}}  " + ("not in the images" if value is None else f"IoU {100 * value:5.1f} %"))
    return "\n".join(lines) + "\n"


COMMAND = Command(
    name="segment",
    config=SegmentAction,
    run=run,
    summary="Give every pixel a class: train on masks, or new classes from image-level labels (--incremental).",
    example="python -m vision segment train --data shapes --backbone test_resnet --epochs 2 --out runs/segment",
    place=70,
)
