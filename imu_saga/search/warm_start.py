"""Trials of another search, known before the first one here: sources of their own offset and noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared_peft.errors import RunError
from shared_peft.training import RunFolder

TRIALS_FILE = "trials.json"
KIND = "imu_saga.search"


@dataclass(frozen=True)
class KnownTrial:
    """A finished trial of another search.

    Args:
        weights: loss weight by level, in the order of the levels.
        score: its macro-F1 there.
        source: the search and the fraction it was scored at; what shares a source shares an offset and a noise.
    """

    weights: tuple[float, ...]
    score: float
    source: str


def read_known(run: Path, levels: Sequence[str]) -> list[KnownTrial]:
    """Read the finished trials of a search.

    Args:
        run: the folder of a search, finished or not.
        levels: names of the masking levels here.

    Raises:
        RunError: no search, no finished trial, or a search of other levels.
    """
    folder = RunFolder(run)
    folder.describe(KIND)
    known = []
    for trial in folder.read(TRIALS_FILE):
        if sorted(trial["weights"]) != sorted(levels):
            must = f"must be a search of the levels {', '.join(levels)}"
            raise RunError(run, must, ", ".join(trial["weights"]), "Warm-start from another search")
        source = f"{run.name} at {trial.get('fraction', 'its fraction')}"
        known.append(KnownTrial(tuple(trial["weights"][level] for level in levels), trial["score"], source))
    return known
