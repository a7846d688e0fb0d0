"""Packed files: how much they may hold, whoever reads them."""

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest

from imu_saga.files.npz_columns import array_columns
from imu_saga.files.tables import read_arrays
from shared_peft.archives import ALWAYS, MOST, RATIO, check_content, largest_content
from shared_peft.errors import DataError
from vision.datasets.arrays import load_arrays
from vision.datasets.idx import read_idx


def bomb(path: Path, size: int = 304 << 20) -> Path:
    """Write an npz file of a few hundred kilobytes with one array of ``size`` zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w") as entry:
        np.lib.format.write_array_header_1_0(entry, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
        for _ in range(0, size, 1 << 24):
            entry.write(bytes(1 << 24))
    return path


def test_a_file_may_hold_256_mib_or_50_times_its_size_or_4_gib(tmp_path):
    path = tmp_path / "file"
    for size, limit in ((1, ALWAYS), (ALWAYS // RATIO + 10, ALWAYS - ALWAYS % RATIO + 10 * RATIO), (1 << 30, MOST)):
        with path.open("wb") as stream:
            stream.truncate(size)
        assert largest_content(path) == limit
        check_content(path, limit)
        with pytest.raises(DataError, match=f"must unpack to at most {limit >> 20} MiB"):
            check_content(path, limit + 1)


@pytest.mark.parametrize(
    "read", [array_columns, lambda path: read_arrays(path, ["images"]), lambda path: load_arrays(str(path))]
)
def test_an_npz_file_that_unpacks_to_a_thousand_times_its_size_is_refused_unread(read, tmp_path):
    with pytest.raises(DataError, match="must unpack to at most 256 MiB, got 304 MiB"):
        read(bomb(tmp_path / "bomb.npz"))


def test_a_gzip_file_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for _ in range(18):
            stream.write(bytes(1 << 24))
    with pytest.raises(DataError, match="must unpack to at most 256 MiB"):
        read_idx(path)
