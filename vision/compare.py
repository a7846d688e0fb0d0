"""Compare methods from one start on one data set over several seeds; every finished training is kept and resumed."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shared_peft.errors import ConfigError
from shared_peft.training import RunFolder
from vision.adapt import check_method
from vision.datasets import draw_shots, open_images
from vision.finetune import comparable, parse_fields, target_pattern
from vision.fit import FitSettings
from vision.protocol import PILOT_SEED, Arena, Source, best_rate, lora_budget, run_cell, run_pilot, settings_for
from vision.transforms import Augment, load_pixels


@dataclass(frozen=True)
class CompareConfig:
    """Options of `python -m vision compare`."""

    backbone: str
    """Model name: resnet20, vit_cifar10, timm/convnext_atto, torchvision/resnet18, ..."""
    data: str
    """Folder of class folders (train/ and test/, or one to split), or "digits"."""
    out: Path
    """Folder to write."""
    checkpoint: Path | None = None
    """Weight file, or the folder of a run."""
    pretrained: bool = False
    """Fetch the published weights instead (needs a network)."""
    methods: tuple[str, ...] = ("probe", "lora", "flora", "lora_tsd", "full")
    """Methods to compare."""
    shots: int = 20
    """Training images per class."""
    seeds: int = 5
    """How many draws of the shots; seeds 0, 1, ..."""
    budget: int | None = None
    """Largest number of adapter parameters; that of plain LoRA of rank 8 if not given."""
    adapter: tuple[str, ...] = ()
    """Fields every adapter shares, as key=value."""
    target_modules: tuple[str, ...] = ("all",)
    """Layers to adapt: all, all-linear, all-conv, a regular expression, or several name endings."""
    rate_factors: tuple[float, ...] = (0.3, 1.0, 3.0)
    """Learning rates tried per method, as multiples of its default; one factor skips the pilot."""
    folds: int = 4
    """Folds of the pilot's cross-validation."""
    validated_folds: int = 2
    """Folds held out in turn; fewer is faster."""
    image_size: int | None = None
    """Input height and width [px]; the backbone's own if not given."""
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 32
    """Images per step."""
    augment: Augment = "light"
    """none; shift moves images by up to an eighth; light also mirrors them."""
    resume: bool = False
    """Go on with the comparison that is in the folder."""


@dataclass(frozen=True)
class Row:
    """One line of the table: means and standard deviations (n - 1) over the seeds."""

    method: str
    learning_rate: float
    accuracy: float
    accuracy_sd: float
    macro_f1: float
    macro_f1_sd: float
    trainable: int
    adapter: int
    seconds: float
    seeds: int


def compare(config: CompareConfig, *, progress: bool = False) -> list[Row]:
    """Run what is missing of the comparison and return its table.

    Args:
        config: what to compare.
        progress: show a progress bar.

    Returns:
        One row per method, also written to table.json; every training's result is in cells.json.

    Raises:
        ConfigError, UnknownNameError, CheckpointError, DataError, RunError: what the user gave cannot be used.
    """
    _check(config)
    images = open_images(config.data)
    source = Source(config.backbone, config.checkpoint, config.pretrained, config.image_size)
    data = source.build(len(images.classes)).data
    for seed in (*range(config.seeds), PILOT_SEED):
        draw_shots(images.train, config.shots, seed)
    test = load_pixels(images.test, data)
    arena = Arena(source, images, test, config.shots, config.folds, config.validated_folds)
    fields = {"target_modules": target_pattern(config.target_modules), **parse_fields(config.adapter)}
    budget = config.budget or lora_budget(source, len(images.classes), 8, fields)
    base = FitSettings(adapter=fields, epochs=config.epochs, batch_size=config.batch_size, augment=config.augment)
    folder = RunFolder.create(config.out, "vision.compare", comparable(config), resume=config.resume)
    with folder.locked():
        cells = _Cells(folder, _count(config), progress=progress)
        rows = [_row(config, arena, settings_for(base, method, budget), cells) for method in config.methods]
        cells.close()
        folder.write("table.json", {"budget": budget, "rows": [dataclasses.asdict(row) for row in rows]})
    return rows


