"""From registered data sets to a store: one recording at a time is resampled, cut and written."""

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np

from imu_saga.combine import Part, combine, parse_label_map, people_of, select_channels
from imu_saga.recording import Recording
from imu_saga.signal.gravity import remove_gravity
from imu_saga.signal.resample import resample
from imu_saga.source import DataOptions, opened
from imu_saga.store.format import StoreCard, StoreType
from imu_saga.store.writer import SHARD_WINDOWS, store_writer
from imu_saga.windows import WindowReport, WindowSet, cut_windows
from shared_peft.config import to_json
from shared_peft.errors import ConfigError, DataError

CHOSEN_AT_USE = ("task", "protocol", "protocol_options", "fold", "test_fraction", "split_seed")


def convert(
    options: DataOptions,
    folder: Path,
    *,
    channels: tuple[str, ...] = (),
    dtype: StoreType = "float16",
    unlabelled: bool = True,
    shard_windows: int = SHARD_WINDOWS,
    resume: bool = False,
    progress: str | None = None,
) -> tuple[StoreCard, WindowReport]:
    """Write every window of the data sets, of all people, to a store.

    Memory is that of one data set's reader, one recording and one shard.

    Args:
        options: which recordings, and how they are cut; who is held out is chosen when the store is used.
        folder: where the store goes.
        channels: channels to keep, in this order; empty keeps all.
        dtype: how samples are stored, see StoreWriter for the error of float16.
        unlabelled: keep windows without a label.
        shard_windows: windows a shard.
        resume: go on with the store in ``folder``.
        progress: label of the progress bar; None shows none.

    Returns:
        The store's card, and what became of every window position.

    Raises:
        ConfigError: options that only make sense when a store is used.
        DataError: data that cannot be used, or a folder that cannot.
    """
    kept = stored_options(options)
    pieces = windows_by_recording(options, channels=channels, unlabelled=unlabelled)
    first, report = next(pieces, (None, None))
    if first is None or report is None:
        raise DataError("convert", "must read at least one recording", "none", "Check the data folder and the options")
    card = StoreCard(
        samples=first.x.shape[1],
        channels=first.channels,
        rate_hz=first.rate_hz,
        gravity=first.gravity,
        classes=first.classes,
        dtype=dtype,
        source={**kept, "unlabelled": unlabelled},
    )
    reports = [report]
    with store_writer(folder, card, shard_windows=shard_windows, resume=resume) as writer:
        writer.append(first)
        for windows, report in _shown(pieces, progress):
            writer.append(windows)
            reports.append(report)
        return writer.finish(), reduce(added, reports)


def stored_options(options: DataOptions) -> dict:
    """Return the options that a store depends on, as plain JSON values.

    Raises:
        ConfigError: one that only makes sense when a store is used was given.
    """
    usual, values = to_json(DataOptions()), to_json(options)
    for name in CHOSEN_AT_USE:
        if values.pop(name) != usual[name]:
            fix = "A store holds everyone and every label: give it to the command that reads the store"
            raise ConfigError(f"--{name.replace('_', '-')}", "must not be given to convert", "it", fix)
    return values


def windows_by_recording(
    options: DataOptions, *, channels: tuple[str, ...] = (), unlabelled: bool = True
) -> Iterator[tuple[WindowSet, WindowReport]]:
    """Yield the windows of one recording after the other, as `load_windows` would give them all at once."""
    sets, label_map = opened(options), parse_label_map(options.label_map)
    empty = [Part(dataset.name, [], dataset.class_names(root)) for dataset, root in sets]
    for at, (dataset, root) in enumerate(sets):
        for recording in dataset.read(root):
            same_rate = resample(recording, options.rate_hz)
            ready = remove_gravity(same_rate) if options.gravity == "removed" else same_rate
            if channels:
                ready = select_channels(ready, channels)
            parts = [replace(part, recordings=[ready] if index == at else []) for index, part in enumerate(empty)]
            windows, report = _cut(*combine(parts, label_map), options, unlabelled=unlabelled)
            several = not isinstance(options.data, str)
            yield replace(windows, subjects=people_of(windows)) if several and len(windows) else windows, report


def _cut(
    recordings: list[Recording], classes: tuple[str, ...], options: DataOptions, *, unlabelled: bool
) -> tuple[WindowSet, WindowReport]:
    return cut_windows(
        recordings,
        classes,
        seconds=options.seconds,
        overlap=options.overlap,
        label_rule=options.label_rule,
        keep_unlabelled=unlabelled,
    )


def added(one: WindowReport, other: WindowReport) -> WindowReport:
    """Return two reports of the same classes as one."""
    counts = np.add([count for _, count in one.per_class], [count for _, count in other.per_class]).tolist()
    return WindowReport(
        kept=one.kept + other.kept,
        mixed=one.mixed + other.mixed,
        unlabelled=one.unlabelled + other.unlabelled,
        invalid=one.invalid + other.invalid,
        short=one.short + other.short,
        per_class=tuple((name, int(count)) for (name, _), count in zip(one.per_class, counts, strict=True)),
    )


def _shown(
    pieces: Iterator[tuple[WindowSet, WindowReport]], label: str | None
) -> Iterator[tuple[WindowSet, WindowReport]]:
    if label is None:
        return pieces
    from shared_peft.progress import Bar  # noqa: PLC0415  (only where a bar is shown)

    return iter(Bar(pieces, initial=1, desc=label, unit="recording", dynamic_ncols=True, mininterval=0.5))
