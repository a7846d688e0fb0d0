"""What a rival is: another library's adapter that stands beside one of our methods."""

from collections.abc import Callable
from dataclasses import dataclass

from shared_peft.registry import Registry
from vision.adapt import Trainee
from vision.backbones import Backbone
from vision.fit import FitSettings


@dataclass(frozen=True)
class Rival:
    """Another library's adapter.

    Args:
        summary: what it is, one sentence without the final period.
        method: our method it stands beside; it takes that one's rank, layers, learning rate and schedule.
        check: raises MissingPackageError where its package is not installed.
        begin: (a fresh backbone, settings of our method, number of training images) -> what is trained.
    """

    summary: str
    method: str
    check: Callable[[], None]
    begin: Callable[[Backbone, FitSettings, int], Trainee]


RIVALS: Registry[Rival] = Registry("rival")
