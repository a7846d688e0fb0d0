"""A user's own recording as a parquet file, read by pyarrow."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pandas as pd

from imu_saga.dataset import DATASETS
from imu_saga.files.table_recording import Columns, TableDataset, sample_table
from imu_saga.files.tables import check_file, columns_of_frame, missing_columns
from shared_peft.archives import check_content
from shared_peft.atomic import replacing
from shared_peft.errors import DataError
from shared_peft.packages import load_package


@DATASETS.register("parquet")
@dataclass(frozen=True)
class ParquetFile(TableDataset):
    """One parquet file, or a folder of them, each a session; see TableDataset."""

    name: ClassVar[str] = "parquet"
    title: ClassVar[str] = "your parquet file, or a folder of parquet files"
    url: ClassVar[str] = "your own device (no download page: pandas.DataFrame.to_parquet will do)"
    suffix: ClassVar[str] = "parquet"

    def read_columns(self, path: Path, numbers: Sequence[str], texts: Sequence[str] = ()) -> Columns:
        """Return the named columns of a parquet file.

        Raises:
            MissingPackageError: pyarrow is not installed.
            DataError: a column is missing or no number, or the file is broken.
        """
        names = self.column_names(path)
        missing_columns(path, names, (*numbers, *texts))
        columns = list(dict.fromkeys((*numbers, *texts)))
        with _arrow_errors(path):
            _check_content(path, len(columns))
            frame = pd.read_parquet(path, engine="pyarrow", columns=columns, read_dictionary=list(texts))
        return columns_of_frame(frame, path, numbers, texts, first_row=self.first_row)

    def column_names(self, path: Path) -> list[str]:
        """Return the names of the columns."""
        parquet = _parquet(path)
        check_file(path)
        with _arrow_errors(path):
            return [str(name) for name in parquet.read_schema(path).names]

    def write_sample(self, root: Path) -> None:
        """Write two files of 20 s in SI units, with labels, at 50 Hz."""
        _parquet(root)
        for subject, columns in sample_table().items():
            with replacing(root / f"{subject}.parquet") as temporary:
                pd.DataFrame(columns).to_parquet(temporary, engine="pyarrow", index=False)


def _check_content(path: Path, columns: int) -> None:
    """Refuse a file whose columns would fill the memory; a value repeated costs it next to nothing."""
    found = _parquet(path).read_metadata(path)
    packed = sum(found.row_group(group).total_byte_size for group in range(found.num_row_groups))
    check_content(path, max(packed, found.num_rows * columns * 8))


def _parquet(where: Path) -> ModuleType:
    return load_package("pyarrow.parquet", where, extra="parquet")


@contextlib.contextmanager
def _arrow_errors(path: Path) -> Iterator[None]:
    """Turn pyarrow's complaints about a file into ours."""
    from pyarrow import ArrowException  # noqa: PLC0415  (an extra)

    try:
        yield
    except (ArrowException, OSError, ValueError, MemoryError) as error:
        came = str(error).strip().split("\n")[0][:200]
        raise DataError(path, "must be a whole parquet file", came, "Copy or export it again") from error
