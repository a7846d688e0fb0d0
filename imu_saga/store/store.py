"""WindowStore: millions of windows on disk, read in random batches with little memory; what pre-training draws from."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np

from imu_saga.recording import UNLABELLED, Gravity
from imu_saga.store.files import StoreFiles
from imu_saga.store.format import StoreCard, read_card
from imu_saga.windows import WindowSet
from shared_peft.errors import DataError


class StoredRows:
    """One tensor of a store, indexed by window like an array; only the rows asked for are read.

    Args:
        shape: what an array would have.
        read: rows in [0, shape[0]) to their values.
    """

    def __init__(self, shape: tuple[int, ...], read: Callable[[np.ndarray], np.ndarray]) -> None:
        self.shape, self._read = shape, read

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows chosen by (k,) integer positions, in their order."""
        return self._read(positions(rows, self.shape[0]))


class WindowStore:
    """Windows of a store, or those of its windows that a view chose; open one with `WindowStore.open`.

    Args:
        files: the mapped shards.
        rows: (n,) int64, the store's windows seen here; None for all.
    """

    def __init__(self, files: StoreFiles, rows: np.ndarray | None = None) -> None:
        self.files, self.rows = files, rows

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> "WindowStore":
        """Open a finished store; every shard's size, types and shapes are checked before anything is read.

        Args:
            folder: a folder written by `convert`.
            verify: check every shard's SHA-256 too, which reads the whole store.

        Raises:
            DataError, ConfigError: no store there, an unfinished one, or a damaged one.
        """
        card = read_card(folder)
        if not card.complete:
            fix = "Run convert again with the same options and --resume"
            raise DataError(folder, "must be a finished store", f"{card.windows} windows so far", fix)
        return cls(StoreFiles(folder, card, verify=verify))

    def __len__(self) -> int:
        """Return the number of windows."""
        return self.card.windows if self.rows is None else len(self.rows)

    @property
    def card(self) -> StoreCard:
        """What store.json says."""
        return self.files.card

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names the labels index."""
        return self.card.classes

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names."""
        return self.card.channels

    @property
    def rate_hz(self) -> float:
        """Samples per second [Hz]."""
        return self.card.rate_hz

    @property
    def seconds(self) -> float:
        """Duration of a window [s]."""
        return self.card.seconds

    @property
    def gravity(self) -> Gravity:
        """Whether the accelerometer still measures gravity."""
        return self.card.gravity

    @property
    def x(self) -> StoredRows:
        """(n, L, C), float32 where read, SI units."""
        shape = (len(self), self.card.samples, len(self.channels))
        return StoredRows(shape, lambda rows: self.files.take("x", self._in_store(rows), np.float32))

    @property
    def valid(self) -> StoredRows:
        """(n, L), bool where read."""
        samples = self.card.samples

        def read(rows: np.ndarray) -> np.ndarray:
            packed = self.files.take("valid", self._in_store(rows), np.uint8)
            return np.unpackbits(packed, axis=1, count=samples).view(bool)

        return StoredRows((len(self), samples), read)

    @cached_property
    def labels(self) -> np.ndarray:
        """(n,) int64 indices into ``classes``; -1 where unlabelled."""
        return self.indices("labels").astype(np.int64)

    @cached_property
    def start_s(self) -> np.ndarray:
        """(n,) float64, time of each window's first sample [s]."""
        return self._column("start_s")

    @cached_property
    def subjects(self) -> np.ndarray:
        """(n,) objects, each a str of the card's list."""
        return self._names("subjects")

    @cached_property
    def sessions(self) -> np.ndarray:
        """(n,) objects, each a str: data set/subject/session/placement."""
        return self._names("sessions")

    @cached_property
    def placements(self) -> np.ndarray:
        """(n,) objects, each a str of the card's list."""
        return self._names("placements")

    def indices(self, name: str) -> np.ndarray:
        """Return (n,) int32 places in the card's list of classes (``labels``), subjects, sessions or placements.

        Raises:
            DataError: a place outside the list.
        """
        found = self._column(name)
        lowest, count = (UNLABELLED, len(self.classes)) if name == "labels" else (0, len(getattr(self.card, name)))
        if len(found) and not lowest <= found.min() <= found.max() < count:
            came = f"values from {found.min()} to {found.max()}"
            fix = "Copy the store again, or convert again"
            raise DataError(f"{self.files.folder}, {name}", f"must be in [{lowest}, {count})", came, fix)
        return found

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (k, L, C) float32 windows in SI units and (k, L) bool, what was measured.

        Args:
            rows: (k,) integer positions, any order, repeats allowed.
        """
        return self.x[rows], self.valid[rows]

    def subset(self, rows: np.ndarray) -> "WindowStore":
        """Return a view of the windows chosen by (k,) integer positions or (n,) bool; nothing is copied."""
        chosen = np.flatnonzero(rows) if rows.dtype == bool else positions(rows, len(self))
        return WindowStore(self.files, self._in_store(chosen))

    def window_set(self, rows: np.ndarray) -> WindowSet:
        """Return the windows chosen by ``rows`` in memory, with all that is known about them."""
        view = self.subset(rows)
        x, valid = view.batch(np.arange(len(view)))
        return WindowSet(
            x=x,
            labels=view.labels,
            subjects=view.subjects.astype(np.str_),
            sessions=view.sessions.astype(np.str_),
            placements=view.placements.astype(np.str_),
            start_s=view.start_s,
            valid=valid,
            classes=self.classes,
            channels=self.channels,
            rate_hz=self.rate_hz,
            seconds=self.seconds,
            gravity=self.gravity,
        )

    def _in_store(self, rows: np.ndarray) -> np.ndarray:
        return rows if self.rows is None else self.rows[rows]

    def _column(self, name: str) -> np.ndarray:
        return self.files.column(name) if self.rows is None else self.files.column(name)[self.rows]

    def _names(self, name: str) -> np.ndarray:
        return np.asarray(getattr(self.card, name), dtype=object)[self.indices(name)]


def positions(rows: np.ndarray, count: int) -> np.ndarray:
    """Return integer positions as int64; one outside [0, ``count``) is an error.

    Raises:
        DataError: a position outside.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if len(rows) and not 0 <= rows.min() <= rows.max() < count:
        raise DataError("rows", f"must be in [0, {count})", f"{rows.min()} to {rows.max()}", "Choose existing windows")
    return rows
