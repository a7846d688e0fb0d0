"""One trial: pre-train a little with the trial's weights, fine-tune on few labels, score on other people."""

import time
import zipfile
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imu_saga.card import CARD, WEIGHTS, read_card
from imu_saga.encoder import card_of
from imu_saga.finetune import FinetuneConfig, finetune, predict_probabilities
from imu_saga.pretrain import PretrainConfig, pretrain
from imu_saga.search.config import SearchConfig
from imu_saga.search.labels import label_halvings
from imu_saga.windows import WindowSet
from shared_peft.atomic import replacing
from shared_peft.errors import RunError
from shared_peft.training import RunFolder, score_classification
from shared_peft.weights import write_tensors

STAGE_SEEDS = 1_000_003  # ours: the seeds of a trial's stages are this far apart
FIRST_FOLD, SECOND_FOLD, UNLABELLED_ROW = 0, 1, 2


@dataclass(frozen=True)
class SharedWindows:
    """What every trial of a search looks at.

    Args:
        labelled: the label budget.
        first: whether a labelled window is of the first fold, bool, shape (labelled,).
        unlabelled: the subset that is pre-trained on.
    """

    labelled: WindowSet
    first: np.ndarray
    unlabelled: WindowSet


@dataclass(frozen=True)
class TrialTask:
    """Everything one trial needs, so that any process that sees the search's folder can run it.

    Args:
        data: file of `share_windows`.
        weights: loss weight by level.
        seed: seed of masks, order, heads and augmentation.
        fractions: parts of the pre-training's steps after which a stage of the trial ends, rising.
        checkpoint: run folder of the equal-weight pre-training.
        pretraining: its configuration.
        config: the search's.
        scratch: the trial's own folder; stages found there are not made again.
    """

    data: Path
    weights: dict[str, float]
    seed: int
    fractions: tuple[float, ...]
    checkpoint: Path
    pretraining: PretrainConfig
    config: SearchConfig
    scratch: Path


@dataclass(frozen=True)
class TrialOutcome:
    """What a trial gave: macro-F1 in [0, 1], and the seconds its two parts took."""

    score: float
    pretraining_s: float = 0.0
    finetuning_s: float = 0.0


def share_windows(windows: WindowSet, folds: tuple[np.ndarray, np.ndarray], config: SearchConfig, path: Path) -> None:
    """Write the windows that trials look at, once for all of them: the unlabelled subset and the two folds.

    Args:
        windows: the training windows.
        folds: row numbers of the labelled windows.
        config: subset and seed of the search.
        path: the file to write.
    """
    chosen = np.random.default_rng(config.seed).permutation(len(windows))
    chosen = np.sort(chosen[: max(2, round(len(windows) * config.subset))])
    rows = np.concatenate([*folds, chosen])
    parts = np.repeat([FIRST_FOLD, SECOND_FOLD, UNLABELLED_ROW], [len(folds[0]), len(folds[1]), len(chosen)])
    kept = windows.subset(rows)
    values: dict[str, Any] = {field.name: np.asarray(getattr(kept, field.name)) for field in fields(WindowSet)}
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, parts=parts, **values)


def shared_windows(path: Path) -> SharedWindows:
    """Read what `share_windows` wrote; a process reads once.

    Raises:
        RunError: no such file here, as on a worker that does not see the search's folder.
    """
    try:
        return _read_shared(path, path.stat().st_mtime_ns)
    except (OSError, zipfile.BadZipFile) as error:
        fix = "Give every worker the same file system, and --out a path that all of them see"
        raise RunError(path, "must be readable where the trial runs", type(error).__name__, fix) from error


@lru_cache(maxsize=1)
def _read_shared(path: Path, written_ns: int) -> SharedWindows:
    with np.load(path) as stored:
        values = {field.name: stored[field.name] for field in fields(WindowSet)}
        parts = stored["parts"]
    plain = {name: value.item() for name, value in values.items() if value.ndim == 0}
    names = {name: tuple(values[name].tolist()) for name in ("classes", "channels")}
    windows = WindowSet(**{**values, **plain, **names})
    labelled = parts != UNLABELLED_ROW
    return SharedWindows(windows.subset(labelled), parts[labelled] == FIRST_FOLD, windows.subset(~labelled))


def run_trial(task: TrialTask) -> TrialOutcome:
    """Pre-train with the trial's weights, then fit and judge a head on every halving of the labelled people, both ways.

    Heads see the encoder's tokens alone: the window's own statistics would speak for every encoder alike.

    Returns:
        Macro-F1, the mean over the halvings, of each one's answers for both halves pooled; and what it cost.
    """
    began = time.perf_counter()
    shared = shared_windows(task.data)
    start = task.checkpoint if task.config.from_checkpoint else None
    for stage, fraction in enumerate(task.fractions):
        start = _stage(task, stage, fraction, start, shared.unlabelled)
    middle = time.perf_counter()
    tuning = FinetuneConfig(
        method=task.config.method, steps=task.config.finetune_steps, seed=task.seed, statistics=False
    )
    halvings = label_halvings(shared.labelled, shared.first, task.config.halvings, task.config.seed)
    scores = [_score(shared.labelled, half, tuning, start) for half in halvings]
    return TrialOutcome(float(np.mean(scores)), middle - began, time.perf_counter() - middle)


def _score(labelled: WindowSet, half: np.ndarray, tuning: FinetuneConfig, checkpoint: Path | None) -> float:
    answers, truths = [], []
    for fit in (half, ~half):
        _, model = finetune(labelled.subset(fit), tuning, checkpoint=checkpoint)
        answers.append(predict_probabilities(model, labelled.x[~fit]).argmax(1))
        truths.append(torch.from_numpy(labelled.labels[~fit]))
    return score_classification(torch.cat(answers), torch.cat(truths), len(labelled.classes)).macro_f1


def _stage(task: TrialTask, stage: int, fraction: float, start: Path | None, unlabelled: WindowSet) -> Path:
    """Return the folder of a stage's weights, made if it is not there; one that goes on has the search's own rate."""
    folder = task.scratch / f"stage_{stage}"
    if (folder / CARD).is_file():
        return folder
    before = task.fractions[stage - 1] if stage else 0.0
    config = replace(
        task.pretraining,
        weights=task.weights,
        steps=max(1, round(task.pretraining.steps * (fraction - before))),
        learning_rate=task.pretraining.learning_rate if start is None else task.config.learning_rate,
        seed=task.seed + STAGE_SEEDS * stage,
    )
    model, _ = pretrain(unlabelled, config, start=start, progress=None)
    name = read_card(start).encoder if start is not None and start.is_dir() else task.pretraining.encoder
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, model.state_dict())
    RunFolder(folder).write(CARD, card_of(name, model.encoder).as_json())
    return folder
