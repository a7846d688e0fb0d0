"""Low-cost search of the four loss weights for a task (Saga, arXiv:2504.11726; protocol and constants ours).

Every trial goes on from the equal-weight checkpoint for a fraction of its steps on a subset of the windows, is
fine-tuned on a part of the label budget, and is scored on the budget's windows of other people.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imu_saga.card import WEIGHTS
from imu_saga.evaluation.scores import score_labels
from imu_saga.finetune import FinetuneConfig, finetune, predict_probabilities
from imu_saga.masking_level import MASKING_LEVELS
from imu_saga.pretrain import EQUAL_WEIGHTS, PretrainConfig, pretrain
from imu_saga.simplex import believed, suggest
from imu_saga.windows import WindowSet
from shared_peft.errors import ConfigError, DataError
from shared_peft.training import RunFolder

TRIALS_FILE = "trials.json"


@dataclass(frozen=True)
class SearchConfig:
    """How to search.

    Args:
        trials: number of weightings tried: the corners, the centre, then suggestions.
        shots: label budget: labelled windows per class, validation included.
        fraction: a trial's pre-training steps as a part of the checkpoint's, in (0, 1].
        subset: part of the unlabelled windows a trial sees, in (0, 1].
        finetune_steps: fine-tuning steps of a trial and fold.
        learning_rate: peak learning rate of a trial's pre-training.
        seed: seed of draws and suggestions.
    """

    trials: int = 16
    shots: int = 10
    fraction: float = 0.1
    subset: float = 0.5
    finetune_steps: int = 60
    learning_rate: float = 5e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ConfigError("search trials", "must be at least 1", self.trials, "Use 16")
        if self.shots < 2:
            fix = "Use --shots 2 or more"
            raise ConfigError("search shots", "must leave labels to fit and to validate", self.shots, fix)
        for name in ("fraction", "subset"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"search {name}", "must be in (0, 1]", getattr(self, name), "Use 0.1")


@dataclass(frozen=True, eq=False)
class TrialTask:
    """Everything one trial needs, so that any process can run it."""

    windows: WindowSet
    folds: tuple[np.ndarray, np.ndarray]
    weights: dict[str, float]
    checkpoint: Path
    pretraining: PretrainConfig
    config: SearchConfig
    scratch: Path


@dataclass(frozen=True)
class SearchResult:
    """What a search found: the weights believed best, and every trial with weights, score and belief."""

    weights: dict[str, float]
    trials: list[dict[str, Any]] = field(default_factory=list)


def label_folds(windows: WindowSet, shots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the label budget as two folds of different people, at most ``shots`` windows per class in both together.

    Args:
        windows: training windows of at least 2 subjects.
        shots: labelled windows per class.
        seed: seed of the draw.

    Returns:
        Row numbers of the two folds.

    Raises:
        DataError: a class lacks windows on either side.
    """
    generator = np.random.default_rng(seed)
    subjects = generator.permutation(np.unique(windows.subjects))
    if len(subjects) < 2:
        raise DataError("search", "windows must come from 2 subjects or more", len(subjects), "Add people")
    first = np.isin(windows.subjects, subjects[: len(subjects) // 2])
    folds = []
    for side, budget in ((first, shots - shots // 2), (~first, shots // 2)):
        rows = []
        for label, name in enumerate(windows.classes):
            there = np.flatnonzero(side & (windows.labels == label))
            if not len(there):
                fix = "Try another --seed, or add people"
                raise DataError("search", f"class {name!r} must occur in both halves of the people", "none", fix)
            rows.append(generator.permutation(there)[:budget])
        folds.append(np.concatenate(rows))
    return folds[0], folds[1]


def run_trial(task: TrialTask) -> float:
    """Pre-train on from the checkpoint with the trial's weights, fine-tune on each fold, score on the other.

    Returns:
        Macro-F1 over the pooled answers of both folds, in [0, 1].
    """
    config, steps = task.config, max(1, round(task.pretraining.steps * task.config.fraction))
    generator = np.random.default_rng(config.seed)
    rows = generator.permutation(len(task.windows))[: max(2, round(len(task.windows) * config.subset))]
    pretraining = replace(
        task.pretraining, weights=task.weights, steps=steps, learning_rate=config.learning_rate, seed=config.seed
    )
    scratch = RunFolder(task.scratch)
    scratch.path.mkdir(parents=True, exist_ok=True)
    (scratch.path / "checkpoint.pt").unlink(missing_ok=True)
    pretrain(task.windows.subset(np.sort(rows)), pretraining, scratch, start=task.checkpoint, progress=None)
    answers, truths = [], []
    for fit, judge in (task.folds, task.folds[::-1]):
        tuning = FinetuneConfig(method="full", steps=config.finetune_steps, seed=config.seed)
        _, model = finetune(task.windows.subset(fit), tuning, checkpoint=scratch.path)
        answers.append(predict_probabilities(model, task.windows.x[judge]).argmax(1).numpy())
        truths.append(judge)
    judged = task.windows.subset(np.concatenate(truths))
    for name in ("checkpoint.pt", WEIGHTS):
        (scratch.path / name).unlink(missing_ok=True)
    return score_labels(np.concatenate(answers), judged).macro_f1


def search(
    windows: WindowSet,
    checkpoint: Path,
    pretraining: PretrainConfig,
    config: SearchConfig,
    folder: RunFolder,
    *,
    executor: Executor | None = None,
    workers: int = 1,
    tell: Callable[[dict[str, Any]], object] = lambda trial: None,
) -> SearchResult:
    """Search the loss weights; finished trials in ``folder`` are not repeated.

    Args:
        windows: training windows, never those of test subjects.
        checkpoint: run folder of the equal-weight pre-training.
        pretraining: its configuration.
        config: see SearchConfig.
        folder: where trials are stored.
        executor: runs trials, local or on a cluster; None runs them one after the other here.
        workers: trials under way at once.
        tell: called with every finished trial.

    Returns:
        The weights whose score a Gaussian process believes best, and all trials.
    """
    levels = MASKING_LEVELS.names()
    folds = label_folds(windows, config.shots, config.seed)
    path = folder.path / TRIALS_FILE
    trials: list[dict[str, Any]] = folder.read(TRIALS_FILE) if path.exists() else []

    def task(number: int, weights: Sequence[float]) -> TrialTask:
        named = dict(zip(levels, weights, strict=True))
        scratch = folder.path / f"trial_{number:03d}"
        return TrialTask(windows, folds, named, checkpoint, pretraining, config, scratch)

    def finish(number: int, weights: Sequence[float], score: float) -> None:
        trial = {"number": number, "weights": dict(zip(levels, weights, strict=True)), "score": score}
        trials.append(trial)
        trials.sort(key=lambda each: each["number"])
        folder.write(TRIALS_FILE, trials)
        tell(trial)

    _run_all(config, levels, trials, task, finish, executor, workers)
    beliefs = believed([_values(trial, levels) for trial in trials], [trial["score"] for trial in trials])
    for trial, belief in zip(trials, beliefs, strict=True):
        trial["belief"] = float(belief)
    best = trials[int(beliefs.argmax())]
    result = SearchResult(dict(best["weights"]), trials)
    folder.write("best.json", {"weights": result.weights, "belief": best["belief"], "equal": EQUAL_WEIGHTS})
    return result


def _values(trial: Mapping[str, Any], levels: Sequence[str]) -> list[float]:
    return [trial["weights"][level] for level in levels]


def _run_all(
    config: SearchConfig,
    levels: Sequence[str],
    trials: list[dict[str, Any]],
    task: Callable[[int, Sequence[float]], TrialTask],
    finish: Callable[[int, Sequence[float], float], None],
    executor: Executor | None,
    workers: int,
) -> None:
    """Keep ``workers`` trials under way until all are finished; those under way are guessed to score the mean."""
    under_way: dict[Future[float], tuple[int, list[float]]] = {}

    def next_weights(number: int) -> list[float]:
        tried = [_values(trial, levels) for trial in trials]
        scores = [trial["score"] for trial in trials]
        pending = [weights for _, weights in under_way.values()]
        guess = float(np.mean(scores)) if scores else 0.0
        return suggest([*tried, *pending], [*scores, *[guess] * len(pending)], number, len(levels), config.seed)

    done = {trial["number"] for trial in trials}
    for number in (number for number in range(config.trials) if number not in done):
        if executor is None:
            weights = next_weights(number)
            finish(number, weights, run_trial(task(number, weights)))
            continue
        while len(under_way) >= max(1, workers):
            _collect(under_way, finish)
        weights = next_weights(number)
        under_way[executor.submit(run_trial, task(number, weights))] = (number, weights)
    while under_way:
        _collect(under_way, finish)


def _collect(
    under_way: dict[Future[float], tuple[int, list[float]]], finish: Callable[[int, Sequence[float], float], None]
) -> None:
    finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
    for future in finished:
        number, weights = under_way.pop(future)
        finish(number, weights, future.result())


def limit_threads() -> None:
    """Give a worker process one thread; several trials share the machine."""
    torch.set_num_threads(1)
