"""Splits that keep people apart, the few labels of a few-shot run, and the check that nothing stands on two sides."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from imu_saga.recording import UNLABELLED
from imu_saga.windows import WindowSet
from shared_peft.errors import DataError

SHOTS = (1, 2, 5, 10, 25, 50, 100)  # labelled windows per class of the few-shot protocol (ours)
Kind = Literal["window", "sample", "session", "subject", "placement", "dataset"]
KINDS: tuple[Kind, ...] = ("window", "sample", "session", "subject", "placement", "dataset")
PEOPLE_APART: tuple[Kind, ...] = ("window", "sample", "session", "subject")


@dataclass(frozen=True, eq=False)
class Split:
    """Positions of windows on two sides, and of people who stand outside both.

    Args:
        train: (k,) int64 positions.
        test: (m,) int64 positions.
        held_out: names of what the test side has for itself.
        kind: what these names are: subjects, sessions, placements, data sets or windows.
        impostors: (i,) int64 positions of people seen neither in training nor in testing.
    """

    train: np.ndarray
    test: np.ndarray
    held_out: tuple[str, ...]
    kind: Kind = "subject"
    impostors: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __str__(self) -> str:
        shown = ", ".join(self.held_out[:20]) + (", ..." if len(self.held_out) > 20 else "")
        return f"{len(self.held_out)} {self.kind}{'s' * (len(self.held_out) != 1)}: {shown}"


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
    return hold_out(windows, drawn_part(subjects_of(windows, 2), test_fraction, np.random.default_rng(seed)))


def drawn_part(names: np.ndarray, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Return a random part of 2 names or more, at least one and never all.

    Raises:
        DataError: a fraction outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise DataError("test_fraction", "must be in (0, 1)", fraction, "Give the part of the subjects to hold out")
    count = min(max(1, round(len(names) * fraction)), len(names) - 1)
    return generator.permutation(names)[:count]


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
    subjects = np.random.default_rng(seed).permutation(subjects_of(windows, folds))
    for part in np.array_split(subjects, folds):
        yield hold_out(windows, part)


def leave_one_subject_out(windows: WindowSet) -> Iterator[Split]:
    """Yield one split for each subject, in order of name, that subject held out.

    Raises:
        DataError: fewer than two subjects.
    """
    for subject in subjects_of(windows, 2):
        yield hold_out(windows, np.asarray([subject]))


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


def check_apart(
    windows: WindowSet,
    one: np.ndarray,
    other: np.ndarray,
    *,
    what: str = "split",
    kinds: Sequence[Kind] = PEOPLE_APART,
) -> None:
    """Raise unless nothing of the ``kinds`` stands on both sides.

    Args:
        windows: all windows.
        one: positions on one side.
        other: positions on the other side.
        what: the names of the two sides, for the message ("pre-training and test").
        kinds: what must be apart: windows, raw samples, sessions, subjects, placements, data sets.

    Raises:
        DataError: says what is shared, and names it.
    """
    for kind in KINDS:
        shared = _shared(windows, one, other, kind) if kind in kinds else []
        if shared:
            named = "raw sample" if kind == "sample" else kind
            fix = "Split by subject, and cut windows without overlap"
            got = f"{len(shared)} that do, {shared[0]} first"
            raise DataError(what, f"no {named} may stand on both sides", got, fix)


def occasions(windows: WindowSet) -> np.ndarray:
    """Return (n,) str, each window's session without its placement: devices worn at once share an occasion."""
    pairs, where = np.unique(np.stack([windows.sessions, windows.placements], axis=1), axis=0, return_inverse=True)
    names = [session.removesuffix(f"/{placement}") for session, placement in pairs.tolist()]
    return np.asarray(names, dtype=np.str_)[where.reshape(-1)]


def without_overlap(windows: WindowSet, rows: np.ndarray) -> np.ndarray:
    """Return those of ``rows`` that share no raw sample with an earlier one kept, in order of time (greedy)."""
    order = rows[np.lexsort((windows.start_s[rows], windows.sessions[rows]))]
    kept, session, free_s = [], None, 0.0
    tolerance = 0.5 / windows.rate_hz
    for row, here, start_s in zip(order.tolist(), windows.sessions[order], windows.start_s[order], strict=True):
        if here != session or start_s > free_s - tolerance:
            kept.append(row)
            session, free_s = here, start_s + windows.seconds
    return np.sort(np.asarray(kept, dtype=np.int64))


def _shared(windows: WindowSet, one: np.ndarray, other: np.ndarray, kind: Kind) -> list[str]:
    """Return the names of what stands on both sides."""
    if kind == "window":
        return [f"window {row}" for row in np.intersect1d(one, other)]
    if kind == "sample":
        return _overlaps(windows, one, other)
    values = {
        "session": occasions,
        "subject": lambda these: these.subjects,
        "placement": lambda these: these.placements,
        "dataset": lambda these: these.datasets,
    }[kind](windows)
    return np.intersect1d(values[one], values[other]).tolist()


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


def subjects_of(windows: WindowSet, least: int = 1) -> np.ndarray:
    """Return the subjects' names, sorted.

    Raises:
        DataError: fewer than ``least``.
    """
    subjects = np.unique(windows.subjects)
    if len(subjects) < least:
        fix = "Add subjects, or name the column that tells them apart"
        raise DataError("windows", f"must come from {least} subjects or more", len(subjects), fix)
    return subjects


def hold_out(windows: WindowSet, subjects: np.ndarray) -> Split:
    """Return the split with these subjects' windows on the test side, all others' on the training side."""
    outside = np.isin(windows.subjects, subjects)
    names = tuple(sorted(str(subject) for subject in subjects))
    return Split(np.flatnonzero(~outside), np.flatnonzero(outside), names)
