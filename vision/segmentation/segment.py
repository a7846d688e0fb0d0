"""From a pretrained backbone, images and masks to a segmenter in a run folder."""

from shared_peft.errors import ConfigError
from shared_peft.training import RunFolder
from vision.adapt import FULL, check_method
from vision.backbones.family import BackboneSpec
from vision.finetune import comparable
from vision.segmentation.config import SegmentConfig, segment_settings
from vision.segmentation.datasets import open_masked
from vision.segmentation.fit import fit_masks, start
from vision.segmentation.incremental.run import segment_incrementally
from vision.segmentation.masked import load_sides
from vision.segmentation.model import build_segmenter
from vision.segmentation.outcome import SegmentResult, score_and_save
from vision.trained import SEGMENT


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
        return segment_incrementally(config, config.incremental, progress=progress)
    if config.method != FULL and config.checkpoint is None and not config.pretrained:
        fix = "Give --checkpoint FILE, --pretrained where there is a network, or --method full"
        raise ConfigError("--checkpoint", f"{config.method} must start from trained weights", "none", fix)
    data = open_masked(config.data, config.classes)
    spec = BackboneSpec(config.backbone, len(data.classes), config.image_size)
    backbone = build_segmenter(spec, checkpoint=config.checkpoint, pretrained=config.pretrained, seed=config.seed)
    settings = segment_settings(config)
    train, test = load_sides(data, config.images, config.image_size, progress=progress)
    trainee = start(backbone, settings, len(train.names))
    folder = RunFolder.create(config.out, SEGMENT, comparable(config), resume=config.resume)
    with folder.locked():
        label = config.method if progress else None
        fitted = fit_masks(trainee, train, backbone.data, settings, folder=folder, resume=config.resume, progress=label)
        return score_and_save(folder, backbone, trainee, fitted, settings, test)
