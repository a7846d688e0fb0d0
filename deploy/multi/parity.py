"""Does graph and adapter file answer as the adapted PyTorch model does, on trained and on randomised adapters?"""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from deploy.multi.adapter_file import SUFFIX, write_adapter
from deploy.multi.inputs import arrays_of, same_forms, tensors_of
from deploy.multi.switch import AdapterSwitch
from deploy.multi.task import Task
from deploy.parity import WeightsParity, check_weights, compare_answers
from deploy.target import OUTPUT_NAME
from shared_peft import AdapterLayer
from shared_peft.changes import Part
from shared_peft.errors import ExportError
from shared_peft.inject import adapter_layers

_LEAST_SPREAD = 0.02  # ours: as of usual initial weights, so that factors which start at 0 count
_SEED = 20


@dataclass(frozen=True)
class TaskParity:
    """One task.

    Args:
        trained: with the run's adapter.
        randomised: with random values in every tensor of the adapter file, where a fault cannot hide.
    """

    trained: WeightsParity
    randomised: WeightsParity


def measure_tasks(
    tasks: Sequence[Task], folder: Path, model_file: str, base_sha256: str, factors: Mapping[str, np.ndarray]
) -> dict[str, TaskParity]:
    """Compare adapter files, and those of randomised twins, with PyTorch at batch 1, 4 and 7; check the numbers.

    Args:
        tasks: the tasks.
        folder: where the graph and the tasks' adapter files lie.
        model_file: name of the graph.
        base_sha256: of the base.
        factors: of the tensors' rows; see `deploy.multi.fold`.

    Raises:
        ExportError: a gate failed, named with its task and number.
    """
    model = folder / model_file
    trained = {task.name: _compare(task, model, folder, base_sha256, "trained") for task in tasks}
    twins = [randomised_task(task, seed=_SEED + number) for number, task in enumerate(tasks)]
    with tempfile.TemporaryDirectory() as scratch:
        write_adapters(Path(scratch), twins, base_sha256, factors)
        return {
            twin.name: TaskParity(trained[twin.name], _compare(twin, model, Path(scratch), base_sha256, "randomised"))
            for twin in twins
        }


def write_adapters(folder: Path, tasks: Sequence[Task], base_sha256: str, factors: Mapping[str, np.ndarray]) -> None:
    """Write one adapter file a task."""
    for name, tensors in same_forms({task.name: tensors_of(task) for task in tasks}).items():
        write_adapter(folder / f"{name}{SUFFIX}", arrays_of(tensors, factors), base_sha256)


@torch.no_grad()
def randomised_task(task: Task, *, seed: int) -> Task:
    """Return a copy whose adapter, and whose own modules, hold random parameters of the same mean and spread."""
    generator = torch.Generator().manual_seed(seed)
    twin = replace(task, trained=replace(task.trained, model=copy.deepcopy(task.trained.model).cpu().float()))
    adapters = (
        method for _, layer in adapter_layers(twin.module) for part in _parts(layer) for method in [part.method]
    )
    own = (twin.module.get_submodule(name) for name in twin.own)
    for module in (*adapters, *own):
        for parameter in module.parameters():
            spread = max(float(parameter.detach().std(unbiased=False)), _LEAST_SPREAD)
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter.mean() + spread * noise)
    return twin


def _parts(layer: AdapterLayer) -> tuple[Part, ...]:
    return layer.changes(layer.active).parts


def _compare(task: Task, model: Path, adapters: Path, base_sha256: str, weights: str) -> WeightsParity:
    switch = AdapterSwitch(model, {task.name: adapters / f"{task.name}{SUFFIX}"}, base_sha256, threads=1)
    trained = task.trained

    def run(inputs: np.ndarray) -> np.ndarray:
        return switch.run(OUTPUT_NAME, {trained.input_name: inputs}, task.name)

    measured = compare_answers(trained.model, run, trained.examples, weights)
    try:
        check_weights(measured)
    except ExportError as error:
        raise ExportError(f"task {task.name}, {error.where}", error.must, error.got, error.fix) from error
    return measured
