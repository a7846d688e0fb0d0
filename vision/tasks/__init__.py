"""What the labels of an image mean: one label, or several; one file a task, each registers itself."""

from shared_peft.registry import import_siblings
from vision.tasks.task import TASKS, Scores, Task, task_of

import_siblings(__name__, __path__)

__all__ = ["TASKS", "Scores", "Task", "task_of"]
