"""`python -m imu_saga tasks`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from imu_saga.inspection.guess import as_flag
from imu_saga.predict import GAP, check_windows, guessed_options, read_recordings
from imu_saga.source import parsed_options
from imu_saga.streaming.smoothing import build_smoothing
from imu_saga.task_adapters import TaskAdapters
from imu_saga.task_files import PACK
from imu_saga.task_predictions import predict_tasks, write_task_predictions
from imu_saga.trained import FINETUNE_KIND, RESULTS
from shared_peft.command import Command
from shared_peft.errors import ConfigError
from shared_peft.training import RunFolder


@dataclass(frozen=True)
class TasksOptions:
    """Options of `python -m imu_saga tasks`."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Fine-tuned runs on one frozen encoder, RUN or NAME=RUN (the name is the run's --task where none is given); or one
    packed folder."""
    file: Path | None = None
    """Predict every task of this csv, npz or parquet recording, or folder of them; none packs the runs instead."""
    columns: tuple[str, ...] = ()
    """Options of the reader as NAME=VALUE: time=t acc=ax,ay,az gyro=gx,gy,gz acc_unit=g ...; none takes the columns by
    their names, and tells which."""
    data: str = ""
    """A registered data set; by default csv, npz or parquet by the file's suffix."""
    overlap: float = 0.0
    """Part of a window shared with the next, in [0, 1)."""
    min_valid: float = 0.8
    """Measured part of a window below which no label is given."""
    smoothing: str = "none"
    """Rule over consecutive windows: none, vote or hysteresis."""
    smoothing_options: tuple[str, ...] = ()
    """Options of the smoothing as NAME=VALUE: n=5, margin=0.1."""
    out: Path | None = None
    """Folder to pack into (runs/tasks), or with --file the csv to write (predictions.csv)."""


def run(options: TasksOptions) -> None:
    """Pack runs into one folder, or predict every task of a recording."""
    tasks = opened(options.runs)
    if options.file is None:
        pack(tasks, options.out or Path("runs/tasks"))
    else:
        predict(tasks, options.file, options, options.out or Path("predictions.csv"))


def opened(runs: tuple[str, ...]) -> TaskAdapters:
    """Return the tasks of a packed folder, or of runs given as RUN or NAME=RUN.

    Raises:
        ConfigError: two runs of one name.
    """
    if len(runs) == 1 and (Path(runs[0]) / PACK).is_file():
        return TaskAdapters.read(Path(runs[0]))
    named: dict[str, Path] = {}
    for text in runs:
        given, equals, path = text.partition("=")
        if not equals or Path(text).is_dir():
            given, path = "", text
        name = given or task_of(Path(path))
        if name in named:
            raise ConfigError("tasks", f"each must have its own name, {name} is {named[name]}", path, "Use NAME=RUN")
        named[name] = Path(path)
    return TaskAdapters.load(named)


def task_of(path: Path) -> str:
    """Return the task a run was fine-tuned for; its folder's name where it does not say.

    Raises:
        RunError: no finished fine-tuning run there.
    """
    folder = RunFolder(path)
    folder.describe(FINETUNE_KIND)
    found: Any = folder.read(RESULTS)
    for key in ("details", "task"):
        found = found.get(key) if isinstance(found, dict) else None
    return str(found or path.name)


def pack(tasks: TaskAdapters, out: Path) -> None:
    """Write the packed folder and tell what lies in it."""
    tasks.save(out)
    base, of_task = tasks.sizes()
    rows = [(f"{tasks.card.encoder} encoder", base, out, f"frozen, sha256 {tasks.base_sha256[:12]}")]
    for name, count in of_task.items():
        rows.append((name, count, out / name, f"{tasks.method(name)}, {len(tasks.classes[name])} classes"))
    for name, count, folder, what in rows:
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        sys.stdout.write(f"{name:<17} {count:>9,} numbers {size:>9,} bytes  {what}\n")
    sys.stdout.write(f"{out}\n")


def predict(tasks: TaskAdapters, file: Path, options: TasksOptions, out: Path) -> None:
    """Write one csv with every task's labels."""
    smoothing = build_smoothing(options.smoothing, parsed_options(options.smoothing_options, "--smoothing-options"))
    columns: dict[str, Any] = parsed_options(options.columns, "--columns")
    if not columns:
        columns = guessed_options(file, options.data)
        sys.stdout.write(f"columns taken: {as_flag(columns)}\n" if columns else "")
    recordings = read_recordings(file, columns, options.data)
    found = predict_tasks(
        tasks,
        recordings,
        overlap=options.overlap,
        min_valid=options.min_valid,
        smoothing=smoothing,
        progress="recordings" if len(recordings) > 1 else None,
    )
    rows = found[tasks.names[0]]
    check_windows(rows, tasks.run(tasks.names[0]), file)
    write_task_predictions(out, found)
    windows = sum(each.note != GAP for each in rows)
    sys.stdout.write(f"{windows} windows, {', '.join(tasks.names)} of each, in {out}\n")


COMMAND = Command(
    name="tasks",
    config=TasksOptions,
    run=run,
    summary="Pack runs of several tasks on one frozen encoder into one folder; predict all of them at once.",
    example="python -m imu_saga tasks runs/activity runs/user runs/placement --out runs/tasks",
    place=42,
)
