"""The comparison of ways to pre-train, a benchmark of fixed rows: the same people, label draws and seeds for all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from imu_saga.benchmark.contender import Contender, contender
from imu_saga.benchmark.engine import Grid, run_benchmark
from imu_saga.benchmark.sides import Sides
from imu_saga.benchmark.starts import Starts, given_start
from imu_saga.benchmark.table import score_table
from imu_saga.finetune import FinetuneConfig
from imu_saga.pretrain import PretrainConfig
from imu_saga.search import SearchConfig
from shared_peft.training import RunFolder

table = score_table


@dataclass(frozen=True)
class ProtocolConfig:
    """What is compared.

    Args:
        shots: labelled windows per class.
        seeds: number of label draws; each is also the seed of fine-tuning.
        pretraining: steps, encoder and learning rate of every pre-training; a recipe changes it.
        finetuning: steps of every fine-tuning; method and seed are set by the row and the draw.
        search: how the searched row finds its weights.
        starts: recipes of imu_saga.benchmark.recipes, or "searched".
        methods: fine-tuning methods, tried from every start.
        published: a weight file to start from, too, of the encoder "limu".
        baselines: rows that start from nothing: classical ones, and "scratch".
    """

    shots: tuple[int, ...] = (10, 50)
    seeds: int = 5
    pretraining: PretrainConfig = field(default_factory=PretrainConfig)
    finetuning: FinetuneConfig = field(default_factory=FinetuneConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    starts: tuple[str, ...] = ("span", "rebuild", "equal", "searched")
    methods: tuple[str, ...] = ("discriminant", "full")
    published: Path | None = None
    baselines: tuple[str, ...] = ("majority", "random_forest", "linear_discriminant", "scratch")


def run_protocol(
    sides: Sides, config: ProtocolConfig, folder: RunFolder, *, tell: Callable[[str], object] = lambda line: None
) -> list[dict[str, Any]]:
    """Run every row that is not in ``folder`` yet.

    Args:
        sides: pre-training, training and test windows.
        config: see ProtocolConfig.
        folder: where checkpoints and finished scores are kept.
        tell: called with one line for every finished score.

    Returns:
        One record a row, number of shots and seed: macro-F1 and accuracy in [0, 1], and the rest of `score_cell`.
    """
    starts = Starts(folder.path, config.pretraining, config.search, tell)
    return run_benchmark(
        [sides], list(_rows(config, starts)), Grid(config.shots, config.seeds), folder, tell=tell
    ).records


def _rows(config: ProtocolConfig, starts: Starts) -> Iterator[Contender]:
    """Yield the rows that start from nothing, then every method from every start."""
    tuning = replace(config.finetuning, encoder=config.pretraining.encoder)
    for name in config.baselines:
        yield contender(name, tuning, starts.equal)
    if config.published is not None:
        start = given_start(config.published)
        for method in config.methods:
            yield contender(method, replace(tuning, encoder="limu"), start, name=f"published, {method}")
    for recipe in config.starts:
        for method in config.methods:
            start = partial(starts.by_recipe, recipe)
            yield contender(method, tuning, start, name=f"{recipe}, {method}")
