"""Trials whose score is a formula, at module level so that other processes can run them."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from imu_saga.search import TrialOutcome, TrialTask

PEAK = {"period": 0.1, "point": 0.2, "sensor": 0.6, "sub_period": 0.1}
FATAL = "trial_005"


def planted(weights: dict[str, float]) -> float:
    """Return the true score: 0.8 at PEAK, less with the squared distance from it."""
    return 0.8 - 0.3 * sum((weights[name] - value) ** 2 for name, value in PEAK.items())


def smooth_trial(task: TrialTask) -> TrialOutcome:
    return TrialOutcome(planted(task.weights))


def dawdling_trial(task: TrialTask) -> TrialOutcome:
    time.sleep(0.02 * (int(task.scratch.name[-1]) * 7 % 5))  # later ones often end before earlier ones
    return smooth_trial(task)


def noisy_trial(task: TrialTask) -> TrialOutcome:
    rng = np.random.default_rng([task.seed, *(round(1e6 * value) for value in task.weights.values())])
    return TrialOutcome(planted(task.weights) - 0.05 * (len(task.fractions) == 1) + rng.normal(0, 0.005))


def flat_trial(task: TrialTask) -> TrialOutcome:
    rng = np.random.default_rng([task.seed, *(round(1e6 * value) for value in task.weights.values())])
    return TrialOutcome(0.7 + rng.normal(0, 0.03))


def fatal_once(task: TrialTask) -> TrialOutcome:
    """Note the call; one trial's first call takes its process down midway, when what ended before has been fetched."""
    calls = task.scratch.parent / "calls.txt"
    with calls.open("a") as stream:
        stream.write(task.scratch.name + "\n")
    if task.scratch.name == FATAL and calls.read_text().split().count(FATAL) == 1:
        time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGKILL)
    return smooth_trial(task)


def calls_in(folder: Path) -> list[str]:
    return sorted((folder / "calls.txt").read_text().split())
