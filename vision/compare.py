"""Compare methods from one start on one data set over shots and seeds; every finished training is kept and resumed."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from shared_peft.errors import ConfigError
from shared_peft.picture import new_figure
from shared_peft.training import Difference, RunFolder
from vision.adapt import check_method
from vision.comparison.arena import PILOT_SEED, Arena, Source, run_cell
from vision.comparison.cells import Cell, Cells
from vision.comparison.contender import Contender, contenders, lora_budget
from vision.comparison.counts import parse_count
from vision.comparison.lists import Floats, Integers, Words
from vision.comparison.noise import paired_differences
from vision.comparison.pace import paces
from vision.comparison.page import Comparison, write_comparison
from vision.comparison.rivals import RIVALS
from vision.comparison.table import row_of
from vision.comparison.tuning import Tuning
from vision.datasets import draw_shots, open_images
from vision.finetune import comparable, parse_fields, target_pattern
from vision.fit import FitSettings
from vision.options import Augment, Data
from vision.transforms import load_pixels

_MAY_GROW = ("methods", "shots", "seeds", "against")
_RESAMPLING_SEED = 0


@dataclass(frozen=True)
class CompareConfig:
    """Options of `python -m vision compare`."""

    backbone: str
    """Model name: resnet20, vit_cifar10, timm/convnext_atto, torchvision/resnet18, ..."""
    data: Data
    out: Path
    """Folder to write."""
    checkpoint: Path | None = None
    """Weight file, or the folder of a run."""
    pretrained: bool = False
    """Fetch the published weights instead (needs a network)."""
    methods: Words = ("probe", "lora", "flora", "lora_tsd", "full")
    """Methods to compare: probe, bitfit, full, or adapters. Lists are apart by commas or spaces."""
    shots: Integers = (20,)
    """Training images per class."""
    seeds: int = 5
    """How many draws of the shots; seeds 0, 1, ..."""
    budget: str | None = None
    """Largest number of adapter parameters, the head not counted: 20000, 20k, 1.5M; that of LoRA of rank 8 if none."""
    against: Words = ()
    """Other libraries to train beside: peft (Hugging Face), next to method lora."""
    adapter: tuple[str, ...] = ()
    """Fields every adapter shares, as key=value."""
    target_modules: tuple[str, ...] = ("all",)
    """Layers to adapt: all, all-linear, all-conv, a regular expression, or several name endings."""
    classes: tuple[str, ...] = ()
    """Classes to keep; all if not given."""
    rate_factors: Floats = (0.1, 0.3, 1.0, 3.0, 10.0)
    """Learning rates tried per method, as multiples of its default; one factor skips the trial."""
    tune_shots: int | None = None
    """Choose every rate at this number of shots; each number of shots chooses its own if not given."""
    folds: int = 4
    """Folds of the cross-validation that chooses rates; fewer where there are fewer shots."""
    validated_folds: int = 4
    """Folds held out in turn; fewer is faster."""
    image_size: int | None = None
    """Input height and width [px]; the backbone's own if not given."""
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 32
    """Images per step."""
    augment: Augment = "light"
    resume: bool = False
    """Go on with the comparison in the folder; methods, shots, seeds and rivals may be added."""


def compare(config: CompareConfig, *, progress: bool = False) -> Comparison:
    """Run what is missing of a comparison and write its results.

    Args:
        config: what to compare.
        progress: show a progress bar.

    Returns:
        Rows, differences and single results, also written to the folder.

    Raises:
        ConfigError, UnknownNameError, CheckpointError, DataError, RankError, TargetError, RunError: what the user gave
            cannot be used; nothing is written then.
        MissingPackageError: matplotlib, or a rival's package, is not installed.
    """
    _check(config)
    new_figure("compare", 1, 1)  # a missing matplotlib is told before the work
    images = open_images(config.data, config.classes)
    source = Source(config.backbone, config.checkpoint, config.pretrained, config.image_size)
    start = source.build(len(images.classes))
    for seed in (*range(config.seeds), PILOT_SEED):
        draw_shots(images.train, max(config.shots), seed)
    fields = {"target_modules": target_pattern(config.target_modules), **parse_fields(config.adapter)}
    budget = lora_budget(start, 8, fields) if config.budget is None else parse_count(config.budget, "--budget")
    base = FitSettings(adapter=fields, epochs=config.epochs, batch_size=config.batch_size, augment=config.augment)
    rows = contenders(config.methods, config.against, base, budget)
    for row in rows:  # a rank that a layer cannot have is told before the work
        row.begin(source.build(len(images.classes)), row.settings, min(config.shots) * len(images.classes))
    arena = Arena(source, images, load_pixels(images.test, start.data), config.folds)
    kept = {name: value for name, value in comparable(config).items() if name not in _MAY_GROW}
    folder = RunFolder.create(config.out, "vision.compare", kept, resume=config.resume)
    with folder.locked():
        done = _run(config, arena, rows, budget, folder, progress=progress)
        write_comparison(folder, done)
    return done


