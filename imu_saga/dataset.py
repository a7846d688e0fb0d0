"""What every IMU data set offers, and the registry they stand in."""

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from imu_saga.recording import IMU_CHANNELS, Gravity, Recording
from shared_peft.config import from_json
from shared_peft.errors import DataError
from shared_peft.registry import Registry


class ImuDataset(abc.ABC):
    """Reads one data set into recordings; a concrete one is a frozen dataclass whose fields are its options.

    Class attributes say what holds for every option: the registered ``name``, the ``title``, the ``licence``, the
    official download page ``url``, the ``placements`` it knows, the ``channels`` it can give, the ``native_rate_hz``
    (nominal; None where the file decides), whether ``read`` needs a folder (``needs_root``), whether the
    accelerometer still measures ``gravity``, and whose ``people`` it shows where another data set shows them too.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    licence: ClassVar[str]
    url: ClassVar[str]
    placements: ClassVar[tuple[str, ...]]
    native_rate_hz: ClassVar[float | None]
    channels: ClassVar[tuple[str, ...]] = IMU_CHANNELS
    needs_root: ClassVar[bool] = True
    gravity: ClassVar[Gravity] = "kept"
    people: ClassVar[str] = ""

    @abc.abstractmethod
    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the class names the labels index; only a user's own files need ``root`` to know them."""

    @abc.abstractmethod
    def read(self, root: Path | None = None) -> list[Recording]:
        """Return all recordings below ``root`` at their native rate, in SI units.

        Raises:
            DataError: the folder is missing (the message names the download page), or a file cannot be used.
        """

    @abc.abstractmethod
    def write_sample(self, root: Path) -> None:
        """Write a tiny data set in the exact raw format below ``root``, for tests."""

    def folder(self, root: Path | None, *patterns: str) -> Path:
        """Return the first folder below ``root`` that holds a file matching one of the glob ``patterns``.

        Args:
            root: the data set's folder.
            patterns: globs relative to ``root``; the match's parent is not searched further.

        Raises:
            DataError: there is none; names the official download page.
        """
        if root is not None and root.is_dir():
            for pattern in patterns:
                found = next(iter(sorted(root.glob(pattern))), None)
                if found is not None:
                    return found
        came = f"no {' or '.join(patterns)}" if root is not None and root.is_dir() else "no such folder"
        fix = f"Download {self.title} from {self.url} and give its folder"
        raise DataError(root if root is not None else self.name, f"must be the folder of {self.title}", came, fix)


DATASETS = Registry[type[ImuDataset]]("IMU data set")


def open_dataset(name: str, options: Mapping[str, Any] | None = None) -> ImuDataset:
    """Return the data set called ``name`` with its options set.

    Args:
        name: a registered name.
        options: plain values by field name; absent ones keep their defaults.

    Raises:
        UnknownNameError: no such data set.
        ConfigError: an unknown option or a value of another type.
    """
    return from_json(DATASETS.get(name), options or {}, f"data set {name}")
