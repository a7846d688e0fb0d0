"""A clock that is set back while a command runs: nothing fails, and no duration is negative."""

import io
import json
import re
import time
from pathlib import Path

import pytest
import tqdm.std

from shared_peft.progress import Bar
from tests.faults.cases import CASES

HOUR_S = 3600.0
COMMANDS = ("imu_saga search", "imu_saga convert", "vision finetune")


@pytest.fixture
def clock_set_back(monkeypatch) -> None:
    """Set the time of day an hour back whenever it is asked for."""
    told, true_time = [0], time.time

    def earlier_every_time() -> float:
        told[0] += 1
        return true_time() - HOUR_S * told[0]

    for module in (time, tqdm.std):
        monkeypatch.setattr(module, "time", earlier_every_time)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_tells_no_negative_time(name: str, made: Path, tmp_path: Path, clock_set_back, capsys) -> None:
    out = tmp_path / "out"
    assert CASES[name].call(made, out) == 0
    shown = capsys.readouterr()
    assert not re.search(r"-\d+:\d\d|-\d[\d.]* ?(s\b|\w+/s)", shown.err + shown.out)
    files = [*out.rglob("*.json"), *out.rglob("*.jsonl")] if out.is_dir() else []
    seconds = [value for file in files for value in _seconds(file)]
    assert all(value >= 0 for value in seconds)
    assert seconds or name == "imu_saga convert"


def _seconds(file: Path) -> list[float]:
    """Return what a JSON file calls seconds."""
    texts = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
    found: list[float] = []

    def note(values: dict) -> dict:
        found.extend(value for key, value in values.items() if re.search(r"(seconds|_s)$", key))
        return values

    for text in texts:
        json.loads(text, object_hook=note)
    return found


def test_a_bar_goes_on_and_tells_the_time_that_passed(clock_set_back) -> None:
    shown = io.StringIO()
    with Bar(total=4, file=shown, mininterval=0.0) as bar:
        for _ in range(4):
            time.sleep(0.02)
            bar.update()
    states = re.findall(r"(\d)/4 \[(\S+)<", shown.getvalue())
    assert {count for count, _ in states} == set("01234")
    assert {elapsed for _, elapsed in states} == {"00:00"}
