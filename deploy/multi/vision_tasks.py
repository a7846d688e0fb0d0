"""Tasks of vision: runs on one frozen backbone, each with an adapter and a head of its own."""

from pathlib import Path

from torch import Tensor

from deploy.multi.task import Task
from vision.backbones.build import build_from_spec
from vision.trained import load_run, read_description


def load_task(name: str, path: Path) -> Task:
    """Read a fine-tuned run as a task."""
    return Task(name, load_run(path), read_description(path).head)


def base_tensors(base: Path, path: Path, task: Task) -> dict[str, Tensor]:
    """Return the backbone's tensors in a weight file or a run, without those that are a task's own."""
    stored = build_from_spec(read_description(path).spec, checkpoint=base).model.state_dict()
    own = tuple(f"{module}." for module in task.own)
    return {name: tensor for name, tensor in stored.items() if not name.startswith(own)}
