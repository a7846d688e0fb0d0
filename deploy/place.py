"""What a place is: somewhere a bundle's files can answer the golden sample; and the registry that names them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.model_files import ModelFile
from shared_peft.registry import Registry


@dataclass(frozen=True)
class PlaceOptions:
    """What places outside this process need.

    Args:
        runtime: folder of an installed onnxruntime-web; None fetches it with npm.
        arm64_root: folder with the root of an aarch64 system; None reads $SAGA_PEFT_ARM64_ROOT.
    """

    runtime: Path | None = None
    arm64_root: Path | None = None


@dataclass(frozen=True)
class Reply:
    """What a file answered.

    Args:
        logits: of the golden sample, shape (rows, classes).
        milliseconds: median time of one row [ms]; None where it means nothing.
        note: what else is to be said.
    """

    logits: np.ndarray
    milliseconds: float | None = None
    note: str = ""


def _any_file(file: ModelFile) -> str:
    return ""


@dataclass(frozen=True)
class Engine:
    """One program of a place that runs model files.

    Args:
        title: its name, for people.
        missing: why it cannot run here; "" where it can.
        answer: runs the golden sample of one file.
        leeway: further difference allowed, of the largest logit; more than 0 where less than fp32 is computed with.
        refusal: says why it does not take a file; "" where it does.
    """

    title: str
    missing: str
    answer: Callable[[ModelFile], Reply]
    leeway: float = 0.0
    refusal: Callable[[ModelFile], str] = _any_file


class Place(ABC):
    """Somewhere a bundle can be checked.

    Each is one file of `deploy.places` whose class registers itself; the command line and the tests iterate the
    registry.
    """

    @abstractmethod
    def engines(self, options: PlaceOptions) -> list[Engine]:
        """Return the programs that run model files there; of a missing one, why it is missing."""


PLACES = Registry[type[Place]]("place")
