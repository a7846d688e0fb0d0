"""`python -m vision segment train --incremental`: a finished run learns more classes, in a run folder of its own."""

import dataclasses
from pathlib import Path

from shared_peft.errors import ConfigError
from shared_peft.training import RunFolder
from vision.finetune import comparable
from vision.segmentation.config import SegmentConfig, segment_settings
from vision.segmentation.datasets import open_masked
from vision.segmentation.fit import start
from vision.segmentation.incremental.fit import fit_new_classes
from vision.segmentation.incremental.widen import widen
from vision.segmentation.masked import load_sides
from vision.segmentation.outcome import SegmentResult, score_and_save
from vision.segmentation.trained import plain_segmenter
from vision.trained import SEGMENT


def segment_incrementally(config: SegmentConfig, before: Path, *, progress: bool = False) -> SegmentResult:
    """Teach a finished run the classes it does not know, from image-level labels, and write a new run folder.

    Of the training masks only this is used: which of the new classes an image shows. The test side is scored on old
    and new classes.

    Args:
        config: what to do; its backbone and image size are those of the run, whatever it says.
        before: the finished run.
        progress: show progress bars.

    Raises:
        ConfigError: no new classes, classes the run knows, or weights from elsewhere.
        SagaPeftError: see `vision.segmentation.segment.segment`.
    """
    description, old = plain_segmenter(before)
    known = description.classes[1:]
    if config.checkpoint is not None or config.pretrained:
        fix = "Drop --checkpoint and --pretrained"
        raise ConfigError("--incremental", "starts from the run's own weights", "others too", fix)
    if not config.classes or set(config.classes) & set(known):
        must = f"must be classes the run does not know; it knows {', '.join(known)}"
        raise ConfigError("--classes", must, ", ".join(config.classes) or "none", "Name the new classes")
    config = dataclasses.replace(config, image_size=old.data.size, backbone=old.spec.name)
    data = open_masked(config.data, (*known, *config.classes))
    settings = segment_settings(config)
    wide = widen(old, len(config.classes))
    train, test = load_sides(data, config.images, config.image_size, progress=progress)
    presence = train.presence(config.classes)
    trainee = start(wide, settings, len(train.names))
    folder = RunFolder.create(config.out, SEGMENT, comparable(config), resume=config.resume)
    with folder.locked():
        label = config.method if progress else None
        fitted = fit_new_classes(
            trainee,
            old.model,
            train.values,
            presence,
            wide.data,
            settings,
            folder=folder,
            resume=config.resume,
            progress=label,
        )
        counts = {"old_classes": len(description.classes)}
        return score_and_save(folder, wide, trainee, fitted, settings, test, counts)
