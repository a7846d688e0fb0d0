"""Candidate labels from a table: a stretch of a session that is one of several activities (a diary, two annotators)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imu_saga.files.tables import read_table
from imu_saga.splits import occasions
from imu_saga.windows import WindowSet
from shared_peft.errors import DataError

BETWEEN = "|"


@dataclass(frozen=True, eq=False)
class CandidateTable:
    """Rows of a table of candidates.

    Args:
        path: the file.
        sessions: (rows,) str.
        start_s: (rows,) float64, on the session's clock [s].
        end_s: (rows,) float64 [s].
        sets: (rows, classes) bool.
    """

    path: Path
    sessions: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray
    sets: np.ndarray


def read_candidates(path: Path, classes: tuple[str, ...]) -> CandidateTable:
    """Read a table with the columns session, start_s, end_s and candidates, those separated by "|".

    Args:
        path: a text file with a header line.
        classes: the class names the candidates may be.

    Raises:
        DataError: a missing column, a stretch that doesn't end after it starts, no candidate, or an unknown one.
    """
    numbers, texts = read_table(path, ("start_s", "end_s"), ("session", "candidates"))
    start_s, end_s = numbers["start_s"], numbers["end_s"]
    backward = np.flatnonzero(~(np.isfinite(start_s) & np.isfinite(end_s) & (end_s > start_s)))
    if len(backward):
        row = int(backward[0])
        came = f"start_s {start_s[row]:g}, end_s {end_s[row]:g}"
        raise DataError(f"{path}, row {row + 2}", "end_s must come after start_s", came, "Correct the times [s]")
    sets = np.zeros((len(start_s), len(classes)), bool)
    for row, cell in enumerate(texts["candidates"].tolist()):
        for name in (part.strip() for part in cell.split(BETWEEN)):
            if name not in classes:
                must = f"must be names among {', '.join(classes)}, separated by {BETWEEN}"
                raise DataError(f"{path}, row {row + 2}, column candidates", must, repr(cell), "Correct the names")
            sets[row, classes.index(name)] = True
    return CandidateTable(path, texts["session"], start_s, end_s, sets)


def label_sets(windows: WindowSet) -> np.ndarray:
    """Return each window's label as a set of one, empty where it has none: bool, shape (n, classes)."""
    return windows.labels[:, None] == np.arange(len(windows.classes))


def with_candidates(windows: WindowSet, sets: np.ndarray) -> tuple[WindowSet, np.ndarray]:
    """Return the windows that have a candidate, and their sets: bool, shape (kept, classes).

    Raises:
        DataError: sets that aren't bool, one row a window and one column a class.
    """
    shape = (len(windows), len(windows.classes))
    if sets.shape != shape or sets.dtype != bool:
        raise DataError(
            "candidates", f"must be bool of shape {shape}", f"{sets.dtype} {sets.shape}", "Mark the classes"
        )
    kept = np.flatnonzero(sets.any(axis=1))
    return windows.subset(kept), sets[kept]


def candidate_sets(windows: WindowSet, table: CandidateTable) -> tuple[np.ndarray, np.ndarray]:
    """Give each window the candidates of the stretches it falls inside, or else its label.

    A window inside several stretches, of two annotators for example, may be whatever any of them says. A session is
    named by its address (data set/subject/session/placement) or by any run of its parts that leaves one occasion;
    devices worn at once share it.

    Args:
        windows: windows on one class list, the table's.
        table: see read_candidates.

    Returns:
        Sets, bool, shape (n, classes), empty for a window without label or candidates; and where they come from the
        table, bool, shape (n,).

    Raises:
        DataError: a session nobody recorded or that fits several, or stretches that hold no window at all.
    """
    told = np.zeros((len(windows), len(windows.classes)), bool)
    rows_of = {name: _rows_named(windows, name, table.path) for name in np.unique(table.sessions).tolist()}
    tolerance = 0.5 / windows.rate_hz
    end_s = windows.start_s + windows.seconds
    for session, start, end, named in zip(table.sessions.tolist(), table.start_s, table.end_s, table.sets, strict=True):
        rows = rows_of[session]
        inside = (windows.start_s[rows] >= start - tolerance) & (end_s[rows] <= end + tolerance)
        told[rows[inside]] |= named
    found = np.asarray(told.any(axis=1))
    if not found.any():
        must = f"a window of {windows.seconds:g} s must fall inside a stretch"
        raise DataError(table.path, must, "none", "Check the times [s], or cut shorter windows with --seconds")
    return np.where(found[:, None], told, label_sets(windows)), found


def _rows_named(windows: WindowSet, name: str, path: Path) -> np.ndarray:
    """Return the windows of the one occasion that ``name`` is the address of, or a run of parts of the address."""
    addresses, where = np.unique(windows.sessions, return_inverse=True)
    fits = np.asarray([f"/{name}/" in f"/{address}/" for address in addresses.tolist()])
    rows = np.flatnonzero(fits[where])
    found = np.unique(occasions(windows.subset(rows))).tolist() if len(rows) else []
    if len(found) != 1:
        came = f"{len(found)} for {name!r}{': ' if found else ''}{', '.join(found[:3])}"
        fix = f"Write it as data set/subject/session, for example {(found or addresses.tolist())[0]}"
        raise DataError(f"{path}, column session", "must name one session", came, fix)
    return rows
