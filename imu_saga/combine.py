"""Several data sets as one: a label map, the channels all of them have, and people whose names never merge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from imu_saga.dataset import DATASETS
from imu_saga.recording import UNLABELLED, Recording
from imu_saga.windows import WindowSet
from shared_peft.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Part:
    """One data set's share: recordings of one rate, and the class names their labels index."""

    name: str
    recordings: Sequence[Recording]
    classes: tuple[str, ...]


def parse_label_map(pairs: Sequence[str]) -> dict[str, str]:
    """Return new class name by old one.

    Args:
        pairs: as typed, NEW=OLD,OLD; an empty NEW leaves the old classes without a label.

    Raises:
        ConfigError: a pair without "=", without an old name, or an old name under two new ones.

    Example:
        >>> parse_label_map(["walk=walking,strolling"])
        {'walking': 'walk', 'strolling': 'walk'}
    """
    renamed: dict[str, str] = {}
    for pair in pairs:
        new, equals, old_names = pair.partition("=")
        names = [name.strip() for name in old_names.split(",")]
        if not equals or not all(names):
            raise ConfigError("--label-map", "must be NEW=OLD,OLD", repr(pair), "Put = after the new class name")
        for name in names:
            if renamed.setdefault(name, new.strip()) != new.strip():
                must = f"class {name!r} must have one new name"
                raise ConfigError("--label-map", must, f"{renamed[name]} and {new.strip()}", "Name it once")
    return renamed


def combine(parts: Sequence[Part], label_map: Mapping[str, str]) -> tuple[list[Recording], tuple[str, ...]]:
    """Put data sets on one class list and one channel list.

    Args:
        parts: the data sets, all at one rate; a single one is only relabelled.
        label_map: new class name by old one; "" leaves a class without a label.

    Returns:
        The recordings of all parts, and the class names in order of first appearance.

    Raises:
        ConfigError: the map names a class that no part has.
        DataError: no common channel, or gravity kept in one and removed in another.
    """
    known = dict.fromkeys(name for part in parts for name in part.classes)
    strange = [name for name in label_map if name not in known]
    if strange:
        must = f"old names must be among {', '.join(known)}"
        raise ConfigError("--label-map", must, ", ".join(strange), "Write NEW=OLD,OLD with the data's own names")
    renamed = {name: label_map.get(name, name) for name in known}
    classes = tuple(dict.fromkeys(name for name in renamed.values() if name))
    recordings = [
        relabelled(recording, [renamed[name] for name in part.classes], classes)
        for part in parts
        for recording in part.recordings
    ]
    if len(parts) > 1:
        _check_gravity(recordings)
        channels = common_channels(recordings)
        recordings = [select_channels(recording, channels) for recording in recordings]
    return recordings, classes


def relabelled(recording: Recording, old: Sequence[str], new: Sequence[str]) -> Recording:
    """Return the recording with labels that index ``new`` instead of ``old``; names ``new`` lacks become unlabelled."""
    if list(old) == list(new):
        return recording
    table = np.asarray([new.index(name) if name in new else UNLABELLED for name in old] + [UNLABELLED], np.int64)
    return replace(recording, labels=table[recording.labels])


def common_channels(recordings: Sequence[Recording]) -> tuple[str, ...]:
    """Return the channels every recording has, in the first one's order.

    Raises:
        DataError: there are none.
    """
    lists = dict.fromkeys(recording.channels for recording in recordings)
    channels = tuple(name for name in recordings[0].channels if all(name in one for one in lists))
    if not channels:
        got = " and ".join(", ".join(one) for one in lists)
        raise DataError("data sets", "must have a channel in common", got, "Combine sets with the same sensors")
    return channels


def select_channels(recording: Recording, channels: tuple[str, ...]) -> Recording:
    """Return the recording with these of its channels, in this order."""
    if recording.channels == channels:
        return recording
    columns = [recording.channels.index(name) for name in channels]
    return replace(recording, signal=recording.signal[:, columns], channels=channels)


def person_name(dataset: str, subject: str) -> str:
    """Return data set/subject, with the name of the data set whose people these are; one named so already is kept."""
    owner = (DATASETS.get(dataset).people if dataset in DATASETS else "") or dataset
    return subject if subject.startswith(f"{owner}/") else f"{owner}/{subject}"


def people_of(windows: WindowSet) -> np.ndarray:
    """Return (n,) str, each window's person as data set/subject: equal names in two data sets stay two people."""
    pairs, where = np.unique(np.stack([windows.datasets, windows.subjects], axis=1), axis=0, return_inverse=True)
    names = [person_name(dataset, subject) for dataset, subject in pairs.tolist()]
    return np.asarray(names, dtype=np.str_)[where.reshape(-1)]


def _check_gravity(recordings: Sequence[Recording]) -> None:
    kinds = {recording.gravity: recording.where for recording in recordings}
    if len(kinds) > 1:
        got = " and ".join(f"{gravity} in {where}" for gravity, where in kinds.items())
        raise DataError("data sets", "gravity must be kept in all or removed in all", got, "Use --gravity removed")
