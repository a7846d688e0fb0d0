"""Windows, and the stores that hold them."""

import dataclasses
from pathlib import Path

import numpy as np

from imu_saga.source import DataOptions
from imu_saga.store.format import StoreCard
from imu_saga.store.store import WindowStore
from imu_saga.store.writer import store_writer
from imu_saga.windows import WindowSet

POPULATION = 'population={"subjects": 4, "bout_s": 14, "sessions": 1, "activities": ["sit", "walk", "run"]}'
OPTIONS = DataOptions(seconds=2.0, overlap=0.5, data_options=(POPULATION,))
COLUMNS = ("labels", "subjects", "sessions", "placements", "start_s", "valid")


def card_for(windows: WindowSet, dtype="float32") -> StoreCard:
    w = windows
    return StoreCard(w.x.shape[1], w.channels, w.rate_hz, w.gravity, w.classes, dtype)


def written(folder: Path, windows: WindowSet, *, dtype="float32", shard_windows=50) -> WindowStore:
    with store_writer(folder, card_for(windows, dtype), shard_windows=shard_windows) as writer:
        for part in np.array_split(np.arange(len(windows)), 7):
            writer.append(windows.subset(part))
        writer.finish()
    return WindowStore.open(folder, verify=True)


def spotted(windows: WindowSet) -> WindowSet:
    """The windows with labels, times and masks that differ from window to window."""
    rng = np.random.default_rng(5)
    valid = rng.random(windows.valid.shape) < 0.7
    return dataclasses.replace(
        windows, valid=valid, start_s=rng.random(len(windows)), labels=rng.integers(-1, 3, len(windows))
    )


def assert_same(found: WindowSet, expected: WindowSet) -> None:
    np.testing.assert_array_equal(found.x, expected.x)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
        assert getattr(found, name).dtype.kind == getattr(expected, name).dtype.kind
    for name in ("classes", "channels", "rate_hz", "seconds", "gravity"):
        assert getattr(found, name) == getattr(expected, name)
