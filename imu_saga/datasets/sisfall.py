"""SisFall: 38 people, daily activities and falls, at the waist (Sucerquia et al. 2017, doi:10.3390/s17010198)."""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from imu_saga.dataset import DATASETS, ImuDataset
from imu_saga.files.tables import check_file, read_arrays
from imu_saga.recording import IMU_CHANNELS, UNLABELLED, Recording
from imu_saga.signal.units import GRAVITY
from shared_peft.errors import DataError

GROUPS = ("walking", "jogging", "stairs", "chair", "lying", "bending", "car")
GROUP_OF = (0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 5, 5, 6, UNLABELLED, UNLABELLED)  # D01 to D19
ACTIVITIES = tuple(f"D{number:02d}" for number in range(1, 20))
RAW_RATE_HZ = 200.0
ACC_PER_COUNT = 2 * 16 / 2**13 * GRAVITY  # [m/s^2] ADXL345: 13 bits over +-16 g (the data set's Readme)
GYRO_PER_COUNT = 2 * 2000 / 2**16 * np.pi / 180  # [rad/s] ITG3200: 16 bits over +-2000 deg/s
COLUMNS = 9
_NAME = re.compile(r"([DF]\d\d)_(S[AE]\d\d)_(R\d\d)\.txt")


@DATASETS.register("sisfall")
@dataclass(frozen=True)
class SisFall(ImuDataset):
    """Daily activities (and falls) at the waist, 200 Hz: the ADXL345 accelerometer and the ITG3200 gyroscope."""

    name: ClassVar[str] = "sisfall"
    title: ClassVar[str] = "SisFall"
    licence: ClassVar[str] = "research use"
    url: ClassVar[str] = "http://sistemic.udea.edu.co/en/investigacion/proyectos/english-falls/"
    placements: ClassVar[tuple[str, ...]] = ("waist",)
    native_rate_hz: ClassVar[float | None] = RAW_RATE_HZ

    labels: Literal["groups", "activities"] = "groups"
    """Seven groups (D18, D19 and falls unlabelled), or the 19 activities D01 to D19 (falls unlabelled)."""
    falls: bool = False
    """Read the falls too, unlabelled; only the original layout has them."""
    source: Literal["auto", "raw", "npz"] = "auto"
    """Original txt files, the packed 50 Hz streams, or whichever is there (streams first unless falls are read)."""

    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the seven groups or the nineteen activities."""
        return GROUPS if self.labels == "groups" else ACTIVITIES

    def read(self, root: Path | None = None) -> list[Recording]:
        """Return one recording for each trial.

        Raises:
            DataError: the folder is missing (the message names the download page), or a file cannot be used.
        """
        npz = ("adl_streams_50hz.npz",)
        raw = tuple(f"{above}S[AE][0-9][0-9]/[DF]*.txt" for above in ("", "SisFall_dataset/", "raw/SisFall_dataset/"))
        auto = raw + npz if self.falls else npz + raw
        found = self.folder(root, *{"auto": auto, "raw": raw, "npz": npz}[self.source])
        if found.suffix == ".npz":
            return self._read_streams(found)
        kinds = "[DF]" if self.falls else "D"
        return [self._read_text(file) for file in sorted(found.parent.parent.glob(f"S[AE][0-9][0-9]/{kinds}*.txt"))]

    def write_sample(self, root: Path) -> None:
        """Write two subjects with three activities and a fall each, in the layout SA01/D01_SA01_R01.txt."""
        generator = np.random.default_rng(0)
        for subject in ("SA01", "SE06"):
            for code in ("D01", "D07", "D18", "F01"):
                path = root / "SisFall_dataset" / subject / f"{code}_{subject}_R01.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(_sample_text(generator), encoding="ascii", newline="")

    def _label(self, code: str) -> int:
        if code not in ACTIVITIES:
            return UNLABELLED
        index = ACTIVITIES.index(code)
        return GROUP_OF[index] if self.labels == "groups" else index

    def _read_text(self, path: Path) -> Recording:
        name = _NAME.fullmatch(path.name)
        if name is None:
            must = "name must be CODE_SUBJECT_TRIAL.txt, as in D01_SA01_R01.txt"
            raise DataError(path, must, path.name, "Use the official file, unchanged")
        code, _, trial = name.groups()
        subject = path.parent.name  # not the name's: SA15's five D17 files are called SE15
        counts = read_counts(path)
        signal = np.concatenate([counts[:, :3] * ACC_PER_COUNT, counts[:, 3:6] * GYRO_PER_COUNT], axis=1)
        return self._recording(signal, RAW_RATE_HZ, code, subject, trial)

    def _read_streams(self, path: Path) -> list[Recording]:
        fields = ("acc", "gyro", "segment_start", "segment_len", "label", "subject", "trial")
        stored = read_arrays(path, (*fields, "code", "subject_names", "rate_hz"))
        signal = np.concatenate([stored["acc"], stored["gyro"]], axis=1)
        subjects, codes = stored["subject_names"].tolist(), stored["code"].tolist()
        # Segments are ordered by subject's folder; SA15's five D17 trials are called SE15 and stand among SA15's.
        stored["subject"] = np.minimum.accumulate(stored["subject"][::-1])[::-1]
        return [
            self._recording(
                signal[start : start + length],
                float(stored["rate_hz"]),
                codes[label],
                subjects[subject - 1],
                f"R{trial:02d}",
            )
            for start, length, label, subject, trial in zip(
                *(stored[name].tolist() for name in fields[2:]), strict=True
            )
        ]

    def _recording(self, signal: np.ndarray, rate_hz: float, code: str, subject: str, trial: str) -> Recording:
        return Recording(
            signal=signal.astype(np.float32),
            channels=IMU_CHANNELS,
            rate_hz=rate_hz,
            labels=np.full(len(signal), self._label(code), dtype=np.int64),
            valid=np.ones(len(signal), dtype=bool),
            subject=subject,
            session=f"{code}_{trial}",
            placement="waist",
            dataset="sisfall",
        )


def read_counts(path: Path) -> np.ndarray:
    """Read a trial's sensor counts.

    Args:
        path: a text file of rows like ``  17,-179, -99, -18,-504,-352,  76,-697,-279;``.

    Returns:
        (samples, 9) float64 counts: ADXL345 x y z, ITG3200 x y z, MMA8451Q x y z.

    Raises:
        DataError: the file is missing or empty, or a row is not nine whole numbers.
    """
    check_file(path)
    try:
        text = path.read_text(encoding="ascii").replace(";", "")
    except UnicodeDecodeError as error:
        raise DataError(path, "must be ASCII text", str(error), "Use the official file, unchanged") from error
    try:
        frame = pd.read_csv(io.StringIO(text), header=None, names=range(COLUMNS), index_col=False, dtype=np.int64)
    except (ValueError, OverflowError, pd.errors.ParserWarning):
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        number, line = next(((at, line) for at, line in lines if not _is_row(line)), (1, "no rows"))
        must = f"must hold {COLUMNS} whole numbers"
        fix = "Use the official file, unchanged"
        raise DataError(f"{path}, row {number}", must, repr(line.strip()[:60]), fix) from None
    return frame.to_numpy(dtype=np.float64)


def _is_row(line: str) -> bool:
    return re.fullmatch(rf"(\s*-?\d{{1,9}}\s*,){{{COLUMNS - 1}}}\s*-?\d{{1,9}}\s*", line) is not None


def _sample_text(generator: np.random.Generator) -> str:
    """Return 8 s of a device at the waist, upright (gravity on -y), stepping at 1.8 Hz."""
    seconds = np.arange(1600) / RAW_RATE_HZ
    step = np.sin(2 * np.pi * 1.8 * seconds)
    adxl = np.stack([7 + 5 * step, -247 + 60 * step, 4 + 20 * step], axis=1)
    itg = np.stack([41 + 300 * step, 7 + 100 * step, -17 + 50 * step], axis=1)
    counts = np.concatenate([adxl, itg, adxl * 4], axis=1) + generator.normal(0, 3, (len(seconds), COLUMNS))
    rows = [",".join(f"{value:4d}" for value in row) + ";" for row in np.round(counts).astype(int).tolist()]
    return "\r\n".join(rows) + "\r\n"
