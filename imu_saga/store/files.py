"""A store's shards as one: any rows gathered from all files by position; nothing stays in this process's memory.

Rows are read (pread), not mapped: pages of a mapped file count as resident, and with large pages a random row brings
in 2 MiB of them, so that an epoch would map the whole store.
"""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from imu_saga.store.format import StoreCard, tensor_offsets
from shared_peft.atomic import sha256_of
from shared_peft.errors import DataError

OPEN_FILES = 256  # ours: a quarter of the usual limit of a process


class StoreFiles:
    """The shards of one store, checked.

    Args:
        folder: the store's folder.
        card: what its store.json says.
        verify: compare every file with its SHA-256 too, which reads all of it.

    Raises:
        DataError: a shard is missing, or not what the card says.
    """

    def __init__(self, folder: Path, card: StoreCard, *, verify: bool = False) -> None:
        self.folder, self.card = folder, card
        self.offsets = [tensor_offsets(folder, card, shard) for shard in card.shards]
        if verify:
            check_digests(folder, card)
        self.edges = np.concatenate([[0], np.cumsum([shard.windows for shard in card.shards], dtype=np.int64)])
        self._layout = card.layout(0)
        self._file = lru_cache(OPEN_FILES)(lambda index: _OpenFile(folder / card.shards[index].file))

    def take(self, name: str, rows: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
        """Return one tensor's rows, in the order asked for.

        Args:
            name: a tensor of the layout.
            rows: (k,) int64, in [0, windows); neighbours are read at once.
            dtype: type to return.

        Raises:
            DataError: a file became shorter since the store was opened.
        """
        stored, (_, *shape) = self._layout[name]
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        shard = np.searchsorted(self.edges, ordered, side="right") - 1
        apart = (np.diff(ordered, prepend=-2, append=-2) != 1) | (np.diff(shard, prepend=-2, append=-2) != 0)
        cuts = np.flatnonzero(apart)
        found = np.empty((len(rows), *shape), stored)
        size = found.nbytes // max(1, len(rows))
        first, last = cuts[:-1], cuts[1:]
        places = [self.offsets[index][name] for index in shard[first].tolist()]
        begins = (places + (ordered[first] - self.edges[shard[first]]) * size).tolist()
        runs = list(zip(shard[first].tolist(), begins, first.tolist(), last.tolist(), strict=True))
        for index, at, one, other in runs:
            self._file(index).expect(at, (other - one) * size)
        for index, at, one, other in runs:
            if os.preadv(self._file(index).handle, [found[one:other].data], at) != (other - one) * size:
                where = self.folder / self.card.shards[index].file
                raise DataError(where, f"must hold {at + (other - one) * size} bytes", "fewer", "Open the store again")
        result = np.empty(found.shape, dtype)
        result[order] = found
        return result

    def column(self, name: str) -> np.ndarray:
        """Return a tensor of one number a window, over all shards."""
        dtype = self._layout[name][0]
        parts = [
            np.fromfile(self.folder / shard.file, dtype, shard.windows, offset=at[name])
            for shard, at in zip(self.card.shards, self.offsets, strict=True)
        ]
        return np.concatenate([np.zeros(0, dtype), *parts])


class _OpenFile:
    """A file descriptor that is closed when nobody holds it any more."""

    def __init__(self, path: Path) -> None:
        self.handle = os.open(path, os.O_RDONLY)
        if hasattr(os, "posix_fadvise"):  # rows are drawn from anywhere: reading ahead would read most of a file
            os.posix_fadvise(self.handle, 0, 0, os.POSIX_FADV_RANDOM)

    def expect(self, at: int, size: int) -> None:
        """Let the system fetch bytes that will be read next, so that the disk serves a whole batch at once."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.handle, at, size, os.POSIX_FADV_WILLNEED)

    def __del__(self) -> None:
        os.close(self.handle)


def check_digests(folder: Path, card: StoreCard) -> None:
    """Raise DataError unless every shard's bytes have the SHA-256 that store.json says."""
    for shard in card.shards:
        found = sha256_of(folder / shard.file)
        if found != shard.sha256:
            must, fix = f"SHA-256 must be {shard.sha256}", "Copy the file again, or remove the store and convert again"
            raise DataError(folder / shard.file, must, found, fix)
