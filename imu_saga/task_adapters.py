"""Several tasks on one frozen encoder, each with an adapter, a standardisation and a head of its own.

The shape to ship: another task costs its adapter and its head, and choosing a task rebuilds nothing (ours; adapters by
name as in Hugging Face peft).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from imu_saga.card import CARD, WEIGHTS
from imu_saga.encoder import build_encoder
from imu_saga.heads import Classifier, Statistics
from imu_saga.input_spec import InputSpec
from imu_saga.task_files import (
    ENCODER,
    NO_ADAPTER,
    PACK,
    READOUT,
    PackedTask,
    PackList,
    StoredTasks,
    new_folder,
    read_pack,
    read_runs,
    readout_of,
    reads_statistics,
)
from imu_saga.trained import KIND, build_base, preprocessing, tensors_sha256
from imu_saga.windows import WindowSet
from shared_peft import AdapterConfig, storage
from shared_peft.atomic import write_json
from shared_peft.config import to_json
from shared_peft.errors import AdapterError, DataError
from shared_peft.inject import adapter_layers, attach
from shared_peft.method import method_name
from shared_peft.training import TrainedModel
from shared_peft.weights import load_checked, write_tensors

BATCH = 512


class TaskAdapters:
    """One encoder that answers for several tasks, to be used from one thread.

    Args:
        stored: the tasks as read; see `TaskAdapters.load` and `TaskAdapters.read`.

    Raises:
        AdapterError: a name no adapter can have.
        CheckpointError: a readout or adapter that does not fit.

    Example:
        ``TaskAdapters.load({"activity": Path("runs/activity"), "user": Path("runs/user")}).predict_all(windows)``
    """

    def __init__(self, stored: StoredTasks) -> None:
        card = stored.card
        encoder = build_encoder(card.encoder, card.input, card.options).requires_grad_(False)
        load_checked(encoder, stored.base, "encoder")
        self.card, self.encoder = card, encoder
        self.base = encoder.state_dict()  # shares the values of the layers, under their names before adapters
        self.classes: dict[str, tuple[str, ...]] = {}
        self.configs: dict[str, AdapterConfig] = {}
        self.classifiers: dict[str, Classifier] = {}
        shared = Statistics(encoder)
        for name, task in stored.tasks.items():
            statistics = reads_statistics(task.readout, encoder)
            classifier = Classifier(encoder, len(task.classes), statistics=statistics)
            if statistics:
                classifier.statistics = shared
            load_checked(readout_of(classifier), task.readout, f"task {name}")
            if task.config is not None:
                attach(classifier, task.config, name, start=False)
                storage.fill(classifier, task.adapter, name, f"task {name}")
                self.configs[name] = task.config
            self.classes[name], self.classifiers[name] = task.classes, classifier.requires_grad_(False).eval()
        self.layers = [layer for _, layer in adapter_layers(encoder)]
        self.active = ""
        self.set_task(next(iter(self.classifiers)))

    @classmethod
    def load(cls, runs: Mapping[str, Path]) -> "TaskAdapters":
        """Put the adapters of fine-tuned runs on the one encoder they were trained on.

        Args:
            runs: run folder by task name.

        Raises:
            AdapterError, CheckpointError, ConfigError, RunError: see `read_runs`.
        """
        return cls(read_runs(runs))

    @classmethod
    def read(cls, folder: Path) -> "TaskAdapters":
        """Read what `save` wrote.

        Raises:
            CheckpointError, ConfigError, RunError: see `read_pack`.
        """
        return cls(read_pack(folder))

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks, in the order they were given."""
        return tuple(self.classifiers)

    def set_task(self, task: str) -> None:
        """Let the encoder answer for one task; nothing is built.

        Raises:
            AdapterError: no such task.
        """
        if task not in self.classifiers:
            raise AdapterError("task", f"must be one of {', '.join(self.names)}", repr(task), "Correct the name")
        for layer in self.layers:
            layer.active = (task,)
        self.active = task

    @torch.no_grad()
    def logits(self, x: Tensor, task: str) -> Tensor:
        """Return one task's logits, shape (windows, classes), of windows (windows, samples, channels) in SI units."""
        if task != self.active:
            self.set_task(task)
        return self.classifiers[task](x)

    def predict(self, windows: WindowSet, task: str) -> Tensor:
        """Return one task's probabilities, shape (windows, classes).

        Raises:
            AdapterError: no such task.
            DataError: windows of another rate, length, channels or gravity.
        """
        self._check_fits(windows)
        parts = torch.from_numpy(windows.x).split(BATCH)
        return torch.cat([self.logits(part, task) for part in parts]).softmax(1)

    def predict_all(self, windows: WindowSet) -> dict[str, Tensor]:
        """Return every task's probabilities, each (windows, classes); each window passes the encoder once a task."""
        return {task: self.predict(windows, task) for task in self.names}

    def run(self, task: str) -> TrainedModel:
        """Return one task as the functions that predict from recordings want it; it shares this encoder.

        Raises:
            AdapterError: no such task.
        """
        self.set_task(task)
        statistics = self.classifiers[task].statistics is not None
        card = replace(self.card, classes=self.classes[task], statistics=statistics)
        shape = (card.input.samples, len(card.input.channels))
        return TrainedModel(
            kind=KIND,
            model=_OneTask(self, task),
            build_base=lambda: build_base(card),
            input_name="window",
            input_shape=shape,
            classes=card.classes,
            preprocessing=preprocessing(card),
            examples=torch.zeros(0, *shape),
            details={"encoder": card.encoder, "task": task, "method": self.method(task)},
        )

    def method(self, task: str) -> str:
        """Return the adapter's method, or "head" for a task that reads the frozen encoder itself."""
        return method_name(self.configs[task]) if task in self.configs else NO_ADAPTER

    def sizes(self) -> tuple[int, dict[str, int]]:
        """Return how many numbers are stored: of the encoder, and by task of its adapter and readout."""
        found = {}
        for name, classifier in self.classifiers.items():
            tensors = list(readout_of(classifier).state_dict().values())
            if name in self.configs:
                tensors += storage.adapter_state(classifier, name).values()
            found[name] = sum(tensor.numel() for tensor in tensors)
        return sum(tensor.numel() for tensor in self.base.values()), found

    def save(self, folder: Path) -> None:
        """Write the encoder once and a small folder for each task, all or nothing.

        Args:
            folder: a new or empty folder.

        Raises:
            RunError: there are other files.
        """
        listed = {name: PackedTask(classes, self.method(name)) for name, classes in self.classes.items()}
        with new_folder(folder) as fresh:
            write_json(fresh / CARD, self.card.as_json())
            write_tensors(fresh / WEIGHTS, {f"{ENCODER}{name}": tensor for name, tensor in self.base.items()})
            for name, classifier in self.classifiers.items():
                write_tensors(fresh / name / READOUT, readout_of(classifier).state_dict())
                if name in self.configs:
                    storage.save(classifier, self.configs[name], name, fresh / name)
            write_json(fresh / PACK, to_json(PackList(self.base_sha256, listed)))

    @property
    def base_sha256(self) -> str:
        """The SHA-256 of the frozen encoder, as in the details of every run on it."""
        return tensors_sha256(self.base)

    def _check_fits(self, windows: WindowSet) -> None:
        came, wanted = InputSpec.of(windows), self.card.input
        if came != wanted:
            raise DataError("tasks", f"windows must be {wanted}", came, "Cut them as the tasks' training windows were")


class _OneTask(nn.Module):
    """One task of several as a module of its own."""

    def __init__(self, tasks: TaskAdapters, task: str) -> None:
        super().__init__()
        self.tasks, self.task = tasks, task

    def forward(self, window: Tensor) -> Tensor:
        """Return logits, shape (windows, classes), of windows of shape (windows, samples, channels)."""
        return self.tasks.logits(window, self.task)
