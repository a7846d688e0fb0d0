"""The motion half of the demo: pre-train on unlabelled windows, search the loss weights, label ten windows a class."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deploy.demo.figures import Picture, confusion_matrices, masked_window, search_trace
from deploy.demo.phone import Validation
from deploy.demo.report import Chapter
from deploy.demo.tables import Table
from imu_saga.baselines import BASELINES
from imu_saga.evaluation.scores import score_labels, score_model
from imu_saga.finetune import FinetuneConfig, finetune
from imu_saga.masking_level import MASKING_LEVELS
from imu_saga.mixture import draw_every_level
from imu_saga.pretrain import PretrainConfig, pretrain
from imu_saga.search import SearchConfig, SearchResult, search
from imu_saga.source import DataOptions, load_windows, split_windows
from imu_saga.splits import few_shot, labelled_rows
from imu_saga.trained import FINETUNE_KIND, save_run
from imu_saga.windows import WindowSet
from shared_peft.config import to_json
from shared_peft.progress import Bar
from shared_peft.training import Classification, LabelledRows, RunFolder

SHOTS, TRIALS = 10, 7
PRETRAINING = PretrainConfig(steps=200, batch_size=64, objective="rebuild")
SEARCH = SearchConfig(trials=TRIALS, shots=SHOTS, fraction=0.15, subset=0.5, finetune_steps=25)
TUNED = FinetuneConfig(steps=150, batch_size=32)


def run_motion(out: Path, seed: int) -> tuple[Chapter, list[Path], Validation]:
    """Pre-train, search, fine-tune and compare on people who were held out of everything.

    Args:
        out: folder for the runs.
        seed: of every draw.

    Returns:
        The chapter of the report, the run folders to export, and rows of the training people that had no label.
    """
    options = DataOptions(data="synthetic", split_seed=seed)
    windows, _ = load_windows(options)
    split = split_windows(windows, options)
    train, test = windows.subset(split.train), windows.subset(split.test)
    shots = few_shot(train, labelled_rows(train, np.arange(len(train))), shots=SHOTS, seed=seed)
    few = train.subset(shots.train)

    equal, _ = _pretrained(train, replace(PRETRAINING, seed=seed), out / "saga_equal", "pretrain, equal weights")
    found = _searched(train, out, seed)
    chosen = replace(PRETRAINING, seed=seed, weights=found.weights)
    searched, rebuilder = _pretrained(train, chosen, out / "saga_searched", "pretrain, found weights")

    forest = BASELINES.get("random_forest")(seed).fit(few)
    scores = {"random forest on hand features": score_labels(forest.predict(test), test)}
    runs = []
    for name, method, start in (
        ("network from scratch", "scratch", None),
        ("Saga, equal weights, LoRA-TSD", "lora_tsd", equal),
        ("Saga, found weights, LoRA-TSD", "lora_tsd", searched),
    ):
        run = out / f"activity_{method}_{start.name if start else 'none'}"
        scores[name] = _finetuned(few, test, replace(TUNED, method=method, seed=seed), start, run)
        runs.append(run)
    table = _table(scores, len(split.held_out))
    matrices = confusion_matrices(
        "Confusion matrices", {name: score.confusion for name, score in scores.items()}, windows.classes
    )
    trace = search_trace(
        [trial["score"] for trial in found.trials],
        [trial["weights"] for trial in found.trials],
        next(i for i, trial in enumerate(found.trials) if trial["weights"] == found.weights),
    )
    text = (
        f"Synthetic recordings of {len(np.unique(windows.subjects))} people at the waist, accelerometer and gyroscope. "
        f"{len(split.held_out)} people are held out of everything, pre-training included; the others give "
        f"{len(train)} windows of {windows.seconds:g} s, of which {SHOTS} per activity get a label."
    )
    items = (table, _rebuilt(rebuilder, test, seed), trace, matrices)
    rest = train.subset(np.setdiff1d(np.arange(len(train)), shots.train))
    rows = LabelledRows(torch.from_numpy(rest.x), torch.from_numpy(rest.labels))
    return Chapter("Activities from ten windows", text, items), runs, lambda: rows


def _pretrained(train: WindowSet, config: PretrainConfig, path: Path, label: str) -> tuple[Path, Any]:
    folder = RunFolder.create(path, "imu_saga.pretrain", to_json(config))
    rebuilder, _ = pretrain(train, config, folder, progress=label)
    return path, rebuilder


def _searched(train: WindowSet, out: Path, seed: int) -> SearchResult:
    config = replace(SEARCH, seed=seed)
    folder = RunFolder.create(out / "search", "imu_saga.search", to_json(config))
    with Bar(total=TRIALS, desc="search", unit="trial") as bar:

        def tell(trial: dict[str, Any]) -> None:
            bar.update()

        return search(train, out / "saga_equal", PRETRAINING, config, folder, tell=tell)


def _finetuned(
    few: WindowSet, test: WindowSet, config: FinetuneConfig, start: Path | None, path: Path
) -> Classification:
    folder = RunFolder.create(path, FINETUNE_KIND, to_json(config))
    name, model = finetune(few, config, checkpoint=start, folder=folder, progress=f"finetune, {config.method}")
    scores = score_model(model, test)
    details = {"subjects": sorted(set(few.subjects.tolist()))}
    save_run(folder, name, model, test, {"scores": to_json(scores), "details": details})
    return scores


def _table(scores: dict[str, Classification], people: int) -> Table:
    rows = [(name, f"{score.accuracy:.3f}", f"{score.macro_f1:.3f}") for name, score in scores.items()]
    best = int(np.argmax([score.macro_f1 for score in scores.values()]))
    note = f"Scores on {people} people nobody was trained on, one draw of labels. docs/RESULTS.md has real people."
    return Table(f"Activities from {SHOTS} windows per class", ("method", "accuracy", "macro-F1"), rows, note, (best,))


@torch.no_grad()
def _rebuilt(rebuilder: Any, test: WindowSet, seed: int) -> Picture:
    """Draw one walking window of a held-out person, hidden by every level in turn."""
    levels = MASKING_LEVELS.names()
    row = np.flatnonzero(test.labels == test.classes.index("walk"))[0]
    x, valid = torch.from_numpy(test.x[row : row + 1]), torch.from_numpy(test.valid[row : row + 1])
    generator = torch.Generator().manual_seed(seed)
    masks = draw_every_level(x, valid, levels, generator, rate_hz=test.rate_hz, channels=test.channels)[0]
    guesses, truth = rebuilder.rebuild(x.expand(len(levels), -1, -1), masks)
    times_s = np.arange(x.shape[1]) / test.rate_hz
    shown = dict(zip(levels, masks[..., :3].numpy(), strict=True))
    channels = [f"{name} [g]" for name in test.channels[:3]]
    return masked_window(times_s, truth[0].numpy(), guesses.numpy(), shown, channels)
