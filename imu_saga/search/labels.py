"""The label budget of a search, as two folds of different people: each is fitted on once and judged on once."""

import numpy as np

from imu_saga.windows import WindowSet
from shared_peft.errors import DataError


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
