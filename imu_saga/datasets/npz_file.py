"""A user's own recording as an npz file: one array a column, or (rows, 3) arrays named acc, gyro, mag."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from imu_saga.dataset import DATASETS
from imu_saga.files.npz_columns import array_columns, read_columns_of_arrays
from imu_saga.files.table_recording import Columns, TableDataset, sample_table
from shared_peft.atomic import replacing


@DATASETS.register("npz")
@dataclass(frozen=True)
class NpzFile(TableDataset):
    """One npz file, or a folder of them, each a session; an array acc of shape (rows, 3) is acc_x, acc_y, acc_z."""

    name: ClassVar[str] = "npz"
    title: ClassVar[str] = "your npz file, or a folder of npz files"
    url: ClassVar[str] = "your own device (no download page: numpy.savez with one array a column will do)"
    suffix: ClassVar[str] = "npz"

    def read_columns(self, path: Path, numbers: Sequence[str], texts: Sequence[str] = ()) -> Columns:
        """Return the named columns of an npz file; nothing pickled is loaded."""
        return read_columns_of_arrays(path, numbers, texts)

    def column_names(self, path: Path) -> list[str]:
        """Return the names of its arrays, those of (rows, 3) once for each axis."""
        return list(array_columns(path))

    def write_sample(self, root: Path) -> None:
        """Write two files of 20 s in SI units, with labels, at 50 Hz."""
        for subject, columns in sample_table().items():
            acc = np.stack([columns[f"acc_{axis}"] for axis in "xyz"], axis=1)
            gyro = np.stack([columns[f"gyro_{axis}"] for axis in "xyz"], axis=1)
            with replacing(root / f"{subject}.npz") as temporary, temporary.open("wb") as stream:
                np.savez(stream, time=columns["time"], acc=acc, gyro=gyro, label=columns["label"])
