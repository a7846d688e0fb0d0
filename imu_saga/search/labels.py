"""The label budget of a search, and its halvings by people: either half is fitted on once and judged on once."""

import numpy as np

from imu_saga.windows import WindowSet
from shared_peft.errors import DataError

TRIES = 20  # ours: draws for every halving wanted


def label_folds(windows: WindowSet, shots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the label budget as two folds of different people, at most ``shots`` windows per class in both together.

    Args:
        windows: training windows of at least 2 subjects.
        shots: labelled windows per class.
        seed: seed of the draw.

    Returns:
        Row numbers of the two folds.

    Raises:
        DataError: a class lacks windows on either side.
    """
    generator = np.random.default_rng(seed)
    subjects = generator.permutation(np.unique(windows.subjects))
    if len(subjects) < 2:
        raise DataError("search", "windows must come from 2 subjects or more", len(subjects), "Add people")
    first = np.isin(windows.subjects, subjects[: len(subjects) // 2])
    folds = []
    for side, budget in ((first, shots - shots // 2), (~first, shots // 2)):
        rows = []
        for label, name in enumerate(windows.classes):
            there = np.flatnonzero(side & (windows.labels == label))
            if not len(there):
                fix = "Try another --seed, or add people"
                raise DataError("search", f"class {name!r} must occur in both halves of the people", "none", fix)
            rows.append(generator.permutation(there)[:budget])
        folds.append(np.concatenate(rows))
    return folds[0], folds[1]


def label_halvings(labelled: WindowSet, first: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Return ways to halve the labelled people so that either half shows every class.

    Answers to the few dozen windows of a label budget move in steps of a point or two; several halvings of the same
    windows tell encoders apart that one does not.

    Args:
        labelled: the label budget.
        first: one such half, bool, shape (labelled,): the first that is returned.
        count: halvings wanted; fewer come where few people carry a class.
        seed: seed of the draws.

    Returns:
        Different halves, each bool, shape (labelled,).
    """
    generator = np.random.default_rng(seed)
    people, classes = np.unique(labelled.subjects), np.unique(labelled.labels)
    halves = [first]
    for _ in range(TRIES * count):
        if len(halves) == count:
            break
        half = np.isin(labelled.subjects, generator.permutation(people)[: len(people) // 2])
        seen = any((half == other).all() or (half == ~other).all() for other in halves)
        if not seen and all(np.isin(classes, labelled.labels[side]).all() for side in (half, ~half)):
            halves.append(half)
    return halves
