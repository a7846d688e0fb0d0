"""`python -m imu_saga finetune`."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from imu_saga.augmentation import parse_augmentations
from imu_saga.candidates import candidate_sets, label_sets, read_candidates, with_candidates
from imu_saga.commands.scores import scores_text
from imu_saga.evaluation.audit import audit_run
from imu_saga.evaluation.footprint import write_footprint
from imu_saga.evaluation.scores import side_scores, spread_text
from imu_saga.finetune import FinetuneConfig, finetune, settled
from imu_saga.recording import UNLABELLED
from imu_saga.source import DataOptions, SplitWindows, described_split, load_split
from imu_saga.splits import few_shot, labelled_rows
from imu_saga.trained import FINETUNE_KIND, save_run
from imu_saga.windows import WindowSet
from shared_peft import PeftModel
from shared_peft.command import Command
from shared_peft.config import to_json
from shared_peft.errors import DataError
from shared_peft.training import RunFolder


@dataclass(frozen=True)
class FinetuneOptions:
    """Options of `python -m imu_saga finetune`."""

    source: DataOptions = field(default_factory=DataOptions)
    checkpoint: Path | None = None
    """Pre-training run, or a published LIMU-BERT file with --encoder limu; none for --method scratch."""
    encoder: str = "saga"
    """Encoder: saga, resnet1d, gru or limu; of a pre-training run its own is used."""
    method: str = "auto"
    """discriminant (head in closed form), full, head, scratch, an adapter method (lora, lora_tsd, flora, ...), or auto:
    discriminant up to 50 windows a class, full above."""
    shots: int = 10
    """Labelled windows per class; 0 uses all."""
    r: int | None = None
    """Rank of an adapter that has one; the method's own, lowered where a weight cannot have it, if not given."""
    lora_alpha: float = 16.0
    """The change of an adapter that has this field is scaled by lora_alpha / r."""
    candidates: Path | None = None
    """Table of stretches that are one of several classes: columns session, start_s, end_s [s] and candidates, split by
    |. Training windows inside a stretch are learnt from beside the --shots labelled ones."""
    partial: str = "proden"
    """How candidates are learnt from: average, proden, pl_cl or plcp."""
    steps: int = 300
    """Optimiser steps."""
    batch_size: int = 64
    """Windows a step, drawn evenly from the classes."""
    learning_rate: float = 0.0
    """Peak learning rate; 0 chooses one for the method."""
    augment: tuple[str, ...] = ("rotation", "scale", "jitter")
    """Augmentations as NAME or NAME.OPTION=VALUE, for example rotation.largest_deg=30 time_warp; none after the flag
    turns them off."""
    statistics: bool = True
    """Let the head see the window's statistics beside the tokens."""
    closed_form: bool = True
    """Start the head as the linear discriminant of the labelled windows, instead of at random."""
    mixup: float = 0.0
    """Alpha of mixup, the blend of two windows and their labels; 0.2 is usual, 0 turns it off."""
    seed: int = 0
    """Seed of the labels drawn, the head, the adapter and the order."""
    out: Path = Path("runs/imu_finetune")
    """Folder to write."""
    resume: bool = False
    """Go on with the run in --out."""


def finetune_config(options: FinetuneOptions) -> FinetuneConfig:
    """Return the library's configuration."""
    names = FinetuneConfig.__dataclass_fields__.keys() & FinetuneOptions.__dataclass_fields__.keys()
    plain = {name: getattr(options, name) for name in names - {"augment"}}
    return FinetuneConfig(**plain, augment=parse_augmentations(options.augment))


def drawn_rows(loaded: SplitWindows, options: FinetuneOptions) -> np.ndarray:
    """Return the positions of the labelled windows to train on: the few drawn, or with --shots 0 all."""
    if options.shots == 0:
        return loaded.split.train
    return few_shot(loaded.windows, loaded.split.train, shots=options.shots, seed=options.seed).train