def _check(config: CompareConfig) -> None:
    for method in config.methods:
        check_method(method)
    for name in ("methods", "rate_factors"):
        values = getattr(config, name)
        if not values or len(set(values)) != len(values):
            raise ConfigError(f"--{name}", "must be different values, at least one", values, "Correct the list")
    if not 1 <= config.validated_folds <= config.folds or config.folds < 2:
        got = f"{config.validated_folds} of {config.folds}"
        raise ConfigError("--validated-folds", "must be in [1, folds], folds at least 2", got, "Correct them")
    if config.seeds < 1 or config.shots < config.folds:
        got = f"{config.seeds} seeds, {config.shots} shots, {config.folds} folds"
        raise ConfigError("compare", "needs a seed, and at least as many shots as folds", got, "Correct the numbers")
    if config.checkpoint is None and not config.pretrained:
        fix = "Give --checkpoint FILE, or --pretrained where there is a network"
        raise ConfigError("--checkpoint", "a comparison must start from trained weights", "none", fix)


def _row(config: CompareConfig, arena: Arena, settings: FitSettings, cells: "_Cells") -> Row:
    """Tune one method's learning rate, run its seeds and summarise them."""
    default = settings.rates()[0]
    rates = tuple(default * factor for factor in config.rate_factors)

    def accuracy_of(rate: float) -> float:
        tried = dataclasses.replace(settings, learning_rate=rate)
        found = [
            cells.get(f"pilot/{settings.method}/{rate:.3g}/{fold}", lambda fold=fold: run_pilot(arena, tried, fold))
            for fold in range(config.validated_folds)
        ]
        return sum(cell["accuracy"] * cell["images"] for cell in found) / sum(cell["images"] for cell in found)

    rate = rates[0] if len(rates) == 1 else best_rate(rates, accuracy_of)
    done = []
    for seed in range(config.seeds):
        chosen = dataclasses.replace(settings, learning_rate=rate, seed=seed)
        done.append(cells.get(f"seed/{settings.method}/{seed}", lambda chosen=chosen: run_cell(arena, chosen)))
    accuracy, macro_f1 = (
        torch.tensor([cell[k] for cell in done], dtype=torch.float64) for k in ("accuracy", "macro_f1")
    )
    return Row(
        method=settings.method,
        learning_rate=rate,
        accuracy=float(accuracy.mean()),
        accuracy_sd=float(accuracy.std()) if len(done) > 1 else 0.0,
        macro_f1=float(macro_f1.mean()),
        macro_f1_sd=float(macro_f1.std()) if len(done) > 1 else 0.0,
        trainable=done[0]["trainable"],
        adapter=done[0]["body"],
        seconds=sum(cell["seconds"] for cell in done) / len(done),
        seeds=len(done),
    )


def _count(config: CompareConfig) -> int:
    pilots = len(config.rate_factors) * config.validated_folds if len(config.rate_factors) > 1 else 0
    return len(config.methods) * (pilots + config.seeds)


class _Cells:
    """Results of single trainings, written to cells.json as each one ends."""

    def __init__(self, folder: RunFolder, total: int, *, progress: bool) -> None:
        self._folder, self._bar = folder, None
        self._done: dict[str, Any] = folder.read("cells.json") if (folder.path / "cells.json").exists() else {}
        if progress:
            from tqdm import tqdm  # noqa: PLC0415

            self._bar = tqdm(total=total, desc="compare", unit="training", dynamic_ncols=True)

    def get(self, key: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the result stored under ``key``; run the training first if there is none."""
        if self._bar is not None:
            self._bar.set_postfix_str(key)
        if key not in self._done:
            self._done[key] = run()
            self._folder.write("cells.json", self._done)
        if self._bar is not None:
            self._bar.update()
        return self._done[key]

    def close(self) -> None:
        """End the progress bar."""
        if self._bar is not None:
            self._bar.close()


def format_table(rows: list[Row]) -> str:
    """Return the rows as a text table, accuracies in percent."""
    head = f"{'method':<10} {'accuracy %':>13} {'macro-F1 %':>13} {'trainable':>10} {'adapter':>9} {'rate':>8} {'s':>7}"
    lines = [head, "-" * len(head)]
    for row in rows:
        accuracy = f"{100 * row.accuracy:.1f} +- {100 * row.accuracy_sd:.1f}"
        macro_f1 = f"{100 * row.macro_f1:.1f} +- {100 * row.macro_f1_sd:.1f}"
        lines.append(
            f"{row.method:<10} {accuracy:>13} {macro_f1:>13} {row.trainable:>10,} {row.adapter:>9,} "
            f"{row.learning_rate:>8.2g} {row.seconds:>7.1f}"
        )
    return "\n".join(lines)
