"""`python -m imu_saga finetune`."""

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from imu_saga.commands.scores import scores_text
from imu_saga.evaluate import score_model
from imu_saga.finetune import FinetuneConfig, finetune
from imu_saga.source import DataOptions, load_windows, split_by_subject
from imu_saga.splits import few_shot
from imu_saga.trained import FINETUNE_KIND, save_run
from shared_peft import PeftModel
from shared_peft.command import Command
from shared_peft.config import to_json
from shared_peft.training import RunFolder


@dataclass(frozen=True)
class FinetuneOptions:
    """Options of `python -m imu_saga finetune`."""

    source: DataOptions = field(default_factory=DataOptions)
    checkpoint: Path | None = None
    """Pre-training run, or a published LIMU-BERT file with --encoder limu; none for --method scratch."""
    encoder: str = "saga"
    """Encoder: saga or limu; of a pre-training run its own is used."""
    method: str = "full"
    """full, head, scratch, or an adapter method: lora, lora_tsd, flora, ..."""
    shots: int = 10
    """Labelled windows per class; 0 uses all."""
    r: int | None = None
    """Rank of an adapter that has one; the method's own, lowered where a weight cannot have it, if not given."""
    lora_alpha: float = 16.0
    """The change of an adapter that has this field is scaled by lora_alpha / r."""
    steps: int = 300
    """Optimiser steps."""
    batch_size: int = 64
    """Windows a step, drawn evenly from the classes."""
    learning_rate: float = 0.0
    """Peak learning rate; 0 chooses one for the method."""
    rotation_deg: float = 15.0
    """Largest random rotation of the device [degrees]."""
    jitter: float = 0.05
    """Strength of random scale and noise."""
    seed: int = 0
    """Seed of the labels drawn, the head, the adapter and the order."""
    out: Path = Path("runs/imu_finetune")
    """Folder to write."""
    resume: bool = False
    """Go on with the run in --out."""


def finetune_config(options: FinetuneOptions) -> FinetuneConfig:
    """Return the library's configuration."""
    names = FinetuneConfig.__dataclass_fields__.keys() & FinetuneOptions.__dataclass_fields__.keys()
    return FinetuneConfig(**{name: getattr(options, name) for name in names})


def run(options: FinetuneOptions) -> None:
    """Fine-tune on the training people's few labels, score on the held-out people."""
    config = finetune_config(options)
    described = {key: value for key, value in to_json(options).items() if key not in ("out", "resume")}
    folder = RunFolder.create(options.out, FINETUNE_KIND, described, resume=options.resume)
    with folder.locked():
        windows, report = load_windows(options.source)
        split = split_by_subject(windows, options.source)
        rows = split.train
        if options.shots > 0:
            rows = few_shot(windows, split.train, shots=options.shots, seed=options.seed).train
        sys.stdout.write(f"{report}\n{len(rows)} labelled windows; held out: {', '.join(split.held_out)}\n")
        labelled, test = windows.subset(rows), windows.subset(split.test)
        name, model = finetune(
            labelled,
            config,
            checkpoint=options.checkpoint,
            folder=folder,
            resume=options.resume,
            progress=config.method,
        )
        scores = asdict(score_model(model, test))
        trained = model.get_nb_trainable_parameters()[0] if isinstance(model, PeftModel) else _trainable(model)
        details: dict[str, Any] = {
            "method": config.method,
            "trainable_parameters": trained,
            "total_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "shots": options.shots,
            "train_subjects": np.unique(labelled.subjects).tolist(),
            "test_subjects": list(split.held_out),
        }
        save_run(folder, name, model, test, {"scores": scores, "details": details})
    sys.stdout.write(f"{scores_text(windows.classes, scores)}{trained:,} parameters trained\n{options.out}\n")


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
