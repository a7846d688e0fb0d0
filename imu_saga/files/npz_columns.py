"""The columns an npz file offers: one array each, or one axis of an array of (rows, 3)."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from imu_saga.files.tables import NPZ_ERRORS, check_file, columns_of_frame, missing_columns, read_arrays
from shared_peft.archives import check_unpacked
from shared_peft.errors import DataError


def array_columns(path: Path) -> dict[str, tuple[str, int | None]]:
    """Return the columns an npz file offers, each with its array and the axis within it.

    An array acc of shape (rows, 3) offers acc_x, acc_y and acc_z; one of one dimension is a column itself.

    Raises:
        DataError: the file is missing or broken.
    """
    check_file(path)
    columns: dict[str, tuple[str, int | None]] = {}
    try:
        check_unpacked(path)
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                name = member.removesuffix(".npy")
                shape = _shape(archive, member)
                if len(shape) == 2 and shape[1] == 3:
                    columns |= {f"{name}_{axis}": (name, index) for index, axis in enumerate("xyz")}
                elif len(shape) == 1:
                    columns[name] = (name, None)
    except NPZ_ERRORS as error:
        raise DataError(path, "must be a whole npz file", str(error)[:200], "Copy or save it again") from error
    return columns


def read_columns_of_arrays(
    path: Path, numbers: Sequence[str], texts: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Read named columns of an npz file; see ``array_columns`` and ``columns_of_frame``.

    Raises:
        DataError: the file is broken, a column is missing, or two differ in length.
    """
    columns = array_columns(path)
    wanted = (*numbers, *texts)
    missing_columns(path, list(columns), wanted)
    stored = read_arrays(path, list(dict.fromkeys(columns[name][0] for name in wanted)))
    rows = {name: len(array) for name, array in stored.items()}
    if len(set(rows.values())) > 1:
        came = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise DataError(path, "arrays must have one length", came, "Save one value per sample in every array")
    series = {}
    for name in wanted:
        array, axis = columns[name]
        values = stored[array] if axis is None else stored[array][:, axis]
        if values.dtype.kind in "cV":
            raise DataError(f"{path}, array {array}", "must hold real numbers or text", values.dtype, "Convert it")
        series[name] = np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values
    frame = pd.DataFrame({name: pd.Series(np.ascontiguousarray(values)) for name, values in series.items()})
    return columns_of_frame(frame, path, numbers, texts, first_row=0)


def _shape(archive: zipfile.ZipFile, member: str) -> tuple[int, ...]:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read(stream)[0]
