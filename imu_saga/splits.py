"""Splits that keep people apart, the few labels of a few-shot run, and the check that nothing stands on two sides."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from imu_saga.recording import UNLABELLED
from imu_saga.windows import WindowSet
from shared_peft.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """Positions of windows on two sides.

    Args:
        train: (k,) int64 positions.
        test: (m,) int64 positions.
        held_out: the subjects on the test side.
    """

    train: np.ndarray
    test: np.ndarray
    held_out: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FewShot:
    """The labelled windows a few-shot run may use; no more than k per class in all.

    Args:
        train: (a,) int64 positions to train on.
        validation: (b,) int64 positions to choose by; their labels are part of the budget.
    """

    train: np.ndarray
    validation: np.ndarray


def subject_split(windows: WindowSet, *, test_fraction: float, seed: int) -> Split:
    """Hold out a part of the subjects, at least one and never all.

    Args:
        windows: windows of two subjects or more.
        test_fraction: part of the subjects held out, in (0, 1).
        seed: the same seed gives the same subjects.

    Raises:
        DataError: fewer than two subjects, or a fraction outside (0, 1).
    """
    if not 0 < test_fraction < 1:
        raise DataError(
            "test_fraction", "must be in (0, 1)", test_fraction, "Give the part of the subjects to hold out"
        )
    subjects = _subjects(windows, 2)
    count = min(max(1, round(len(subjects) * test_fraction)), len(subjects) - 1)
    return _held_out(windows, np.random.default_rng(seed).permutation(subjects)[:count])


def group_folds(windows: WindowSet, *, folds: int, seed: int) -> Iterator[Split]:
    """Yield ``folds`` splits; every subject is held out exactly once.

    Args:
        windows: windows of as many subjects as folds, or more.
        folds: number of folds, 2 or more.
        seed: decides which subjects share a fold.

    Raises:
        DataError: fewer than two folds, or fewer subjects than folds.
    """
    if folds < 2:
        raise DataError("folds", "must be 2 or more", folds, "Choose more folds")
    subjects = np.random.default_rng(seed).permutation(_subjects(windows, folds))
    for part in np.array_split(subjects, folds):
        yield _held_out(windows, part)


def leave_one_subject_out(windows: WindowSet) -> Iterator[Split]:
    """Yield one split for each subject, in order of name, that subject held out.

    Raises:
        DataError: fewer than two subjects.
    """
    for subject in _subjects(windows, 2):
        yield _held_out(windows, np.asarray([subject]))


def few_shot(
    windows: WindowSet, rows: np.ndarray, *, shots: int, seed: int, validation_fraction: float = 0.0
) -> FewShot:
    """Draw the labelled windows of a few-shot run: ``shots`` per class, validation included.

    Args:
        windows: all windows.
        rows: (k,) int64 positions to draw from (the training side).
        shots: labelled windows per class, k.
        seed: the same seed gives the same windows; a larger ``shots`` keeps the windows of a smaller one.
        validation_fraction: part of each class's shots set aside to choose by, in [0, 1); rounded to whole windows,
            at least one remains to train on.

    Raises:
        DataError: a class has fewer than ``shots`` windows among ``rows``, or an option is out of range.
    """
    if shots < 1:
        raise DataError("shots", "must be 1 or more", shots, "Give the labelled windows per class")
    if not 0 <= validation_fraction < 1:
        raise DataError("validation_fraction", "must be in [0, 1)", validation_fraction, "Leave windows to train on")
    generator = np.random.default_rng(seed)
    aside = min(round(shots * validation_fraction), shots - 1)
    drawn = []
    for label, name in enumerate(windows.classes):
        candidates = generator.permutation(np.sort(rows[windows.labels[rows] == label]))
        if len(candidates) < shots:
            must = f"must have {shots} labelled windows on the training side"
            raise DataError(f"class {name!r}", must, len(candidates), "Lower shots, add data, or cut more windows")
        drawn.append(candidates[:shots])
    chosen = np.stack(drawn)
    return FewShot(train=np.sort(chosen[:, aside:].ravel()), validation=np.sort(chosen[:, :aside].ravel()))


def labelled_rows(windows: WindowSet, rows: np.ndarray) -> np.ndarray:
    """Return those of ``rows`` that carry a label."""
    return rows[windows.labels[rows] != UNLABELLED]


def check_apart(windows: WindowSet, one: np.ndarray, other: np.ndarray, *, what: str = "split") -> None:
    """Raise unless no window, raw sample, session or subject stands on both sides.

    Args:
        windows: all windows.
        one: positions on one side.
        other: positions on the other side.
        what: the names of the two sides, for the message ("pre-training and test").

    Raises:
        DataError: says what is shared, and names it.
    """
    shared_windows = np.intersect1d(one, other)
    if len(shared_windows):
        raise _leak(what, "window", f"window {int(shared_windows[0])}", len(shared_windows))
    samples = _overlaps(windows, one, other)
    if samples:
        raise _leak(what, "raw sample", samples[0], len(samples))
    for kind, values in (("session", windows.sessions), ("subject", windows.subjects)):
        both = np.intersect1d(values[one], values[other])
        if len(both):
            raise _leak(what, kind, str(both[0]), len(both))


def _overlaps(windows: WindowSet, one: np.ndarray, other: np.ndarray) -> list[str]:
    """Return the sessions in which a window of one side overlaps a window of the other in time."""
    found = []
    tolerance = 0.5 / windows.rate_hz
    for session in np.intersect1d(windows.sessions[one], windows.sessions[other]):
        first = np.sort(windows.start_s[one][windows.sessions[one] == session])
        second = windows.start_s[other][windows.sessions[other] == session]
        after = np.searchsorted(first, second - windows.seconds + tolerance, side="left")
        inside = after < len(first)
        if (first[after[inside]] < second[inside] + windows.seconds - tolerance).any():
            found.append(str(session))
    return found


def _leak(what: str, kind: str, example: str, count: int) -> DataError:
    fix = "Split by subject, and cut windows without overlap"
    return DataError(what, f"no {kind} may stand on both sides", f"{count} that do, {example} first", fix)


def _subjects(windows: WindowSet, least: int) -> np.ndarray:
    subjects = np.unique(windows.subjects)
    if len(subjects) < least:
        fix = "Add subjects, or name the column that tells them apart"
        raise DataError("windows", f"must come from {least} subjects or more", len(subjects), fix)
    return subjects


def _held_out(windows: WindowSet, subjects: np.ndarray) -> Split:
    outside = np.isin(windows.subjects, subjects)
    names = tuple(sorted(str(subject) for subject in subjects))
    return Split(np.flatnonzero(~outside), np.flatnonzero(outside), names)
