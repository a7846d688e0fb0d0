"""The comparison of pre-training weights, a benchmark of fixed rows: the same people, label draws and seeds for all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from imu_saga.benchmark.contender import SCRATCH, Contender, contender
from imu_saga.benchmark.engine import Grid, run_benchmark
from imu_saga.benchmark.sides import Sides
from imu_saga.benchmark.starts import Starts
from imu_saga.benchmark.table import score_table
from imu_saga.finetune import FinetuneConfig
from imu_saga.pretrain import PretrainConfig
from imu_saga.search import SearchConfig
from shared_peft.training import RunFolder

POINT_ONLY = {"point": 1.0}

table = score_table


@dataclass(frozen=True)
class ProtocolConfig:
    """What is compared.

    Args:
        shots: labelled windows per class.
        seeds: number of label draws; each is also the seed of fine-tuning.
        pretraining: steps, encoder and learning rate of every pre-training; its weights are set by the row.
        finetuning: method and steps of every fine-tuning; its seed is set by the draw.
        search: how the searched row finds its weights.
        methods: further fine-tuning methods, tried from the equal-weight checkpoint.
        baselines: the classical rows.
    """

    shots: tuple[int, ...] = (10, 50)
    seeds: int = 5
    pretraining: PretrainConfig = field(default_factory=PretrainConfig)
    finetuning: FinetuneConfig = field(default_factory=FinetuneConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    methods: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ("majority", "random_forest")


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
    """Yield the baselines, from scratch, point-only, equal and searched weights, and other methods from equal ones."""
    tuning = replace(config.finetuning, encoder=config.pretraining.encoder)
    for name in (*config.baselines, SCRATCH):
        yield contender(name, tuning, starts.equal)
    yield contender(tuning.method, tuning, lambda sides: starts.weighted("point", POINT_ONLY, sides), name="point")
    yield contender(tuning.method, tuning, starts.equal, name="equal")
    yield contender(tuning.method, tuning, starts.searched, name="searched")
    for method in config.methods:
        yield contender(method, tuning, starts.equal, name=f"equal {method}")
