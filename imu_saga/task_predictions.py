"""What several tasks on one encoder say about a recording: a line for each window, a label for each task."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from imu_saga.predict import Prediction, predict_recordings, prepared
from imu_saga.recording import Recording
from imu_saga.streaming.smoothing import Smoothing
from imu_saga.task_adapters import TaskAdapters
from shared_peft.atomic import replacing

ENDS = ("", "_confidence")  # of the names of a task's two columns


def predict_tasks(
    tasks: TaskAdapters,
    recordings: Sequence[Recording],
    *,
    overlap: float = 0.0,
    min_valid: float = 0.8,
    smoothing: Smoothing | None = None,
    progress: str | None = None,
) -> dict[str, list[Prediction]]:
    """Classify recordings of any rate for every task; they are resampled once.

    Args:
        tasks: the tasks.
        recordings: in SI units; more channels than the encoder's are left out.
        overlap: part of a window shared with the next, in [0, 1).
        min_valid: measured part below which no task answers, in [0, 1].
        smoothing: rule over consecutive windows of a recording, for every task on its own; None for none.
        progress: label of the progress bars; None shows none.

    Returns:
        By task, as `predict_recordings`; all of one length, window by window.

    Raises:
        DataError: a recording that lacks a channel, or gravity.
    """
    runs = {name: tasks.run(name) for name in tasks.names}
    ready = [prepared(recording, runs[tasks.names[0]]) for recording in recordings]
    return {
        name: predict_recordings(
            run,
            ready,
            overlap=overlap,
            min_valid=min_valid,
            smoothing=smoothing,
            progress=None if progress is None else f"{progress}: {name}",
        )
        for name, run in runs.items()
    }


def write_task_predictions(path: Path, predictions: Mapping[str, Sequence[Prediction]]) -> None:
    """Write every task's predictions as one csv, whole or not at all; cells without a value are empty.

    Args:
        path: the file to write: session, start_s, end_s, note, then TASK and TASK_confidence for each task.
        predictions: by task, of the same windows.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["session", "start_s", "end_s", "note", *(f"{n}{end}" for n in predictions for end in ENDS)])
        for answers in zip(*predictions.values(), strict=True):
            one = answers[0]
            cells = [cell for each in answers for cell in (each.label, f"{each.confidence:.4f}")]
            writer.writerow([one.session, f"{one.start_s:.3f}", f"{one.end_s:.3f}", one.note, *cells])