def drawn_sets(loaded: SplitWindows, options: FinetuneOptions) -> tuple[WindowSet, np.ndarray]:
    """Return the training windows, and what each may be: the few labelled, and those inside a stretch of --candidates.

    Args:
        loaded: windows; with --candidates also those without a label.
        options: see FinetuneOptions.

    Returns:
        The windows, those of a stretch without their label, and bool sets, shape (windows, classes).

    Raises:
        DataError: a table that cannot be used, or one that says nothing about the training side.
    """
    windows, train = loaded.windows, loaded.split.train
    if options.candidates is None:
        few = windows.subset(drawn_rows(loaded, options))
        return few, label_sets(few)
    sets, told = candidate_sets(windows, read_candidates(options.candidates, windows.classes))
    if not told[train].any():
        must = "must speak of at least one window of the training side"
        raise DataError(options.candidates, must, "windows held out only", "Add stretches of other people")
    labels = np.where(told, UNLABELLED, windows.labels)
    windows, free = replace(windows, labels=labels), train[labels[train] != UNLABELLED]
    few = drawn_rows(replace(loaded, windows=windows, split=replace(loaded.split, train=free)), options)
    rows = np.concatenate([few, train[told[train]]])
    return windows.subset(rows), sets[rows]


@dataclass(frozen=True, eq=False)
class DrawnSides:
    """The sides of a fine-tuning run.

    Args:
        loaded: all windows and their split.
        labelled: the windows to train on.
        sets: what each of them may be, bool (windows, classes).
        test: labelled windows held out.
        impostors: windows of people never to be recognised.
    """

    loaded: SplitWindows
    labelled: WindowSet
    sets: np.ndarray
    test: WindowSet
    impostors: WindowSet


def drawn_sides(options: FinetuneOptions) -> DrawnSides:
    """Read the data, split it and draw the few labels; the same options give the same sides."""
    loaded = load_split(options.source, unlabelled=options.candidates is not None)
    windows, split = loaded.windows, loaded.split
    labelled, sets = drawn_sets(loaded, options)
    test = windows.subset(labelled_rows(windows, split.test))
    return DrawnSides(loaded, labelled, sets, test, windows.subset(split.impostors))


def sets_text(windows: WindowSet, sets: np.ndarray) -> str:
    """Return one line about the training windows; ``sets`` is bool, shape (windows, classes)."""
    told = windows.labels == UNLABELLED
    text = f"{int((~told).sum())} labelled windows"
    return f"{text}, {int(told.sum())} with {sets[told].sum(1).mean():.1f} candidates on average" if any(told) else text


def run(options: FinetuneOptions) -> None:
    """Fine-tune on the training side's few labels, score on what was held out."""
    config = finetune_config(options)
    described = {key: value for key, value in to_json(options).items() if key not in ("out", "resume")}
    folder = RunFolder.create(options.out, FINETUNE_KIND, described, resume=options.resume)
    with folder.locked():
        sides = drawn_sides(options)
        loaded, labelled, test, impostors = sides.loaded, sides.labelled, sides.test, sides.impostors
        config = settled(config, with_candidates(labelled, sides.sets)[1])
        sys.stdout.write(f"{loaded}\n{sets_text(labelled, sides.sets)}\n")
        name, model = finetune(
            labelled,
            config,
            candidates=None if options.candidates is None else sides.sets,
            checkpoint=options.checkpoint,
            folder=folder,
            resume=options.resume,
            progress=config.method,
        )
        scores = side_scores(model, labelled, test, impostors)
        trained = model.get_nb_trainable_parameters()[0] if isinstance(model, PeftModel) else _trainable(model)
        details: dict[str, Any] = {
            "method": config.method,
            "trainable_parameters": trained,
            "total_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "shots": options.shots,
            "candidate_windows": int((labelled.labels == UNLABELLED).sum()),
            "train_subjects": np.unique(labelled.subjects).tolist(),
            "test_subjects": np.unique(test.subjects).tolist(),
            **described_split(loaded, options.source),
        }
        save_run(folder, name, model, test, {"scores": scores, "details": details})
        write_footprint(
            folder.path,
            {"train": labelled, "test": test, "impostors": impostors},
            task=options.source.task,
            protocol=loaded.protocol.name,
            made_from={"checkpoint": options.checkpoint},
        )
    text = scores_text(labelled.classes, scores) + spread_text(scores)
    sys.stdout.write(f"{text}{trained:,} parameters trained\naudit: {audit_run(folder.path).verdict}\n{options.out}\n")


def _trainable(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


COMMAND = Command(
    name="finetune",
    config=FinetuneOptions,
    run=run,
    summary="Fine-tune a pre-trained encoder with few labels; test on people it never saw.",
    example="python -m imu_saga finetune --data sisfall --root FOLDER --checkpoint runs/pretrain --shots 10 "
    "--method lora_tsd --out runs/finetune",
    place=32,
)
