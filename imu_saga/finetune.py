"""Few-label fine-tuning of an encoder: in full, head only, in closed form, from scratch, or with any adapter."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from imu_saga.augmentation import Augmentations
from imu_saga.candidates import label_sets, with_candidates
from imu_saga.encoder import build_encoder, load_encoder
from imu_saga.heads import Classifier
from imu_saga.input_spec import InputSpec
from imu_saga.mixup import check_alpha, mixed
from imu_saga.partial_labels import PARTIAL_LABEL_METHODS
from imu_saga.partial_labels.training import listed_classes, partial_objective, partial_trainee
from imu_saga.windows import WindowSet
from shared_peft import METHODS, PeftModel, get_peft_model
from shared_peft.errors import ConfigError, DataError, UnknownNameError
from shared_peft.run_config import config_for_run
from shared_peft.training import Batch, RunFolder, TrainConfig, train

DISCRIMINANT = "discriminant"
AUTO = "auto"
PLAIN_METHODS = (AUTO, "full", "head", DISCRIMINANT, "scratch")
FEW = 50  # ours, measured (docs/RESULTS.md): up to so many windows a class the closed form is as good as training on
PASSES = 8  # ours: over the windows, where "auto" trains on
HEAD = "head"


def method_names() -> tuple[str, ...]:
    """Return what ``method`` may be: auto, full, head, discriminant, scratch and every registered adapter method."""
    return (*PLAIN_METHODS, *METHODS.names())


@dataclass(frozen=True)
class FinetuneConfig:
    """How to fine-tune.

    Args:
        method: "full", "head", "discriminant" (the head in closed form, the encoder as it is: seconds, and hard to beat
            with 10 windows a class), "scratch" (full, nothing pre-trained), "auto" (see `settled`) or an adapter method
            such as "lora_tsd".
        encoder: name in ENCODERS; of a checkpoint that is a run folder the run's own is used.
        r: rank of an adapter that has one; None takes the method's own, lowered for weights that cannot have it.
        lora_alpha: scale of an adapter that has one is lora_alpha / r.
        steps: optimiser steps.
        batch_size: windows a step, drawn evenly from the classes.
        learning_rate: peak learning rate; 0 chooses one for the method.
        weight_decay: decoupled weight decay.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        augment: options of each augmentation by name, in the order applied; empty for none.
        statistics: whether the head sees the window's statistics beside the tokens (imu_saga.heads).
        closed_form: whether the head starts as the linear discriminant of the windows with one candidate label, where
            these show every class, on a pre-trained encoder; else at random.
        mixup: alpha of the blend of two windows, after the augmentations; 0 for none.
        partial: how windows with several candidate labels are learnt from, a name in PARTIAL_LABEL_METHODS.
        seed: seed of head, adapter, order and augmentation.
    """

    method: str = "full"
    encoder: str = "saga"
    r: int | None = None
    lora_alpha: float = 16.0
    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 0.0
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    augment: dict[str, dict[str, Any]] = field(default_factory=lambda: {"rotation": {}, "scale": {}, "jitter": {}})
    statistics: bool = True
    closed_form: bool = True
    mixup: float = 0.0
    partial: str = "proden"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in method_names():
            must = f"method must be one of {', '.join(method_names())}"
            raise UnknownNameError("finetune", must, repr(self.method), "Correct the name")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError("finetune label_smoothing", "must be in [0, 1)", self.label_smoothing, "Use 0.1")
        check_alpha(self.mixup)
        PARTIAL_LABEL_METHODS.get(self.partial)
        Augmentations(self.augment)
        if self.method == DISCRIMINANT and not self.closed_form:
            raise ConfigError("finetune closed_form", "must be on with method discriminant", "off", "Use method head")

    @property
    def peak_rate(self) -> float:
        """The learning rate given, or the method's own."""
        return self.learning_rate or {"full": 1e-4, "scratch": 1e-3, "head": 5e-3}.get(self.method, 2e-3)


