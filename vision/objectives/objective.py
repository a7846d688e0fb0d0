"""The contract of a pretraining objective."""

from collections.abc import Callable
from dataclasses import dataclass

from shared_peft.registry import Registry
from shared_peft.training import RunFolder
from vision.backbones import Backbone
from vision.finetune import FinetuneResult, Prepared
from vision.fit import FitSettings


@dataclass(frozen=True)
class Pretraining:
    """All an objective works with.

    Args:
        backbone: the model, freshly initialised.
        prepared: images to train and to test on.
        settings: how to train.
        resume: go on from the folder's checkpoint.
        progress: show progress bars.
    """

    backbone: Backbone
    prepared: Prepared
    settings: FitSettings
    resume: bool = False
    progress: bool = False


@dataclass(frozen=True)
class Objective:
    """One way to pretrain.

    Args:
        summary: one line on it.
        check: raises ConfigError for a backbone it does not suit.
        run: trains and writes the run's files into a folder.
    """

    summary: str
    check: Callable[[Backbone], None]
    run: Callable[[RunFolder, Pretraining], FinetuneResult]


OBJECTIVES: Registry[Objective] = Registry("pretraining objective")