def _check(config: CompareConfig) -> None:
    for method in config.methods:
        check_method(method)
    for name in config.against:
        RIVALS.get(name)
    for name in ("methods", "rate_factors", "shots"):
        values = getattr(config, name)
        if not values or len(set(values)) != len(values):
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(flag, "must be different values, at least one", values, "Correct the list")
    for name, least in (("seeds", 1), ("shots", 1), ("tune_shots", 2), ("rate_factors", 1e-9)):
        value = getattr(config, name)
        smallest = min(value) if isinstance(value, tuple) else value
        if smallest is not None and smallest < least:
            must = f"must be at least {least}"
            raise ConfigError(f"--{name.replace('_', '-')}", must, smallest, "Raise it")
    if not 1 <= config.validated_folds <= config.folds or config.folds < 2:
        got = f"{config.validated_folds} of {config.folds}"
        raise ConfigError("--validated-folds", "must be in [1, folds], folds at least 2", got, "Correct them")
    if config.checkpoint is None and not config.pretrained:
        fix = "Give --checkpoint FILE, or --pretrained where there is a network"
        raise ConfigError("--checkpoint", "a comparison must start from trained weights", "none", fix)


def _run(
    config: CompareConfig, arena: Arena, rows: list[Contender], budget: int, folder: RunFolder, *, progress: bool
) -> Comparison:
    """Run the trainings that are missing and summarise all that were asked for."""
    tuning = Tuning(config.rate_factors, config.validated_folds, config.tune_shots)
    tuned = [row for row in rows if not row.tuned_as]
    pilots = sum(tuning.pilots(shots, config.folds) for shots in config.shots) * len(tuned)
    table, differences, cells = [], [], []
    with Cells(folder, pilots + len(rows) * len(config.shots) * config.seeds, progress=progress) as kept:
        for shots in sorted(config.shots):
            rates = {row.name: tuning.choose(arena, row, shots, kept) for row in tuned}
            rates |= {row.name: (rates[row.tuned_as][0], f"as {row.tuned_as}") for row in rows if row.tuned_as}
            found = _run_seeds(arena, [row.at_rate(rates[row.name][0]) for row in rows], shots, config.seeds, kept)
            table += [row_of(found[row.name], rates[row.name][1]) for row in rows]
            differences += _differences(arena, found, shots, kept)
            cells += [cell for row in rows for cell in found[row.name]]
    return Comparison(arena.task.headline_title, budget, table, differences, cells, paces(rows, cells))


def _run_seeds(arena: Arena, rows: list[Contender], shots: int, seeds: int, kept: Cells) -> dict[str, list[Cell]]:
    """Train every row on every draw; rows take turns, the other way round every second draw, so that times compare."""
    found: dict[str, list[Cell]] = {row.name: [] for row in rows}
    for seed in range(seeds):
        for row in rows[:: -1 if seed % 2 else 1]:
            run = partial(run_cell, arena, row, shots, seed)
            found[row.name].append(kept.answered(_key(row.name, shots, seed), run))
    return found


def _differences(arena: Arena, found: dict[str, list[Cell]], shots: int, kept: Cells) -> list[Difference]:
    """Compare all rows at one number of shots by what their trainings kept of their answers."""
    labels, images = arena.test.labels, len(arena.test.labels)
    scores = {
        name: [
            partial(_weighted, arena, kept.evidence(_key(name, shots, cell["seed"]), images), labels) for cell in cells
        ]
        for name, cells in found.items()
    }
    return paired_differences(scores, images, shots, np.random.default_rng(_RESAMPLING_SEED))


def _weighted(arena: Arena, evidence: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return arena.task.weighted(evidence, labels, weights)


def _key(name: str, shots: int, seed: int) -> str:
    return f"seed/{name}/{shots}/{seed}"
