"""Learning from planted ambiguity on real data: every partial-label method, macro-F1 on people held out.

Run: python -m tests.benchmarks.partial_labels --root FOLDER_OF_SISFALL [--out runs/partial_labels] [--checkpoint RUN]
[--seeds 3] [--shots 50] [--steps 150]

Of the training people 50 windows of each of SisFall's seven classes are drawn. Each carries its true label and, by
column, 1, 2 or 3 others drawn evenly, or with probability 0.7 the class it is most easily taken for ("confusable").
The line below the first table is training on the true labels themselves. Without --checkpoint a small encoder is
pre-trained for each seed on the training people's windows without their labels. A run that was stopped goes on where
it was. About 4 minutes of one core.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from imu_saga.candidates import label_sets
from imu_saga.card import WEIGHTS
from imu_saga.evaluation.scores import score_model
from imu_saga.finetune import FinetuneConfig, finetune, predict_probabilities
from imu_saga.partial_labels import PARTIAL_LABEL_METHODS
from imu_saga.partial_labels.belief import within
from imu_saga.pretrain import PretrainConfig, pretrain
from imu_saga.source import DataOptions, load_windows
from imu_saga.splits import few_shot, subject_split
from imu_saga.windows import WindowSet
from shared_peft.training import RunFolder

KIND = "benchmark.partial_labels"
ENCODER = {"width": 48, "depth": 2, "heads": 4}
TAKEN_FOR = {
    "walking": "stairs",
    "stairs": "walking",
    "jogging": "stairs",
    "chair": "bending",
    "bending": "chair",
    "lying": "chair",
    "car": "chair",
}
CONFUSED = 0.7
TRUE = "0 random"
PLANTED = ("1 random", "2 random", "3 random", "confusable")


def planted(windows: WindowSet, kind: str, generator: np.random.Generator) -> np.ndarray:
    """Return sets of the true label and wrong ones, bool, shape (windows, classes)."""
    sets = label_sets(windows)
    if kind == "confusable":
        other = np.asarray([windows.classes.index(TAKEN_FOR[name]) for name in windows.classes])
        sets[np.arange(len(windows)), other[windows.labels]] |= generator.random(len(windows)) < CONFUSED
        return sets
    count = int(kind.partition(" ")[0])
    order = np.where(sets, 2.0, generator.random(sets.shape)).argsort(axis=1)  # the true label comes last
    sets[np.arange(len(windows))[:, None], order[:, :count]] = True
    return sets


def pretrained(folder: Path, windows: WindowSet, seed: int) -> Path:
    """Return a small pre-trained run, made if it is not there yet."""
    path = folder / f"pre_{seed}"
    if not (path / WEIGHTS).exists():
        shutil.rmtree(path, ignore_errors=True)
        run = RunFolder.create(path, "imu_saga.pretrain", {})
        config = PretrainConfig(steps=250, batch_size=64, options=ENCODER, seed=seed)
        pretrain(replace(windows, labels=np.full(len(windows), -1)), config, run, progress=f"pre-train {seed}")
    return path


def measured(
    train: WindowSet, test: WindowSet, sets: np.ndarray, config: FinetuneConfig, checkpoint: Path
) -> tuple[float, float]:
    """Return macro-F1 on the test side, and the share of training windows whose true label is found in its set."""
    label = f"{config.partial} {config.seed}"
    _, model = finetune(train, config, candidates=sets, checkpoint=checkpoint, progress=label)
    scores = predict_probabilities(model, train.x).log()
    found = within(scores, torch.from_numpy(sets)).argmax(1).numpy() == train.labels
    return score_model(model, test).macro_f1, float(found.mean())


def table(records: list[dict], field: str, seeds: int) -> list[str]:
    """Return a markdown table of one field: mean +- deviation over the seeds, and the gain over the average loss."""
    lines = ["| learnt by | " + " | ".join(PLANTED) + " |", "|---" * (len(PLANTED) + 1) + "|"]
    for method in PARTIAL_LABEL_METHODS.names():
        row = []
        for kind in PLANTED:
            own, base = (values(records, field, name, kind, seeds) for name in (method, "average"))
            gain = f" ({(own - base).mean():+.3f})" if method != "average" else ""
            row.append(f"{spread(own)}{gain}")
        lines.append(f"| {method} | " + " | ".join(row) + " |")
    return lines


def values(records: list[dict], field: str, method: str, kind: str, seeds: int) -> np.ndarray:
    """Return a field of one cell by seed, shape (seeds,)."""
    found = {(each["method"], each["planted"], each["seed"]): each[field] for each in records}
    return np.asarray([found[method, kind, seed] for seed in range(seeds)])


def spread(numbers: np.ndarray) -> str:
    """Return mean +- deviation."""
    return f"{numbers.mean():.3f} +- {numbers.std(ddof=min(1, len(numbers) - 1)):.3f}"


def measure(folder: RunFolder, windows: WindowSet, given: argparse.Namespace) -> None:
    """Measure every cell that is not in the folder's log yet."""
    done = {(each["method"], each["planted"], each["seed"]) for each in folder.read_log()}
    wanted = [("average", TRUE), *((name, kind) for kind in PLANTED for name in PARTIAL_LABEL_METHODS.names())]
    for seed in range(given.seeds):
        split = subject_split(windows, test_fraction=0.25, seed=seed)
        train = windows.subset(few_shot(windows, split.train, shots=given.shots, seed=seed).train)
        test = windows.subset(split.test)
        for name, kind in wanted:
            if (name, kind, seed) in done:
                continue
            checkpoint = given.checkpoint or pretrained(folder.path, windows.subset(split.train), seed)
            sets = planted(train, kind, np.random.default_rng((seed, (*PLANTED, TRUE).index(kind))))
            config = FinetuneConfig(steps=given.steps, learning_rate=2e-3, partial=name, seed=seed)
            macro_f1, found = measured(train, test, sets, config, checkpoint)
            folder.log(method=name, planted=kind, seed=seed, macro_f1=macro_f1, found=found)


def main() -> None:
    """Run what is missing and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of SisFall")
    parser.add_argument("--out", type=Path, default=Path("runs/partial_labels"))
    parser.add_argument("--checkpoint", type=Path, help="a pre-training run that never saw a test person")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shots", type=int, default=50)
    parser.add_argument("--steps", type=int, default=150)
    given = parser.parse_args()
    asked = {"shots": given.shots, "steps": given.steps, "checkpoint": str(given.checkpoint)}
    folder = RunFolder.create(given.out, KIND, asked, resume=True)
    windows, _ = load_windows(DataOptions(data="sisfall", root=given.root))
    measure(folder, windows, given)
    records = folder.read_log()
    print("Macro-F1 on people held out (gain over the average loss):\n")
    print("\n".join(table(records, "macro_f1", given.seeds)))
    print(f"\nOn the true labels: {spread(values(records, 'macro_f1', 'average', TRUE, given.seeds))}")
    print("\nTrue labels found among the candidates of the training windows:\n")
    print("\n".join(table(records, "found", given.seeds)))


if __name__ == "__main__":
    main()
