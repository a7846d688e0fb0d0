"""A model on a data set it was not trained on: classes matched, missing sensors left at 0, trained people refused."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from imu_saga.card import ModelCard
from imu_saga.combine import common_channels, people_of, select_channels
from imu_saga.evaluation.audit import ancestry
from imu_saga.evaluation.footprint import TRAINED
from imu_saga.recording import Recording
from imu_saga.source import DataOptions, load_recordings
from imu_saga.splits import labelled_rows
from imu_saga.tasks import TASKS
from imu_saga.windows import WindowSet, cut_windows
from shared_peft.errors import DataError


@dataclass(frozen=True, eq=False)
class OtherData:
    """Windows of another data set as a model reads them.

    Args:
        windows: labelled windows, on the model's classes and those of its channels that the data have.
        missing: the model's channels that the data lack.
        left_out: windows left out, by class that the model does not know.
    """

    windows: WindowSet
    missing: tuple[str, ...]
    left_out: Mapping[str, int]

    def __str__(self) -> str:
        present = np.unique(self.windows.labels)
        known = [name for index, name in enumerate(self.windows.classes) if index in present]
        absent = [name for name in self.windows.classes if name not in known]
        subjects = np.unique(self.windows.subjects)
        shown = ", ".join(subjects[:10].tolist()) + (", ..." if len(subjects) > 10 else "")
        lines = [
            f"{len(self.windows)} windows of {len(subjects)} subjects: {shown}",
            f"classes compared: {', '.join(known)}",
            f"channels compared: {', '.join(self.windows.channels)}",
        ]
        if absent:
            lines.append(f"classes the data lack: {', '.join(absent)}")
        if self.left_out:
            counts = ", ".join(f"{name} ({count} windows)" for name, count in self.left_out.items())
            lines.append(f"left out, because the model does not know them: {counts}")
        if self.missing:
            lines.append(f"channels the data lack, left at 0: {', '.join(self.missing)}")
        return "\n".join(lines)


def load_other(options: DataOptions, card: ModelCard) -> OtherData:
    """Read another data set for a model.

    Args:
        options: the other data set and its label map; rate, window length and gravity are the model's.
        card: what the model reads and knows.

    Raises:
        DataError: no class or no whole sensor in common, a sensor with axes missing, or gravity that cannot be matched.
    """
    options = replace(options, rate_hz=card.input.rate_hz, seconds=card.input.seconds, gravity=card.input.gravity)
    recordings, own = load_recordings(options)
    channels = usable_channels(common_channels(recordings), card.input.channels)
    recordings = [select_channels(recording, channels) for recording in recordings]
    _check_gravity(recordings, card)
    needs_labels = TASKS.get(options.task).needs_labels
    cut, report = cut_windows(
        recordings, own, seconds=options.seconds, label_rule=options.label_rule, keep_unlabelled=not needs_labels
    )
    windows = TASKS.get(options.task).relabel(cut)
    left_out = {
        name: count
        for index, name in enumerate(windows.classes)
        if name not in card.classes and (count := int((windows.labels == index).sum()))
    }
    windows = with_classes(windows, card.classes)
    windows = windows.subset(labelled_rows(windows, np.arange(len(windows))))
    if not len(windows):
        must = f"must show one of the model's classes: {', '.join(card.classes)}"
        got = f"{', '.join(left_out) or 'none'} in {report.kept} windows"
        raise DataError("evaluate", must, got, "Match them with --label-map MODEL_CLASS=DATA_CLASS,DATA_CLASS")
    missing = tuple(name for name in card.input.channels if name not in channels)
    return OtherData(windows, missing, left_out)


def usable_channels(there: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the model's channels that the data have; a sensor must be there whole or not at all.

    Args:
        there: the data's channels.
        wanted: the model's, in order.

    Raises:
        DataError: no sensor in common, or one with axes missing.
    """
    found = tuple(name for name in wanted if name in there)
    sensors = {name.partition("_")[0] for name in found}
    broken = [name for name in wanted if name.partition("_")[0] in sensors and name not in there]
    if not found or broken:
        must = f"must have whole sensors out of {', '.join(wanted)}"
        got = f"{', '.join(there)} without {', '.join(broken) or 'any of them'}"
        raise DataError("evaluate channels", must, got, "Use a model trained on the sensors there are")
    return found


def with_classes(windows: WindowSet, classes: tuple[str, ...]) -> WindowSet:
    """Return the windows with labels that index ``classes``; those of other classes become unlabelled."""
    table = np.asarray([classes.index(name) if name in classes else -1 for name in windows.classes] + [-1], np.int64)
    return replace(windows, labels=table[windows.labels], classes=classes)


def check_never_trained(run: Path, windows: WindowSet) -> list[str]:
    """Refuse windows of people that the run, or a run it comes from, was trained on.

    Returns:
        Runs and files of which nobody can tell what they were trained on, with the reason.

    Raises:
        DataError: a person is on both sides; names them.
    """
    tested, unknown = set(people_of(windows).tolist()), []
    for where, footprint, reason in ancestry(run):
        if footprint is None:
            unknown.append(f"{where}: {reason}")
            continue
        for name in (name for name in TRAINED if name in footprint.sides):
            shared = sorted(tested & footprint.sides[name].people.keys())
            if shared:
                got = f"{len(shared)} of {len(tested)} in {name} of {where}: {', '.join(shared[:5])}"
                fix = "Name a data set of other people, or leave --data out to score the people the run held out"
                raise DataError("evaluate", "subjects must not have been trained on", got, fix)
    return unknown


def _check_gravity(recordings: list[Recording], card: ModelCard) -> None:
    for recording in recordings:
        if recording.gravity != card.input.gravity:
            must = f"gravity must be {card.input.gravity} in the accelerometer, as the model learnt it"
            fix = "Fine-tune a model with --gravity removed; what a recording lacks cannot be put back"
            raise DataError(recording.where, must, recording.gravity, fix)
