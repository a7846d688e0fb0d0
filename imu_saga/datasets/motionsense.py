"""MotionSense: 24 people with a phone in the front pocket (Malekzadeh et al. 2019, doi:10.1145/3302505.3310068)."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from imu_saga.dataset import DATASETS, ImuDataset
from imu_saga.datasets._sample_motion import sample_motion
from imu_saga.files.tables import read_table
from imu_saga.recording import IMU_CHANNELS, Recording
from imu_saga.signal.units import GRAVITY
from shared_peft.errors import DataError

CODES = ("dws", "ups", "sit", "std", "wlk", "jog")
CLASSES = ("downstairs", "upstairs", "sitting", "standing", "walking", "jogging")
RATE_HZ = 50.0
ATTITUDE = tuple(f"attitude.{name}" for name in ("roll", "pitch", "yaw"))
GRAVITY_COLUMNS, RATE_COLUMNS, USER_COLUMNS = (
    tuple(f"{what}.{axis}" for axis in "xyz") for what in ("gravity", "rotationRate", "userAcceleration")
)
_FOLDER = re.compile(rf"({'|'.join(CODES)})_\d+")
_FILE = re.compile(r"sub_\d+\.csv")


@DATASETS.register("motionsense")
@dataclass(frozen=True)
class MotionSense(ImuDataset):
    """Six activities, iPhone in the trousers' front pocket, 50 Hz, from A_DeviceMotion_data.

    The phone's own fusion has split the accelerometer into gravity and userAcceleration [g]; their sum is what it
    measured. Apple counts it downwards: a phone at rest face up measures z = -1 g, other devices +1 g.
    """

    name: ClassVar[str] = "motionsense"
    title: ClassVar[str] = "MotionSense"
    licence: ClassVar[str] = "MIT"
    url: ClassVar[str] = "https://github.com/mmalekzadeh/motion-sense"
    placements: ClassVar[tuple[str, ...]] = ("front pocket",)
    native_rate_hz: ClassVar[float | None] = RATE_HZ

    direction: Literal["usual", "apple"] = "usual"
    """Sign of the accelerometer: +g along the axis that points up at rest, as everywhere else, or as published."""

    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the six activities, in the order of the folders' codes dws, ups, sit, std, wlk, jog."""
        return CLASSES

    def read(self, root: Path | None = None) -> list[Recording]:
        """Return one recording for each trial and subject.

        Raises:
            DataError: the folder is missing (the message names the download page), or a file cannot be used.
        """
        inside = "[a-z][a-z][a-z]_[0-9]*/sub_*.csv"
        above = ("A_DeviceMotion_data/", "data/A_DeviceMotion_data/", "*/A_DeviceMotion_data/", "")
        trials = self.folder(root, *(f"{folder}{inside}" for folder in above)).parent.parent
        return [self._read_trial(path) for path in sorted(trials.glob(inside))]

    def write_sample(self, root: Path) -> None:
        """Write three subjects with three trials each, in the official layout, the first column without a name."""
        generator = np.random.default_rng(0)
        header = ",".join(("", *ATTITUDE, *GRAVITY_COLUMNS, *RATE_COLUMNS, *USER_COLUMNS))
        for folder in ("wlk_7", "sit_5", "jog_16"):
            for subject in (1, 2, 3):
                active = np.full(400, folder != "sit_5")
                motion = sample_motion(active, RATE_HZ, generator, tilt=2.0, tempo_hz=1.5 + subject / 10)
                attitude = np.cumsum(motion.gyro, axis=0) / RATE_HZ
                parts = (attitude, -motion.gravity / GRAVITY, motion.gyro, -motion.linear / GRAVITY)
                rows = np.concatenate(parts, axis=1).tolist()
                lines = [f"{index},{','.join(f'{value:.6f}' for value in row)}" for index, row in enumerate(rows)]
                path = root / "A_DeviceMotion_data" / folder / f"sub_{subject}.csv"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("\n".join([header, *lines]) + "\n", encoding="ascii")
        info = "code,weight,height,age,gender\n1,102,188,46,1\n2,72,180,28,1\n3,48,161,28,0\n"
        (root / "data_subjects_info.csv").write_text(info, encoding="ascii")

    def _read_trial(self, path: Path) -> Recording:
        folder = _FOLDER.fullmatch(path.parent.name)
        if folder is None or not _FILE.fullmatch(path.name):
            must = f"must be {'|'.join(CODES)}_N/sub_M.csv"
            raise DataError(path, must, f"{path.parent.name}/{path.name}", "Use the official folders, unchanged")
        numbers, _ = read_table(path, (*GRAVITY_COLUMNS, *USER_COLUMNS, *RATE_COLUMNS), separator=",")
        gravity, user, rates = (
            np.stack([numbers[name] for name in names], axis=1)
            for names in (GRAVITY_COLUMNS, USER_COLUMNS, RATE_COLUMNS)
        )
        upwards = -1.0 if self.direction == "usual" else 1.0
        signal = np.concatenate([upwards * GRAVITY * (gravity + user), rates], axis=1)
        if not np.isfinite(signal).all():
            row = int(np.argmax(~np.isfinite(signal).all(axis=1)))
            fix = "Use the official file, unchanged"
            raise DataError(f"{path}, row {row + 2}", "numbers must be finite", "an empty cell or inf", fix)
        return Recording(
            signal=signal.astype(np.float32),
            channels=IMU_CHANNELS,
            rate_hz=RATE_HZ,
            labels=np.full(len(signal), CODES.index(folder[1]), dtype=np.int64),
            valid=np.ones(len(signal), dtype=bool),
            subject=path.stem,
            session=path.parent.name,
            placement="front pocket",
            dataset="motionsense",
        )
