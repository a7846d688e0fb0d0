"""Tasks of imu_saga: runs on one frozen encoder, or a folder that packs them."""

import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from deploy.multi.task import Task
from imu_saga.card import read_card
from imu_saga.encoder import STANDARD_GRAVITY, load_encoder
from imu_saga.task_adapters import TaskAdapters
from imu_saga.trained import N_EXAMPLES, load_run
from shared_peft.training import TrainedModel

HEAD, READOUT, ENCODER = ("head",), ("standardise",), "encoder."


def load_task(name: str, path: Path) -> Task:
    """Read a fine-tuned run as a task."""
    return _task(name, load_run(path))


def base_tensors(base: Path, path: Path, task: Task) -> dict[str, Tensor]:
    """Return the tensors of the encoder in a run, a pack or a shipped checkpoint, for the windows of a task's run."""
    card = read_card(path)
    return load_encoder(base, card.encoder, card.options, card.input)[1].state_dict()


def packed_tasks(folder: Path) -> list[Task]:
    """Return every task of a packed folder.

    A pack holds no recordings: parity is measured on windows drawn here, gravity on the third channel and noise.
    """
    packed = TaskAdapters.read(folder)
    tasks = []
    for name in packed.names:
        run = packed.run(name)
        classifier = copy.deepcopy(packed.classifiers[name])
        tasks.append(_task(name, replace(run, model=classifier, examples=_drawn_windows(run))))
    return tasks


def _task(name: str, trained: TrainedModel) -> Task:
    return Task(name, trained, HEAD, READOUT, ENCODER)


def _drawn_windows(run: TrainedModel) -> Tensor:
    """Return windows in SI units, shape (8, samples, channels): what a resting sensor measures, and noise."""
    rest = torch.tensor([STANDARD_GRAVITY if name == "acc_z" else 0.0 for name in run.preprocessing["channels"]])
    return rest + 2 * torch.randn(N_EXAMPLES, *run.input_shape, generator=torch.Generator().manual_seed(0))
