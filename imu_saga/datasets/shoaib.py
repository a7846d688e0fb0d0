"""Shoaib: ten people, five phones on each, seven activities (Shoaib et al. 2014, doi:10.3390/s140610146)."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from imu_saga.dataset import DATASETS, ImuDataset
from imu_saga.datasets._own_clock import worn_device
from imu_saga.files.tables import check_file
from imu_saga.recording import IMU_CHANNELS, MAG_CHANNELS, Recording
from imu_saga.signal.clock import to_uniform
from imu_saga.signal.units import acc_to_si
from shared_peft.errors import DataError

CLASSES = ("walking", "standing", "jogging", "sitting", "biking", "upstairs", "downstairs")
MISSPELT = {"upsatirs": "upstairs"}
BLOCKS = ("left_pocket", "right_pocket", "wrist", "upper_arm", "belt")  # in the order of the columns
SENSORS = ("time_stamp", "Ax", "Ay", "Az", "Lx", "Ly", "Lz", "Gx", "Gy", "Gz", "Mx", "My", "Mz")
BLOCK_COLUMNS = len(SENSORS) + 1  # an empty column, or the activity, ends a block
ACC, GYRO, MAG = slice(1, 4), slice(7, 10), slice(10, 13)  # within a block; 4 to 6 is acc without gravity
WIDTHS = (len(BLOCKS) * BLOCK_COLUMNS, len(BLOCKS) * BLOCK_COLUMNS + 1)  # the activity ends or follows the last block
HEADER_ROWS = 2
RATE_HZ = 50.0
MAX_GAP_S = 0.5  # [s] ours
_FIX = "Use the official file, unchanged"


@DATASETS.register("shoaib")
@dataclass(frozen=True)
class Shoaib(ImuDataset):
    """Walk, stand, jog, sit, bike, stairs up and down: pockets, wrist, upper arm and belt at once, 50 Hz.

    The stamps of some files were rounded by a spreadsheet (1.39E+12 for many rows), so they are not used: rows are
    50 to the second. A file holds one activity after the other, recorded apart, so each is a session of its own.
    """

    name: ClassVar[str] = "shoaib"
    title: ClassVar[str] = "the Sensors Activity Recognition data set of Shoaib et al."
    licence: ClassVar[str] = "research use"
    url: ClassVar[str] = "https://www.utwente.nl/en/eemcs/ps/research/dataset/"
    placements: ClassVar[tuple[str, ...]] = BLOCKS
    native_rate_hz: ClassVar[float | None] = RATE_HZ
    channels: ClassVar[tuple[str, ...]] = IMU_CHANNELS + MAG_CHANNELS

    placement: Literal["all", "left_pocket", "right_pocket", "wrist", "upper_arm", "belt"] = "all"
    """Which phone."""
    mag: bool = False
    """Read the magnetometer too."""

    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the seven activities."""
        return CLASSES

    def read(self, root: Path | None = None) -> list[Recording]:
        """Return one recording for each participant, activity and phone.

        Raises:
            DataError: the folder is missing (the message names the download page), or a file cannot be used.
        """
        name = "Participant_[0-9]*.csv"
        found = self.folder(root, *(above + name for above in ("", "DataSet/", "*/DataSet/", "*/")))
        return [one for path in sorted(found.parent.glob(name)) for one in self._read_file(path)]

    def write_sample(self, root: Path) -> None:
        """Write two participants with three activities of 6 s, one misspelt, and stamps of low resolution."""
        generator = np.random.default_rng(0)
        folder = root / "DataSet"
        folder.mkdir(parents=True, exist_ok=True)
        for participant in (1, 2):
            text = _sample_text(("walking", "standing", "upsatirs"), generator)
            (folder / f"Participant_{participant}.csv").write_text(text, encoding="ascii")

    def _read_file(self, path: Path) -> list[Recording]:
        cells, labels = read_participant(path)
        chosen = BLOCKS if self.placement == "all" else (self.placement,)
        runs = np.split(np.arange(len(labels)), np.flatnonzero(np.diff(labels)) + 1)
        recordings = []
        for placement in chosen:
            first = BLOCKS.index(placement) * BLOCK_COLUMNS
            block = cells[:, first : first + len(SENSORS)]
            signal = np.concatenate([block[:, ACC], block[:, GYRO], *([block[:, MAG]] if self.mag else [])], axis=1)
            measured = np.asarray(np.isfinite(signal).all(axis=1))
            acc_to_si(signal[measured, :3], "m/s^2", f"{path}, {placement}")  # a shifted column would show here
            for index, run in enumerate(runs):
                session = f"{CLASSES[labels[run[0]]]}_{index:02d}"
                recordings += self._recordings(signal, labels, run[measured[run]], path, session, placement)
        return recordings

    def _recordings(
        self, signal: np.ndarray, labels: np.ndarray, rows: np.ndarray, path: Path, session: str, placement: str
    ) -> list[Recording]:
        if not len(rows):
            return []
        stretches = to_uniform(rows / RATE_HZ, signal[rows], max_gap_s=MAX_GAP_S, clock="stamps", where=str(path))
        return [
            Recording(
                signal=stretch.values.astype(np.float32),
                channels=IMU_CHANNELS + (MAG_CHANNELS if self.mag else ()),
                rate_hz=RATE_HZ,
                labels=labels[rows[stretch.nearest]],
                valid=stretch.valid,
                subject=path.stem.partition("_")[2],
                session=session,
                placement=placement,
                dataset="shoaib",
                start_s=stretch.start_s,
            )
            for stretch in stretches
        ]


