"""Commands killed (SIGKILL) at a moment, started again, and compared with what they write undisturbed."""

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from shared_peft.command import EXIT_USER_ERROR
from tests.faults.cases import CASES, Case

KILLED = (
    "imu_saga pretrain",
    "imu_saga search",
    "imu_saga finetune",
    "imu_saga convert",
    "vision finetune",
    "deploy export",
    "deploy multi",
)
RESUMED: tuple[str, ...] = ("--resume",)
LONGEST_S = 120.0
_TIMES = re.compile(r"seconds$|_s$|^command$")  # what two runs of the same thing differ in
SERVER = multiprocessing.get_context("forkserver")  # one process imports everything, each run is a copy of it
SERVER.set_forkserver_preload(["tests.vision.preloaded", "tests.faults.preloaded"])
Outcome = Literal["equal", "told", "wrong"]


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Args:
        status: its exit status; negative for a signal.
        seconds: how long it ran [s].
        said: the last line on standard error.
    """

    status: int
    seconds: float
    said: str = ""


@dataclass(frozen=True)
class Killed:
    """What came of a command that was killed and started again.

    Args:
        outcome: "equal" to the undisturbed run, "told" what to do in one error and then equal, or "wrong".
        reason: what was wrong, or told.
    """

    outcome: Outcome
    reason: str = ""


def run_command(case: Case, made: Path, out: Path, log: Path, *more: str, kill_after_s: float | None = None) -> Ended:
    """Run a command in a process of its own and kill it after ``kill_after_s`` [s], if it still runs then."""
    process = SERVER.Process(target=work, args=(case, made, out, log, more))
    process.start()
    began = time.monotonic()
    process.join(LONGEST_S if kill_after_s is None else kill_after_s)
    if process.exitcode is None:
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    said = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return Ended(process.exitcode or 0, time.monotonic() - began, said[-1] if said else "")


def work(case: Case, made: Path, out: Path, log: Path, more: tuple[str, ...]) -> None:
    """Run a command in this process, what it says on standard error in a file, and leave with its status."""
    torch.set_num_threads(1)
    with log.open("w") as stream, contextlib.redirect_stderr(stream), contextlib.redirect_stdout(io.StringIO()):
        status = case.call(made, out, *more)
    sys.exit(status)


def kill_once(name: str, made: Path, scratch: Path, whole: Path, after_s: float) -> Killed:
    """Kill a command after some time, start it again and compare what it wrote.

    Args:
        name: of the case.
        made: see `make_materials`.
        scratch: an empty folder for this.
        whole: what the command wrote undisturbed.
        after_s: when to kill it [s]; sooner where it has ended by then.
    """
    case, out, log = CASES[name], scratch / whole.name, scratch / "log"
    while run_command(case, made, out, log, kill_after_s=after_s).status == 0:
        shutil.rmtree(out)
        after_s *= 0.8
    if case.writes == "whole" and out.exists():
        return _compared(out, whole)
    again = run_command(case, made, out, log, *(RESUMED if case.writes == "run" else ()))
    if again.status == 0:
        return _compared(out, whole)
    if again.status != EXIT_USER_ERROR or "Error: " not in again.said:
        return Killed("wrong", f"status {again.status}: {again.said}")
    shutil.rmtree(out, ignore_errors=True)  # as it says, or by another --out
    anew = run_command(case, made, out, log)
    return _compared(out, whole, told=again.said) if anew.status == 0 else Killed("wrong", anew.said)


def _compared(out: Path, whole: Path, *, told: str = "") -> Killed:
    found, expected = contents(out), contents(whole)
    changed = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    beside = [path.name for path in out.parent.iterdir() if path.name.startswith(".")]
    if changed or beside:
        return Killed("wrong", f"differs in {', '.join([*changed, *beside])}")
    return Killed("told" if told else "equal", told)


def contents(folder: Path) -> dict[str, Any]:
    """Return what a folder holds, by file: JSON without times, tensors, else the SHA-256; checkpoints are left out."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): _content(path) for path in files if path.name not in ("checkpoint.pt", ".lock")
    }


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _timeless(value: Any) -> Any:
    """Return a JSON value without times."""
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if not _TIMES.search(key)}
    return [_timeless(each) for each in value] if isinstance(value, list) else value
