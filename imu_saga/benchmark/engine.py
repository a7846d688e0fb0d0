"""The one engine of comparisons: contenders x folds x shots x seeds to records, resumable after any kill."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from imu_saga.benchmark.contender import Cell, Contender
from imu_saga.benchmark.records import Key, Record, Records, score_cell
from imu_saga.benchmark.sides import Sides
from imu_saga.splits import SHOTS, few_shot
from imu_saga.windows import WindowSet
from shared_peft.errors import ConfigError, DataError
from shared_peft.training import RunFolder

ALL = 0  # as a number of shots: every label of the training side


@dataclass(frozen=True)
class Grid:
    """What is run for every contender and fold.

    Args:
        shots: labelled windows per class; 0 for all.
        seeds: number of label draws; each also seeds the contender.
    """

    shots: tuple[int, ...] = SHOTS
    seeds: int = 5

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 0 or len(set(self.shots)) < len(self.shots):
            must = "must be different numbers, 0 (all labels) or more"
            raise ConfigError("--shots", must, self.shots, "Use 1 5 10 50 0")
        if self.seeds < 1:
            raise ConfigError("--seeds", "must be 1 or more", self.seeds, "Use 5")


@dataclass(frozen=True, eq=False)
class Benchmark:
    """What a benchmark found.

    Args:
        records: one a cell, in the order of rows, folds, shots and seeds.
        notes: what was left out and why.
    """

    records: list[Record]
    notes: tuple[str, ...]


def run_benchmark(
    folds: Sequence[Sides],
    contenders: Sequence[Contender],
    grid: Grid,
    folder: RunFolder,
    *,
    tell: Callable[[str], object] = lambda line: None,
    progress: str | None = None,
) -> Benchmark:
    """Run every cell that is not in ``folder`` yet.

    Args:
        folds: the sides of every fold.
        contenders: the rows, of different names.
        grid: see Grid.
        folder: where finished records are kept; whoever creates it refuses another recipe.
        tell: called with one line for every cell finished now.
        progress: label of the progress bar; None shows none.

    Returns:
        All records of the grid, and the notes.

    Raises:
        ConfigError: no row, or two of one name.
        DataError: no number of shots that the training sides have labels for, or a fold without test labels.
    """
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) < len(names):
        raise ConfigError("--methods", "must be different names, one at least", " ".join(names), "Correct the list")
    _check(folds)
    shots, notes = possible_shots(folds, grid.shots)
    kept = Records(folder)
    cells = [
        (contender, sides, Key(contender.name, sides.name, count, seed))
        for contender in contenders
        for sides in folds
        for count in shots
        for seed in range(grid.seeds)
    ]
    with _bar(progress, len(cells), sum(key in kept for *_, key in cells)) as bar:
        for contender, sides, key in (cell for cell in cells if cell[2] not in kept):
            labelled = draw_labels(sides.train, key.shots, key.seed)
            scores = score_cell(contender.answer(Cell(sides, labelled, key.seed)), sides.test)
            kept.add(key, {"labels": len(labelled), **scores})
            bar.update()
            size = "all" if key.shots == ALL else key.shots
            tell(f"{key.row:>14}  fold {key.fold}  k={size:<3} seed {key.seed}  macro-F1 {scores['macro_f1']:.3f}")
    by_key = {Key(**{name: record[name] for name in Key.__annotations__}): record for record in kept}
    return Benchmark(
        [by_key[key] for *_, key in cells], (*notes, *(f"fold {s.name}: {s.note}" for s in folds if s.note))
    )


def possible_shots(folds: Sequence[Sides], shots: Sequence[int]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the numbers of shots that every fold has labels for, ascending with "all" last, and a note on others.

    Raises:
        DataError: none is left.
    """
    poorest = []
    for sides in folds:
        counts = np.bincount(sides.train.labels, minlength=len(sides.train.classes))
        seen = np.flatnonzero(counts)
        scarce = int(seen[counts[seen].argmin()])
        poorest.append((int(counts[scarce]), sides.train.classes[scarce], sides.name))
    least, scarce, fold = min(poorest)
    left_out = sorted(count for count in shots if count > least)
    notes = tuple(f"k={count} left out: class {scarce!r} has {least} windows in fold {fold}" for count in left_out)
    kept = sorted((count for count in shots if count <= least), key=lambda count: count or np.inf)
    if not kept:
        must = f"must be {least} or less: class {scarce!r} has no more windows in fold {fold}"
        raise DataError("--shots", must, min(shots), "Lower it, add data, or use 0 for all labels")
    return tuple(kept), notes


def draw_labels(train: WindowSet, shots: int, seed: int) -> WindowSet:
    """Return the windows whose labels may be used: ``shots`` of every class the training side shows, 0 for all.

    The same seed gives the same windows; more shots keep those of fewer.
    """
    if shots == ALL:
        return train
    shown, codes = np.unique(train.labels, return_inverse=True)
    only_shown = replace(train, labels=codes.astype(np.int64), classes=tuple(train.classes[label] for label in shown))
    return train.subset(few_shot(only_shown, np.arange(len(train)), shots=shots, seed=seed).train)


def fingerprint(folds: Sequence[Sides]) -> str:
    """Return a digest of the windows, labels and people of every fold, so that other data are not taken for these."""
    digest = hashlib.sha256()
    for sides in folds:
        for windows in (sides.train, sides.test):
            digest.update(repr((sides.name, windows.x.shape, windows.classes, windows.channels)).encode())
            for values in (windows.x, windows.labels, windows.start_s):
                digest.update(np.ascontiguousarray(values).tobytes())
            digest.update("\n".join([*windows.subjects.tolist(), *windows.sessions.tolist()]).encode())
    return digest.hexdigest()


def _check(folds: Sequence[Sides]) -> None:
    if not folds or len({sides.name for sides in folds}) < len(folds):
        raise DataError("benchmark", "must have folds of different names", len(folds), "Choose another --protocol")
    for sides in folds:
        for side, windows in (("training", sides.train), ("test", sides.test)):
            known = int((windows.labels >= 0).sum())
            if not known or known < len(windows):
                must = f"the {side} side must hold labelled windows, and no others"
                fix = "Try another --split-seed, or label more"
                raise DataError(f"fold {sides.name}", must, f"{known} of {len(windows)} labelled", fix)


def _bar(label: str | None, total: int, done: int) -> Any:
    from shared_peft.progress import Bar  # noqa: PLC0415

    return Bar(total=total, initial=done, desc=label, unit="cell", dynamic_ncols=True, disable=label is None)
