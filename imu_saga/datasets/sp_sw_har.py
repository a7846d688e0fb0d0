"""sp-sw-har: 23 people, phone and watch (Matey-Sanz, Casteleyn and Granell 2023, doi:10.1016/j.dib.2023.109809)."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from imu_saga.dataset import DATASETS, ImuDataset
from imu_saga.files.tables import read_arrays, read_table
from imu_saga.recording import IMU_CHANNELS, Recording
from imu_saga.signal.clock import to_uniform
from shared_peft.errors import DataError

CLASSES = ("SEATED", "STANDING_UP", "WALKING", "TURNING", "SITTING_DOWN")
SENSOR_COLUMNS = ("x_acc", "y_acc", "z_acc", "x_gyro", "y_gyro", "z_gyro")
SUFFIX = {"phone": "sp", "watch": "sw"}
MAX_GAP_S = 0.5  # [s] ours; batches arrive up to 0.19 s apart


@DATASETS.register("sp_sw_har")
@dataclass(frozen=True)
class SpSwHar(ImuDataset):
    """Sit, stand up, walk, turn, sit down: phone in the pocket and watch on the wrist, about 100 Hz.

    Stamps are delivery times (phones deliver in batches); the samples of a run are evenly spaced, at a measured
    102.4 Hz (phone) and 104.3 Hz (watch).
    """

    name: ClassVar[str] = "sp_sw_har"
    title: ClassVar[str] = "sp-sw-har"
    licence: ClassVar[str] = "CC BY 4.0"
    url: ClassVar[str] = "https://doi.org/10.5281/zenodo.8398688"
    placements: ClassVar[tuple[str, ...]] = ("phone", "watch")
    native_rate_hz: ClassVar[float | None] = 100.0

    placement: Literal["phone", "watch", "both"] = "phone"
    """Which device: phone, watch, or both."""
    source: Literal["auto", "raw", "npz"] = "auto"
    """Original csv files, the packed npz streams, or whichever is there (streams first)."""

    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the five activities."""
        return CLASSES

    def read(self, root: Path | None = None) -> list[Recording]:
        """Return one recording for each subject, execution and device.

        Raises:
            DataError: the folder is missing (the message names the download page), or a file cannot be used.
        """
        chosen = self.placements if self.placement == "both" else (self.placement,)
        return [recording for placement in chosen for recording in self._read_placement(root, placement)]

    def _read_placement(self, root: Path | None, placement: str) -> list[Recording]:
        npz = (f"{placement}_streams.npz",)
        raw = tuple(f"{above}s[0-9][0-9]/s*_{SUFFIX[placement]}.csv" for above in ("", "DATA/", "raw/DATA/"))
        patterns = {"auto": npz + raw, "raw": raw, "npz": npz}[self.source]
        found = self.folder(root, *patterns)
        if found.suffix == ".npz":
            return _read_streams(found, placement)
        files = sorted(found.parent.parent.glob(f"s[0-9][0-9]/s*_{SUFFIX[placement]}.csv"))
        return [recording for file in files for recording in _read_csv(file, placement)]

    def write_sample(self, root: Path) -> None:
        """Write two subjects with one execution each, in the layout DATA/sNN/sNN_EE_sp.csv."""
        generator = np.random.default_rng(0)
        for subject in ("s01", "s02"):
            for placement, suffix in SUFFIX.items():
                path = root / "DATA" / subject / f"{subject}_01_{suffix}.csv"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(_sample_text(generator, 97.6 if placement == "phone" else 95.9), encoding="utf-8")


def _read_csv(path: Path, placement: str) -> list[Recording]:
    numbers, texts = read_table(path, (*SENSOR_COLUMNS, "timestamp"), ("label",), separator=",")
    signal = np.stack([numbers[name] for name in SENSOR_COLUMNS], axis=1)
    labels = np.full(len(signal), -1, dtype=np.int64)
    for index, name in enumerate(CLASSES):
        labels[texts["label"] == name] = index
    for where, bad in (("label", labels < 0), ("numbers", ~np.isfinite(signal).all(axis=1))):
        if bad.any():
            row = int(np.argmax(bad))
            must = f"label must be one of {', '.join(CLASSES)}" if where == "label" else "numbers must be finite"
            came = repr(str(texts["label"][row])) if where == "label" else str(signal[row])
            raise DataError(f"{path}, row {row + 2}", must, came, "Use the official file, unchanged")
    subject, execution, _ = path.stem.split("_")
    return _recordings(numbers["timestamp"], signal, labels, subject, execution, placement, str(path))


def _read_streams(path: Path, placement: str) -> list[Recording]:
    fields = ("acc", "gyro", "timestamp_ms", "label", "subject", "segment_start", "segment_len", "execution")
    stored = read_arrays(path, (*fields, "class_names"))
    if tuple(stored["class_names"].tolist()) != CLASSES:
        raise DataError(path, f"class_names must be {CLASSES}", stored["class_names"].tolist(), "Use the official data")
    signal = np.concatenate([stored["acc"], stored["gyro"]], axis=1)
    recordings = []
    spans = zip(stored["segment_start"], stored["segment_len"], stored["execution"], strict=True)
    for start, length, execution in spans:
        rows = slice(int(start), int(start) + int(length))
        labels = stored["label"][rows].astype(np.int64)
        subject = f"s{int(stored['subject'][start]):02d}"
        times = stored["timestamp_ms"][rows]
        run = f"{int(execution):02d}"
        recordings += _recordings(times, signal[rows], labels, subject, run, placement, f"{path}, {subject}_{run}")
    return recordings


def _recordings(
    times_ms: np.ndarray, signal: np.ndarray, labels: np.ndarray, subject: str, run: str, placement: str, where: str
) -> list[Recording]:
    times_s = (times_ms - times_ms[0]) / 1000
    stretches = to_uniform(times_s, signal, max_gap_s=MAX_GAP_S, clock="even", where=where)
    return [
        Recording(
            signal=stretch.values.astype(np.float32),
            channels=IMU_CHANNELS,
            rate_hz=stretch.rate_hz,
            labels=labels[stretch.nearest],
            valid=stretch.valid,
            subject=subject,
            session=f"{subject}_{run}",
            placement=placement,
            dataset="sp_sw_har",
            start_s=stretch.start_s,
        )
        for stretch in stretches
    ]


def _sample_text(generator: np.random.Generator, period_ms: float) -> str:
    """Return 12 s of a device lying at an angle and swinging while its wearer walks, in batches of four stamps."""
    samples = 1200
    seconds = np.arange(samples) * period_ms / 10_000
    swing = np.sin(2 * np.pi * 1.8 * seconds) * (np.arange(samples) // 240 == 2)
    acc = np.stack([0.3 + swing, -3.5 + 0.5 * swing, 9.1 + 2 * swing], axis=1) + generator.normal(0, 0.05, (samples, 3))
    gyro = np.stack([swing, 0.2 * swing, 0.1 * swing], axis=1) + generator.normal(0, 0.02, (samples, 3))
    stamps = 1_657_533_977_810 + np.round(np.repeat(seconds[3::4], 4) * 1000).astype(np.int64)
    rows = [",".join((*SENSOR_COLUMNS, "timestamp", "label"))]
    for index in range(samples):
        numbers = ",".join(str(value) for value in (*acc[index].tolist(), *gyro[index].tolist()))
        rows.append(f"{numbers},{stamps[index]},{CLASSES[index // 240]}")
    return "\n".join(rows) + "\n"
