"""UTD-MHAD: 8 people, 27 actions (Chen, Jafari and Kehtarnavaz 2015, doi:10.1109/ICIP.2015.7350781)."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.io import savemat

from imu_saga.dataset import DATASETS, ImuDataset
from imu_saga.datasets._sample_motion import sample_motion
from imu_saga.files.matlab_file import read_matrix
from imu_saga.recording import IMU_CHANNELS, Recording
from imu_saga.signal.units import GRAVITY
from shared_peft.errors import DataError

WRIST_ACTIONS = (
    "swipe left",
    "swipe right",
    "wave",
    "clap",
    "throw",
    "cross arms",
    "basketball shoot",
    "draw x",
    "draw circle clockwise",
    "draw circle counter-clockwise",
    "draw triangle",
    "bowling",
    "boxing",
    "baseball swing",
    "tennis forehand swing",
    "arm curl",
    "tennis serve",
    "push",
    "knock on door",
    "catch",
    "pick up and throw",
)  # a1 to a21: the sensor is on the right wrist
THIGH_ACTIONS = (
    "jog in place",
    "walk in place",
    "sit to stand",
    "stand to sit",
    "forward lunge",
    "squat",
)  # a22 to a27
RATE_HZ = 50.0
KEY = "d_iner"
_NAME = re.compile(r"a(\d+)_(s\d+)_(t\d+)_inertial\.mat")


@DATASETS.register("utd_mhad")
@dataclass(frozen=True)
class UtdMhad(ImuDataset):
    """Twenty-seven actions, 50 Hz, g with gravity and deg/s; on the right wrist, for a22 to a27 on the right thigh.

    Each trial is a Matlab file aX_sY_tZ_inertial.mat with the array d_iner, samples by acc x y z and gyro x y z.
    """

    name: ClassVar[str] = "utd_mhad"
    title: ClassVar[str] = "UTD-MHAD"
    licence: ClassVar[str] = "research use"
    url: ClassVar[str] = "https://personal.utdallas.edu/~kehtar/UTD-MHAD.html"
    placements: ClassVar[tuple[str, ...]] = ("right wrist", "right thigh")
    native_rate_hz: ClassVar[float | None] = RATE_HZ

    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the twenty-seven actions, in the order of their numbers."""
        return WRIST_ACTIONS + THIGH_ACTIONS

    def read(self, root: Path | None = None) -> list[Recording]:
        """Return one recording for each trial.

        Raises:
            DataError: the folder is missing (the message names the download page), or a file cannot be used.
        """
        file = "a*_s*_t*_inertial.mat"
        trials = self.folder(root, *(f"{above}{file}" for above in ("Inertial/", "", "*/Inertial/"))).parent
        return [self._read_trial(path) for path in sorted(trials.glob(file))]

    def write_sample(self, root: Path) -> None:
        """Write two people with four trials each, in the official layout."""
        generator = np.random.default_rng(0)
        (root / "Inertial").mkdir(parents=True, exist_ok=True)
        for subject in (1, 2):
            for action in (3, 21, 22, 27):
                motion = sample_motion(np.arange(150) >= 25, RATE_HZ, generator, tilt=action / 10)
                values = np.concatenate([motion.acc / GRAVITY, np.rad2deg(motion.gyro)], axis=1)
                path = root / "Inertial" / f"a{action}_s{subject}_t1_inertial.mat"
                savemat(path, {KEY: values}, do_compression=True)

    def _read_trial(self, path: Path) -> Recording:
        name = _NAME.fullmatch(path.name)
        if name is None or not 1 <= int(name[1]) <= len(self.class_names()):
            must = "name must be aX_sY_tZ_inertial.mat with X from 1 to 27"
            raise DataError(path, must, path.name, "Use the official file, unchanged")
        action, subject, trial = int(name[1]), name[2], name[3]
        values = read_matrix(path, KEY, len(IMU_CHANNELS))
        signal = np.concatenate([values[:, :3] * GRAVITY, np.deg2rad(values[:, 3:])], axis=1)
        return Recording(
            signal=signal.astype(np.float32),
            channels=IMU_CHANNELS,
            rate_hz=RATE_HZ,
            labels=np.full(len(signal), action - 1, dtype=np.int64),
            valid=np.ones(len(signal), dtype=bool),
            subject=subject,
            session=f"a{action:02d}_{trial}",
            placement=self.placements[action > len(WRIST_ACTIONS)],
            dataset="utd_mhad",
        )
