"""The sides of every fold: windows to pre-train on, to draw labels from, and to test on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from imu_saga.source import DataOptions, load_windows, split_protocol, without_unseen
from imu_saga.splits import labelled_rows, without_overlap
from imu_saga.windows import WindowSet
from shared_peft.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Sides:
    """Windows of one fold.

    Args:
        unlabelled: for pre-training; the training side only, labels not looked at.
        train: labelled windows, to draw the few labels from.
        test: labelled windows that nothing was trained on; they never overlap.
        name: the fold's name, used in records and folders.
        note: what is to be known about the fold, for example classes left out; empty if nothing.
    """

    unlabelled: WindowSet
    train: WindowSet
    test: WindowSet
    name: str = "0"
    note: str = ""


def load_sides(options: DataOptions, *, splits: int = 1) -> list[Sides]:
    """Read the data once and return every fold of the options' protocol.

    Args:
        options: see DataOptions; ``fold`` is not used.
        splits: how often the protocol is drawn, with split seeds from ``options.split_seed`` on.

    Returns:
        The folds, named "0", "1", ..., or "split.fold" where the protocol is drawn more than once.

    Raises:
        ConfigError, DataError: options or data that cannot be used.
    """
    if splits < 1:
        raise ConfigError("--splits", "must be 1 or more", splits, "Use 1")
    windows, _ = load_windows(options, unlabelled=True)
    found = []
    for draw in range(splits):
        chosen = replace(options, split_seed=options.split_seed + draw)
        for number, sides in enumerate(_folds(windows, chosen)):
            found.append(replace(sides, name=f"{draw}.{number}" if splits > 1 else str(number)))
    return found


def _folds(windows: WindowSet, options: DataOptions) -> Iterator[Sides]:
    protocol = split_protocol(options)
    for split in protocol.folds(windows):
        known, left_out = windows, {}
        if protocol.leaves_out_unseen or len(split.impostors):
            known, left_out = without_unseen(windows, split)
        test = without_overlap(known, labelled_rows(known, split.test))
        train = known.subset(labelled_rows(known, split.train))
        counts = ", ".join(f"{name} ({count} windows)" for name, count in left_out.items())
        note = f"left out, because training never shows them: {counts}" if counts else ""
        yield Sides(known.subset(np.sort(split.train)), train, known.subset(test), note=note)
