"""Supervised pretraining: all weights learn the labels of the images."""

from shared_peft.training import RunFolder
from vision.backbones import Backbone
from vision.finetune import FinetuneResult, train_and_save
from vision.fit import start
from vision.objectives.objective import OBJECTIVES, Objective, Pretraining


def _any_backbone(backbone: Backbone) -> None:
    """Accept every backbone."""


def _run(folder: RunFolder, given: Pretraining) -> FinetuneResult:
    trainee = start(given.backbone, given.settings, len(given.prepared.train.labels))
    return train_and_save(
        folder,
        given.backbone,
        trainee,
        given.prepared,
        given.settings,
        resume=given.resume,
        progress=given.progress,
    )


OBJECTIVES.register("supervised")(Objective("learn the labels", _any_backbone, _run))
