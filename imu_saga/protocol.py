"""The one-split comparison: the same people, label draws and seeds for every row; resumable after any kill."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from imu_saga.baselines import BASELINES
from imu_saga.card import CARD
from imu_saga.evaluate import score_labels, score_model
from imu_saga.finetune import FinetuneConfig, finetune
from imu_saga.pretrain import EQUAL_WEIGHTS, PretrainConfig, pretrain
from imu_saga.search import SearchConfig, search
from imu_saga.splits import few_shot
from imu_saga.windows import WindowSet
from shared_peft.config import to_json
from shared_peft.training import RunFolder

RECORDS = "records.json"
POINT_ONLY = {"point": 1.0}
NETWORK_ROWS = ("scratch", "point", "equal", "searched")


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
    """

    shots: tuple[int, ...] = (10, 50)
    seeds: int = 5
    pretraining: PretrainConfig = field(default_factory=PretrainConfig)
    finetuning: FinetuneConfig = field(default_factory=FinetuneConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Sides:
    """Windows of the protocol.

    Args:
        unlabelled: for pre-training; people of the training side only.
        train: to draw the few labels from.
        test: people held out of everything.
    """

    unlabelled: WindowSet
    train: WindowSet
    test: WindowSet


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
        One record a row, number of shots and seed: macro-F1 and accuracy in [0, 1].
    """
    records: list[dict[str, Any]] = folder.read(RECORDS) if (folder.path / RECORDS).exists() else []
    done = {(record["row"], record["shots"], record["seed"]) for record in records}
    checkpoints = _Checkpoints(sides, config, folder, tell)
    rows = (*BASELINES.names(), *NETWORK_ROWS, *(f"equal {method}" for method in config.methods))
    for row in rows:
        for shots in config.shots:
            for seed in range(config.seeds):
                if (row, shots, seed) in done:
                    continue
                drawn = few_shot(sides.train, np.arange(len(sides.train)), shots=shots, seed=seed)
                scores = _score(row, sides.train.subset(drawn.train), sides.test, seed, config, checkpoints)
                records.append({"row": row, "shots": shots, "seed": seed, **scores})
                folder.write(RECORDS, records)
                tell(f"{row:>14}  k={shots:<3} seed {seed}  macro-F1 {scores['macro_f1']:.3f}")
    return records


class _Checkpoints:
    """Pre-trained encoders by row, trained when first asked for."""

    def __init__(self, sides: Sides, config: ProtocolConfig, folder: RunFolder, tell: Callable[[str], object]) -> None:
        self.sides, self.config, self.folder, self.tell = sides, config, folder, tell

    def of(self, row: str) -> Path | None:
        """Return the run folder of the row's pre-training, None for "scratch"."""
        if row == "scratch":
            return None
        if row == "searched":
            return self._trained(row, self._searched_weights())
        return self._trained(row, POINT_ONLY if row == "point" else EQUAL_WEIGHTS)

    def _trained(self, name: str, weights: Mapping[str, float]) -> Path:
        path = self.folder.path / f"pretrain_{name}"
        if not (path / CARD).exists():
            config = replace(self.config.pretraining, weights=dict(weights))
            run = RunFolder.create(path, "imu_saga.pretrain", to_json(config), resume=True)
            pretrain(self.sides.unlabelled, config, run, resume=True, progress=f"pretrain {name}")
        return path

    def _searched_weights(self) -> dict[str, float]:
        path = self.folder.path / "search"
        run = RunFolder.create(path, "imu_saga.search", to_json(self.config.search), resume=True)
        start = self._trained("equal", EQUAL_WEIGHTS)
        result = search(
            self.sides.train, start, self.config.pretraining, self.config.search, run,
            tell=lambda trial: self.tell(f"trial {trial['number']}: {trial['score']:.3f}"),
        )  # fmt: skip
        return result.weights


def _score(
    row: str, labelled: WindowSet, test: WindowSet, seed: int, config: ProtocolConfig, checkpoints: _Checkpoints
) -> dict[str, float]:
    if row in BASELINES:
        scored = score_labels(BASELINES.get(row)(seed).fit(labelled).predict(test), test)
    else:
        name, _, method = row.partition(" ")
        method = "scratch" if name == "scratch" else method or config.finetuning.method
        tuning = replace(config.finetuning, method=method, seed=seed, encoder=config.pretraining.encoder)
        _, model = finetune(labelled, tuning, checkpoint=checkpoints.of(name))
        scored = score_model(model, test)
    return {"macro_f1": scored.macro_f1, "accuracy": scored.accuracy}


def table(records: list[dict[str, Any]]) -> str:
    """Return mean +- standard deviation of macro-F1, one line a row, one column a number of shots."""
    shots = sorted({record["shots"] for record in records})
    lines = ["| row | " + " | ".join(f"k={count}" for count in shots) + " |", "|---" * (len(shots) + 1) + "|"]
    for row in dict.fromkeys(record["row"] for record in records):
        cells = []
        for count in shots:
            found = [r["macro_f1"] for r in records if (r["row"], r["shots"]) == (row, count)]
            spread = np.std(found, ddof=1) if len(found) > 1 else 0.0
            cells.append(f"{np.mean(found):.3f} +- {spread:.3f}" if found else "")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
