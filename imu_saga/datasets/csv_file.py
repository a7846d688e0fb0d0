"""A user's own recording: any text table with a header, columns mapped by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from imu_saga.dataset import DATASETS
from imu_saga.files.table_recording import Columns, TableDataset, sample_table
from imu_saga.files.tables import Decimal, Separator, read_header, read_table
from shared_peft.atomic import write_text


@DATASETS.register("csv")
@dataclass(frozen=True)
class CsvFile(TableDataset):
    """One csv file, or a folder of them, each a session; see TableDataset."""

    name: ClassVar[str] = "csv"
    title: ClassVar[str] = "your csv file, or a folder of csv files"
    url: ClassVar[str] = "your own device (no download page: any csv with a header row will do)"
    suffix: ClassVar[str] = "csv"
    first_row: ClassVar[int] = 2  # of data; row 1 is the header

    separator: Separator = "auto"
    """Separator of the columns."""
    decimal: Decimal = "point"
    """Mark of the decimals."""

    def read_columns(self, path: Path, numbers: Sequence[str], texts: Sequence[str] = ()) -> Columns:
        """Return the named columns of a csv file."""
        dates = () if self.time is None else (self.time,)
        return read_table(path, numbers, texts, separator=self.separator, decimal=self.decimal, dates=dates)

    def column_names(self, path: Path) -> list[str]:
        """Return the names in the header."""
        return read_header(path, self.separator)[0]

    def write_sample(self, root: Path) -> None:
        """Write two files of 20 s in SI units, with a label column, at 50 Hz."""
        for subject, columns in sample_table().items():
            rows = zip(*columns.values(), strict=True)
            lines = [",".join(columns), *(",".join((*(f"{x:.5f}" for x in row[:-1]), row[-1])) for row in rows)]
            write_text(root / f"{subject}.csv", "\n".join(lines) + "\n")
