"""A store's windows on two sides: whole sessions go where any protocol sends their first window; nothing is copied."""

from dataclasses import replace

import numpy as np

from imu_saga.source import DataOptions, split_windows
from imu_saga.splits import Split
from imu_saga.store.convert import CHOSEN_AT_USE
from imu_saga.store.store import WindowStore
from shared_peft.config import from_json, to_json


def split_store(store: WindowStore, options: DataOptions) -> Split:
    """Return positions of a store's windows on the two sides.

    Args:
        store: windows of two subjects or more.
        options: the protocol and its seed; only the first window of each session is shown to it.

    Raises:
        ConfigError: no such protocol or fold.
        DataError: too few subjects to hold one out.
    """
    _, first, session = np.unique(store.indices("sessions"), return_index=True, return_inverse=True)
    split = split_windows(store.window_set(first), options)
    rows = {name: np.flatnonzero(np.isin(session, getattr(split, name))) for name in ("train", "test", "impostors")}
    return replace(split, **rows)


def options_of(store: WindowStore, options: DataOptions) -> DataOptions:
    """Return the data options a store was made with, split as ``options`` say."""
    known = {key: value for key, value in store.card.source.items() if key in to_json(options)}
    made = from_json(DataOptions, known, f"{store.files.folder}, source")
    return replace(made, **{name: getattr(options, name) for name in CHOSEN_AT_USE})
