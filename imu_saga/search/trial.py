"""One trial: go on from the checkpoint with the trial's weights, fine-tune on few labels, score on other people."""

import time
import zipfile
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imu_saga.card import CARD, WEIGHTS, card_of, read_card
from imu_saga.evaluation.expected import expected_macro_f1
from imu_saga.finetune import FinetuneConfig, finetune, predict_probabilities
from imu_saga.pretrain import PretrainConfig, pretrain
from imu_saga.search.config import SearchConfig
from imu_saga.windows import WindowSet
from shared_peft.atomic import replacing
from shared_peft.errors import RunError
from shared_peft.training import RunFolder
from shared_peft.weights import write_tensors

STAGE_SEEDS = 1_000_003  # ours: the seeds of a trial's stages are this far apart
FIRST_FOLD, SECOND_FOLD, UNLABELLED_ROW = 0, 1, 2


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
    """What a trial gave: expected macro-F1 in [0, 1], and the seconds its two parts took."""

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


def shared_windows(path: Path) -> tuple[WindowSet, WindowSet, WindowSet]:
    """Read what `share_windows` wrote: the first fold, the second, and the unlabelled subset; a process reads once.

    Raises:
        RunError: no such file here, as on a worker that does not see the search's folder.
    """
    try:
        return _read_shared(path, path.stat().st_mtime_ns)
    except (OSError, zipfile.BadZipFile) as error:
        fix = "Give every worker the same file system, and --out a path that all of them see"
        raise RunError(path, "must be readable where the trial runs", type(error).__name__, fix) from error


@lru_cache(maxsize=1)
def _read_shared(path: Path, written_ns: int) -> tuple[WindowSet, WindowSet, WindowSet]:
    with np.load(path) as stored:
        values = {field.name: stored[field.name] for field in fields(WindowSet)}
        parts = stored["parts"]
    plain = {name: value.item() for name, value in values.items() if value.ndim == 0}
    names = {name: tuple(values[name].tolist()) for name in ("classes", "channels")}
    windows = WindowSet(**{**values, **plain, **names})
    first, second, unlabelled = (windows.subset(parts == part) for part in range(3))
    return first, second, unlabelled


def run_trial(task: TrialTask) -> TrialOutcome:
    """Pre-train on from the checkpoint with the trial's weights, fine-tune on each fold, score on the other.

    Returns:
        Expected macro-F1 over the pooled answers of both folds, and what it cost. Counted answers would not do: with 10
        windows a class the same few dozen come out right in most trials.
    """
    began = time.perf_counter()
    first, second, unlabelled = shared_windows(task.data)
    start = task.checkpoint
    for stage, fraction in enumerate(task.fractions):
        start = _stage(task, stage, fraction, start, unlabelled)
    middle = time.perf_counter()
    answers, truths = [], []
    for fit, judge in ((first, second), (second, first)):
        tuning = FinetuneConfig(method=task.config.method, steps=task.config.finetune_steps, seed=task.seed)
        _, model = finetune(fit, tuning, checkpoint=start)
        answers.append(predict_probabilities(model, judge.x))
        truths.append(torch.from_numpy(judge.labels))
    score = expected_macro_f1(torch.cat(answers), torch.cat(truths))
    return TrialOutcome(score, middle - began, time.perf_counter() - middle)


def _stage(task: TrialTask, stage: int, fraction: float, start: Path, unlabelled: WindowSet) -> Path:
    """Return the folder of a stage's weights, made if it is not there."""
    folder = task.scratch / f"stage_{stage}"
    if (folder / CARD).is_file():
        return folder
    before = task.fractions[stage - 1] if stage else 0.0
    config = replace(
        task.pretraining,
        weights=task.weights,
        steps=max(1, round(task.pretraining.steps * (fraction - before))),
        learning_rate=task.config.learning_rate,
        seed=task.seed + STAGE_SEEDS * stage,
    )
    model, _ = pretrain(unlabelled, config, start=start, progress=None)
    name = read_card(start).encoder if start.is_dir() else task.pretraining.encoder
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, model.state_dict())
    RunFolder(folder).write(CARD, card_of(name, model.encoder).as_json())
    return folder
