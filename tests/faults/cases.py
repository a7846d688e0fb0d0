"""Every command that writes, at its smallest on built-in data: what the fault tests run, fail, kill and run twice."""

import csv
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from imu_saga.datasets import open_dataset
from imu_saga.source import parsed_options
from shared_peft.command import Command, run_commands

POPULATION = 'population={"subjects": 4, "bout_s": 14, "sessions": 1, "activities": ["sit", "walk", "run"]}'
IMU = ("--data", "synthetic", "--seconds", "2", "--data-options", POPULATION)
SMALL = ("--encoder-options", "width=16", "depth=1", "heads=2")
DIGITS = ("--backbone", "small_conv", "--data", "digits", "--classes", "7", "8", "9")


@dataclass(frozen=True)
class Case:
    """A command line whose words may hold {made}, the folder of `make_materials`; --out is added.

    Args:
        program: the package.
        words: what follows `python -m PACKAGE`.
        writes: a run's folder that one process holds and ``--resume`` goes on with, a folder that appears whole, or
            files of their own.
        ending: what the name of --out must end with.
    """

    program: str
    words: tuple[str, ...]
    writes: Literal["run", "whole", "files"]
    ending: str = ""

    def target(self, out: Path) -> Path:
        """Return ``out`` with the ending it must have."""
        return out.with_name(out.name + self.ending)

    def line(self, made: Path, out: Path, *more: str) -> list[str]:
        """Return the words typed after `python -m PACKAGE`."""
        return [*(word.replace("{made}", str(made)) for word in self.words), *more, "--out", str(self.target(out))]

    def call(self, made: Path, out: Path, *more: str) -> int:
        """Run the command in this process and return its exit status."""
        return run_commands(self.program, commands_of(self.program), self.line(made, out, *more))


def commands_of(program: str) -> tuple[Command, ...]:
    """Return the subcommands of a package."""
    return importlib.import_module(f"{program}.commands").COMMANDS


def _imu(*words: str, writes: Literal["run", "whole", "files"] = "files") -> Case:
    return Case("imu_saga", words, writes)


def _vision(*words: str, writes: Literal["run", "whole", "files"] = "files") -> Case:
    return Case("vision", words, writes)


def _deploy(*words: str, writes: Literal["run", "whole", "files"] = "files") -> Case:
    return Case("deploy", words, writes)


_START = ("--checkpoint", "{made}/pre")
_TUNE = (
    *_START,
    "--shots",
    "4",
    "--method",
    "lora_tsd",
    "--r",
    "2",
    "--steps",
    "8",
    "--batch-size",
    "8",
    "--no-statistics",
)
_SEARCH = (*_START, "--trials", "3", "--shots", "4", "--fraction", "0.5", "--halvings", "2", "--least-gain", "0")
_ROWS = ("--methods", "majority", "linear_discriminant", "--shots", "2", "--seeds", "1")
_PROTOCOL = ("--shots", "2", "--seeds", "1", "--starts", "equal", "--steps", "2", "--methods", "discriminant")
_BACKBONE = ("--checkpoint", "{made}/conv", "--shots", "4", "--epochs", "8", "--batch-size", "6")
_SHAPES = ("--data", "shapes", "--images", "4", "--image-size", "32", "--epochs", "1", "--batch-size", "4")
_COMPARE = ("--methods", "probe", "--shots", "2", "--seeds", "1", "--rate-factors", "1", "--epochs", "1")
_SEEN = ("{made}/lora", "--data", "digits")

CASES: dict[str, Case] = {
    "imu_saga pretrain": _imu("pretrain", *IMU, *SMALL, "--steps", "12", "--batch-size", "16", writes="run"),
    "imu_saga search": _imu("search", *_SEARCH, writes="run"),
    "imu_saga finetune": _imu("finetune", *IMU, *_TUNE, writes="run"),
    "imu_saga convert": _imu("convert", *IMU, "--shard-windows", "20", writes="run"),
    "imu_saga benchmark": _imu("benchmark", *IMU, *_ROWS, writes="run"),
    "imu_saga compare": _imu("compare", *IMU, *_PROTOCOL, "--baselines", "majority", writes="run"),
    "imu_saga tasks": _imu("tasks", "{made}/tuned", writes="whole"),
    "imu_saga audit": _imu("audit", "{made}/tuned"),
    "imu_saga evaluate": _imu("evaluate", "{made}/tuned"),
    "imu_saga inspect": _imu("inspect", "{made}/walk.csv"),
    "imu_saga predict": _imu("predict", "{made}/tuned", "{made}/walk.csv"),
    "imu_saga tsd": _imu("tsd", "{made}/tuned"),
    "vision pretrain": _vision("pretrain", *DIGITS, "--epochs", "1", writes="run"),
    "vision finetune": _vision("finetune", *DIGITS, *_BACKBONE, "--method", "lora_tsd", writes="run"),
    "vision compare": _vision("compare", *DIGITS, "--checkpoint", "{made}/conv", *_COMPARE, writes="run"),
    "vision segment": _vision("segment", "train", *_SHAPES, writes="run"),
    "vision evaluate": _vision("evaluate", *_SEEN),
    "vision features": Case("vision", ("features", "{made}/digit.png", "--run", "{made}/lora"), "files", ".npz"),
    "vision explain": _vision("explain", *_SEEN, "--projection", "pca", "--points", "20", "--maps", "1"),
    "vision predict": _vision("predict", "{made}/lora", "{made}/digit.png"),
    "vision tsd": _vision("tsd", "{made}/lora"),
    "deploy export": _deploy("export", "{made}/tuned", "--no-fixed", writes="whole"),
    "deploy multi": _deploy("multi", "{made}/pre", "--adapters", "activity={made}/tuned", writes="whole"),
    "deploy web": _deploy("web", "{made}/bundle", writes="whole"),
    "deploy bench": _deploy("bench", "{made}/bundle", "--rounds", "1"),
}
WRITE_NOTHING = {"imu_saga stream", "deploy check", "deploy serve"}  # they answer on the terminal or a socket


def make_materials(made: Path) -> Path:
    """Make the runs and the files that commands start from; return their folder."""
    made.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, out in {"imu_saga pretrain": "pre", "imu_saga finetune": "tuned"}.items():
        assert CASES[name].call(made, made / out) == 0
    start = ("pretrain", *DIGITS[:5], "0", "1", "2", "--epochs", "1")
    assert _vision(*start).call(made, made / "conv") == 0
    assert CASES["vision finetune"].call(made, made / "lora") == 0
    _write_motion(made / "walk.csv")
    _write_digit(made / "digit.png")
    return made


def make_bundle(made: Path) -> Path:
    """Add the bundle that commands on bundles start from."""
    assert CASES["deploy export"].call(made, made / "bundle") == 0
    return made


def _write_motion(path: Path) -> None:
    recording = open_dataset("synthetic", parsed_options((POPULATION,))).read()[0]
    times = np.arange(len(recording.signal)) / recording.rate_hz
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerow(["time", *recording.channels])
        csv.writer(stream).writerows(np.column_stack([times, recording.signal]).round(6).tolist())


def _write_digit(path: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    Image.fromarray((load_digits().images[7] * 15).astype(np.uint8)).resize((32, 32)).save(path)
