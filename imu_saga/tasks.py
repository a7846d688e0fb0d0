"""What is told apart: activities, placements of the device, or people; each says which protocols suit it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from imu_saga.split_protocol import SplitProtocol
from imu_saga.splits import Kind
from imu_saga.windows import WindowSet
from shared_peft.errors import ConfigError
from shared_peft.registry import Registry


@dataclass(frozen=True)
class Task:
    """A way to label windows; its ``summary`` says what is told apart.

    Args:
        name: the registered name.
        summary: what is told apart, in words.
        relabel: gives windows their labels and classes for this task.
        classes_are: what a class is, where sides may not be kept apart by it.
        default_protocol: the protocol used where none is named.
        needs_labels: whether windows without a label in the data are of no use.
    """

    name: str
    summary: str
    relabel: Callable[[WindowSet], WindowSet]
    classes_are: Kind | None = None
    default_protocol: str = "subject"
    needs_labels: bool = True

    def suits(self, protocol: SplitProtocol) -> bool:
        """Tell whether every class can stand on both sides of the protocol's folds."""
        return self.classes_are not in protocol.apart

    def check(self, protocol: SplitProtocol) -> None:
        """Raise ConfigError where the protocol keeps the task's own classes apart."""
        if not self.suits(protocol):
            must = f"must not keep {self.classes_are}s apart, which task {self.name} is to recognise"
            fix = f"Use --protocol {self.default_protocol}"
            raise ConfigError(f"--protocol {protocol.name}", must, f"sides apart by {', '.join(protocol.apart)}", fix)


TASKS: Registry[Task] = Registry("task")


def by_name(windows: WindowSet, names: np.ndarray) -> WindowSet:
    """Return the windows labelled by ``names``, shape (n,) str; the classes are the sorted names."""
    classes, labels = np.unique(names, return_inverse=True)
    return replace(windows, labels=labels.astype(np.int64), classes=tuple(classes.tolist()))


for task in (
    Task("activity", "the classes of the data set's own labels", lambda windows: windows),
    Task(
        "placement",
        "where the device is worn",
        lambda windows: by_name(windows, windows.placements),
        "placement",
        needs_labels=False,
    ),
    Task(
        "user",
        "who wears the device: other sessions of people that training saw, and impostors it did not",
        lambda windows: by_name(windows, windows.subjects),
        "subject",
        "session",
        needs_labels=False,
    ),
):
    TASKS.register(task.name)(task)
