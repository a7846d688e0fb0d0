"""Commands killed and started again end as if nothing had been; `tests.benchmarks.kills` does it fifty times."""

import random
from pathlib import Path

import pytest

from tests.faults.cases import CASES
from tests.faults.killing import contents, kill_once, run_command

MOMENTS = random.Random(0)


@pytest.mark.parametrize("name", ["imu_saga pretrain", "imu_saga search", "imu_saga convert", "vision finetune"])
def test_a_killed_command_ends_in_the_bytes_of_the_undisturbed_one(name: str, made: Path, tmp_path: Path) -> None:
    whole, scratch = tmp_path / "whole" / "out", tmp_path / "killed"
    whole.parent.mkdir()
    scratch.mkdir()
    ended = run_command(CASES[name], made, whole, tmp_path / "log")
    assert ended.status == 0, ended.said
    assert contents(whole)
    killed = kill_once(name, made, scratch, whole, MOMENTS.uniform(0.2, 0.9) * ended.seconds)
    assert killed.outcome == "equal", killed.reason
