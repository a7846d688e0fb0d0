"""Runs of three tasks on one pre-trained encoder and their bundle; a convolutional base with tasks of other ranks."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from deploy.multi import Task, export_multi, load_tasks
from imu_saga.finetune import FinetuneConfig, finetune
from imu_saga.pretrain import PretrainConfig, pretrain
from imu_saga.task_adapters import TaskAdapters
from imu_saga.tasks import TASKS
from imu_saga.trained import FINETUNE_KIND, save_run
from shared_peft import get_peft_model
from shared_peft.method import make_config
from shared_peft.training import RunFolder
from tests.deploy.architectures import fill
from tests.deploy.toys import ConvNet, trained_toy
from tests.imu_saga.planted import people

WINDOWS = people(subjects=4, each=4)
RUNS = {"activity": ("lora_tsd", "activity", 2), "user": ("flora", "user", 3), "plain": ("head", "activity", 2)}
MARK = "ab" * 32  # stands for the SHA-256 of the toy base
CONV_TASKS = {"small": (2, 5), "large": (4, 3)}  # rank and number of classes


@dataclass(frozen=True)
class Exported:
    """A bundle and what it was made of."""

    folder: Path
    mark: str
    tasks: dict[str, Task]


def imu_runs(root: Path, seed: int) -> dict[str, Path]:
    """Pre-train and fine-tune for a moment; return the run folders by task."""
    folder = RunFolder.create(root / "pre", "imu_saga.pretrain", {})
    options = {"width": 16, "depth": 1, "heads": 2}
    pretrain(WINDOWS, PretrainConfig(steps=2, batch_size=16, options=options, seed=seed), folder, progress=None)
    for name, (method, task, rank) in RUNS.items():
        labelled = TASKS.get(task).relabel(WINDOWS)
        config = FinetuneConfig(method=method, steps=3, batch_size=12, r=rank, learning_rate=2e-2)
        run = RunFolder.create(root / name, FINETUNE_KIND, {"method": method})
        encoder, model = finetune(labelled, config, checkpoint=root / "pre")
        save_run(run, encoder, model, labelled, {"details": {"task": task}})
    return {name: root / name for name in RUNS}


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Run folder by task."""
    return imu_runs(tmp_path_factory.mktemp("runs"), seed=0)


@pytest.fixture(scope="session")
def pack(runs, tmp_path_factory) -> Path:
    """The same runs packed into one folder."""
    folder = tmp_path_factory.mktemp("pack") / "tasks"
    TaskAdapters.load(runs).save(folder)
    return folder


@pytest.fixture(scope="session")
def imu(runs, tmp_path_factory) -> Exported:
    """The bundle of the three runs."""
    mark, tasks = load_tasks(runs["user"].parent / "pre", runs)
    out = tmp_path_factory.mktemp("imu") / "bundle"
    export_multi(mark, tasks, out)
    return Exported(out, mark, {task.name: task for task in tasks})


class ResidualNet(ConvNet):
    """The toy with a residual block of a dense convolution between its stem and the rest; input (3, 12, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = torch.nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.dense_norm = torch.nn.BatchNorm2d(8)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = self.stem(image)
        hidden = (self.dense_norm(self.dense(hidden)) + hidden).relu()
        hidden = (hidden + self.norm(self.pointwise(self.depthwise(hidden)))).relu()
        return self.head(hidden.mean((2, 3)))


def conv_task(name: str, rank: int, classes: int, method: str = "flora") -> Task:
    """Return a task on the toy network, whose frozen weights are the same each time."""
    torch.manual_seed(3)
    base = ResidualNet()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for norm in (base.stem[1], base.norm, base.dense_norm):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.add_(0.5 * torch.rand(tensor.shape, generator=generator))
    base.head = torch.nn.Linear(8, classes)
    fields = {"r": rank, "exclude_modules": ["head"], "modules_to_save": ["head"]}
    config = make_config(method, **fields)
    model = fill(get_peft_model(base, config, generator=torch.Generator().manual_seed(rank)), seed=rank)
    named = tuple(f"class {index}" for index in range(classes))
    return Task(name, trained_toy(model, ResidualNet, classes=named), ("head",))


@pytest.fixture(scope="session")
def conv(conv_tasks_bundle) -> Exported:
    """A bundle of convolutions, depthwise and 1 x 1 among them, with two ranks and two numbers of classes."""
    tasks = [conv_task(name, rank, classes) for name, (rank, classes) in CONV_TASKS.items()]
    return Exported(conv_tasks_bundle, MARK, {task.name: task for task in tasks})


@pytest.fixture
def copied(imu, tmp_path) -> Path:
    """The bundle of the runs, to damage."""
    return Path(shutil.copytree(imu.folder, tmp_path / "copy"))
