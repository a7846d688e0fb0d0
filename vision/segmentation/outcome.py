"""What a segmentation run came to: scores of the test side, pictures and the model, in the run folder."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from shared_peft.training import RunFolder, TrainResult
from vision.adapt import Trainee
from vision.backbones.family import Backbone
from vision.segmentation.fit import SegmentSettings
from vision.segmentation.masked import MaskedPixels
from vision.segmentation.overlay import write_overview
from vision.segmentation.predict import predict_masks
from vision.segmentation.scores import SegmentationScores, score_masks
from vision.trained import save_examples, save_model
from vision.transforms import normalise

EXAMPLES = 8


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
