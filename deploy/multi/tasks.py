"""Tasks on one frozen base: runs read back, and refused where they stand on another base."""

import importlib
from collections.abc import Mapping
from pathlib import Path

from deploy.multi.task import Task
from imu_saga.task_files import PACK, check_names
from imu_saga.trained import tensors_sha256
from shared_peft.errors import CheckpointError, ConfigError, RunError
from shared_peft.training import RunFolder

FAMILIES = {"imu_saga": "deploy.multi.imu_tasks", "vision": "deploy.multi.vision_tasks"}
"""Module with `load_task(name, path)` and `base_tensors(base, path, task)`, by the first part of a run's kind."""


def load_tasks(base: Path, adapters: Mapping[str, Path]) -> tuple[str, list[Task]]:
    """Read fine-tuned runs and check that they stand on one base.

    Args:
        base: the run or checkpoint they started from, or a folder of packed tasks.
        adapters: run folder by task name; none takes all tasks of a packed folder.

    Returns:
        The SHA-256 of the base's tensors, and the tasks.

    Raises:
        ConfigError, AdapterError: no run, or a name that cannot be a task's.
        RunError: no finished fine-tuning run in a folder, or one of another package than the first.
        CheckpointError: a run on another base.
    """
    if not adapters and (base / PACK).is_file():
        from deploy.multi.imu_tasks import packed_tasks  # noqa: PLC0415  (only where there is a pack)

        tasks = packed_tasks(base)
        return tensors_sha256(tasks[0].base_tensors()), tasks
    check_names(adapters, "--adapters")
    family = importlib.import_module(FAMILIES[_family_of(adapters)])
    tasks = [family.load_task(name, path) for name, path in adapters.items()]
    mark = tensors_sha256(family.base_tensors(base, next(iter(adapters.values())), tasks[0]))
    for task, path in zip(tasks, adapters.values(), strict=True):
        if (found := tensors_sha256(task.base_tensors())) != mark:
            must = f"must stand on {base.name}, whose frozen tensors have sha256 {mark[:12]}"
            fix = "Fine-tune every task from this one base, with an adapter or the head alone"
            raise CheckpointError(path, must, found[:12], fix)
    return mark, tasks


def _family_of(adapters: Mapping[str, Path]) -> str:
    """Return the package that made all of the runs."""
    found = {path: str(RunFolder(path).describe().get("kind", "")).partition(".")[0] for path in adapters.values()}
    first = next(iter(found.values()))
    for path, family in found.items():
        if family not in FAMILIES or family != first:
            must = f"all runs must be of one package, {' or '.join(FAMILIES)}"
            raise RunError(path, must, repr(family), "Point at fine-tuning runs of one of them")
    return first


def check_same_input(tasks: list[Task]) -> None:
    """Raise ConfigError where tasks are not fed alike."""
    first = tasks[0].trained
    for task in tasks:
        fed = (task.trained.kind, task.trained.input_shape, task.trained.preprocessing)
        if fed != (first.kind, first.input_shape, first.preprocessing):
            must = f"must be fed as task {tasks[0].name}: {first.input_shape}, {first.preprocessing}"
            fix = "Fine-tune all tasks at one size, rate, window and channels"
            raise ConfigError(f"task {task.name}", must, f"{fed[1]}, {fed[2]}", fix)