def read_participant(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read one participant's file.

    Args:
        path: a csv file of two header rows, then five blocks of columns and the activity.

    Returns:
        (rows, 70 or 71) float64 cells, NaN where empty, and (rows,) int64 class indices.

    Raises:
        DataError: the file is missing, has another width, or a row is broken.
    """
    check_file(path)
    try:
        with path.open(encoding="ascii", newline="") as stream:
            rows = csv.reader(stream)
            width = len([next(rows, []) for _ in range(HEADER_ROWS + 1)][-1])
        if width not in WIDTHS:
            must = f"must hold {WIDTHS[0]} or {WIDTHS[1]} columns"
            raise DataError(f"{path}, row {HEADER_ROWS + 1}", must, width, _FIX)
        kinds = dict.fromkeys(range(width - 1), "float64") | {width - 1: "str"}
        frame = pd.read_csv(
            path,
            header=None,
            skiprows=HEADER_ROWS,
            names=list(range(width)),
            dtype=kinds,  # type: ignore[arg-type]  (a mapping from columns to types)
            index_col=False,
            skipinitialspace=True,
        )
    except UnicodeDecodeError as error:
        raise DataError(path, "must be ASCII text", str(error), _FIX) from error
    except (csv.Error, ValueError, OverflowError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise DataError(path, "rows must hold numbers, then the activity", error, _FIX) from error
    return frame.iloc[:, :-1].to_numpy(np.float64), _label_indices(frame.iloc[:, -1], path)


def _label_indices(texts: pd.Series, path: Path) -> np.ndarray:
    names = texts.fillna("").str.strip().str.lower().replace(MISSPELT)
    strange = np.flatnonzero(~names.isin(CLASSES))
    if len(strange):
        must, came = f"activity must be one of {', '.join(CLASSES)}", repr(str(texts.iloc[strange[0]]))
        raise DataError(f"{path}, row {strange[0] + HEADER_ROWS + 1}", must, came, _FIX)
    return np.asarray(names.map({name: index for index, name in enumerate(CLASSES)}), np.int64)


def _sample_text(activities: tuple[str, ...], generator: np.random.Generator) -> str:
    """Return a file of 6 s for each activity; every phone measures its own motion."""
    first = [block if column == 0 else "" for block in BLOCKS for column in range(BLOCK_COLUMNS)]
    second = [name for _ in BLOCKS for name in (*SENSORS, "")]
    second[-1] = "Activity"
    rows = [",".join(first), ",".join(second)]
    times = np.arange(300) / RATE_HZ
    for activity in activities:
        blocks = []
        for _ in BLOCKS:
            acc, gyro = worn_device(6, (0.0, 0.0 if activity == "standing" else 6.0), generator)(times)
            linear, mag = acc - acc.mean(axis=0), generator.normal((20, -5, -40), 0.5, acc.shape)
            blocks.append(
                [",".join(f"{cell:.6g}" for cell in row) for row in np.hstack([acc, linear, gyro, mag]).tolist()]
            )
        rows += [",,".join(f"1.39E+12,{block[i]}" for block in blocks) + f",{activity}" for i in range(len(times))]
    return "\n".join(rows) + "\n"