def settled(config: FinetuneConfig, sets: np.ndarray) -> FinetuneConfig:
    """Return the configuration with "auto" decided by the labels: closed form for few, full fine-tuning for many.

    Args:
        config: see FinetuneConfig.
        sets: candidate classes of the windows to learn from, bool, shape (windows, classes).
    """
    if config.method != AUTO:
        return config
    per_class = len(sets) / max(int(sets.any(axis=0).sum()), 1)
    if per_class <= FEW and (sets.sum(axis=1) == 1).all():
        return replace(config, method=DISCRIMINANT, closed_form=True)
    steps = max(config.steps, -(-PASSES * len(sets) // config.batch_size))
    return replace(config, method="full", steps=steps, learning_rate=config.learning_rate or 5e-4)


def build_classifier(
    spec: InputSpec, n_classes: int, config: FinetuneConfig, checkpoint: Path | None
) -> tuple[str, Classifier]:
    """Build a classifier, its encoder filled from ``checkpoint`` unless the method is "scratch".

    Returns:
        The encoder's name and the classifier.

    Raises:
        ConfigError: a method that needs a checkpoint without one, or "scratch" with one that is no run folder.
        CheckpointError: a checkpoint of another model or rate.
    """
    torch.manual_seed(config.seed)
    if config.method == "scratch":
        encoder = build_encoder(config.encoder, spec)
        return config.encoder, Classifier(encoder, n_classes, statistics=config.statistics)
    if checkpoint is None:
        fix = "Give --checkpoint RUN, or use --method scratch"
        raise ConfigError("finetune", f"method {config.method} must start from a checkpoint", "none", fix)
    name, encoder, _ = load_encoder(checkpoint, config.encoder, {}, spec)
    return name, Classifier(encoder, n_classes, statistics=config.statistics)


def attach_method(classifier: Classifier, config: FinetuneConfig) -> nn.Module:
    """Freeze what ``config.method`` freezes; return the PeftModel of an adapter method, else the classifier."""
    if config.method in ("full", "scratch"):
        return classifier.requires_grad_(True)
    classifier.requires_grad_(False)
    if config.method == DISCRIMINANT:
        return classifier
    if config.method == "head":
        classifier.head.requires_grad_(True)
        return classifier
    fields: dict[str, Any] = {"modules_to_save": [HEAD], "exclude_modules": [HEAD, "position"]}
    known = METHODS.get(config.method).config_class.__dataclass_fields__
    for name in ("r", "lora_alpha"):
        if name in known and getattr(config, name) is not None:
            fields[name] = getattr(config, name)
    adapter = config_for_run(classifier, config.method, fields, steps=config.steps)
    generator = torch.Generator().manual_seed(config.seed)
    return get_peft_model(classifier, adapter, generator=generator)


def finetune(
    windows: WindowSet,
    config: FinetuneConfig,
    *,
    candidates: np.ndarray | None = None,
    checkpoint: Path | None = None,
    folder: RunFolder | None = None,
    resume: bool = False,
    progress: str | None = None,
) -> tuple[str, nn.Module]:
    """Train a classifier on labelled windows.

    Args:
        windows: the few labelled windows; unlabelled ones are left out.
        config: see FinetuneConfig.
        candidates: which classes each window may be, bool, shape (windows, classes), in place of the labels; windows
            without one are left out. None takes the labels.
        checkpoint: pre-training run folder or published weight file.
        folder: where metrics and checkpoints go.
        resume: go on from ``folder``'s checkpoint.
        progress: label of the progress bar; None shows none.

    Returns:
        The encoder's name, and the trained model in eval mode: a PeftModel if the method is an adapter.

    Raises:
        DataError: fewer than 2 classes with a label.
        ConfigError: mixup beside candidates.
    """
    windows, sets = with_candidates(windows, label_sets(windows) if candidates is None else candidates)
    if candidates is not None and config.mixup:
        raise ConfigError("finetune mixup", "must be 0 beside candidates", config.mixup, "Choose one of the two")
    if sets.any(axis=0).sum() < 2:
        must = "labelled windows must cover at least 2 classes"
        raise DataError("finetune", must, f"{len(windows)} windows", "Label more, or raise --shots")
    config = settled(config, sets)
    if config.method == DISCRIMINANT and candidates is not None:
        raise ConfigError("finetune method", "must not be discriminant with candidates", "both", "Use method head")
    name, classifier = started_classifier(windows, sets, config, checkpoint)
    model = attach_method(classifier, config)
    if config.method != DISCRIMINANT:
        given = None if candidates is None else torch.from_numpy(sets)
        _train(model, windows, given, config, folder=folder, resume=resume, progress=progress)
    return name, model.eval()


def started_classifier(
    windows: WindowSet, sets: np.ndarray, config: FinetuneConfig, checkpoint: Path | None
) -> tuple[str, Classifier]:
    """Build a classifier as training starts from it: calibrated on the windows, its head in closed form if asked for.

    Args:
        windows: the windows to learn from.
        sets: their candidate classes, bool, shape (windows, classes); those with one alone shape the head.
        config: see FinetuneConfig, "auto" decided.
        checkpoint: as for `finetune`.

    Returns:
        The encoder's name and the classifier.
    """
    name, classifier = build_classifier(InputSpec.of(windows), len(windows.classes), config, checkpoint)
    x, certain = torch.from_numpy(windows.x), sets.sum(axis=1) == 1
    classifier.calibrate(x)
    every_class_shows = (sets[certain].any(axis=0) == sets.any(axis=0)).all()
    if config.closed_form and config.method != "scratch" and every_class_shows:
        known = torch.from_numpy(certain)
        classifier.start_head(x[known], torch.from_numpy(sets.argmax(axis=1))[known])
    return name, classifier


def _train(
    model: nn.Module,
    windows: WindowSet,
    candidates: Tensor | None,
    config: FinetuneConfig,
    *,
    folder: RunFolder | None,
    resume: bool,
    progress: str | None,
) -> None:
    training = TrainConfig(
        steps=config.steps,
        learning_rate=config.peak_rate,
        weight_decay=config.weight_decay,
        warmup_steps=max(1, config.steps // 10),
        checkpoint_every=max(1, config.steps // 4) if folder else 0,
        seed=config.seed,
    )

    def objective(network: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        x, labels = batch
        return functional.cross_entropy(network(x), labels, label_smoothing=config.label_smoothing), {}

    trained, wanted = model, objective
    if candidates is not None:
        trained = partial_trainee(model, candidates, config.partial, config.label_smoothing)
        wanted = partial_objective
    batches = balanced_batches(windows, config, candidates)
    after_step = model.update_and_allocate if isinstance(model, PeftModel) else None
    train(trained, wanted, batches, training, folder=folder, resume=resume, after_step=after_step, progress=progress)


def balanced_batches(
    windows: WindowSet, config: FinetuneConfig, candidates: Tensor | None = None
) -> Callable[[int], list[Tensor]]:
    """Return the batch function: augmented windows, and labels or with mixup shares of the classes (windows, classes).

    Classes are evenly drawn; a batch is a pure function of its index. With candidates, bool, shape (n, classes), the
    second tensor holds the windows' places instead, int64.
    """
    x, labels, valid = (torch.from_numpy(values) for values in (windows.x, windows.labels, windows.valid))
    augmentations = Augmentations(config.augment)
    listed = (lambda index: labels) if candidates is None else listed_classes(candidates, config.seed)

    def batch(index: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed((config.seed * 2_147_483_659 + index) % 2**63)
        chosen = balanced_rows(listed(index), config.batch_size, generator)
        drawn, _ = augmentations.apply(x[chosen], valid[chosen], windows.channels, windows.rate_hz, generator)
        if candidates is not None:
            return [drawn, chosen]
        if config.mixup == 0:
            return [drawn, labels[chosen]]
        targets = functional.one_hot(labels[chosen], len(windows.classes)).to(drawn.dtype)
        return list(mixed(drawn, targets, config.mixup, generator))

    return batch


def balanced_rows(labels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw ``size`` places, shape (size,), evenly from the classes of ``labels`` (n,); which come first is drawn."""
    rows_of = [(labels == index).nonzero().squeeze(1) for index in labels.unique()]
    first = int(torch.randint(len(rows_of), (1,), generator=generator))
    rows = []
    for place, member in enumerate(rows_of):
        share = len(range((place - first) % len(rows_of), size, len(rows_of)))
        rows.append(member[torch.randint(len(member), (share,), generator=generator)])
    return torch.cat(rows)


@torch.no_grad()
def predict_probabilities(model: nn.Module, x: np.ndarray, batch_size: int = 512) -> Tensor:
    """Return class probabilities, shape (windows, classes), of windows in SI, shape (windows, samples, channels)."""
    model.eval()
    parts = [model(torch.from_numpy(x[start : start + batch_size])) for start in range(0, len(x), batch_size)]
    return torch.cat(parts).softmax(1)
