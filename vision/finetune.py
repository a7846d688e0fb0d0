"""From a pretrained backbone and a few labelled images to a trained model in a run folder."""

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from shared_peft.config import loads_json, to_json
from shared_peft.errors import ConfigError, DataError
from shared_peft.training import RunFolder, is_main, on_main
from shared_peft.training.train_config import Schedule
from vision.adapt import PLAIN_METHODS, Trainee, check_method
from vision.backbones import Backbone, build_backbone, correlate
from vision.datasets import ImageData, draw_shots, open_images
from vision.evaluate import evaluate
from vision.fit import FitSettings, Fitted, Precision, fit, hold_out, start
from vision.options import Augment, Data
from vision.tasks import task_of
from vision.trained import save_examples, save_model
from vision.transforms import Pixels, load_pixels, normalise

EXAMPLES = 8


@dataclass(frozen=True)
class FinetuneConfig:
    """Options of `python -m vision finetune`."""

    backbone: str
    """Model name: resnet20, vit_cifar10, timm/convnext_atto, torchvision/resnet18, ..."""
    data: Data
    out: Path
    """Run folder to write."""
    checkpoint: Path | None = None
    """Weight file (.safetensors, or torch with tensors only), or the folder of a run."""
    pretrained: bool = False
    """Fetch the published weights instead (needs a network)."""
    method: str = "lora"
    """full, probe, bitfit, or an adapter method: lora, flora, lora_tsd, ..."""
    adapter: tuple[str, ...] = ()
    """Fields of the adapter's config, as key=value: r=8 lora_alpha=16 ..."""
    target_modules: tuple[str, ...] = ("all",)
    """Layers to adapt: all, all-linear, all-conv, a regular expression, or several name endings."""
    budget: int | None = None
    """Largest number of adapter parameters, the head not counted; chooses the rank."""
    shots: int = 20
    """Training images per class, drawn by the seed; 0 uses all."""
    classes: tuple[str, ...] = ()
    """Classes to keep; all if not given."""
    image_size: int | None = None
    """Input height and width [px]; the backbone's own if not given."""
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 32
    """Images per batch."""
    learning_rate: float | None = None
    """Of the adapter, or of the whole model with full; the method's default if not given."""
    head_learning_rate: float | None = None
    """Of the classifier; the default if not given."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    schedule: Schedule = "cosine"
    """How learning rates go on after a warm-up: cosine falls to 0, constant stays; onecycle has its own slow rise."""
    layer_decay: float = 1.0
    """Factor on the learning rate from one block to the one below, 0.65 to 0.9 for large models; 1 is none."""
    label_smoothing: float = 0.0
    """Share of each target spread over the classes evenly."""
    label_correlation: str | None = None
    """With several labels an image: homi learns how they depend on each other; none if not given."""
    precision: Precision = "no"
    """no computes in 32 bits; bf16 and fp16 multiply matrices in 16."""
    gradient_accumulation: int = 1
    """Batches per optimiser step."""
    ema_decay: float = 0.0
    """Decay of the average of the weights, which is then kept: 0.99; 0 keeps the last weights."""
    patience: int = 0
    """Epochs without a better validation loss that end training, the best weights kept; 0 trains to the end."""
    validation_fraction: float = 0.2
    """Part of every class's shots set aside to validate on, with --patience."""
    gradient_checkpointing: bool = False
    """Run blocks twice to hold less memory."""
    augment: Augment = "light"
    seed: int = 0
    """Draws the shots, the order, the augmentation and the adapter's first weights."""
    skip_broken: bool = False
    """Leave unreadable images out and report them, instead of stopping."""
    resume: bool = False
    """Go on with the run that is in the folder."""


@dataclass(frozen=True)
class Prepared:
    """Images at the model's size, ready to train and test on.

    Args:
        train: the drawn shots.
        test: the test side.
        classes: class names in the order of the labels.
        validation: shots set aside to validate on; None where nothing is.
    """

    train: Pixels
    test: Pixels
    classes: tuple[str, ...]
    validation: Pixels | None = None

    @property
    def task(self) -> str:
        """What the labels mean, a name from `vision.tasks.TASKS`."""
        return task_of(self.test.labels)


@dataclass(frozen=True)
class FinetuneResult:
    """What a run came to.

    Args:
        folder: the run folder.
        results: what results.json holds.
    """

    folder: Path
    results: dict[str, Any] = field(default_factory=dict)


def finetune(config: FinetuneConfig, *, progress: bool = False) -> FinetuneResult:
    """Fine-tune a backbone and write the run folder.

    Args:
        config: what to do.
        progress: show progress bars.

    Returns:
        The folder and the test scores.

    Raises:
        ConfigError, UnknownNameError, CheckpointError, DataError, TargetError, RankError, RunError: what the user
            gave cannot be used; nothing is written then.
    """
    check_method(config.method)
    if config.checkpoint is None and not config.pretrained:
        fix = "Give --checkpoint FILE, or --pretrained where there is a network"
        raise ConfigError("--checkpoint", "fine-tuning must start from trained weights", "none", fix)
    settings = fit_settings(config)
    images = open_images(config.data, config.classes)
    backbone = build_backbone(
        config.backbone,
        len(images.classes),
        image_size=config.image_size,
        checkpoint=config.checkpoint,
        pretrained=config.pretrained,
        new_head=True,
    )
    progress = progress and is_main()
    prepared = prepare(images, backbone, config.shots, config.seed, skip_broken=config.skip_broken, progress=progress)
    if settings.patience:
        train_part, validation = hold_out(prepared.train, config.validation_fraction, config.seed)
        prepared = dataclasses.replace(prepared, train=train_part, validation=validation)
    if config.label_correlation is not None:
        backbone = correlate(backbone, config.label_correlation, prepared.train.labels)
    trainee = start(backbone, settings, len(prepared.train.labels))
    folder = on_main(lambda: RunFolder.create(config.out, "vision.finetune", comparable(config), resume=config.resume))
    return train_and_save(folder, backbone, trainee, prepared, settings, resume=config.resume, progress=progress)


