"""`python -m imu_saga convert`."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from imu_saga.source import DataOptions
from imu_saga.store.convert import convert
from imu_saga.store.format import StoreType
from imu_saga.store.writer import SHARD_WINDOWS
from shared_peft.command import Command


@dataclass(frozen=True)
class ConvertOptions:
    """Options of `python -m imu_saga convert`."""

    source: DataOptions = field(default_factory=DataOptions)
    channels: tuple[str, ...] = ()
    """Channels to keep, for example acc_x acc_y acc_z; all of them if none are given."""
    dtype: StoreType = "float16"
    """float16 keeps 11 bits (gravity to 0.004 m/s^2) at half the size; float32 keeps all."""
    unlabelled: bool = True
    """Keep windows without a label, for pre-training."""
    shard_windows: int = SHARD_WINDOWS
    """Windows a file."""
    out: Path = Path("runs/imu_store")
    """Folder to write."""
    resume: bool = False
    """Go on with the store in --out; finished files are checked and kept."""


def run(options: ConvertOptions) -> None:
    """Write the store and say what is in it."""
    card, report = convert(
        options.source,
        options.out,
        channels=options.channels,
        dtype=options.dtype,
        unlabelled=options.unlabelled,
        shard_windows=options.shard_windows,
        resume=options.resume,
        progress="convert",
    )
    people = f"{len(card.subjects)} people, {len(card.sessions)} sessions"
    sys.stdout.write(f"{report}\n{card.windows} windows of {people} in {len(card.shards)} files\n{options.out}\n")


COMMAND = Command(
    name="convert",
    config=ConvertOptions,
    run=run,
    summary="Write recordings of any number as a windowed store that pretrain reads with little memory.",
    example="python -m imu_saga convert --data sisfall --root FOLDER --overlap 0.5 --out runs/store",
    place=25,
)
