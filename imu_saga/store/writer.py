"""Windows to a store: shards written whole or not at all, one after the other, and taken up again after a kill."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from imu_saga.input_spec import InputSpec
from imu_saga.store.files import StoreFiles
from imu_saga.store.format import STORE, Shard, StoreCard, read_card
from imu_saga.windows import WindowSet
from shared_peft.atomic import replacing, sha256_of, write_json
from shared_peft.config import to_json
from shared_peft.errors import DataError
from shared_peft.training import RunFolder
from shared_peft.writing import made_folder

SHARD_WINDOWS = 32_768  # ours: 47 MB at 6 s, 20 Hz, 6 channels and float16
LARGEST = float(np.finfo(np.float16).max)  # 65504
_NAMES = ("subjects", "sessions", "placements")


class StoreWriter:
    """Collects windows and writes a shard whenever enough are there.

    As float16 a value v keeps 11 significant bits: its error is at most |v| / 2048, or 2^-25 below 6e-5; gravity,
    between 8 and 16 m/s^2, is off by at most 2^-8 = 0.0039 m/s^2, the least significant bit of a 13-bit sensor at
    +-16 g being 0.038. Larger values than 65504 are refused.

    Args:
        folder: where store.json and the shards go.
        card: what the store will hold; its names and shards are those written so far.
        shard_windows: windows a shard.
    """

    def __init__(self, folder: Path, card: StoreCard, shard_windows: int = SHARD_WINDOWS) -> None:
        if shard_windows < 1:
            raise DataError("shard_windows", "must be at least 1", shard_windows, f"Use {SHARD_WINDOWS}")
        self.folder, self.card, self.shard_windows = folder, card, shard_windows
        self._skip = card.windows
        self._places: dict[str, dict[str, int]] = {name: {} for name in _NAMES}
        self._waiting: dict[str, list[np.ndarray]] = {name: [] for name in card.layout(0)}
        self._count = 0

    def append(self, windows: WindowSet) -> None:
        """Add windows; those that a resumed store holds already are passed over.

        Raises:
            DataError: windows of another shape, rate or class list than the first, or too large for float16.
        """
        self._check_alike(windows)
        indices = {name: self._indices(name, getattr(windows, name)) for name in _NAMES}
        passed = min(self._skip, len(windows))
        self._skip -= passed
        self._check_range(windows)
        tensors = {
            "x": windows.x.astype(self.card.dtype),
            "valid": np.packbits(windows.valid, axis=1),
            "start_s": windows.start_s,
            "labels": windows.labels.astype(np.int32),
            **indices,
        }
        for name, tensor in tensors.items():
            self._waiting[name].append(tensor[passed:])
        self._count += len(windows) - passed
        while self._count >= self.shard_windows:
            self._write(self.shard_windows)

    def finish(self) -> StoreCard:
        """Write the last shard and mark the store complete.

        Raises:
            DataError: fewer windows came than a resumed store holds, or none at all.
        """
        if self._skip or not (self._count or self.card.windows):
            must = f"must give at least {max(1, self.card.windows)} windows"
            fix = "Use the data the store was started with, or choose shorter windows"
            raise DataError(self.folder, must, self.card.windows - self._skip, fix)
        if self._count:
            self._write(self._count)
        self._save(replace(self.card, complete=True))
        return self.card

    def _write(self, count: int) -> None:
        ready = {}
        for name, parts in self._waiting.items():
            whole = np.concatenate(parts)
            ready[name], self._waiting[name] = np.ascontiguousarray(whole[:count]), [whole[count:]]
        self._count -= count
        path = self.folder / f"shard-{len(self.card.shards):05d}.safetensors"
        with replacing(path) as temporary:
            save_file(ready, temporary)
            digest = sha256_of(temporary)
        shards = (*self.card.shards, Shard(path.name, count, digest))
        names = {name: tuple(places) for name, places in self._places.items()}
        self._save(replace(self.card, shards=shards, **names))  # type: ignore[arg-type]  (names of the three lists)

    def _save(self, card: StoreCard) -> None:
        self.card = card
        spec = InputSpec(card.channels, card.rate_hz, card.samples, card.gravity)
        derived = {"units": list(spec.units), "seconds": card.seconds, "windows": card.windows}
        write_json(self.folder / STORE, {**to_json(card), **derived})

    def _indices(self, kind: str, names: np.ndarray) -> np.ndarray:
        """Return (n,) int32 places of names, new names last; a resumed store must meet its own in the same order."""
        places, stored = self._places[kind], getattr(self.card, kind)
        different, first, inverse = np.unique(names, return_index=True, return_inverse=True)
        for at in np.argsort(first).tolist():
            name = str(different[at])
            place = places.setdefault(name, len(places))
            if self._skip and place < len(stored) and stored[place] != name:
                fix = "Use the data the store was started with, or convert to another folder"
                raise DataError(self.folder, f"{kind} must come as before, {stored[place]!r} next", repr(name), fix)
        table = np.asarray([places[str(name)] for name in different], np.int32)
        return table[inverse.reshape(-1)]

    def _check_alike(self, windows: WindowSet) -> None:
        card, where = self.card, str(windows.sessions[0]) if len(windows) else "windows"
        pairs = {
            "channels": (card.channels, windows.channels),
            "samples": (card.samples, windows.x.shape[1]),
            "rate_hz": (card.rate_hz, windows.rate_hz),
            "gravity": (card.gravity, windows.gravity),
            "classes": (card.classes, windows.classes),
        }
        for name, (expected, got) in pairs.items():
            if got != expected:
                fix = "Select common --channels, or make a store for each data set"
                raise DataError(f"{where}, {name}", f"must be {expected} as in the store", got, fix)

    def _check_range(self, windows: WindowSet) -> None:
        if self.card.dtype == "float16" and len(windows) and not np.abs(windows.x).max() <= LARGEST:
            window, sample, channel = np.argwhere(~(np.abs(windows.x) <= LARGEST))[0]
            where = f"{windows.sessions[window]}, {windows.channels[channel]}"
            value = windows.x[window, sample, channel]
            raise DataError(where, f"must be at most {LARGEST:g} to fit float16", value, "Use --dtype float32")


@contextmanager
def store_writer(
    folder: Path, card: StoreCard, *, shard_windows: int = SHARD_WINDOWS, resume: bool = False
) -> Iterator[StoreWriter]:
    """Give the writer of a new store, or of one to go on with; the folder is held for this process meanwhile.

    Args:
        folder: a new or empty folder, or with ``resume`` that of a store begun with the same card.
        card: what the store will hold, without names and shards.
        shard_windows: windows a shard.
        resume: go on; finished shards are compared with their SHA-256 and kept.

    Raises:
        DataError: a folder in use or of another store, or a finished shard that was damaged.
        RunError: another process writes to it.
    """
    with made_folder(folder), RunFolder(folder).locked():
        begun = (folder / STORE).exists()
        if not resume and any(path.name != ".lock" for path in folder.iterdir()):
            fix = "Choose another --out, remove the folder, or pass --resume"
            raise DataError(folder, "must be a new folder", "a store" if begun else "other files", fix)
        yield StoreWriter(folder, _begun(folder, card) if begun else card, shard_windows)


def _begun(folder: Path, card: StoreCard) -> StoreCard:
    """Return the card of the store in ``folder``, checked to have been begun as ``card`` and to be whole so far."""
    found = read_card(folder)
    before = to_json(replace(found, subjects=(), sessions=(), placements=(), shards=(), complete=False))
    changed = sorted(key for key, value in to_json(card).items() if before[key] != value)
    if changed:
        fix = "Resume with the same options, or choose another --out"
        raise DataError(folder, "a resumed store must keep its options", f"changes in {', '.join(changed)}", fix)
    StoreFiles(folder, found, verify=True)
    return replace(found, complete=False)