def fit_settings(config: FinetuneConfig) -> FitSettings:
    """Return the part of the options that `vision.fit.fit` needs.

    Raises:
        ConfigError: an adapter field that is not key=value.
    """
    chosen = {name: value for name, value in vars(config).items() if name in FitSettings.__dataclass_fields__}
    fields = parse_fields(config.adapter)
    if config.method not in PLAIN_METHODS and "target_modules" not in fields:
        fields["target_modules"] = target_pattern(config.target_modules)
    return FitSettings(**{**chosen, "adapter": fields})


def parse_fields(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return key=value words as a dictionary; values are JSON, and plain text where they are not.

    Raises:
        ConfigError: a word without "=".
    """
    fields: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError("--adapter", "must be key=value", repr(pair), "Write for example r=8")
        try:
            fields[key] = loads_json(value, f"--adapter {key}")
        except ConfigError:
            fields[key] = value
    return fields


def target_pattern(words: tuple[str, ...]) -> str | list[str]:
    """Return what `target_modules` means: one "all..." or a regular expression stays text, names become a list."""
    single = len(words) == 1 and (words[0].startswith("all") or not words[0].replace(".", "").isidentifier())
    return words[0] if single else list(words)


def prepare(
    images: ImageData, backbone: Backbone, shots: int, seed: int, *, skip_broken: bool = False, progress: bool = False
) -> Prepared:
    """Draw the shots and decode both sides at the backbone's size.

    Raises:
        DataError: a class with too few images, or a broken image (unless skipped).
    """

    def readable(row: int) -> bool:
        try:
            images.train.read(row)
        except DataError:
            return False
        return True

    rows = draw_shots(images.train, shots, seed, readable if skip_broken else lambda row: True)
    label = "read train images" if progress else None
    train = load_pixels(images.train.take(rows), backbone.data, progress=label)
    label = "read test images" if progress else None
    test = load_pixels(images.test, backbone.data, skip_broken=skip_broken, progress=label)
    return Prepared(train, test, images.classes)


def train_and_save(
    folder: RunFolder,
    backbone: Backbone,
    trainee: Trainee,
    prepared: Prepared,
    settings: FitSettings,
    *,
    resume: bool = False,
    progress: bool = False,
) -> FinetuneResult:
    """Train, score on the test side and write every file of the run.

    Args:
        folder: an open run folder.
        backbone: what the model was built from.
        trainee: what `vision.fit.start` returned.
        prepared: the images.
        settings: how to train.
        resume: go on from the folder's checkpoint.
        progress: show progress bars.

    Returns:
        The folder and the test scores.
    """
    with ExitStack() as held:
        on_main(lambda: _hold(held, folder))
        fitted = fit(
            backbone,
            prepared.train,
            settings,
            trainee=trainee,
            validation=prepared.validation,
            folder=folder,
            resume=resume,
            progress=settings.method if progress else None,
        )
        return on_main(lambda: _write(folder, backbone, fitted, prepared, settings))


def _hold(held: ExitStack, folder: RunFolder) -> None:
    held.enter_context(folder.locked())


def _write(
    folder: RunFolder, backbone: Backbone, fitted: Fitted, prepared: Prepared, settings: FitSettings
) -> FinetuneResult:
    """Score a trained model on the test side and write every file of its run."""
    scores = evaluate(fitted.trainee.model, prepared.test, backbone.data, len(prepared.classes))
    held = prepared.validation
    results = {
        "task": prepared.task,
        **dataclasses.asdict(scores),
        "parameters": {
            "trainable": sum(fitted.trainable.values()),
            **fitted.trainable,
            "total": sum(parameter.numel() for parameter in fitted.trainee.model.parameters()),
        },
        "steps": fitted.steps,
        "kept_step": fitted.kept_step,
        "train_seconds": round(fitted.seconds, 3),
        "train_loss": fitted.loss,
        "train_images": len(prepared.train.labels),
        "validation_images": 0 if held is None else len(held.labels),
        "skipped_images": list(prepared.test.skipped),
    }
    save_examples(folder, normalise(_spread(prepared.test.values), backbone.data))
    task, method, seed = prepared.task, settings.method, settings.seed
    save_model(folder, backbone, fitted.trainee, prepared.classes, method=method, seed=seed, task=task)
    folder.write("results.json", results)
    return FinetuneResult(folder.path, results)


def _spread(values: torch.Tensor) -> torch.Tensor:
    """Return a few images from all over the test side, which is sorted by class."""
    count = len(values)
    return values[torch.linspace(0, count - 1, min(EXAMPLES, count)).long()]


def comparable(config: Any) -> dict[str, Any]:
    """Return a config as JSON values without what may differ when a run is resumed."""
    return {key: value for key, value in to_json(config).items() if key not in ("out", "resume")}
