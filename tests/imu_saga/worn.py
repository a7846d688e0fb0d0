"""Windows of planted people: who, when, where worn and which data set are all chosen by the test."""

import numpy as np

from imu_saga.recording import ACC_CHANNELS
from imu_saga.windows import WindowSet


def worn(
    *, datasets=("a",), subjects=4, sessions=2, placements=("waist",), each=10, hop_s=1.0, classes=3, seconds=1.0
) -> WindowSet:
    """Return ``each`` windows of every data set, subject, session and placement, in order of time, at 10 Hz."""
    rows = [
        (dataset, f"s{subject}", f"r{session}", placement, index)
        for dataset in datasets
        for subject in range(subjects)
        for session in range(sessions)
        for placement in placements
        for index in range(each)
    ]
    count, length = len(rows), round(10 * seconds)
    names = np.asarray([row[:4] for row in rows])
    return WindowSet(
        x=np.random.default_rng(0).normal(size=(count, length, 3)).astype(np.float32),
        labels=np.arange(count) % classes,
        subjects=names[:, 1] if len(datasets) == 1 else np.asarray([f"{row[0]}/{row[1]}" for row in rows]),
        sessions=np.asarray(["/".join(row[:4]) for row in rows]),
        placements=names[:, 3],
        start_s=np.asarray([100 + hop_s * row[4] for row in rows]),
        valid=np.ones((count, length), bool),
        classes=tuple("abcdef"[:classes]),
        channels=ACC_CHANNELS,
        rate_hz=10.0,
        seconds=seconds,
    )
